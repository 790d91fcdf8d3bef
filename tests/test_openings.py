"""How often each command opens the VCF or BCF that it is given, and reads its header."""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest
from vcf_fixtures import bcftools, convert

from ragimpute import example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.imputation.compare import compare
from ragimpute.imputation.impute import impute
from ragimpute.io.vcf.read import records
from ragimpute.jobs.merge import merge
from ragimpute.phasing.phase import phase
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from ragimpute.target.inputs import InputFiles, TargetOptions

# The header is read once, and htslib opens the file once. Python opens it for the header, to check
# a region's blocks, which htslib does not, and twice to tell its format by its content.
ONCE = (1, 4, 1)
REGION = Region.parse("20:2200000-2300000")
watched: Counter[str] = Counter()  # openings by file name, by Python


def hook(event, arguments):
    """Count what is opened for reading; an audit hook cannot be taken away again."""
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        watched[os.fsdecode(arguments[0])] += 1


sys.addaudithook(hook)


@pytest.fixture
def openings(monkeypatch):
    """Openings of a file since the last call: for its header, by Python in all, by htslib."""
    headers: Counter[str] = Counter()
    htslib: Counter[str] = Counter()
    read_header, vcf = records.read_header, records.cyvcf2.VCF

    def counting_header(path):
        headers[str(path)] += 1
        return read_header(path)

    def counting_vcf(path, **options):
        htslib[path] += 1
        return vcf(path, **options)

    monkeypatch.setattr(records, "read_header", counting_header)
    monkeypatch.setattr(records.cyvcf2, "VCF", counting_vcf)
    watched.clear()

    def tell(path):
        return tuple(counter.pop(str(path), 0) for counter in (headers, watched, htslib))

    return tell


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    """The example's target, phased and not; with an index, and without one."""
    folder = tmp_path_factory.mktemp("targets")
    text = bcftools("view", example.path("target.vcf.gz"))
    (folder / "phased.vcf").write_text(text)
    head, rows = text[: text.index("#CHROM")], text[text.index("#CHROM") :]
    (folder / "unphased.vcf").write_text(head + rows.replace("|", "/"))
    sets = '##FORMAT=<ID=PS,Number=1,Type=Integer,Description="Phase set">\n'
    (folder / "sets.vcf").write_text(head + sets + rows.replace("|", "/"))
    for name in ("phased", "unphased", "sets"):
        convert(folder / f"{name}.vcf", ".vcf.gz")
    return folder


def test_impute(targets, panel_h5, plain_copying, openings, tmp_path):
    out = tmp_path / "x.vcf"
    options = {"model": plain_copying, "ne": 1e5, "err": 1e-3, "region": REGION}
    for name, expected in (("phased.vcf.gz", ONCE), ("unphased.vcf.gz", ONCE)):
        impute(targets / name, panel_h5, out, **options)
        assert openings(targets / name) == expected
    # Without an index the contigs that hold records are found by reading all.
    impute(targets / "phased.vcf", panel_h5, out, **options)
    assert openings(targets / "phased.vcf") == ONCE
    chosen = tmp_path / "samples.txt"
    chosen.write_text(records.read_header(targets / "phased.vcf").samples[0])
    openings(targets / "phased.vcf")
    few = TargetOptions(samples=chosen)
    impute(targets / "phased.vcf", panel_h5, out, target_options=few, **options)
    assert openings(targets / "phased.vcf") == ONCE


def test_counts_only(targets, panel_h5, openings):
    compare(InputFiles(targets / "phased.vcf.gz", panel_h5, region=REGION))
    assert openings(targets / "phased.vcf.gz") == ONCE
    compare(InputFiles(targets / "phased.vcf", panel_h5))
    assert openings(targets / "phased.vcf") == ONCE


def test_phase(targets, panel_h5, openings, tmp_path):
    for name, expected in (
        ("unphased.vcf.gz", ONCE),
        ("sets.vcf.gz", ONCE),  # phase sets are read along with the genotypes
        ("unphased.vcf", ONCE),
        ("sets.vcf", ONCE),
    ):
        phase(targets / name, panel_h5, tmp_path / "x.vcf", region=REGION)
        assert openings(targets / name) == expected


def test_prepare(targets, openings, tmp_path):
    # Python opens the file once more to see whether it is scikit-allel's HDF5, and once or, if it
    # is compressed, twice to see whether it is M3VCF.
    for name, expected in (("phased.vcf.gz", (1, 4, 1)), ("phased.vcf", (1, 4, 1))):
        prepare(targets / name, tmp_path / "p.h5", cm_per_mb=1, force=True)
        assert openings(targets / name) == expected
    panel = example.path("panel.bcf")  # its records are read without htslib
    prepare(panel, tmp_path / "p.h5", cm_per_mb=1, force=True)
    assert openings(panel) == (1, 5, 0)


def test_evaluate(imputed_example, panel_h5, openings):
    imputed, _ = imputed_example
    truth = example.path("truth.bcf")
    evaluate(truth, imputed, panel_h5)
    # One pass for dosages, and one for the phase at typed sites; each checks the region's blocks.
    assert openings(imputed) == (1, 3, 2)
    # Before htslib reads dosages of a BCF, its records are checked, or htslib may end the process.
    assert openings(truth) == (1, 4, 1)


def test_merge(targets, panel_h5, plain_copying, openings, tmp_path):
    names = records.read_header(targets / "phased.vcf").samples
    batches = []
    for number, name in enumerate(names[:2]):
        (tmp_path / f"{number}.txt").write_text(name)
        options = TargetOptions(samples=tmp_path / f"{number}.txt")
        batches.append(tmp_path / f"{number}.vcf.gz")
        impute(
            targets / "phased.vcf.gz", panel_h5, batches[-1], model=plain_copying, ne=1e5, err=1e-3,
            region=REGION, target_options=options, fields=("GT", "DS", "HDS"),
        )  # fmt: skip
    openings(batches[0])  # those of what wrote it
    merge(batches, tmp_path / "all.vcf.gz")
    assert openings(batches[0])[0] == 1
