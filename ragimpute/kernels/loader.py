"""Load the machine code of kernels, and call it, without numba.

numba compiles a kernel to a function of C: it takes the address of its result, that of a
description of an error, and the members of its arguments one after the other (class ``CPUCallConv``
of numba, whose version is part of the name of a kernel's file). LLVM loads it, and ctypes calls it,
without the GIL.
"""

from __future__ import annotations

import ctypes
import pickle
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, NoReturn

import numpy as np

# Functions of numba that only the part of a kernel calls that takes Python's objects apart. That
# part is never called here.
_NEVER_CALLED = frozenset((
    "numba_adapt_ndarray", "numba_do_raise", "numba_gil_ensure", "numba_gil_release",
    "numba_runtime_build_excinfo_struct", "numba_unpickle",
))  # fmt: skip
_ARRAYS = (np.ndarray, np.memmap)
_NUMBERS = (int, float, bool)
_OF_C = {
    "boolean": ctypes.c_uint8, "int8": ctypes.c_int8, "uint8": ctypes.c_uint8,
    "int16": ctypes.c_int16, "uint16": ctypes.c_uint16, "int32": ctypes.c_int32,
    "uint32": ctypes.c_uint32, "int64": ctypes.c_int64, "uint64": ctypes.c_uint64,
    "float32": ctypes.c_float, "float64": ctypes.c_double,
}  # fmt: skip
_RESULTS = {"none": None, "bool": ctypes.c_uint8, **_OF_C}
# Of a numpy array's flags: C_CONTIGUOUS, F_CONTIGUOUS, ALIGNED, WRITEABLE.
_C, _F, _ALIGNED, _WRITEABLE = 1, 2, 0x100, 0x400
_FLAGS = _C | _F | _ALIGNED | _WRITEABLE
# Where an array has the address of its numbers: the first member of PyArrayObject, which numpy
# cannot move, as PyArray_DATA is compiled into every program that uses it. ``array.ctypes.data``
# takes ten times as long.
_DATA = object.__basicsize__
_pointer = ctypes.c_void_p.from_address
_OK, _IS_NONE = 0, -2  # what a kernel says of its result


class MachineCode(NamedTuple):
    """A kernel for arguments of given types.

    Attributes
    ----------
    symbol
        The name of its function.
    returns
        numba's type of its result.
    needs
        Names of the functions that it calls.
    content
        An object file.
    """

    symbol: str
    returns: str
    needs: tuple[str, ...]
    content: bytes


class UnknownKind(TypeError):
    """An argument of a type that numba has to look at."""


# --- arguments ------------------------------------------------------------------------------------


def flatten(args: tuple[Any, ...], kinds: list[Any], numbers: list[Any]) -> None:
    """Append what tells the types of arguments apart, and the numbers that a kernel is given.

    Raises
    ------
    UnknownKind
        If numba has to look at an argument.
    """
    for arg in args:
        kind = type(arg)
        if kind in _ARRAYS:
            dtype = arg.dtype
            kinds += (dtype, arg.ndim, arg.flags.num & _FLAGS)
            at = _pointer(id(arg) + _DATA).value or 0
            numbers += (0, 0, arg.size, dtype.itemsize, at, *arg.shape, *arg.strides)
        elif isinstance(arg, tuple):
            kinds += (kind, len(arg))
            flatten(arg, kinds, numbers)
        elif kind in _NUMBERS:
            if kind is int and not -(2**63) <= arg < 2**63:
                raise UnknownKind(kind)
            kinds.append(kind)
            numbers.append(arg)
        elif isinstance(arg, np.generic):
            kinds.append(kind)
            numbers.append(arg.item())
        elif arg is None:
            kinds.append(None)
            numbers.append(0)
        else:
            raise UnknownKind(kind)


def type_text(args: tuple[Any, ...]) -> str:
    """The types of arguments, as :func:`ragimpute.kernels.code.signature_text` writes them.

    Raises
    ------
    UnknownKind
        See :func:`flatten`.
    """
    return "(" + "".join(f"{_type_text(arg)}, " for arg in args).rstrip() + ")"


def _type_text(arg: Any) -> str:
    if isinstance(arg, _ARRAYS):
        return _array_text(arg)
    if isinstance(arg, tuple):
        parts = [_type_text(part) for part in arg]
        kind = type(arg)
        fields = getattr(kind, "_fields", None)
        if fields is None:
            return f"tuple_of(({''.join(f'{part}, ' for part in parts)}))"
        name = "named_alike" if len(set(parts)) == 1 else "named"
        inner = ", ".join(parts)
        return f"{name}({kind.__module__!r}, {kind.__qualname__!r}, {fields}, ({inner},))"
    if isinstance(arg, np.bool_ | bool):
        return "boolean"
    if isinstance(arg, np.generic) and arg.dtype.name in _OF_C:
        return arg.dtype.name
    names = {int: "int64", float: "float64", type(None): "none"}
    if type(arg) in names:
        return names[type(arg)]
    raise UnknownKind(type(arg))


def _array_text(array: np.ndarray) -> str:
    """The type of an array."""
    dtype = "boolean" if array.dtype == bool else array.dtype.name
    flags = array.flags
    if dtype not in _OF_C or not array.dtype.isnative or not array.ndim or not flags.aligned:
        raise UnknownKind(array.dtype)
    layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
    axes = [":"] * array.ndim
    if layout != "A":
        axes[-1 if layout == "C" else 0] = "::1"
    if flags.writeable and (layout in "CA" or array.ndim > 1):
        return f"{dtype}[{', '.join(axes)}]"
    return f"Array({dtype}, {array.ndim}, {layout!r}, readonly={not flags.writeable}, aligned=True)"


def _members(args: tuple[Any, ...]) -> Iterator[Any]:
    """The types of C of the numbers that :func:`flatten` appends."""
    for arg in args:
        if isinstance(arg, _ARRAYS):
            yield from (ctypes.c_int64,) * (5 + 2 * arg.ndim)
        elif isinstance(arg, tuple):
            yield from _members(arg)
        elif arg is None:
            yield ctypes.c_void_p
        else:
            yield _OF_C[_type_text(arg)]


# --- machine code ---------------------------------------------------------------------------------


class Function:
    """A kernel's machine code, ready to be called.

    Parameters
    ----------
    name
        For errors.
    address
        Of its function.
    result
        The type of C of its result; None: it has none.
    members
        The types of C of its arguments' members.
    is_bool
        Whether the result is a truth value.
    """

    def __init__(
        self, name: str, address: int, result: Any, members: list[Any], is_bool: bool
    ) -> None:
        pointers = (ctypes.c_void_p, ctypes.c_void_p)
        self._call = ctypes.CFUNCTYPE(ctypes.c_int32, *pointers, *members)(address)
        self._name, self._result, self._is_bool = name, result, is_bool

    def __call__(self, numbers: list[Any]) -> Any:
        """Call it with the numbers of :func:`flatten`.

        Raises
        ------
        Exception
            What the kernel raises, such as ZeroDivisionError.
        """
        result = ctypes.c_int64() if self._result is None else self._result()
        error = ctypes.c_void_p()
        status = self._call(ctypes.addressof(result), ctypes.addressof(error), *numbers)
        if status not in (_OK, _IS_NONE):
            _fail(self._name, status, error.value)
        if self._result is None or status == _IS_NONE:
            return None
        return bool(result.value) if self._is_bool else result.value


def _fail(name: str, status: int, description: int | None) -> NoReturn:
    """Raise what a kernel raised: numba describes it by a pickle, its address and its length."""
    if status > 0 and description:
        address = ctypes.c_void_p.from_address(description).value or 0
        size = ctypes.c_int32.from_address(description + ctypes.sizeof(ctypes.c_void_p)).value
        kind, args, _ = pickle.loads(ctypes.string_at(address, size))
        raise kind(*(args or ()))
    raise RuntimeError(f"kernel {name} ended with status {status}")


def load(code: MachineCode, args: tuple[Any, ...]) -> Function | None:
    """Load a kernel's machine code.

    Parameters
    ----------
    code
        For the types of ``args``.
    args
        Arguments, of which only the types are read.

    Returns
    -------
    None if the kernel needs more of numba, or gives a result, that only numba knows.
    """
    if code.returns not in _RESULTS:
        return None
    import llvmlite.binding as llvm

    engine = _engine()
    for name in code.needs:
        if llvm.address_of_symbol(name) is None:
            if name not in _NEVER_CALLED:
                return None
            llvm.add_symbol(name, _address_of_abort())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.content))
    engine.finalize_object()
    address = engine.get_function_address(code.symbol)
    is_bool = code.returns in ("bool", "boolean")
    return Function(code.symbol, address, _RESULTS[code.returns], list(_members(args)), is_bool)


@cache
def _engine() -> Any:
    """What holds the machine code; it stays until the process ends."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


@cache
def _address_of_abort() -> int:
    return ctypes.cast(ctypes.CDLL(None).abort, ctypes.c_void_p).value or 0
