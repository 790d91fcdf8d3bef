"""What this install is and runs on: ``ragimpute info --environment``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from ragimpute import __version__
from ragimpute.errors import MissingPackageError
from ragimpute.extras import installed_faiss, one_faiss, require
from ragimpute.kernels.processor import this_processor, usable_cores

Rows = list[tuple[str, str]]

# Packages that every install has, by the names that pip knows.
_BASE = (
    "numpy", "numba", "llvmlite", "h5py", "cyvcf2", "pydantic", "PyYAML", "typer", "rich",
    "safetensors", "deflate",
)  # fmt: skip


def describe_environment() -> Rows:
    """Describe the install: what a maintainer asks for first if a run is slow or differs.

    Returns
    -------
    Rows of a name and a text: versions, the processor's level, where compiled kernels come from and
    are kept, threads, torch's device, and the kind of FAISS.
    """
    from ragimpute.kernels.store import count_kernels, kept_folder

    folder = kept_folder()
    kept_in = "nowhere: no folder can be written (NUMBA_CACHE_DIR sets one)"
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        kernels = "run as Python, as NUMBA_DISABLE_JIT=1 asks"
    else:
        counts = count_kernels()
        kernels = (
            f"{counts.shipped} of {counts.total} from the install, {counts.kept} kept, "
            f"{counts.absent} to be compiled at first use"
        )
    return [
        ("ragimpute", f"{__version__}, in {Path(__file__).resolve().parents[1]}"),
        ("Python", f"{platform.python_version()}, in {sys.prefix}"),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("processor level", this_processor().level),
        ("threads", f"{usable_cores()} cores can be used; --threads says how many a command uses"),
        ("kernels", kernels),
        ("new kernels are kept", f"in {folder}" if folder is not None else kept_in),
        *((name, _version(name) or "not installed") for name in _BASE),
        ("torch", _torch()),
        ("FAISS", _faiss()),
    ]


def _version(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> str:
    """torch's version, and the device that ``--device auto`` chooses."""
    try:
        require("models", "info --environment", packages=["torch"])
    except MissingPackageError:
        return "not installed"
    import torch

    if not torch.cuda.is_available():
        return f"{torch.__version__}, on the CPU"
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    return f"{torch.__version__}, on CUDA: {names}"


def _faiss() -> str:
    """Which packages bring FAISS; if there are two, each has overwritten files of the other."""
    builds = installed_faiss()
    text = ", ".join(f"{name} {_version(name)}" for name in builds) or "not installed"
    return text if len(builds) < 2 else f"{text}; to repair it: {one_faiss(builds)}"
