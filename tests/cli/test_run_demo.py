"""The demo, run as a user would."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from report_fixtures import Page, check_alone
from vcf_fixtures import bcftools, rows_of, view

from ragimpute import example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.panel.reader import Panel


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The demo's folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "ragimpute", "demo", "-o", "out"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder / "out", done.stdout


def test_files_that_are_what_they_say(demo):
    out, _ = demo
    names = {path.name for path in out.iterdir()}
    assert names == {
        "panel.h5", "imputed.vcf.gz", "imputed.vcf.gz.tbi", "report.html",
    }  # fmt: skip
    with Panel.open(out / "panel.h5") as panel:
        panel.verify()
        assert panel.num_sites == 6_127
    assert len(rows_of(view(out / "imputed.vcf.gz"))) == 6_127
    assert bcftools("index", "-n", out / "imputed.vcf.gz") == "6127\n"


def test_what_is_printed(demo):
    out, printed = demo
    for stage in ("prepare", "impute", "evaluate"):
        assert re.search(rf"^{stage} ", printed, re.MULTILINE)
    figures = evaluate(
        example.path("truth.bcf"), out / "imputed.vcf.gz", out / "panel.h5",
        typed=example.path("target.vcf.gz"),
    )  # fmt: skip
    assert figures.overall.r2 > 0.95
    assert figures.overall.num_sites == 6_127 - 689
    (last,) = (line for line in printed.splitlines() if re.match(r"\W*all\b", line))
    assert f"{figures.overall.r2:.5f}" in last
    assert "5,438" in last
    for _, value, *_ in figures.table()[1:]:
        assert value in printed
    assert "imputed VCF  out/imputed.vcf.gz\n" in printed
    assert max(map(len, printed.splitlines()[:5])) <= 80  # those before the table
    assert "HTML report  out/report.html\n" in printed


def test_the_report_stands_alone(demo):
    out, _ = demo
    page = Page(out / "report.html")
    check_alone(page)
    assert [attrs["id"] for attrs in page.all("section")] == ["accuracy", "impute"]
    assert len(page.all("svg")) >= 9


def test_a_folder_with_files_is_left_alone(demo, command_line):
    out, _ = demo
    before = sorted(path.name for path in out.iterdir())
    code, _, err = command_line("demo", "-o", out)
    assert code == 1
    assert err.startswith(f"Error: folder {out} is not empty\n  hint: ")
    assert sorted(path.name for path in out.iterdir()) == before
