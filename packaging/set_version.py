"""Write the release number into every file that states it.

Run: python packaging/set_version.py 0.2.0   (or without a number, to repeat the package's own)

``ragimpute/__init__.py`` holds the number. The recipe, the citation, the Dockerfile, the workflows
and their pages name it too, because what reads them cannot ask the package.
``packaging/release.py`` calls this, and gives the changelog its section.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("ragimpute/__init__.py")

# A release number as PyPI writes it (PEP 440), without epochs and local labels.
_NUMBER = r"[0-9]+(?:\.[0-9]+)*(?:(?:a|b|rc)[0-9]+)?(?:\.post[0-9]+)?(?:\.dev[0-9]+)?"
_IMAGE = rf"\bragimpute:({_NUMBER})(?![\w.])"
_CONDA = rf"::ragimpute=({_NUMBER})(?![\w.])"

# Each file and the pattern of each place in it; the pattern's group is the number.
PLACES: dict[Path, str] = {
    PACKAGE: rf'^__version__ = "({_NUMBER})"$',
    Path("packaging/conda/meta.yaml"): rf'^{{% set version = "({_NUMBER})" %}}$',
    Path("CITATION.cff"): rf"^version: ({_NUMBER})$",
    Path("packaging/Dockerfile"): _IMAGE,
    Path("packaging/README.md"): _IMAGE,
    Path("workflow/nextflow/README.md"): _IMAGE,
    Path("workflow/nextflow/nextflow.config"): rf"^    version +?= '({_NUMBER})'$",
    Path("workflow/README.md"): _IMAGE,
    Path("workflow/wdl/impute.wdl"): _IMAGE,
    Path("workflow/wdl/tasks.wdl"): _IMAGE,
    Path("workflow/envs/ragimpute.yaml"): _CONDA,
}
for _module in ("prepare", "index", "plan", "impute", "merge", "concat"):
    _folder = Path("workflow/nextflow/modules/ragimpute") / _module
    PLACES[_folder / "main.nf"] = _IMAGE
    if _module != "concat":  # which calls bcftools alone
        PLACES[_folder / "environment.yml"] = _CONDA


def versions(root: Path = ROOT) -> dict[Path, list[str]]:
    """Every release number that each file of `PLACES` states, in the order of the file.

    Parameters
    ----------
    root
        Folder of the checkout.

    Returns
    -------
    Numbers by file, relative to ``root``; a file without one has an empty list.
    """
    return {
        path: re.findall(pattern, (root / path).read_text(), flags=re.MULTILINE)
        for path, pattern in PLACES.items()
    }


def set_version(version: str, root: Path = ROOT) -> list[Path]:
    """Write a release number into every place of `PLACES`.

    Parameters
    ----------
    version
        The number as PyPI writes it: ``0.2.0``, ``1.0rc1``, ``1.0.post1``.
    root
        Folder of the checkout.

    Returns
    -------
    Files that were changed, relative to ``root``.

    Raises
    ------
    ValueError
        If ``version`` is not such a number, or a file no longer states one where its pattern looks
        for it. No file is changed then.
    """
    if not re.fullmatch(_NUMBER, version):
        raise ValueError(f"{version!r} is no release number; expected one such as 0.2.0 or 1.0rc1")
    written = {}
    for path, pattern in PLACES.items():
        text = (root / path).read_text()
        found = list(re.finditer(pattern, text, flags=re.MULTILINE))
        if not found:
            raise ValueError(f"{path} states no release number where {pattern!r} looks for it")
        changed = text
        for match in reversed(found):  # from the end, so that earlier places stay where they are
            changed = changed[: match.start(1)] + version + changed[match.end(1) :]
        if changed != text:
            written[path] = changed
    for path, text in written.items():
        (root / path).write_text(text)
    return list(written)


def main(words: list[str] | None = None) -> int:
    """Set the version that the command line names, and print the files that it changed."""
    parser = argparse.ArgumentParser(description="write the release number into every file")
    parser.add_argument("version", nargs="?", help="default: the number in ragimpute/__init__.py")
    version = parser.parse_args(words).version
    try:
        for path in set_version(version or "".join(versions()[PACKAGE])):
            print(path)
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
