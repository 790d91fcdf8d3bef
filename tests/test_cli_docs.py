"""docs/cli.md is what the commands are now, and the generator sees all that they declare."""

from __future__ import annotations

import re
import shlex
from enum import Enum
from pathlib import Path
from typing import Annotated

import make_cli_docs
import pytest
import typer
from typer.testing import CliRunner

from ragimpute.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cli.md"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("packaging/*.md"),
                *ROOT.glob("workflow/**/*.md")])  # fmt: skip
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
    # Names stand at the start of a row of the help's panels, long before short.
    rows = re.findall(r"^│ (-[^ ,]+(?:, -[^ ,]+)*)", shown.output, flags=re.MULTILINE)
    known = {option for row in rows for option in row.split(", ")}
    known -= {"--help", "-h"}
    on_page = set()
    for row in re.findall(r"^\| (`-.*?`) \|", section(name), flags=re.MULTILINE):
        on_page |= set(re.findall(r"`(--?[a-zA-Z][a-zA-Z0-9-]*)`", row))
    assert known == on_page


def commands_of(page):
    """Every call of ragimpute in a page's code blocks, as words without comments."""
    blocks = re.findall(
        r"^ *```(\w*)[^\n]*\n(.*?)^ *```", page.read_text(), re.DOTALL | re.MULTILINE
    )
    shell = [block for language, block in blocks if language != "python"]
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    calls = [re.search(r"\bragimpute [a-z].*", line) for line in lines]
    return [shlex.split(call[0], comments=True)[1:] for call in calls if call]


def test_peers_57_commands_in_the_documentation_exist():
    known = {}
    for command in app.registered_commands:
        parameters = make_cli_docs.read_parameters(command.callback)
        known[command.callback.__name__] = {
            option for item in parameters for option in item.names if item.is_option
        }
    assert len(commands_of(PAGE)) >= len(COMMANDS) - 1
    assert len(commands_of(ROOT / "README.md")) >= 5
    for name in set(COMMANDS) - {"demo"}:
        assert f"`ragimpute {name}`" in (ROOT / "README.md").read_text() or name in {
            "prepare", "impute"
        }  # fmt: skip
    wrong = []
    for page in PAGES:
        for name, *words in commands_of(page):
            given = {word.split("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)}
            if name not in known or not given <= known[name]:
                wrong.append(f"{page.relative_to(ROOT)}: ragimpute {' '.join([name, *words])}")
    assert not wrong, "\n".join(wrong)


def test_links_lead_somewhere():
    wrong = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert not wrong, "\n".join(wrong)


def slugs(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


def test_anchors_of_links_exist():
    wrong = []
    for page in PAGES:
        for link, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
            other = page.parent / link if link else page
            if other.suffix == ".md" and anchor not in slugs(other):
                wrong.append(f"{page.relative_to(ROOT)}: {link}#{anchor}")
    assert not wrong, "\n".join(wrong)


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
        either: Annotated[bool | None, typer.Option("--with/--without")] = None,
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
        "| `--with`, `--without` |  |  |",
    ]
    assert "secret" not in page
    assert "unseen" not in page


def test_the_page_does_not_depend_on_the_terminal(small, monkeypatch):
    wide = make_cli_docs.render(small)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "dumb")
    assert make_cli_docs.render(small) == wide
