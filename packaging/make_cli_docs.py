"""Write docs/cli.md from the commands themselves: arguments, options, defaults and examples.

Run: python packaging/make_cli_docs.py [docs/cli.md]

It reads what the functions of ``ragimpute.cli.main`` declare to Typer rather than the text of
--help, so that the page does not depend on the terminal's width, colours or Typer's version.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import typer
from typer.models import ArgumentInfo, OptionInfo

_HEAD = """# Command line

Written by `make docs` from the commands; change `ragimpute/cli/`, not this page.

`ragimpute COMMAND --help` shows the same. Progress, warnings and errors go to standard error. A
run ends with exit code 0, or 1 if an input cannot be used (one line says which and why, and another
how to mend it), or 2 if the command line itself is wrong. Regions are 1-based and closed.
"""
_VALUES = {int: "N", float: "X", str: "TEXT", Path: "FILE"}


@dataclass(frozen=True)
class Parameter:
    """An argument or option of a command.

    Attributes
    ----------
    names
        "--threads", "-t"; or the argument's name in capitals.
    value
        What to put there; empty for a flag.
    default
        As text; empty where there is none, "required" where one must be given.
    """

    names: list[str]
    value: str
    default: str
    help: str
    is_option: bool
    is_list: bool

    @property
    def is_required(self) -> bool:
        """Whether the command cannot run without it."""
        return self.default == "required"


def read_parameters(function: Callable) -> list[Parameter]:
    """What a command takes, in the order of its function's parameters; hidden ones are left out."""
    hints = typing.get_type_hints(function, include_extras=True)
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, *extras = typing.get_args(hints[name])
        info = next(extra for extra in extras if isinstance(extra, OptionInfo | ArgumentInfo))
        if not info.hidden:
            found.append(_read_parameter(name, kind, info, parameter.default))
    return found


def _read_parameter(
    name: str, kind: object, info: OptionInfo | ArgumentInfo, default: object
) -> Parameter:
    """One parameter from its annotation and default."""
    is_option = isinstance(info, OptionInfo)
    # In Annotated[..., Option("--a", "-b")] the first name stands where a default could.
    given = [
        text
        for text in (info.default, *(info.param_decls or ()))
        if isinstance(text, str) and text.startswith("-")
    ]
    plain, is_list = _plain_type(kind)
    if plain is bool:  # "--on/--off" in one
        given = [name for text in given for name in text.split("/")]
    if is_option and not given:
        option = "--" + name.replace("_", "-")
        given = [option, f"--no-{option[2:]}"] if plain is bool else [option]
    longest_first = sorted(given, key=lambda text: not text.startswith("--"))
    value = "" if plain is bool else info.metavar or _value_of(plain)
    return Parameter(
        names=longest_first if is_option else [info.metavar or name.upper()],
        value=value + (" ..." if is_list and not is_option else ""),
        default="required" if default is inspect.Parameter.empty else _text_of(default),
        help=" ".join(filter(None, (to_markdown(info.help or ""), _range_of(info)))),
        is_option=is_option,
        is_list=is_list,
    )


def _plain_type(kind: object) -> tuple[object, bool]:
    """The type without None and list, and whether it was a list."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is list:
        return typing.get_args(kind)[0], True
    return kind, False


def _value_of(kind: object) -> str:
    """What a value of a type is called."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(member.value) for member in kind)
    return _VALUES.get(typing.cast(type, kind), "VALUE")


def _range_of(info: OptionInfo | ArgumentInfo) -> str:
    """The range of a number as a sentence; empty where there is none."""
    if info.min is not None and info.max is not None:
        return f"From {info.min:g} to {info.max:g}."
    if info.min is not None and info.min > 0:
        return f"At least {info.min:g}."
    return f"At most {info.max:g}." if info.max is not None else ""


def _text_of(default: object) -> str:
    """A default as one would type it; empty for a flag that is off and for None."""
    if default is None or default is False:
        return ""
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, list | tuple):
        return " ".join(map(str, default))
    return "on" if default is True else str(default)


def to_markdown(text: str) -> str:
    """Typer's rich markup as Markdown: bold stays, colours go."""
    text = re.sub(r"\[/?bold\]", "**", inspect.cleandoc(text))
    return re.sub(r"\[/?(?:dim|italic|green|red|blue|cyan|yellow|magenta)\]", "", text)


def usage(name: str, parameters: list[Parameter]) -> str:
    """ "ragimpute impute TARGET --panel FILE --output FILE [OPTIONS]"."""
    words = ["ragimpute", name]
    for item in parameters:
        if not item.is_option:
            word = item.names[0] + (" ..." if item.is_list else "")
            words.append(word if item.is_required else f"[{word}]")
    words += [
        f"{item.names[0]} {item.value}".strip()
        for item in parameters
        if item.is_option and item.is_required
    ]
    if any(item.is_option and not item.is_required for item in parameters):
        words.append("[OPTIONS]")
    return " ".join(words)


def table(parameters: list[Parameter]) -> str:
    """The parameters of a command, a row each."""
    rows = ["| | default | |", "|---|---|---|"]
    for item in parameters:
        names = ", ".join(f"`{name}`" for name in item.names)
        value = item.value.replace("|", "\\|") if item.is_option else ""
        known = item.default if item.is_required or not item.default else f"`{item.default}`"
        text = item.help.replace("|", "\\|").replace("\n", " ")
        rows.append(f"| {names}{f' `{value}`' if value else ''} | {known} | {text} |")
    return "\n".join(rows)


def render(app: typer.Typer) -> str:
    """The whole page."""
    parts = [_HEAD]
    commands = [
        (command, command.callback)
        for command in app.registered_commands
        if command.callback is not None and not command.hidden
    ]
    names = [command.name or call.__name__.replace("_", "-") for command, call in commands]
    rows = ["| command | |", "|---|---|"]
    for name, (command, call) in zip(names, commands, strict=True):
        first = to_markdown(command.help or call.__doc__ or "").split("\n\n")[0]
        rows.append(f"| [{name}](#ragimpute-{name}) | {first} |".replace("\n", " "))
    parts.append("\n".join(rows) + "\n")
    if app.registered_callback is not None and app.registered_callback.callback is not None:
        common = read_parameters(app.registered_callback.callback)
        parts.append(f"Before the command:\n\n{table(common)}\n")
    for name, (command, call) in zip(names, commands, strict=True):
        parameters = read_parameters(call)
        about = to_markdown(command.help or call.__doc__ or "")
        parts.append(f"## ragimpute {name}\n\n{about}\n")
        example = re.sub(r"^Examples?:\s*", "", to_markdown(command.epilog or ""))
        block = f"```\n{usage(name, parameters)}\n```\n"
        if example:
            block += f"\nFor example:\n\n```\n{example}\n```\n"
        parts.append(block)
        parts.append(table(parameters) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    from ragimpute.cli.main import app

    page = render(app)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page, encoding="utf-8")
    else:
        print(page, end="")
