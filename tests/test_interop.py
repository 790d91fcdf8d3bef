"""bcftools and plink2 read imputed files as they are, without a warning, and see what we wrote."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from vcf_fixtures import view
from vcf_tools import bcftools, run_bcftools

from ragimpute import example
from ragimpute.io.vcf.read.genotypes import read_dosages
from ragimpute.jobs.split import make_plan
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare

# Figures have three decimals in the file, plink2 stores dosages as multiples of 1 / 16,384.
_ROUNDING = 0.0011


def call(*words, cwd=None):
    """Run a program; what it says to standard output and error."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return SimpleNamespace(out=done.stdout, err=done.stderr)


def is_quiet(text):
    """Whether a program's messages hold no complaint."""
    return not any(word in text.lower() for word in ("warn", "error", "[w::", "[e::", "not found"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The example imputed by the command line, as VCF and as BCF."""
    folder = tmp_path_factory.mktemp("interop")
    panel = folder / "panel.h5"
    prepare(example.path("panel.bcf"), panel, genetic_map=example.path("chr20.b37.gmap.gz"))

    def impute(out, *options):
        call(
            sys.executable, "-m", "ragimpute", "impute", example.path("target.vcf.gz"), "--panel",
            panel, "-o", folder / out, "--format", "GT,DS,GP,HDS", "--quiet", *options,
        )  # fmt: skip
        return folder / out

    impute("out.vcf.gz")
    return SimpleNamespace(
        folder=folder, panel=panel, impute=impute, dosages=read_dosages(folder / "out.vcf.gz")
    )


@pytest.mark.needs_program("plink2")
@pytest.mark.parametrize("field", ["DS", "HDS"])
def test_plink2_imports_the_dosages(run, field):
    folder, name = run.folder, f"plink-{field}"
    made = call(
        "plink2", "--vcf", "out.vcf.gz", f"dosage={field}", "--make-pgen", "--out", name, cwd=folder
    )
    assert is_quiet(made.out + made.err), made.out + made.err
    assert "50 samples" in made.out
    # DS of every sample at every site, as plink2 keeps it.
    call(
        "plink2", "--pfile", name, "--export", "vcf", "vcf-dosage=DS-force",
        "--out", f"{name}-back", cwd=folder,
    )  # fmt: skip
    back = read_dosages(folder / f"{name}-back.vcf")
    assert back.samples == run.dosages.samples
    assert back.sites.keys() == run.dosages.sites.keys()
    assert np.abs(back.dosage - run.dosages.dosage).max() < _ROUNDING * (2 if field == "HDS" else 1)


@pytest.mark.needs_program("plink2")
def test_peers_74_plink2_filters_by_our_figures(run):
    call(
        "plink2", "--vcf", "out.vcf.gz", "dosage=DS", "--extract-if-info", "DR2 >= 0.8",
        "--write-snplist", "allow-dups", "--out", "good", cwd=run.folder,
    )  # fmt: skip
    good = (run.folder / "good.snplist").read_text().splitlines()
    assert len(good) == int((run.dosages.dr2 >= 0.8).sum())


@pytest.mark.needs_program("plink2")
def test_plink2_keeps_the_frequencies(run):
    call("plink2", "--vcf", "out.vcf.gz", "dosage=DS", "--freq", "--out", "freq", cwd=run.folder)
    rows = (run.folder / "freq.afreq").read_text().splitlines()
    column = rows[0].split("\t").index("ALT_FREQS")
    found = np.array([float(row.split("\t")[column]) for row in rows[1:]])
    assert np.abs(found - run.dosages.dosage.mean(axis=1) / 2).max() < _ROUNDING


def test_neighbours_join_naively(run):
    chunks = [chunk.region for chunk in make_plan(run.panel, chunk_cm=1.5).regions]
    assert len(chunks) > 1
    parts = [run.impute(f"part{i}.vcf.gz", "--region", c) for i, c in enumerate(chunks)]
    joined = run.folder / "joined.vcf.gz"
    done = run_bcftools("concat", "-n", "-o", joined, *parts)
    assert done.returncode == 0, done.stderr
    assert is_quiet(done.stderr), done.stderr
    bcftools("index", "--tbi", joined)
    with Panel.open(run.panel) as panel:
        assert read_dosages(joined).sites.keys() == panel.sites.keys()


def test_norm_changes_nothing(run):
    before = view(run.folder / "out.vcf.gz", "-H")
    done = run_bcftools("norm", "--no-version", "-m", "-any", run.folder / "out.vcf.gz")
    assert done.returncode == 0, done.stderr
    assert is_quiet(done.stderr), done.stderr
    assert "6127/0/0/0" in done.stderr
    assert "".join(f"{r}\n" for r in done.stdout.splitlines() if r[0] != "#") == before


@pytest.mark.needs_program("bcftools")  # pysam has none of the plugins
def test_fill_tags_agrees_with_an(run):
    filled = run.folder / "filled.bcf"
    done = call(
        "bcftools",
        "+fill-tags",
        run.folder / "out.vcf.gz",
        "-Ob",
        "-o",
        filled,
        "--",
        "-t",
        "AN,AC",
    )
    assert is_quiet(done.err), done.err
    rows = [row.split("\t") for row in bcftools("query", "-f", "%AN\t%AC\n", filled).splitlines()]
    assert {an for an, _ in rows} == {"100"}
    # Hard calls are the likelier alleles, so that AC is near the sum of dosages.
    total = run.dosages.dosage.sum(axis=1)
    counts = np.array([float(ac) for _, ac in rows])
    assert np.corrcoef(counts, total)[0, 1] > 0.999


@pytest.mark.needs_program("bcftools")
def test_peers_72_impute_info_agrees_with_our_sums(run):
    """The plugin's INFO is of genotypes, ours of haplotypes: near each other, not the same.

    Ours is PSSD / (PSSD + PVAR), the estimate that DR2 starts from.
    """
    filled = run.folder / "info.bcf"
    done = call("bcftools", "+impute-info", run.folder / "out.vcf.gz", "-Ob", "-o", filled)
    assert is_quiet(done.err), done.err
    text = bcftools("query", "-f", "%INFO/INFO\t%PSSD\t%PVAR\t%AF\n", filled)
    info, between, within, af = np.array([row.split("\t") for row in text.splitlines()], float).T
    maf = np.minimum(af, 1 - af)
    # Below 0.001 (a tenth of an allele in 100) the three decimals of GP decide: the plugin gives 1
    # where all of them round to 0.
    common = maf >= 0.001
    assert common.sum() > 4_000
    ours = between[common] / (between + within)[common]
    difference = np.abs(info[common] - ours)
    assert difference.max() < 0.015
    assert difference[maf[common] >= 0.05].max() < 0.005


def test_bcf_holds_what_the_vcf_does(run):
    run.impute("out.bcf")
    assert view(run.folder / "out.bcf", "-H") == view(run.folder / "out.vcf.gz", "-H")
    assert "number of records:\t6127" in bcftools("stats", run.folder / "out.bcf")
