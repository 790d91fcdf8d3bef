"""Arguments of the public functions: texts become what they stand for, wrong types are refused.

``import ragimpute as ri`` gives functions that :func:`checked` has wrapped. The command line calls
the functions themselves, as its options have types already.
"""

from __future__ import annotations

import inspect
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from ragimpute.errors import InputError
from ragimpute.sites import Region

# For options that are numbers, the least and the most that makes sense, and what to do instead.
# Beyond these a result would be nonsense, or a run would not end.
_RANGES: dict[str, tuple[float, float, str]] = {
    "ne": (1, 1e9, "leave the effective population size out, and it is chosen on the panel"),
    "err": (1e-6, 0.4, "leave the mismatch probability out, and it is chosen on the panel"),
    "cm_per_mb": (1e-6, 1e4, "the rate is about 1 cM/Mb in humans, and 20 in honey bees"),
    "window_cm": (1e-4, 1e5, "the longest chromosomes have some hundred cM"),
    "chunk_mb": (1e-5, 1e5, "human chromosomes have 47 to 248 Mb"),
    "chunk_cm": (1e-4, 1e5, "the longest chromosomes have some hundred cM"),
    "buffer_cm": (0, 1e4, "the longest chromosomes have some hundred cM"),
    "min_r2": (0, 1, "DR2 lies between 0 and 1"),
    "min_gp": (0, 1, "GP lies between 0 and 1; 0.9 is usual"),
    "digits": (2, 4, "2 decimals make the smallest file, 3 lose less than r2 can show"),
    "bgen_bits": (1, 32, "association tools are made for 8 bits, and some read no other number"),
    "compression_level": (1, 12, "1 is the fastest, 6 what bgzip does, 12 the smallest"),
}

# The device that makes copying models copy by torch on the CPU: for tests, as nobody gains by it.
TORCH_ON_CPU = "torch-cpu"

P = ParamSpec("P")
R = TypeVar("R")
Options = TypeVar("Options", bound=Any)

# What a message calls the types that an argument may have.
_NAMES: dict[Any, str] = {
    NoneType: "None",
    Path: "Path",
    Region: 'Region, str such as "20:1-1000"',
    bool: "True or False",
    float: "number",
    int: "whole number",
    str: "str",
}
_LISTS = "fields"  # the arguments that a text with commas may stand for


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that it converts texts, and refuses arguments of wrong types.

    The types are those of :func:`accepted`. Where a :class:`ragimpute.sites.Region` is
    expected, a text such as "20:1-1000" is parsed; ``fields`` may be a text such as "GT,DS"; any
    iterable of the right items is taken for a sequence, and numpy's numbers for Python's.

    Parameters
    ----------
    function
        Its parameters have annotations, or may be anything.

    Returns
    -------
    A function of the same name, signature and docstring; ``__wrapped__`` is the function itself.
    It raises TypeError for an argument of a wrong type, and InputError for a text that is no
    region, and else what the function raises.
    """
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        hints.update(hints or accepted(function))
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            bound = None
        if bound is None:  # an argument is missing or unknown: Python says which, and of what
            return function(*args, **kwargs)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = _taken(function, name, value, hints[name])
            elif signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = {
                    key: _taken(function, key, inner, hints[key]) if key in hints else inner
                    for key, inner in value.items()
                }
        return function(*bound.args, **bound.kwargs)

    return call


def accepted(function: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a function takes, by name, and their types.

    A function that takes ``options``, a dataclass, and ``**`` keyword arguments takes the fields of
    that dataclass by name as well. Parameters without annotation are left out.
    """
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = {
        name: hints[name]
        for name, parameter in parameters.items()
        if name in hints and parameter.kind not in variable
    }
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        for kind in filter(is_dataclass, _kinds(hints.get("options"))):
            of_fields = get_type_hints(kind)
            found = {field.name: of_fields[field.name] for field in fields(kind)} | found
    return found


def with_changes(options: Options, changes: Mapping[str, object], function: str) -> Options:
    """Options, a frozen dataclass, with some of its fields changed.

    Parameters
    ----------
    options
        The options as they are.
    changes
        The new values by field.
    function
        Whose options they are, as a message calls it.

    Raises
    ------
    TypeError
        If a change is not a field; the message names the fields.
    """
    known = [one.name for one in fields(options)]
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise TypeError(
            f"{function} has no option {', '.join(unknown)}; its options are {', '.join(known)}"
        )
    changed: Options = replace(options, **changes)
    return changed


def check_ranges(**numbers: object) -> None:
    """Refuse options that are beyond what makes sense, or no number (NaN).

    Parameters
    ----------
    numbers
        Options by name; those that have no range, and None, are passed over.

    Raises
    ------
    InputError
        If one is out of its range; the message says which, and what may be given.
    """
    for name, value in numbers.items():
        if name not in _RANGES or not isinstance(value, Real):
            continue
        low, high, hint = _RANGES[name]
        if not low <= float(value) <= high:
            raise InputError(
                f"{name} is {float(value):g}, expected a number from {low:g} to {high:g}", hint=hint
            )


def check_fields_of(options: object) -> None:
    """As :func:`check_ranges`, of the fields of a dataclass."""
    check_ranges(**{one.name: getattr(options, one.name) for one in fields(options)})  # type: ignore[arg-type]


def parse_device(name: str) -> tuple[str, int | None]:
    """The kind of device that a name stands for, and its number where the name has one.

    Parameters
    ----------
    name
        "auto", "cpu", "cuda", or "cuda:1" for the second GPU; "cpu:0", as torch calls the CPU of a
        process among several, is "cpu", and so is :data:`TORCH_ON_CPU`.

    Returns
    -------
    "auto", "cpu" or "cuda"; the number, counted from 0, or None.

    Raises
    ------
    InputError
        If the name is another one.
    """
    if name == TORCH_ON_CPU:
        return "cpu", None
    found = re.fullmatch(r"(auto)|(cpu)(?::\d+)?|(cuda)(?::(\d{1,4}))?", name)
    if found is None:
        raise InputError(f"there is no device {name!r}", hint="choose auto, cpu or cuda")
    return found[1] or found[2] or found[3], None if found[4] is None else int(found[4])


def _taken(function: Callable[..., Any], name: str, value: Any, hint: Any) -> Any:
    """An argument as the function wants it.

    Raises
    ------
    TypeError
        If it is of none of the types of the hint.
    """
    kinds = _kinds(hint)
    if name == _LISTS and isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    for kind in kinds:
        fits, converted = _convert(value, kind)
        if fits:
            return converted
    names = [_name(kind) for kind in kinds if kind is not str or Region not in kinds]
    if name == _LISTS:
        names.insert(0, 'str such as "GT,DS"')
    expected = ", ".join(names[:-1]) + (" or " if names[1:] else "") + names[-1]
    owner = function.__qualname__.removesuffix(".__init__")
    raise TypeError(
        f"{owner}() argument {name!r}: expected {expected}, "
        f"found {type(value).__name__}: {reprlib.repr(value)}"
    )


def _kinds(hint: Any) -> list[Any]:
    """The types of a union, or the only one."""
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def _convert(value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether a value is of a type, or stands for one that is; and that one."""
    origin = get_origin(kind) or kind
    if kind is Region and isinstance(value, str):
        return True, Region.parse(value)
    if kind is int:
        fits = isinstance(value, Integral) and not isinstance(value, bool)
        return fits, int(value) if fits else value
    if kind is float:
        fits = isinstance(value, Real) and not isinstance(value, bool)
        return fits, value if isinstance(value, int) or not fits else float(value)
    if kind is Path:
        fits = isinstance(value, os.PathLike)
        return fits, Path(value) if fits else value
    if kind is Any or not isinstance(origin, type) or getattr(origin, "_is_protocol", False):
        return True, value  # what no value can be held to
    if origin.__name__ == "Sequence":
        return _convert_items(value, _kinds((get_args(kind) or (Any,))[0]))
    if origin.__name__ == "Callable":
        return callable(value), value
    return isinstance(value, origin), value


def _convert_items(value: Any, kinds: list[Any]) -> tuple[bool, Any]:
    """Whether a value is an iterable of items of some types; and the items as a list."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return False, value
    items = []
    for item in value:
        found = next((x for fits, x in (_convert(item, kind) for kind in kinds) if fits), None)
        if found is None:
            return False, value
        items.append(found)
    return True, items


def _name(kind: Any) -> str:
    """What a message calls a type."""
    origin = get_origin(kind) or kind
    if kind in _NAMES:
        return _NAMES[kind]
    if getattr(origin, "__name__", "") == "Sequence" and get_args(kind):
        items = " or ".join(_name(item) for item in _kinds(get_args(kind)[0]))
        return f"sequence of {items}"
    return "function" if origin is Callable else getattr(origin, "__name__", str(kind))
