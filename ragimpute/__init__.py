"""Genotype imputation by retrieved haplotypes and a trained network (BERTWithRAG).

``import ragimpute as ri`` gives the commands as functions, ``ri.Imputer`` for numpy arrays, and
what they take: see docs/python.md. Each name is imported when it is first used, so that the import
of the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragimpute.accuracy.evaluate import evaluate
    from ragimpute.config import load_config
    from ragimpute.imputation.arrays import Imputer
    from ragimpute.imputation.impute import impute
    from ragimpute.io.vcf.read.genotypes import read_target
    from ragimpute.jobs.merge import merge
    from ragimpute.panel.reader import Panel
    from ragimpute.phasing.phase import phase
    from ragimpute.preparation.prepare import prepare
    from ragimpute.sites import Region
    from ragimpute.token_model.build_index import build_index as index
    from ragimpute.training.trainer import train

__version__ = "0.1.0"

__all__ = [
    "Imputer",
    "Panel",
    "Region",
    "evaluate",
    "impute",
    "index",
    "load_config",
    "merge",
    "phase",
    "prepare",
    "read_target",
    "train",
]

# Where each public name is, as module and name, and the extra that its module cannot do without.
_PUBLIC: dict[str, tuple[str, str, str | None]] = {
    "Imputer": ("imputation.arrays", "Imputer", None),
    "Panel": ("panel.reader", "Panel", None),
    "Region": ("sites", "Region", None),
    "evaluate": ("accuracy.evaluate", "evaluate", None),
    "impute": ("imputation.impute", "impute", None),
    "index": ("token_model.build_index", "build_index", "index"),
    "load_config": ("config", "load_config", None),
    "merge": ("jobs.merge", "merge", None),
    "phase": ("phasing.phase", "phase", None),
    "prepare": ("preparation.prepare", "prepare", None),
    "read_target": ("io.vcf.read.genotypes", "read_target", None),
    "train": ("training.trainer", "train", "train"),
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, and keep it."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, inner, extra = _PUBLIC[name]
    if extra is not None:
        from ragimpute.extras import require

        require(extra, f"ragimpute.{name}")
    found = getattr(import_module(f"{__name__}.{module}"), inner)
    if not isinstance(found, type):
        from ragimpute.arguments import checked

        found = checked(found)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """All names, those too that were not used yet."""
    return sorted({*globals(), *_PUBLIC})
