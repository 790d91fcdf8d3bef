"""How ``--help`` is laid out: options in named panels, nothing cut at 80 columns.

Typer's own layout has six columns: at 80 columns it cuts long names, breaks lists of values in the
middle of a word, and gives flags a value of "<bool>".
"""

from __future__ import annotations

import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo, OptionInfo

from ragimpute.cli.plain_values import with_plain_values

#: The panels in order; ``Options`` are those of the program as a whole.
PANELS = ("Input", "Panel", "Model", "Region", "Output", "Run", "Options")
#: Older names of options, which still work. They are shown nowhere.
OLD_NAMES = frozenset(("--typed-only", "--sites", "--typed"))

_LABEL_WIDTH = 26
_VALUES = {int: "N", float: "X", str: "TEXT", Path: "FILE"}
_HELP = "Show this help and exit."
_COMPLETION = "Let the shell complete commands, options and values by the tab key."


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
    help
        What it does, with its range.
    panel
        The panel of the help in which it is shown.
    """

    names: list[str]
    value: str
    default: str
    help: str
    is_option: bool
    is_list: bool
    panel: str = "Options"

    @property
    def is_required(self) -> bool:
        """Whether the command cannot run without it."""
        return self.default == "required"


def read_parameters(function: Callable[..., Any]) -> list[Parameter]:
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
    given = [name for name in given if name not in OLD_NAMES]
    longest_first = sorted(given, key=lambda text: not text.startswith("--"))
    value = "" if plain is bool else info.metavar or _value_of(plain)
    return Parameter(
        names=longest_first if is_option else [info.metavar or name.upper()],
        value=value + (" ..." if is_list and not is_option else ""),
        default="required" if default is inspect.Parameter.empty else _text_of(default),
        help=" ".join(filter(None, (" ".join((info.help or "").split()), _range_of(info)))),
        is_option=is_option,
        is_list=is_list,
        panel=info.rich_help_panel or "Options",
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
    if isinstance(default, float):
        return f"{default:g}"
    return "on" if default is True else str(default)


def by_panel(parameters: Sequence[Parameter]) -> list[tuple[str, list[Parameter]]]:
    """The parameters by panel, in the order in which panels are shown; arguments come first."""
    names = [*PANELS, *(item.panel for item in parameters)]
    found: dict[str, list[Parameter]] = {name: [] for name in names}
    for item in sorted(parameters, key=lambda item: item.is_option):
        found[item.panel].append(item)
    return [(name, items) for name, items in found.items() if items]


def label_of(item: Parameter) -> str:
    """Names and value of a parameter, as one types them: "--region, -r CHR[:FROM-TO]"."""
    return f"{', '.join(item.names)} {item.value if item.is_option else ''}".strip()


def text_of(item: Parameter) -> str:
    """What a parameter does, and its default."""
    parts = [item.help]
    if item.is_required:
        parts.append("(required)")
    elif item.default:
        parts.append(f"(default: {item.default})")
    return " ".join(part for part in parts if part)


def usage(name: str, parameters: Sequence[Parameter]) -> str:
    """ "ragimpute impute TARGET --panel FILE --output FILE [OPTIONS]"."""
    words = ["ragimpute", name] if name else ["ragimpute"]
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


def lines_of(entries: Iterable[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Lay out labels and texts in two columns: each line as its label, padded, and its text.

    A label that is longer than its column stands on a line of its own.
    """
    entries = list(entries)
    longest = max((len(label) for label, _ in entries if len(label) <= _LABEL_WIDTH), default=8)
    room = width - longest - 2
    rows = []
    for label, text in entries:
        lines = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
        if len(label) > longest:
            rows.append((label, ""))
        else:
            rows.append((label.ljust(longest + 2), lines.pop(0)))
        rows += [(" " * (longest + 2), line) for line in lines]
    return rows


def show_help(command: Any, context: Any) -> None:
    """Print the help of a command, or of the program, to standard output."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console(highlight=False)
    width = max(40, min(console.width, 100))
    wrap = textwrap.TextWrapper(
        width - 2, initial_indent=" ", subsequent_indent=" ", break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip

    def put(text: str = "", style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    put()
    own = [] if command.callback is None else read_parameters(inspect.unwrap(command.callback))
    is_program = hasattr(command, "commands")
    words = "ragimpute COMMAND [OPTIONS]" if is_program else usage(command.name, own)
    put("\n".join(wrap.wrap(f"Usage: {words}")), "bold")
    put()
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        put("\n".join(wrap.wrap(" ".join(paragraph.replace("\f", "").split()))))
        put()
    own.append(Parameter(["--help", "-h"], "", "", _HELP, True, False, "Run"))
    if is_program:
        own.append(Parameter(["--install-completion"], "", "", _COMPLETION, True, False, "Run"))
        own = [replace(item, panel="Options") for item in own]
    groups = [
        (name, [(label_of(item), text_of(item)) for item in items]) for name, items in by_panel(own)
    ]
    if is_program:
        named = [(name, command.get_command(context, name)) for name in command.commands]
        about = [(name, _first_line(one.help or "")) for name, one in named if not one.hidden]
        groups.insert(0, ("Commands", about))
    for name, entries in groups:
        body = Text()
        for number, (label, text) in enumerate(lines_of(entries, width - 4)):
            body.append("\n" if number else "")
            body.append(label, "bold cyan").append(text)
        console.print(Panel(body, title=name, title_align="left", border_style="dim", width=width))
    if command.epilog:
        put("\n".join(wrap.wrap(command.epilog)))
        put()


def _first_line(text: str) -> str:
    """The first paragraph of a text, in one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


class Command(TyperCommand):
    """A command whose help is laid out here, and which converts values only where it must."""

    def get_params(self, ctx: Any) -> Any:
        """Arguments and options."""
        return with_plain_values(super().get_params(ctx))

    def get_usage(self, ctx: Any) -> str:
        """The line above an error of the command line."""
        function = inspect.unwrap(typing.cast(Callable[..., Any], self.callback))
        return f"Usage: {usage(self.name or '', read_parameters(function))}"

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        show_help(self, ctx)


class Program(TyperGroup):
    """The program, whose help is laid out here, and which converts values only where it must."""

    def get_params(self, ctx: Any) -> Any:
        """Arguments and options."""
        return with_plain_values(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        show_help(self, ctx)
