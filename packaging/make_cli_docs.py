"""Write docs/cli.md from the commands themselves: arguments, options, defaults and examples.

Run: python packaging/make_cli_docs.py [docs/cli.md]

It reads what the functions of ``ragimpute.cli.main`` declare to Typer rather than the text of
--help, so that the page does not depend on the terminal's width, colours or Typer's version.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import typer

from ragimpute.cli.help import Parameter, by_panel, read_parameters, usage

_HEAD = """# Command line

Written by `make docs` from the commands; change `ragimpute/cli/`, not this page.

`ragimpute COMMAND --help` shows the same. Progress, warnings and errors go to standard error. A
run ends with exit code 0, or 1 if an input cannot be used (one line says which and why, and another
how to mend it), or 2 if the command line itself is wrong. Regions are 1-based and closed.
"""


def to_markdown(text: str) -> str:
    """Typer's rich markup as Markdown: bold stays, colours go."""
    text = re.sub(r"\[/?bold\]", "**", inspect.cleandoc(text))
    return re.sub(r"\[/?(?:dim|italic|green|red|blue|cyan|yellow|magenta)\]", "", text)


def table(parameters: list[Parameter]) -> str:
    """The parameters of a command, a row each."""
    rows = ["| | default | |", "|---|---|---|"]
    for item in parameters:
        names = ", ".join(f"`{name}`" for name in item.names)
        value = item.value.replace("|", "\\|") if item.is_option else ""
        known = item.default if item.is_required or not item.default else f"`{item.default}`"
        text = to_markdown(item.help).replace("|", "\\|").replace("\n", " ")
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
        for panel, options in by_panel(parameters):
            parts.append(f"**{panel}**\n\n{table(options)}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    from ragimpute.cli.main import app

    page = render(app)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page, encoding="utf-8")
    else:
        print(page, end="")
