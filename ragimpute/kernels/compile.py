"""The decorators of kernels, and how a kernel is called.

A kernel's machine code is kept on disk. A call looks for the code of its arguments' types, loads
it, and calls it, without numba. numba is imported where there is no such code, and where a process
calls kernels so often that what numba saves at each call is worth its import.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from ragimpute.kernels.functions import CompiledFunction, KernelIntrinsic
from ragimpute.kernels.loader import Function, UnknownKind, flatten, load, type_text
from ragimpute.kernels.store import Named, read_folders, read_machine_code

# To find the code of a call takes some 10 microseconds more than numba does; to import numba, and
# to load the kernels once more, takes .2 s.
_CALLS_BEFORE_NUMBA = 20_000


def _without_machine_code() -> bool:
    """Whether kernels are to stay Python: ``NUMBA_DISABLE_JIT``, or numba's file of settings."""
    if os.path.exists(".numba_config.yaml"):
        from ragimpute.kernels.with_numba import settings

        return bool(settings.DISABLE_JIT)
    return os.environ.get("NUMBA_DISABLE_JIT", "0").strip() not in ("0", "")


_AS_PYTHON = _without_machine_code()


class Kernel(CompiledFunction):
    """A kernel, which Python calls."""

    calls = 0  # of all kernels of the process
    _lock = Lock()

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function, "kernel")
        self._functions: dict[tuple[Any, ...], Function | None] = {}
        #: Types of arguments, as text, whose machine code was loaded from disk.
        self.loaded: set[str] = set()

    def __call__(self, *args: Any, **named: Any) -> Any:
        if Kernel.calls >= _CALLS_BEFORE_NUMBA or named:
            return self.dispatcher(*args, **named)
        Kernel.calls += 1
        kinds: list[Any] = []
        numbers: list[Any] = []
        try:
            flatten(args, kinds, numbers)
        except UnknownKind:
            return self.dispatcher(*args)
        key = tuple(kinds)
        try:
            function = self._functions[key]
        except KeyError:
            function = self._find(key, args)
        return self.dispatcher(*args) if function is None else function(numbers)

    def _find(self, key: tuple[Any, ...], args: tuple[Any, ...]) -> Function | None:
        """The machine code for arguments; None if numba has to look, and to compile it."""
        with self._lock:
            if key not in self._functions:
                self._functions[key] = self._load(args)
            return self._functions[key]

    def _load(self, args: tuple[Any, ...]) -> Function | None:
        try:
            text = type_text(args)
        except UnknownKind:
            return None
        name = Named.of(self.py_func, text).file_name()
        for folder in read_folders():
            code = read_machine_code(Path(folder) / name)
            function = None if code is None else load(code, args)
            if function is not None:
                self.loaded.add(text)
                return function
        return None


def kernel(function: Callable[..., Any]) -> Any:
    """Make a kernel, which Python calls; :mod:`ragimpute.kernels.store` has its compiled form."""
    return _as_python(function) if _AS_PYTHON else Kernel(function)


def _as_python(function: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that stays Python; as in machine code, overflowing numbers raise no warning."""

    @wraps(function)
    def call(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return function(*args)

    return call


def kernel_intrinsic(definition: str, python_form: Callable[..., Any]) -> Any:
    """Make a function that kernels call, and that the compiler writes itself.

    Parameters
    ----------
    definition
        "module:function", see :class:`ragimpute.kernels.functions.KernelIntrinsic`.
    python_form
        A function that does the same in Python. It is used where ``NUMBA_DISABLE_JIT=1`` leaves
        kernels as Python, for a debugger to step through. Tests compare the two.
    """
    return python_form if _AS_PYTHON else KernelIntrinsic(definition, python_form)


def _part(function: Callable[..., Any], kind: str) -> Any:
    return function if _AS_PYTHON else CompiledFunction(function, kind)


# For functions that kernels call, and that become part of them.
inlined = partial(_part, kind="inlined")
# The same for functions whose sums may be reordered. The last digits of such a sum depend on how
# its loop was compiled. As the function is always inlined, the loop is compiled once, within the
# kernel that is kept on disk. Otherwise a process that compiles would run other loops than one that
# reads the kernel from disk: posteriors differed by 4e-7, and with them the order of ties.
inlined_reordered = partial(_part, kind="inlined_reordered")
