"""The commands that the pages for users show as ``sh`` blocks run, in order, on the example."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ragimpute import example

DOCS = Path(__file__).resolve().parents[1] / "docs"
MADE = {
    "quickstart": ["panel.h5", "excluded.tsv", "imputed.vcf.gz.tbi", "run.html", "good.vcf.gz",
                   "good.pgen", "accuracy.html"],
    "downstream": ["kept.bcf", "typed.bcf", "untyped.bcf", "sites.tsv", "dosages.tsv", "info.bcf",
                   "by_ds.pgen", "by_hds.pgen", "filtered.afreq"],
    "species": ["chicken.h5", "chicks.imputed.bcf"],
}  # fmt: skip


def blocks(page):
    """The blocks of a page that are to be run."""
    return re.findall(r"^```sh\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs a page in a folder of its own, once; what it said, and the folder."""
    known = {}

    def run(page):
        if page in known:
            return known[page]
        folder = tmp_path_factory.mktemp(page)
        if page != "quickstart":
            first = run("quickstart")[1]
            for name in ("panel.h5", *example.NAMES):
                shutil.copy(first / name, folder)
        scripts = Path(sys.executable).parent
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(blocks(page))],
            cwd=folder, capture_output=True, text=True, check=False,
            env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        known[page] = done, folder
        return known[page]

    return run


@pytest.mark.parametrize("page", MADE)
def test_commands_run_and_write_what_the_page_says(page, ran):
    done, folder = ran(page)
    for name in MADE[page]:
        assert (folder / name).stat().st_size > 0, name
    text = (DOCS / f"{page}.md").read_text()
    assert not [name for name in MADE[page] if name.split(".")[0] not in text]
    complaints = [
        line for line in done.stderr.splitlines() if re.match("warning|error", line, re.I)
    ]
    assert not complaints


def test_excluded_sites_of_the_quickstart_have_a_header(ran):
    lines = (ran("quickstart")[1] / "excluded.tsv").read_text().splitlines()
    assert lines[0].split("\t")[-3:] == ["REASON", "PANEL", "FIX"]


def test_dosages_that_python_reads_are_printed(ran):
    contig, position, af, *_ = ran("downstream")[0].stdout.splitlines()[-1].split()
    assert contig == "20"
    assert 2_000_000 <= int(position) < 2_900_000
    assert 0 < float(af) < 1


def test_every_option_of_the_other_tools_is_in_the_table():
    """Their help texts, as of the versions named: what a user may have in a script."""
    text = (DOCS / "coming-from.md").read_text()
    beagle = (
        "gt ref out map chrom excludesamples excludemarkers impute burnin iterations phase-states "
        "imp-states cluster ap gp ne err em window overlap seed nthreads"
    )
    for name in beagle.split():
        assert f"`{name}=" in text, name
    minimac = (
        "-a -b -c -e -f -m -o -O -r -s -t -w --min-r2 --min-ratio --match-error --min-recom "
        "--prob-threshold --diff-threshold --sample-ids --sample-ids-file"
    )
    for name in minimac.split():
        assert f"`{name}`" in text, name
