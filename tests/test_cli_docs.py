"""docs/cli.md is what the commands are now, and the generator sees all that they declare."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

import make_cli_docs
import pytest
import typer
from typer.testing import CliRunner

from ragimpute.cli import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]


def section(name):
    """The part of the page on one command."""
    text = PAGE.read_text()
    start = text.index(f"## ragimpute {name}\n")
    end = text.find("\n## ", start)
    return text[start : end if end > 0 else len(text)]


def test_page_is_up_to_date():
    assert PAGE.read_text() == make_cli_docs.render(app), "run: make docs"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_on_the_page(name):
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"})
    assert shown.exit_code == 0, shown.output
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.output)
    # Names stand at the start of a row of the help's table, long before short.
    rows = re.findall(r"^│\s+\*?\s*((?:-\S+\s+)+)", plain, flags=re.MULTILINE)
    known = {option for row in rows for option in re.split(r"[\s,/]+", row.strip())}
    known -= {"--help", "-h"}
    on_page = set()
    for row in re.findall(r"^\| (`-.*?) \|", section(name), flags=re.MULTILINE):
        on_page |= set(re.findall(r"`(--?[a-zA-Z][a-zA-Z-]*)`", row))
    assert known == on_page


class Shape(Enum):
    ROUND = "round"
    FLAT = "flat"


@pytest.fixture
def small():
    """An app with one of everything."""
    app = typer.Typer()

    @app.callback()
    def common(loud: Annotated[bool, typer.Option("--loud", help="Shout.")] = False) -> None:
        pass

    @app.command(epilog="Example:  thing do-it a b")
    def do_it(
        paths: Annotated[list[Path], typer.Argument(help="What to [bold]read[/bold].")],
        out: Annotated[Path, typer.Option("--output", "-o", metavar="A|B", help="One | other.")],
        kind: Annotated[Shape, typer.Option(help="How.")] = Shape.FLAT,
        share: Annotated[float | None, typer.Option(min=0.5, max=2)] = None,
        count: Annotated[int, typer.Option("-c", "--count", min=1)] = 3,
        both: Annotated[bool, typer.Option()] = True,
        secret: Annotated[bool, typer.Option("--secret", hidden=True)] = False,
    ) -> None:
        """Do it.

        Then some more.
        """

    @app.command(hidden=True)
    def unseen() -> None:
        """Not to be seen."""

    return app


def test_everything_that_can_be_declared(small):
    page = make_cli_docs.render(small)
    assert "| [do-it](#ragimpute-do-it) | Do it. |" in page
    assert "Then some more." in page
    assert "```\nragimpute do-it PATHS ... --output A|B [OPTIONS]\n```" in page
    assert "```\nthing do-it a b\n```" in page
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `--loud` |  | Shout. |",
        "| `PATHS` | required | What to **read**. |",
        "| `--output`, `-o` `A\\|B` | required | One \\| other. |",
        "| `--kind` `round\\|flat` | `flat` | How. |",
        "| `--share` `X` |  | From 0.5 to 2. |",
        "| `--count`, `-c` `N` | `3` | At least 1. |",
        "| `--both`, `--no-both` | `on` |  |",
    ]
    assert "secret" not in page
    assert "unseen" not in page


def test_the_page_does_not_depend_on_the_terminal(small, monkeypatch):
    wide = make_cli_docs.render(small)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "dumb")
    assert make_cli_docs.render(small) == wide
