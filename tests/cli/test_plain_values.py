"""Plain values of the command line become what Typer would make of them."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ragimpute.cli.help import Command


class Letter(StrEnum):
    A = "a"
    B = "b"


def application(cls):
    """A program with an option of each kind, which prints what it is given."""
    app = typer.Typer(add_completion=False)

    @app.command(cls=cls)
    def show(
        file: Annotated[Path, typer.Argument()],
        count: Annotated[int, typer.Option(min=1, max=99)] = 3,
        share: Annotated[float, typer.Option(min=0.0, max=1.0)] = 0.5,
        word: Annotated[str, typer.Option()] = "x",
        maybe: Annotated[int | None, typer.Option()] = None,
        letter: Annotated[Letter, typer.Option()] = Letter.A,
        many: Annotated[list[Path] | None, typer.Option("--many")] = None,
        flag: Annotated[bool, typer.Option()] = False,
    ) -> None:
        print([file, count, share, word, maybe, letter, many, flag])

    return app


OURS, TYPERS = application(Command), application(None)
numbers = st.one_of(
    st.integers(-5, 200).map(str),
    st.floats(-1, 2).map(str),
    st.sampled_from(["1_0", " 7", "7.0", "1e1", "nan", "x", "", "0x1", "٣", "007", ".5", "5."]),
)
words = st.one_of(numbers, st.sampled_from(["a", "b", "A", "-", ".", "/nowhere/x", "å"]))


@settings(max_examples=60, deadline=None)
@given(
    file=words.filter(lambda word: not word.startswith("-")),
    options=st.dictionaries(
        st.sampled_from(["--count", "--share", "--word", "--maybe", "--letter", "--many"]), words
    ),
    flag=st.booleans(),
)
def test_values_are_those_of_typer(file, options, flag):
    line = [file, *(f"{name}={value}" for name, value in options.items())]
    line += ["--flag"] if flag else []
    ours, typers = (CliRunner().invoke(app, line) for app in (OURS, TYPERS))
    assert ours.exit_code == typers.exit_code, ours.output
    # The line above an error is laid out otherwise.
    assert ours.output.rpartition("╭")[2] == typers.output.rpartition("╭")[2]


def test_a_file_that_cannot_be_read_is_refused_as_by_typer(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("x")
    monkeypatch.setattr("os.access", lambda *_: False)
    for app in (OURS, TYPERS):
        done = CliRunner().invoke(app, [str(tmp_path / "secret")], env={"COLUMNS": "300"})
        assert (done.exit_code, "is not readable" in done.output) == (2, True), done.output


@pytest.mark.parametrize("module", ["pydantic", "torch"])
def test_a_command_line_of_plain_values_imports_none_of(module, tmp_path):
    code = (
        "import sys\n"
        "from ragimpute.cli.main import main\n"
        f"out = {str(tmp_path / 'x.vcf')!r}\n"
        "sys.argv = ['ragimpute', 'impute', 'no.vcf', '-p', 'no.h5', '-o', out, '-t', '2']\n"
        "try:\n    main()\n"
        f"except SystemExit as end:\n    print(end.code, {module!r} in sys.modules)\n"
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n", done.stderr
