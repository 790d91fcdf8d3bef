"""numba: how it compiles kernels, and how their compiled forms are kept and found for it.

Nothing else in the package imports numba, but for the modules ``*_code`` beside this one, and these
are imported when a kernel is compiled or called through numba.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

from llvmlite.binding import parse_bitcode
from numba import njit
from numba.core import config as numba_config
from numba.core.caching import _Cache
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.extending import intrinsic

from ragimpute.kernels.code import signature_text
from ragimpute.kernels.loader import MachineCode
from ragimpute.kernels.store import (
    PROCESSOR,
    Entry,
    Named,
    announce,
    compiled_here,
    kept_folder,
    read_folders,
    read_kernel,
    write_kernel,
)

#: numba's settings; it sets their names at run time.
settings: Any = numba_config
# Machine code is made for a level of processors rather than for this model, so that it can ship
# and be copied. numba reads this when it makes its compiler, which is when the first function is
# decorated; from then on it holds for all that numba compiles in this process.
settings.CPU_NAME, settings.CPU_FEATURES = PROCESSOR.cpu_name, PROCESSOR.features

# Any: numba's type stubs leave out the option ``_nrt``. Without it every array that is passed on
# or sliced is counted, by an atomic instruction each: a third of the evidence's time. A kernel
# without the count may not allocate.
_njit: Any = njit
_OPTIONS: dict[str, dict[str, Any]] = {
    "kernel": {"nogil": True, "_nrt": False},
    "inlined": {"nogil": True, "_nrt": False, "forceinline": True},
    "inlined_reordered": {
        "nogil": True, "_nrt": False, "forceinline": True,
        "fastmath": {"reassoc", "contract", "nsz", "arcp"},
    },
}  # fmt: skip


def dispatcher_of(function: Callable[..., Any], kind: str) -> Any:
    """What numba compiles of a function, and calls.

    Parameters
    ----------
    function
        As Python knows it.
    kind
        "kernel", "inlined" or "inlined_reordered", see :mod:`ragimpute.kernels.compile`.
    """
    made = _njit(**_OPTIONS[kind])(function)
    if kind == "kernel":
        made._cache = KernelStore(function)
    return made


@cache
def type_of_intrinsic(definition: str) -> Any:
    """The type that numba gives to an intrinsic, by its definition "module:function"."""
    module, _, name = definition.partition(":")
    made = intrinsic(getattr(import_module(module), name))
    context = cpu_target.typing_context
    context.refresh()
    return context.resolve_value_type(made)


class KernelStore(_Cache):
    """What numba asks for a kernel's compiled forms, and gives new ones to keep.

    Parameters
    ----------
    function
        The kernel, as Python knows it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @property
    def cache_path(self) -> str | None:
        """Where new kernels are kept, or None."""
        folder = kept_folder()
        return None if folder is None else str(folder)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The kernel for a signature from disk; None if there is none that matches.

        numba's own cache would first list all functions that numba can compile. That takes .2 s,
        and only a kernel that is compiled needs the lists, which numba then makes by itself.
        """
        name = Named.of(self._function, signature_text(sig))
        for folder in read_folders():
            found = read_kernel(folder / name.file_name())
            if found is not None:
                with suppress(Exception):  # damaged in a way that its digest does not tell
                    return _rebuilt(target_context, *found)
        announce(Entry(name.kernel, signature_text(sig)))
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled, where that can be done."""
        name = Named.of(self._function, signature_text(sig))
        compiled_here.append(name.kernel)
        folder = kept_folder()
        if folder is None or not _may_be_kept(data):
            return
        with suppress(OSError):  # a full disk, say: the next run compiles again
            (library, kind, (code, bitcode)), about, *more = data._reduce()
            rest = dumps(((library, kind, bitcode), about, *more))
            machine_code = MachineCode(
                about.llvm_func_name, str(data.signature.return_type), _needs_of(data), code
            )
            write_kernel(folder, name, signature_text(sig), machine_code, rest)

    def enable(self) -> None:
        """Nothing: the store is always on."""

    def disable(self) -> None:
        """Nothing: the store is always on."""

    def flush(self) -> None:
        """Nothing: a file that matches is right."""


class _StoredLibrary(JITCodeLibrary):
    """A kernel's library from disk, whose bitcode is not parsed before another library asks for it.

    numba parses it at once, which takes half of the time to load a kernel. It is only needed where
    another kernel that calls this one is compiled.
    """

    _bitcode = b""

    @classmethod
    def _unserialize(cls, codegen: Any, state: Any) -> Any:
        name, kind, data = state
        assert kind == "object", kind
        library: Any = cls(codegen, name)
        library.enable_object_caching()
        library._set_compiled_object(data[0])
        library._bitcode = data[1]
        library._finalize_final_module()
        return library

    def _get_module_for_linking(self) -> Any:
        if self._bitcode and self._shared_module is None:
            self._shared_module = parse_bitcode(self._bitcode)
        of_numba: Any = super()
        return of_numba._get_module_for_linking()


def _rebuilt(target_context: Any, code: bytes, rest: bytes) -> Any:
    """A kernel as numba needs it, from what :func:`read_kernel` gives."""
    (library, kind, bitcode), about, *more = pickle.loads(rest)
    parts = ((library, kind, (code, bitcode)), about, *more)
    codegen = target_context.codegen()
    # numba would find these names in the bitcode.
    codegen._engine._defined_symbols |= {
        about.llvm_func_name, about.llvm_cpython_wrapper_name, about.llvm_cfunc_wrapper_name,
    }  # fmt: skip
    codegen._library_class = _StoredLibrary
    try:
        return CompileResult._rebuild(target_context, *parts)
    finally:
        del codegen._library_class  # that of numba's class holds again


def _needs_of(data: Any) -> tuple[str, ...]:
    """What a kernel's machine code calls or reads that is not part of it."""
    module = data.library._final_module
    names = [part.name for part in (*module.functions, *module.global_variables)
             if part.is_declaration and not part.name.startswith("llvm.")]  # fmt: skip
    # Code that is to be run whenever the kernel is loaded is run by numba alone.
    return (*sorted(names), *(["reload_init"] if data.reload_init else []))


def _may_be_kept(data: Any) -> bool:
    """Whether machine code is for :data:`PROCESSOR`, and holds no address of this process.

    It is for another processor if a program that uses this package had numba compile something
    before the package was imported.
    """
    _, cpu_name, features = data.codegen.magic_tuple()
    if (cpu_name, features) != (PROCESSOR.cpu_name, PROCESSOR.features):
        return False
    return not data.library.has_dynamic_globals and all(part.can_cache for part in data.lifted)
