"""What a compiled kernel is made of: a digest of all code that becomes part of it.

A kernel inlines functions of other files. Machine code on disk may serve only while none of them
has changed, so its name holds a digest of every file that it takes code from, of every constant
that it reads, and of what compiles it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import llvmlite
import numpy as np

from ragimpute.kernels.functions import CompiledFunction, KernelIntrinsic

if TYPE_CHECKING:
    from numba import types

_PACKAGE = __name__.partition(".")[0]
_HERE = Path(__file__).parent
# Part of every kernel: how numba is told to compile them.
_DECORATORS = (f"{_PACKAGE}.kernels.with_numba", _HERE / "with_numba.py")
# Part of every kernel that calls an intrinsic: how the compiler writes them.
_INTRINSICS = {f"{_PACKAGE}.kernels.{path.stem}": path for path in _HERE.glob("*_code.py")}
# Settings of numba that change machine code, and their values unless the environment sets others.
_SETTINGS = {
    "OPT": "_OptLevel(3)", "BOUNDSCHECK": "None", "DEBUGINFO_DEFAULT": "0", "LOOP_VECTORIZE": "1",
    "SLP_VECTORIZE": "0", "USING_SVML": "False",
}  # fmt: skip
# Variables of numba that say nothing of how code is compiled, or that are part of a folder's name.
_OTHER_VARIABLES = frozenset((
    "NUMBA_CACHE_DIR", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_ENABLE_AVX",
    "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS",
))  # fmt: skip


def code_digest(function: Callable[..., Any]) -> str:
    """Digest of a kernel's code, 16 hexadecimal digits.

    Parameters
    ----------
    function
        The kernel as Python knows it.

    Returns
    -------
    A digest of the content of every file of which a function or an intrinsic becomes part
    of the kernel, by way of any number of others; of the constants that these functions read from
    elsewhere; and of the versions and settings of what compiles it.
    """
    digest = hashlib.sha256(repr(compiler()).encode())
    files, constants = parts_of(function)
    for name in sorted(files):
        digest.update(f"{name}\0{_file_digest(files[name])}\0".encode())
    for constant in sorted(constants):
        digest.update(f"{constant}\0".encode())
    return digest.hexdigest()[:16]


def parts_of(function: Callable[..., Any]) -> tuple[dict[str, Path], set[str]]:
    """What becomes part of a kernel: files by their modules' names, and what its functions read.

    The latter are texts of a function's name, the name that it reads, and the content.
    """
    files = dict([_DECORATORS])
    constants: set[str] = set()
    todo: list[Any] = [function]
    seen: set[int] = set()
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        file = getattr(sys.modules.get(part.__module__), "__file__", None)
        if file is not None:
            files[part.__module__] = Path(file)
        if isinstance(part, type):
            todo.extend(base for base in part.__mro__ if _is_ours(base))
            continue
        for name, value in _read_by(part):
            inner = _code_behind(value)
            if inner is not None:
                todo.append(inner)
            elif isinstance(value, KernelIntrinsic):
                files |= _INTRINSICS
                constants.add(f"{part.__module__}.{part.__qualname__}.{name}\0{value.definition}")
            else:
                constants.add(f"{part.__module__}.{part.__qualname__}.{name}\0{_as_text(value)}")
    return files, constants


def _read_by(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """The names that a function, or one inside it, reads from outside, and what they stand for."""
    for cell_name, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=True
    ):
        yield cell_name, cell.cell_contents
    yield "defaults", function.__defaults__
    yield from (function.__kwdefaults__ or {}).items()
    for name in sorted(_names_in(function.__code__)):
        if name in function.__globals__:
            value = function.__globals__[name]
            yield name, value
            # A module of the package that is imported whole: any of its names may be meant.
            if isinstance(value, ModuleType) and value.__name__.partition(".")[0] == _PACKAGE:
                for inner in sorted(_names_in(function.__code__)):
                    if hasattr(value, inner):
                        yield f"{name}.{inner}", getattr(value, inner)


def _names_in(code: CodeType) -> set[str]:
    """Names that a piece of code reads, with those of the functions written inside it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def _code_behind(value: Any) -> Any:
    """The function or class whose code a value brings along; None where it brings none of ours."""
    if isinstance(value, CompiledFunction):
        value = value.py_func
    if isinstance(value, FunctionType | type) and _is_ours(value):
        return value
    return None


def _is_ours(value: Any) -> bool:
    """Whether a function or class is of code that may change while numba and numpy do not."""
    module = sys.modules.get(value.__module__)
    name = (value.__module__ or "").partition(".")[0]
    return getattr(module, "__file__", None) is not None and name not in (
        "numba", "llvmlite", "numpy", "typing", "collections", "enum", "abc",
    )  # fmt: skip


def _as_text(value: Any) -> str:
    """A constant, by its type and what it holds; of modules and the like only the name."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, ModuleType | FunctionType | type):
        return str(getattr(value, "__qualname__", value.__name__))
    if isinstance(value, int | float | str | bytes | bool | None | np.generic):
        return f"{type(value).__name__} {value!r}"
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", "")  # of a named tuple: code says the name of a field
        return f"{type(value).__name__} {names} {[_as_text(item) for item in value]}"
    return type(value).__qualname__


@cache
def _file_digest(path: Path) -> str:
    """Digest of a file's content; of one that cannot be read, as in an archive, of its name."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return str(path)


@cache
def numba_version() -> str:
    """The version of numba, which is read from its file while it is not imported."""
    if "numba" not in sys.modules:
        found = find_spec("numba")
        with suppress(OSError):  # in an archive, say
            if found is not None and found.origin is not None:
                text = Path(found.origin).with_name("_version.py").read_text()
                written = re.search(r'"version": "([^"]+)"', text)
                if written:
                    return written[1]
    return str(import_module("numba").__version__)


def compiler() -> tuple[Any, ...]:
    """Versions and settings by which the same code becomes other machine code."""
    versions = (numba_version(), llvmlite.__version__, sys.implementation.cache_tag)
    if "numba" not in sys.modules and not _settings_may_differ():
        return (*versions, *_SETTINGS.values())
    config: Any = import_module("numba.core.config")
    found = (str(getattr(config, name, value)) for name, value in _SETTINGS.items())
    return (*versions, *found)


@cache
def _settings_may_differ() -> bool:
    """Whether numba has to be asked for its settings."""
    named = {name for name in os.environ if name.startswith("NUMBA_")} - _OTHER_VARIABLES
    return bool(named) or os.path.exists(".numba_config.yaml") or _has_vector_mathematics()


def _has_vector_mathematics() -> bool:
    """Whether numba would use Intel's library of functions of vectors (SVML)."""
    from llvmlite.binding import targets

    if not targets.has_svml():
        return False
    with suppress(OSError):
        ctypes.CDLL("libsvml.dylib" if sys.platform == "darwin" else "libsvml.so")
        return True
    return False


# --- signatures as text ---------------------------------------------------------------------------


def signature_text(signature: tuple[types.Type, ...]) -> str:
    """The types of a kernel's arguments, as :func:`signature_of` reads them."""
    return "(" + "".join(f"{_type_text(kind)}, " for kind in signature).rstrip() + ")"


def _type_text(kind: types.Type) -> str:
    from numba import types

    if isinstance(kind, types.NamedTuple | types.NamedUniTuple):
        owner = kind.instance_class
        parts = ", ".join(map(_type_text, kind.types))
        # Where all parts are of one type, numba has another type of tuple.
        name = "named_alike" if isinstance(kind, types.NamedUniTuple) else "named"
        return f"{name}('{owner.__module__}', '{owner.__qualname__}', {kind.fields}, ({parts},))"
    if isinstance(kind, types.Tuple | types.UniTuple):
        return f"tuple_of(({''.join(f'{_type_text(part)}, ' for part in kind.types)}))"
    if isinstance(kind, types.Array):
        axes = [":"] * kind.ndim
        if kind.layout == "C":
            axes[-1] = "::1"
        elif kind.layout == "F":
            axes[0] = "::1"
        if kind.mutable and kind.aligned and (kind.layout in "CA" or kind.ndim > 1):
            return f"{_type_text(kind.dtype)}[{', '.join(axes)}]"
        return (
            f"Array({_type_text(kind.dtype)}, {kind.ndim}, {kind.layout!r}, "
            f"readonly={not kind.mutable}, aligned={kind.aligned})"
        )
    if isinstance(kind, types.Omitted):
        return f"Omitted({kind.value!r})"
    return "boolean" if kind is types.boolean else str(kind)


def signature_of(text: str) -> tuple[types.Type, ...]:
    """The types that :func:`signature_text` wrote down."""
    from numba import types

    names = {name: getattr(types, name) for name in dir(types)}
    names |= {"named": _named, "named_alike": _named, "tuple_of": types.Tuple}
    out: tuple[types.Type, ...] = eval(text, {"__builtins__": {}}, names)
    return out


def _named(
    module: str, qualname: str, fields: tuple[str, ...], parts: tuple[types.Type, ...]
) -> types.Type:
    """The type of a named tuple, by where its class is found."""
    from numba import types

    owner = getattr(import_module(module), qualname)
    if tuple(owner._fields) != tuple(fields):
        raise ValueError(f"{module}.{qualname} has the fields {owner._fields}, not {fields}")
    out: types.Type = types.BaseTuple.from_types(parts, owner)
    return out
