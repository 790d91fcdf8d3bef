"""Packages that only some commands need: which extra brings them, and what to say without them.

``pip install ragimpute`` brings what ``prepare``, ``impute`` with the default model, ``phase``,
``merge``, ``evaluate``, ``plan`` and ``info`` need. Everything else is an extra of pyproject.toml.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec

from ragimpute.errors import MissingPackageError

_REPORT = {"matplotlib": "matplotlib", "jinja2": "Jinja2"}
_INDEX = {"faiss": "faiss-cpu"}
_MODELS = {"torch": "torch", **_INDEX}

#: By extra: each package as an import statement and as pip calls it. ``all`` and ``gpu`` bring the
#: same as all of them; ``train`` brings the others' but those of ``pgen``.
EXTRAS: dict[str, dict[str, str]] = {
    "pgen": {"pgenlib": "Pgenlib", "zstandard": "zstandard"},
    "report": _REPORT,
    "index": _INDEX,
    "models": _MODELS,
    "train": {
        **_MODELS, **_REPORT, "accelerate": "accelerate", "tensorboard": "tensorboard",
        "scipy": "scipy",
    },
}  # fmt: skip

#: Distributions that all install the package ``faiss``.
FAISS_BUILDS = (
    "faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cu12-cuvs",
    "faiss-cuda",
)  # fmt: skip


def require(extra: str, needed_by: str, *, packages: Sequence[str] | None = None) -> None:
    """Refuse to go on where packages of an extra are absent; nothing is imported.

    Call it before the import of a module that needs them, and before long work whose result they
    are needed for.

    Parameters
    ----------
    extra
        A key of :data:`EXTRAS`.
    needed_by
        The command, option or model that cannot do without, as a user types it.
    packages
        Those of the extra's packages that are needed, as import statements name them; None: all.

    Raises
    ------
    MissingPackageError
        If one is not installed; it names all that are not, and the command that installs them.
    """
    names = EXTRAS[extra]
    absent = [name for name in (names if packages is None else packages) if find_spec(name) is None]
    if absent:
        raise missing(absent, extra, needed_by)


def missing(absent: Sequence[str], extra: str, needed_by: str) -> MissingPackageError:
    """The error for packages of an extra that are not installed, by their import names."""
    *first, last = (EXTRAS[extra][name] for name in absent)
    listed = f"{', '.join(first)} and {last}" if first else last
    verb = "are" if first else "is"
    return MissingPackageError(
        f"{needed_by} needs {listed}, which {verb} not installed",
        hint=f"pip install 'ragimpute[{extra}]'",
    )


def explain_import(error: Exception, name: str) -> MissingPackageError:
    """What to say of an optional package whose import failed.

    :func:`require` finds what is absent. This is for what is installed and still cannot be
    imported, such as a build for another system.

    Parameters
    ----------
    error
        What the import raised.
    name
        The package, as import statements name it.
    """
    extra = next(extra for extra, names in EXTRAS.items() if name in names)
    if find_spec(name) is None:
        return missing([name], extra, "this run")
    builds = installed_faiss() if name == "faiss" else [EXTRAS[extra][name]]
    hint = f"pip install --force-reinstall {' '.join(builds)}"
    if len(builds) > 1:
        hint = one_faiss(builds)
    return MissingPackageError(f"{name} is installed but cannot be imported: {error}", hint=hint)


def is_optional(name: str) -> bool:
    """Whether a package, as import statements name it, comes by an extra."""
    return any(name in names for names in EXTRAS.values())


def installed_faiss() -> list[str]:
    """The distributions of faiss that are installed, by their names on PyPI.

    More than one is a fault: they hold files of the same names, so that the last one installed has
    overwritten parts of the first, and removing either breaks both.
    """
    found = []
    for name in FAISS_BUILDS:
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def one_faiss(builds: Sequence[str]) -> str:
    """The command that leaves one faiss where several are installed: one for GPUs, if any."""
    kept = next((name for name in builds if name != "faiss-cpu"), "faiss-cpu")
    return f"pip uninstall -y {' '.join(builds)} && pip install {kept}"
