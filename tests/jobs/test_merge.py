"""Batches of samples joined: as if they had been imputed together."""

from __future__ import annotations

import re

import cyvcf2
import numpy as np
import pytest
from vcf_fixtures import bcftools, convert, read_imputed, rows_of, vcf_text, view

from ragimpute import example
from ragimpute.accuracy.dr2 import DosageSums
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import OutputOptions
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.jobs.merge import _exact_af, merge
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2300000")
SAMPLES = read_target(TARGET, region=REGION).samples
ALL = ("GT", "DS", "GP", "HDS", "AP")


def run(out, panel, samples, fields, **options):
    """Impute some samples."""
    names = out.with_suffix(".txt")
    names.write_text("\n".join(samples))
    impute(
        TARGET, panel, out, region=REGION, fields=fields, ne=1e5, err=1e-3, fine_tune=False,
        target_options=TargetOptions(samples=names), output_options=OutputOptions(**options),
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def batches(panel_h5, tmp_path_factory):
    """Three batches in both formats, and all samples at once."""
    folder = tmp_path_factory.mktemp("batches")
    cuts = [SAMPLES[:7], SAMPLES[7:8], SAMPLES[8:]]
    for suffix in (".vcf.gz", ".bcf"):
        run(folder / f"all{suffix}", panel_h5, SAMPLES, ALL)
        for i, names in enumerate(cuts):
            run(folder / f"{i}{suffix}", panel_h5, names, ALL)
    return folder


@pytest.mark.parametrize("kind", [".vcf.gz", ".bcf"])
@pytest.mark.parametrize("out", [".vcf", ".vcf.gz", ".bcf"])
def test_peers_73_merged_batches_are_those_imputed_together(batches, tmp_path, kind, out):
    path = tmp_path / f"m{out}"
    summary = merge([batches / f"{i}{kind}" for i in range(3)], path)
    merged, whole = rows_of(view(path)), rows_of(view(batches / f"all{kind}"))
    assert (summary.num_files, summary.num_samples, summary.num_sites) == (3, 50, len(whole))
    assert read_imputed(path).samples == SAMPLES
    for found, expected in zip(merged, whole, strict=True):
        assert found[:7] + found[8:] == expected[:7] + expected[8:]
        # Every figure is that of the whole run, as it is rounded there; ER2 is not known.
        wanted = re.sub("ER2=[^;]*;", "", expected[7])
        for one, other in zip(found[7].split(";"), wanted.split(";"), strict=True):
            (name, *a), (same, *b) = one.split("="), other.split("=")
            assert name == same
            if a:
                assert float(a[0]) == pytest.approx(float(b[0]), rel=3e-6, abs=1.01e-4)
    bcftools("index", "--stats", path) if out != ".vcf" else None


def test_dr2_of_merged_batches_is_exact(batches, tmp_path):
    merge([batches / f"{i}.bcf" for i in range(3)], tmp_path / "m.vcf")
    found, whole = read_imputed(tmp_path / "m.vcf"), read_imputed(batches / "all.bcf")
    same = np.isclose(found.info["DR2"], whole.info["DR2"], atol=1e-9)
    assert same.mean() > 0.98  # others lie on the border of a digit
    np.testing.assert_allclose(found.info["DR2"], whole.info["DR2"], atol=1.01e-4)
    np.testing.assert_allclose(found.info["AF"], whole.info["AF"], rtol=1.1e-5)  # a digit


def test_small_batches_merge_to_the_dr2_of_one_run(panel_h5, tmp_path):
    """What the panel lets one expect counts where all samples together are few."""
    for name, samples in {"a": SAMPLES[:1], "b": SAMPLES[1:4], "both": SAMPLES[:4]}.items():
        run(tmp_path / f"{name}.bcf", panel_h5, samples, ("GT",))
    summary = merge([tmp_path / "a.bcf", tmp_path / "b.bcf"], tmp_path / "m.vcf", min_r2=1e-9)
    assert any("--min-r2 with 4 samples" in line for line in summary.warnings)
    found, whole = read_imputed(tmp_path / "m.vcf"), read_imputed(tmp_path / "both.bcf")
    dr2 = dict(zip(whole.keys, whole.info["DR2"], strict=True))
    expected = [dr2[key] for key in found.keys]
    np.testing.assert_allclose(found.info["DR2"], expected, atol=2.01e-4)


def test_frequencies_near_one_keep_their_digits():
    assert _exact_af(0.999328, 0.000671984) == 1 - 0.000671984
    assert _exact_af(0.999328, 0.4) == 0.999328  # another tool's count of another thing
    assert _exact_af(0.999328, None) == 0.999328
    assert _exact_af(0.000671984, 0.000671984) == 0.000671984


def variance_ratio(p):
    """var(p) / (mean p (1 - mean p)) of each row without its NaN; 0 where p does not vary."""
    mean = np.nanmean(p, axis=1)
    expected = mean * (1 - mean)
    return np.divide(np.nanvar(p, axis=1), expected, out=np.zeros(len(p)), where=expected > 0)


def test_sums_add_up():
    rng = np.random.default_rng(0)
    p = rng.beta(0.1, 1.0, (40, 30))
    p[3] = 0
    p[rng.random(p.shape) < 0.1] = np.nan
    whole = DosageSums.of(p)
    parts = [DosageSums.of(part) for part in np.split(p, [1, 12], axis=1)]
    joined = parts[0].merged(parts[1]).merged(parts[2])
    for name in ("num", "af", "between", "within"):
        np.testing.assert_allclose(getattr(joined, name), getattr(whole, name), atol=1e-12)
    np.testing.assert_allclose(whole.estimated_r2, variance_ratio(p), atol=1e-6)
    empty = DosageSums.of(np.zeros((2, 0)))
    assert empty.estimated_r2.tolist() == empty.af.tolist() == [0, 0]
    np.testing.assert_allclose(empty.merged(DosageSums.of(p[:2])).af, whole.af[:2])


def test_files_without_sums_are_read_by_haplotype(batches, tmp_path):
    """Those of other tools, and of mixed ploidy."""
    infos = '##INFO=<ID=IMP,Number=0,Type=Flag,Description="x">\n'
    formats = "".join(
        f'##FORMAT=<ID={name},Number={n},Type={kind},Description="x">\n'
        for name, n, kind in (("GT", 1, "String"), ("DS", "A", "Float"), ("HDS", ".", "Float"))
    )
    options = {"infos": infos, "formats": formats, "keys": "GT:DS:HDS"}
    one, two = tmp_path / "1.vcf", tmp_path / "2.vcf"
    one.write_text(vcf_text([(10, "A", "G", "0|1:1.1:0.2,0.9", "1:0.8:0.8")], **options))
    two.write_text(vcf_text([(10, "A", "G", "0:0.1:0.1")], ["c"], **options))
    p = np.array([[0.2, 0.9, 0.8, 0.1]])
    for suffix in (".vcf", ".bcf"):
        merge([one, two], tmp_path / f"m{suffix}")
        (row,) = rows_of(view(tmp_path / f"m{suffix}"))
        assert row[8:] == ["GT:DS:HDS", "0|1:1.1:0.2,0.9", "1:0.8:0.8", "0:0.1:0.1"]
        found = next(iter(cyvcf2.VCF(str(tmp_path / f"m{suffix}"))))
        assert found.INFO["AN"] == 4
        assert found.INFO["AF"] == pytest.approx(0.5)
        assert found.INFO["DR2"] == pytest.approx(variance_ratio(p)[0], abs=1e-4)


def test_min_r2_of_all_samples_together(batches, tmp_path):
    whole = read_imputed(batches / "all.bcf")
    summary = merge([batches / f"{i}.bcf" for i in range(3)], tmp_path / "m.bcf", min_r2=0.6)
    found = read_imputed(tmp_path / "m.bcf")
    keep = whole.typed | (whole.info["DR2"] >= 0.6)
    sure = np.abs(whole.info["DR2"] - 0.6) > 2e-4
    assert {k for k, kept in zip(whole.keys, keep & sure, strict=True) if kept} <= set(found.keys)
    assert summary.num_low_r2 == len(whole.keys) - len(found.keys) > 0
    assert "of low DR2" in dict(summary.rows())["sites"]


def test_a_site_is_typed_where_all_batches_have_it_typed(batches, tmp_path):
    typed = read_imputed(batches / "0.bcf")
    first, *rest = np.flatnonzero(typed.typed).tolist()
    position = typed.keys[first][0]
    text = view(batches / "1.bcf").splitlines()
    at = next(i for i, row in enumerate(text) if row.startswith(f"20\t{position}\t"))
    assert "TYPED" in text[at]
    text[at] = text[at].replace("TYPED", "IMP")
    (tmp_path / "1.vcf").write_text("\n".join(text) + "\n")
    merge([batches / "0.bcf", tmp_path / "1.vcf"], tmp_path / "m.vcf")
    assert np.flatnonzero(read_imputed(tmp_path / "m.vcf").typed).tolist() == rest


def test_what_cannot_be_merged(batches, panel_h5, tmp_path):
    first, second = batches / "0.bcf", batches / "1.bcf"
    other = run(tmp_path / "f.bcf", panel_h5, SAMPLES[7:8], ("GT", "DS"))
    few = run(tmp_path / "r.bcf", panel_h5, SAMPLES[7:8], ALL, min_r2=0.9)
    bare = tmp_path / "bare.vcf"
    bare.write_text(vcf_text([(10, "A", "G", "0|1:1", "1|1:2")], keys="GT:DS"))
    more = tmp_path / "more.vcf"
    more.write_text(vcf_text([(10, "A", "G", "0|1:1", "1|1:2")], "cd", keys="GT:DS"))
    out = tmp_path / "m.bcf"
    for paths, message in (
        ([first], "two files or more"),
        ([first, first], f"sample {SAMPLES[0]} is in"),
        ([first, other], "has the fields GT,DS, but"),
        ([first, few], "the sites of .* differ: where the one has 20:"),
        ([bare, more], "neither INFO/AN"),
        ([first, tmp_path / "none.vcf"], "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            merge(paths, out)
    with pytest.raises(InputError, match="also the input"):
        merge([first, second], second)
    assert not out.exists()


def test_by_the_command_line(command_line, batches, tmp_path):
    out = tmp_path / "m.vcf.gz"
    code, shown, err = command_line("merge", batches / "0.bcf", batches / "1.bcf", "-o", out)
    assert (code, err) == (0, "")
    assert "samples" in shown
    header = bcftools("view", "-h", out)
    assert (
        f"##ragimpute_command=ragimpute merge {batches / '0.bcf'} {batches / '1.bcf'}\n" in header
    )
    code, shown, err = command_line("merge", batches / "0.bcf", "-o", out)
    assert code == 1
    assert "two files or more" in err


def test_text_that_is_none(batches, tmp_path):
    """It is copied as text, where the output is a VCF."""
    rows = view(batches / "0.bcf").splitlines()
    first = next(i for i, row in enumerate(rows) if not row.startswith("#"))
    cells = rows[first].encode().split(b"\t")
    cells[2] = b"\xff"
    spoilt = tmp_path / "spoilt.vcf"
    lines = [row.encode() for row in rows]
    lines[first] = b"\t".join(cells)
    spoilt.write_bytes(b"\n".join(lines) + b"\n")
    out = tmp_path / "m.vcf"
    with pytest.raises(InputError, match=r"20:\d+ has fields that are not text"):
        merge([spoilt, batches / "1.bcf"], out)
    assert not out.exists()


def with_haplotypes(path, samples, contigs):
    """A small imputed VCF, with haplotypes' dosages and records on several contigs."""
    declared = "".join(
        f'##FORMAT=<ID={name},Number={number},Type={kind},Description=".">\n'
        for name, number, kind in (("GT", 1, "String"), ("HDS", ".", "Float"))
    )
    rows = [(c, p, "A", "G", *["0|1:0.1,0.9"] * len(samples)) for c in contigs for p in (10, 20)]
    path.write_text(vcf_text(rows, samples, contigs=contigs, formats=declared, keys="GT:HDS"))
    return path


def test_contigs_are_merged_with_and_without_an_index(tmp_path):
    names = ("20", "chr20", "X")
    first = with_haplotypes(tmp_path / "a.vcf", ["s1", "s2"], names)
    second = with_haplotypes(tmp_path / "b.vcf", ["s3"], names)
    found = []
    for kind in (lambda path: path, lambda path: convert(path, ".vcf.gz")):
        out = tmp_path / "out.vcf"
        assert merge([kind(first), kind(second)], out).num_sites == 6
        found.append(out.read_bytes())
    assert found[0] == found[1]


def test_contigs_that_one_file_lacks_are_not_dropped(tmp_path):
    first = with_haplotypes(tmp_path / "a.vcf", ["s1"], ("20",))
    second = with_haplotypes(tmp_path / "b.vcf", ["s2"], ("20", "21"))
    with pytest.raises(InputError, match=r"has records on 20, 21, but .* on 20"):
        merge([first, second], tmp_path / "out.vcf")
    assert not (tmp_path / "out.vcf").exists()


@pytest.mark.parametrize("digits", [2, 4])
@pytest.mark.parametrize("kinds", [(".vcf.gz", ".bcf"), (".bcf", ".vcf.gz"), (".bcf", ".bcf")])
def test_decimals_are_kept_and_do_not_change_the_sums(batches, panel_h5, tmp_path, digits, kinds):
    kind, out = kinds
    cuts = [SAMPLES[:7], SAMPLES[7:]]
    for i, names in enumerate(cuts):
        run(tmp_path / f"{i}{kind}", panel_h5, names, ALL, digits=digits)
    whole = run(tmp_path / f"all{kind}", panel_h5, SAMPLES, ALL, digits=digits)
    path = tmp_path / f"m{out}"
    merge([tmp_path / f"{i}{kind}" for i in range(2)], path)
    merged, expected = rows_of(view(path)), rows_of(view(whole))
    assert [row[8:] for row in merged] == [row[8:] for row in expected]
    found, usual = read_imputed(path), read_imputed(batches / "all.bcf")
    np.testing.assert_allclose(found.info["DR2"], usual.info["DR2"], atol=1.01e-4)
    np.testing.assert_allclose(found.info["AF"], usual.info["AF"], rtol=0, atol=2e-6)
