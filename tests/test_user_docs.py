"""The commands that the pages for users show as ``sh`` blocks run, in order, on the example.

Without Debian's bcftools, pip's runs in its place, but for plugins; without plink2, lines that call
it are left out. What these lines would have written has tests of its own, which skip then.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vcf_tools import write_program

from ragimpute import example

DOCS = Path(__file__).resolve().parents[1] / "docs"
# What a page's commands write: by what pip brings, and by a program that it cannot bring.
MADE = {
    ("quickstart", None): ["panel.h5", "excluded.tsv", "imputed.vcf.gz.tbi", "run.html",
                           "good.vcf.gz", "accuracy.html"],
    ("quickstart", "plink2"): ["good.pgen"],
    ("downstream", None): ["kept.bcf", "typed.bcf", "untyped.bcf", "sites.tsv", "dosages.tsv"],
    ("downstream", "bcftools"): ["info.bcf"],
    ("downstream", "plink2"): ["by_ds.pgen", "by_hds.pgen", "filtered.afreq"],
    ("species", None): ["chicken.h5", "chicks.imputed.bcf"],
}  # fmt: skip
# How the lines begin that call the latter.
CALLS = {"bcftools": "bcftools +", "plink2": "plink2 "}


def commands(page):
    """The lines of a page's blocks, but for those whose program is not there."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (DOCS / f"{page}.md").read_text(), re.M | re.S)
    absent = tuple(start for name, start in CALLS.items() if not shutil.which(name))
    return [line for line in "\n".join(blocks).splitlines() if not line.startswith(absent)]


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
        (folder / "bin").mkdir()
        write_program(folder / "bin")  # the last on the path: taken where there is no other
        path = [str(Path(sys.executable).parent), os.environ["PATH"], str(folder / "bin")]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(commands(page))],
            cwd=folder, capture_output=True, text=True, check=False,
            env=os.environ | {"PATH": os.pathsep.join(path)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        known[page] = done, folder
        return known[page]

    return run


@pytest.mark.parametrize(
    ("page", "program"),
    [
        pytest.param(*key, marks=[pytest.mark.needs_program(key[1])] if key[1] else [])
        for key in MADE
    ],
)
def test_commands_run_and_write_what_the_page_says(page, program, ran):
    done, folder = ran(page)
    made = MADE[page, program]
    for name in made:
        assert (folder / name).stat().st_size > 0, name
    text = (DOCS / f"{page}.md").read_text()
    assert not [name for name in made if name.split(".")[0] not in text]
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
