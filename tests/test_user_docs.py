"""The commands that README.md and the pages for users show run, in order, on the example.

A block says the shell that runs it: ``bash`` or ``python``. ``bash not-run`` marks commands that
install, need a cluster or train for long; their syntax is checked. Without Debian's bcftools,
pip's runs in its place, but for plugins; without plink2, lines that call it are left out. What
these lines would have written has tests of its own, which skip then.
"""

from __future__ import annotations

import ast
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from vcf_fixtures import bcftools
from vcf_tools import run_bcftools, write_program

from ragimpute import example

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
# What a page's commands write: by what pip brings, and by a program that it cannot bring.
MADE = {
    ("README", None): ["panel.h5", "imputed.vcf.gz", "imputed/all.vcf.gz"],
    ("quickstart", None): ["panel.h5", "excluded.tsv", "imputed.vcf.gz.tbi", "run.html",
                           "good.vcf.gz", "accuracy.html"],
    ("quickstart", "plink2"): ["good.pgen"],
    ("downstream", None): ["dosages.pgen", "probabilities.bgen.bgi", "kept.bcf", "typed.bcf",
                           "untyped.bcf", "sites.tsv", "dosages.tsv", "score.vcf.gz", "status.tsv",
                           "score.pgen"],
    ("downstream", "bcftools"): ["info.bcf"],
    ("downstream", "plink2"): ["common.afreq", "from_bgen.afreq", "whole.pgen", "by_ds.pgen",
                               "by_hds.pgen", "filtered.afreq", "score.sscore"],
    ("species", None): ["chicken.h5", "chicks.imputed.bcf"],
    ("results", None): ["kept.bcf", "tested.vcf.gz", "weights.tsv"],
    ("results", "plink2"): ["gwas.height.glm.linear"],
    ("phasing", None): ["imputed.vcf.gz", "phased.vcf.gz"],
    ("reports", None): ["run.html", "run.json", "run_mqc.json", "accuracy.html", "genome.html"],
    ("cluster", None): ["plan.tsv", "jobs.txt", "chromosome.vcf.gz"],
}  # fmt: skip
# How the lines begin that call the latter.
CALLS = {"bcftools": "bcftools +", "plink2": "plink2 "}
# Stands in for Slurm's: runs each task of an array, one after the other.
SBATCH = """#!/usr/bin/env bash
set -euo pipefail
for word in "$@"; do case $word in --array=*) range=${word#--array=} ;; esac; done
export SLURM_CPUS_PER_TASK=2
for i in $(seq "${range%-*}" "${range#*-}"); do SLURM_ARRAY_TASK_ID=$i bash "${@: -1}"; done
"""
PAGES = sorted(page for page, program in MADE if program is None)
# Pages whose every block names its language.
TAGGED = [
    *PAGES,
    "glossary",
    "reliability",
    "kernels",
    "training",
    "coming-from",
    "cost",
    "fusions",
    "benchmarks",
    "benchmarks-20mb",
    "benchmarks-formats",
    "faq",
    "file-formats",
    "input-and-output",
    "model",
    "python",
    "workflow/README",
    "workflow/nextflow/README",
]


def read(page):
    """The text of a page."""
    of_root = page == "README" or "/" in page
    return ((ROOT if of_root else DOCS) / f"{page}.md").read_text()


def blocks_of(page):
    """Language (and what follows it) and text of every block of a page."""
    return re.findall(r"^```([^\n]*)\n(.*?)^```$", read(page), re.M | re.S)


def commands(page):
    """A script of the page's blocks, but for the lines whose program is not there."""
    script = []
    absent = tuple(start for name, start in CALLS.items() if not shutil.which(name))
    for language, text in blocks_of(page):
        if language == "bash":
            script += [line for line in text.splitlines() if not line.startswith(absent)]
        elif language == "python":
            script += ["python - <<'END OF BLOCK'", *text.splitlines(), "END OF BLOCK"]
    return "\n".join(script).replace("{1..22}", "{21..22}")


def write_chromosomes(folder):
    """Write what README.md's loop takes: panels and maps of chromosomes 21 and 22, and a target.

    Each is a stretch of the example under another name; the target has chromosome 20, too.
    """
    (folder / "panel").mkdir()
    (folder / "maps").mkdir()
    rows = gzip.decompress(example.path("chr20.b37.gmap.gz").read_bytes()).decode()
    targets = []
    for contig in ("20", "21", "22"):
        (folder / "names.txt").write_text(f"20 {contig}\n")
        for name, out in (("panel.bcf", f"panel/chr{contig}.bcf"),
                          ("target.vcf.gz", f"{contig}.vcf.gz")):  # fmt: skip
            part = folder / "part.bcf"
            bcftools("view", "-r", "20:2000000-2100000", "-Ob", "-o", part, example.path(name))
            kind = "-Ob" if out.endswith("bcf") else "-Oz"
            bcftools("annotate", "--rename-chrs", folder / "names.txt", kind, "-o", folder / out,
                     part)  # fmt: skip
        targets.append(folder / f"{contig}.vcf.gz")
        renamed = rows.replace("\t20\t", f"\t{contig}\t")
        (folder / f"maps/chr{contig}.map.gz").write_bytes(gzip.compress(renamed.encode()))
    shutil.move(folder / "panel/chr20.bcf", folder / "panel.bcf")
    run_bcftools("concat", "-Oz", "-o", folder / "target.vcf.gz", *targets)  # says what it reads
    bcftools("index", "-t", folder / "target.vcf.gz")
    shutil.copy(example.path("chr20.b37.gmap.gz"), folder)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs a page in a folder of its own, once; what it said, and the folder."""
    known = {}

    def run(page):
        if page in known:
            return known[page]
        folder = tmp_path_factory.mktemp(page)
        if page == "README":
            write_chromosomes(folder)
        elif page != "quickstart":
            first = run("quickstart")[1]
            for name in ("panel.h5", *example.NAMES):
                shutil.copy(first / name, folder)
        for name in ("first", "last"):
            (folder / name).mkdir()
        (folder / "first" / "sbatch").write_text(SBATCH)
        (folder / "first" / "sbatch").chmod(0o755)
        write_program(folder / "last")  # taken where there is no other
        path = [str(folder / "first"), str(Path(sys.executable).parent), os.environ["PATH"],
                str(folder / "last")]  # fmt: skip
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands(page)],
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
    text = read(page)
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


def test_the_score_names_what_became_of_each_variant(ran):
    *_, counts, scores = ran("results")[0].stdout.splitlines()
    counts, scores = ast.literal_eval(counts), re.findall(r"'(\w+)'", scores)
    assert counts["not in the imputed file"] == 1
    assert 10 < counts["used"] < 61
    assert sum(counts.values()) == 6_127 // 100 + 1
    assert len(scores) == 3


def test_jobs_of_a_cluster_give_all_sites_and_samples(ran):
    done, folder = ran("cluster")
    jobs = len((folder / "jobs.txt").read_text().splitlines())
    assert jobs == 6
    assert (folder / "missing.txt").read_text() == ""
    assert done.stdout.splitlines()[-1] == "6127"
    made = bcftools("query", "-l", folder / "chromosome.vcf.gz").split()
    assert made == bcftools("query", "-l", example.path("target.vcf.gz")).split()
    logs = list(folder.glob("parts/*/*.vcf.gz.log"))
    assert len(logs) == jobs
    # Submitted again, nothing is done anew.
    before = {path: path.stat().st_mtime_ns for path in folder.glob("parts/*/*.vcf.gz")}
    subprocess.run(
        ["bash", "first/sbatch", f"--array=1-{jobs}", "impute.sh"], cwd=folder, check=True
    )
    assert {path: path.stat().st_mtime_ns for path in folder.glob("parts/*/*.vcf.gz")} == before


def test_the_loop_of_the_readme_gives_all_chromosomes_and_goes_on(ran):
    _, folder = ran("README")
    rows = bcftools("query", "-f", "%CHROM\n", folder / "imputed/all.vcf.gz").split()
    assert rows == ["21"] * 745 + ["22"] * 745


@pytest.mark.parametrize("page", TAGGED)
def test_blocks_name_a_language_and_are_of_it(page):
    for language, text in blocks_of(page):
        assert language in {"bash", "bash not-run", "python", "yaml", "json", "text"}, text
        if language.startswith("bash"):
            done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True,
                                  check=False)  # fmt: skip
            assert (done.returncode, done.stderr) == (0, ""), text
            assert re.search(r"^ *(?:\S+=\S+ )?[\w#]", text, re.M), text
        elif language == "python":
            ast.parse(text)
        elif language == "json":
            json.loads(text)
        elif language == "yaml":
            assert isinstance(yaml.safe_load(text), dict)
    assert "bash" not in {language for language, _ in blocks_of(page)} or page in PAGES


def test_every_page_is_in_the_table_of_the_readme():
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", read("README")))
    assert linked == {f"docs/{path.name}" for path in DOCS.glob("*.md")}


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


def test_options_that_take_the_place_of_others_exist():
    import make_cli_docs

    from ragimpute.cli.main import app

    known = {
        name
        for one in app.registered_commands
        for item in make_cli_docs.read_parameters(one.callback)
        for name in item.names
    }
    columns = re.findall(r"^\|[^|]+\| ([^|]*--[^|]*) \|", read("coming-from"), re.M)
    options = {x for column in columns for x in re.findall(r"`(--[\w-]+)", column)}
    assert len(options) > 15
    assert options <= known, options - known
