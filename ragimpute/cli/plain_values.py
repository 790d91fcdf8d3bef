"""Values of the command line that need no checking: paths, words, and plain numbers.

Since version 0.29 Typer converts each value by pydantic. To import that and to build a schema for
each option takes .1 s, more than all else that is done before a command begins. So values that are
what they should be at first sight are taken here, and Typer converts and refuses all others.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

_INTEGER = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,15})?")
# What a declaration may ask of a path beyond being one.
_CHECKS = ("exists", "resolve_path", "writable", "allow_dash", "path_type", "parser")


def with_plain_values(parameters: Sequence[Any]) -> Sequence[Any]:
    """Parameters of a command that take plain values as they are.

    Parameters
    ----------
    parameters
        Typer's. They are changed. Those of its versions that do not convert by pydantic stay as
        they are, and so does a parameter that was changed before.
    """
    for parameter in parameters:
        described = getattr(parameter, "type_descriptor", None)
        kind = getattr(described, "annotation", None)
        info = getattr(described, "parameter_info", None)
        if info is not None and "process_value" not in vars(parameter):
            parameter.process_value = _taking(parameter, kind, info)
    return parameters


def _taking(parameter: Any, kind: Any, info: Any) -> Any:
    """What converts a parameter's values: here if they are plain, else as Typer does."""
    convert = parameter.process_value
    is_one = parameter.nargs == 1 and not parameter.multiple

    def process_value(context: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            found: object = None if is_one else ()
        else:
            found = plain_value(value, kind, info) if is_one else None
            if found is None:
                return convert(context, value)
        if parameter.callback is None:
            return found
        return parameter.callback(context, parameter, found)

    return process_value


def plain_value(value: object, kind: object, info: Any) -> object | None:
    """A value as an option of a kind has it; None where it is not plain.

    Parameters
    ----------
    value
        Text of the command line, or a default.
    kind
        The type of the option.
    info
        What else was declared of it, as :class:`typer.models.ParameterInfo`.
    """
    if kind is Path:
        if any(getattr(info, name, None) for name in _CHECKS) or not isinstance(value, str | Path):
            return None
        # Typer says of an existing file that cannot be read that it cannot.
        return Path(value) if os.access(value, os.R_OK) or not os.path.exists(value) else None
    if kind is str and isinstance(value, str) and not getattr(info, "parser", None):
        return value
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(value, kind):
        return value
    number: float | None = None
    if kind is int and isinstance(value, str) and _INTEGER.fullmatch(value):
        number = int(value)
    elif kind is float and isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
    elif kind in (int, float) and type(value) is kind:
        number = value
    if number is None or getattr(info, "clamp", False) or getattr(info, "parser", None):
        return None
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    inside = (low is None or number >= low) and (high is None or number <= high)
    return number if inside else None
