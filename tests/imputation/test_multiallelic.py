"""Alleles of one record exclude each other, from the target's file to the output's."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pysam
import pytest
from multiallelic_fixtures import Records, mosaic_records
from typer.testing import CliRunner
from vcf_fixtures import read_imputed, rows_of

from ragimpute.cli.main import app
from ragimpute.imputation.arrays import Imputer
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import ImputeOptions, OutputOptions
from ragimpute.io.vcf.read.dosages import read_dosages
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.phasing.phase import phase
from ragimpute.preparation.prepare import prepare
from ragimpute.runtime.memory import plan_memory

NUM_RECORDS, NUM_PANEL, NUM_TARGETS = 90, 30, 6
FIELDS = ("GT", "DS", "GP", "HDS", "AP")


@pytest.fixture(scope="module")
def truth():
    return mosaic_records(5, NUM_RECORDS, NUM_PANEL + NUM_TARGETS)


@pytest.fixture(scope="module")
def panel(truth, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alleles")
    records = truth.of_samples(slice(NUM_PANEL))
    path = records.write(folder / "panel.vcf", records.joined())
    prepare(path, folder / "panel.h5", cm_per_mb=1.0)
    return folder / "panel.h5"


@pytest.fixture(scope="module")
def target(truth):
    """The targets at every third record."""
    return truth.of_samples(slice(NUM_PANEL, None)).take(slice(None, None, 3))


def by_record(found, values):
    """Values (M, ...) of the rows of each record (position, REF): shape (k, ...)."""
    rows = defaultdict(list)
    for i, (position, ref, _) in enumerate(found.keys):
        rows[position, ref].append(i)
    return {key: values[index] for key, index in rows.items()}


def check_exclusion(found: object) -> None:
    """No haplotype has two ALTs of a record, nor more than one in all."""
    for row in by_record(found, found.genotypes).values():
        assert ((row == 1).sum(axis=0) <= 1).all()
    if "HDS" in found.values:
        for row in by_record(found, np.rint(found.values["HDS"] * 1000)).values():
            assert (row.sum(axis=0) <= 1000).all()
        for row in by_record(found, np.rint(found.dosage * 1000)).values():
            assert (row.sum(axis=0) <= 2000).all()


def carried(found) -> dict:
    """For each record, the ALT that each haplotype carries, or ""."""
    alts = np.array([alt for _, _, alt in found.keys], object)
    return {
        key: np.where(row == 1, alts_of[:, None, None], "").sum(axis=0)
        for (key, row), alts_of in zip(
            by_record(found, found.genotypes).items(), by_record(found, alts).values(), strict=True
        )
    }


@pytest.mark.parametrize("phased", [True, False])
def test_alleles_of_one_record_exclude_each_other(panel, target, tmp_path, plain_copying, phased):
    path = target.write(tmp_path / "t.vcf", target.joined(phased=phased))
    impute(path, panel, tmp_path / "o.vcf", model=plain_copying, fields=FIELDS, window_cm=0.05)
    phase(path, panel, tmp_path / "p.vcf")
    for name in ("o.vcf", "p.vcf"):
        found = read_imputed(tmp_path / name)
        check_exclusion(found)
        seen = carried(found)
        for (position, ref, alts), row in zip(target.sites, target.alleles, strict=True):
            texts = np.array(["", *alts], object)[row]
            now = seen[position, ref]
            if phased:
                np.testing.assert_array_equal(now, texts)
            else:  # the same two alleles, in either order
                np.testing.assert_array_equal(np.sort(now, axis=1), np.sort(texts, axis=1))


@pytest.mark.parametrize("phased", [True, False])
def test_split_and_joined_targets_give_the_same_bytes(
    panel, target, tmp_path, plain_copying, phased
):
    rng = np.random.default_rng(1)
    files = {
        "joined": target.joined(phased=phased),
        "split": target.split(phased=phased, rng=rng),
    }
    made = {}
    for name, rows in files.items():
        path = target.write(tmp_path / f"{name}.vcf", rows)
        impute(path, panel, tmp_path / f"{name}.o.vcf", model=plain_copying, fields=FIELDS)
        phase(path, panel, tmp_path / f"{name}.p.vcf")
        made[name] = [(tmp_path / f"{name}.{kind}.vcf").read_bytes() for kind in "op"]
    assert made["joined"] == made["split"]


def test_what_the_target_does_not_type_is_excluded_too(panel, truth, target, tmp_path):
    """A file with one ALT of each record: haplotypes with it have no other one."""
    first = Records(
        [(p, ref, alts[:1]) for p, ref, alts in target.sites], np.where(target.alleles == 1, 1, 0)
    )
    path = first.write(tmp_path / "t.vcf", first.joined())
    impute(path, panel, tmp_path / "o.vcf", fields=FIELDS)
    found = read_imputed(tmp_path / "o.vcf")
    check_exclusion(found)
    prob = by_record(found, found.values["HDS"])
    for (position, ref, _), row in zip(first.sites, first.alleles, strict=True):
        assert (prob[position, ref].sum(axis=0)[row == 1] == 1).all()


def test_haploid_targets(panel, target, tmp_path):
    texts = [
        (p, ref, ",".join(alts), *(str(pair[0]) for pair in row))
        for (p, ref, alts), row in zip(target.sites, target.alleles.tolist(), strict=True)
    ]
    path = target.write(tmp_path / "t.vcf", texts)
    impute(path, panel, tmp_path / "o.vcf", fields=("GT", "DS"))
    found = read_imputed(tmp_path / "o.vcf")
    check_exclusion(found)
    for row in by_record(found, np.rint(found.dosage * 1000)).values():
        assert (row.sum(axis=0) <= 1000).all()


@pytest.mark.parametrize("digits", [2, 4])
@pytest.mark.parametrize("joined", [False, True])
def test_alts_do_not_exceed_one_in_any_number_of_decimals(panel, target, tmp_path, digits, joined):
    path = target.write(tmp_path / "t.vcf", target.joined())
    options = OutputOptions(digits=digits, join_multiallelics=joined)
    impute(path, panel, tmp_path / "o.vcf", fields=("GT", "HDS"), output_options=options)
    scale = 10**digits
    for row in rows_of((tmp_path / "o.vcf").read_text()):
        alts = row[4].count(",") + 1
        for cell in row[9:]:
            each = np.rint(np.array(cell.split(":")[1].split(","), float) * scale)
            assert (each.reshape(alts, 2).sum(axis=0) <= scale).all()
    if not joined:
        found = read_imputed(tmp_path / "o.vcf")
        for values in by_record(found, np.rint(found.values["HDS"] * scale)).values():
            assert (values.sum(axis=0) <= scale).all()


@pytest.fixture(scope="module")
def files(panel, target, tmp_path_factory):
    """The targets with a record that the panel lacks, and imputed split records."""
    folder = tmp_path_factory.mktemp("joined")
    lacked = (target.sites[3][0] + 1, "G", "T", *(["0|1"] * NUM_TARGETS))
    rows = sorted([*target.joined(), lacked], key=lambda row: row[0])
    path = target.write(folder / "t.vcf", rows)
    options = {"fields": FIELDS, "output_options": OutputOptions(typed_only=True)}
    impute(path, panel, folder / "split.vcf.gz", **options)
    return path, folder / "split.vcf.gz"


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
def test_records_are_joined_on_request(panel, truth, files, tmp_path, suffix):
    path, split = files
    out = tmp_path / f"joined{suffix}"
    options = OutputOptions(
        typed_only=True, sites=tmp_path / "sites.vcf", empirical=tmp_path / "e.vcf",
        join_multiallelics=True,
    )  # fmt: skip
    impute(path, panel, out, fields=FIELDS, output_options=options)
    found, expected = read_dosages(out), read_dosages(split)
    number = {key: i for i, key in enumerate(found.sites.keys())}
    order = [number[key] for key in expected.sites.keys()]
    np.testing.assert_array_equal(found.dosage[order], expected.dosage)
    records = {(r.pos, r.ref): r for r in pysam.VariantFile(str(out))}
    sites = [(r.pos, r.ref, r.alts) for r in pysam.VariantFile(str(options.sites))]
    assert sites == [(r.pos, r.ref, r.alts) for r in records.values()]
    assert all(len(r.alts) == 1 for r in pysam.VariantFile(str(options.empirical)))
    assert sum("TYPED_ONLY" in r.info for r in records.values()) == 1
    assert len(records) == len({(key[0], key[1]) for key in expected.sites.keys()})
    targets = truth.of_samples(slice(NUM_PANEL, None)).take(slice(None, None, 3))
    for (position, ref, alts), row in zip(targets.sites, targets.alleles, strict=True):
        record = records[position, ref]
        assert "TYPED" in record.info
        for sample, pair in zip(record.samples.values(), row.tolist(), strict=True):
            assert sample.alleles == tuple([ref, *alts][allele] for allele in pair)


def test_a_joined_record_is_kept_or_left_out_whole(panel, files, tmp_path):
    made = {}
    for least in (0.0, 0.9):
        options = OutputOptions(least, join_multiallelics=True)
        impute(files[0], panel, tmp_path / "o.vcf", output_options=options)
        made[least] = rows_of((tmp_path / "o.vcf").read_text())
    few = {tuple(row[:5]) for row in made[0.9]}
    assert 0 < len(few) < len(made[0.0])
    assert few < {tuple(row[:5]) for row in made[0.0]}


def test_phase_joins_too(panel, target, tmp_path):
    path = target.write(tmp_path / "t.vcf", target.joined(phased=False))
    out = tmp_path / "p.bcf"
    command = ["phase", path, "--panel", panel, "-o", out, "--join-multiallelics", "-q"]
    done = CliRunner().invoke(app, [str(word) for word in command])
    assert done.exit_code == 0, done.output
    found = read_target(out, keep_monomorphic=True)
    given = read_target(path)
    number = {key: i for i, key in enumerate(found.sites.keys())}
    order = [number[key] for key in given.sites.keys()]
    np.testing.assert_array_equal(np.sort(found.alleles[order], 2), np.sort(given.alleles, 2))
    assert found.phased.all()
    assert np.bincount(found.record[found.record >= 0]).min() > 1


def test_a_run_that_joins_can_be_resumed_only_as_such(panel):
    one = ImputeOptions.of(None, output_options=OutputOptions(join_multiallelics=True))
    assert one.of_output() != ImputeOptions().of_output()
    assert one.of_fit() == ImputeOptions().of_fit()


def test_neither_windows_nor_tiles_cut_a_record(panel, target, tmp_path, monkeypatch):
    path = target.write(tmp_path / "t.vcf", target.joined())
    out = tmp_path / "o.vcf"
    impute(path, panel, out, fields=FIELDS)
    small = replace(plan_memory(None, uses_torch=False), spool_bytes=0, tile_bytes=1)
    with Imputer(panel) as imputer:
        monkeypatch.setattr(imputer, "_memory", lambda uses_torch: small)
        pieces = list(imputer.windows(path))
    assert len(pieces) > 80
    keys = [key for piece in pieces for key in piece.sites.keys()]
    for one, two in pairwise(pieces):
        assert one.sites.position_bp[-1] < two.sites.position_bp[0]
    found = read_imputed(out)
    assert [tuple(key) for key in found.keys] == keys
    prob = np.concatenate([piece.allele_probs for piece in pieces])
    np.testing.assert_allclose(found.values["HDS"], prob, atol=5.1e-4)


def test_an_alt_that_the_panel_lacks_excludes_those_of_the_panel(panel, truth, target, tmp_path):
    typed = {site[0] for site in target.sites}
    others = truth.of_samples(slice(NUM_PANEL, None))
    position, ref, alt = next(
        (row[0], row[1], row[2]) for row in others.joined()
        if row[0] not in typed and len(row[1]) == 1 and len(row[2]) == 1
    )  # fmt: skip
    other = next(base for base in "ACGT" if base not in (ref, alt))
    row = (position, ref, other, *(["1|1", "0|1", *["0|0"] * (NUM_TARGETS - 2)]))
    path = target.write(tmp_path / "t.vcf", sorted([*target.joined(), row], key=lambda row: row[0]))
    extra = OutputOptions(typed_only=True)
    impute(path, panel, tmp_path / "o.vcf", fields=FIELDS, output_options=extra)
    found = read_imputed(tmp_path / "o.vcf")
    own = [i for i, key in enumerate(found.keys) if key[:2] == (position, ref) and key[2] != other]
    assert own
    for i in own:
        assert (found.values["HDS"][i][0] == 0).all()
        assert found.values["HDS"][i][1][1] == 0
        assert (found.genotypes[i][0] == 0).all()
        assert found.info["AF"][i] == pytest.approx(found.values["HDS"][i].mean(), abs=1e-3)
    check_exclusion(found)
