"""Files beside the imputed one, and what is left out of it or added."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

import cyvcf2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imputed_blocks import blocks as given_blocks
from imputed_blocks import make_block
from imputed_blocks import write as write_block
from vcf_fixtures import bcftools, read_imputed, rows_of, view, write_genotypes

from ragimpute import example
from ragimpute.accuracy.dr2 import DosageSums
from ragimpute.accuracy.leave_one_out import correlation
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import OutputOptions
from ragimpute.imputation.outputs import without_calls
from ragimpute.io.vcf.header import Heading
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.write.writer import VcfWriter
from ragimpute.jobs.merge import merge
from ragimpute.model.folder import open_folder
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2300000")
FIXED = {"ne": 1e5, "err": 1e-3, "fine_tune": False, "region": REGION,
         "fields": ("GT", "DS", "HDS")}  # fmt: skip


def run(out, panel, target=TARGET, *, taken=TargetOptions(), model="default", **options):
    """Impute with some output options."""
    return impute(
        target, panel, out, model=model, target_options=taken,
        output_options=OutputOptions(**options), **FIXED,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(panel_h5, tmp_path_factory):
    """A folder with all files of a run."""
    folder = tmp_path_factory.mktemp("output")
    run(folder / "x.vcf.gz", panel_h5, sites=folder / "s.vcf.gz", empirical=folder / "e.bcf")
    return folder


def columns(path, first, last):
    """Columns of a file's records."""
    return [row[first:last] for row in rows_of(view(path))]


def test_peers_44_sites_alone_are_those_of_the_output(done):
    assert columns(done / "s.vcf.gz", 0, 8) == columns(done / "x.vcf.gz", 0, 8)
    assert len(columns(done / "s.vcf.gz", 0, 9)[0]) == 8
    assert (done / "s.vcf.gz.tbi").exists()


def left_out_dosages(path):
    """Keys, GT (m, N, 2), LDS (m, N, 2) and ER2 (m,)."""
    records = list(cyvcf2.VCF(str(path)))
    return (
        [(r.POS, r.REF, r.ALT[0]) for r in records],
        np.stack([r.genotype.array()[:, :2] for r in records]),
        np.stack([r.format("LDS") for r in records]),
        np.array([r.INFO.get("ER2", np.nan) for r in records]),
    )


def test_left_out_dosages_are_those_of_a_run_without_the_site(
    done, panel_h5, plain_copying, tmp_path
):
    out = tmp_path / "e.vcf"
    run(tmp_path / "x.vcf", panel_h5, empirical=out, model=str(plain_copying))
    keys, observed, left_out, _ = left_out_dosages(out)
    given = read_target(TARGET)
    known = {key: i for i, key in enumerate(given.sites.keys())}
    assert keys == [k for k in known if REGION.start_bp <= k[0] < REGION.stop_bp]
    np.testing.assert_array_equal(observed, given.alleles[[known[k] for k in keys]])
    for at in (3, len(keys) // 2, len(keys) - 1):
        hidden = np.delete(np.arange(len(given.sites)), known[keys[at]])
        target = write_genotypes(
            tmp_path / "t.vcf", given.sites.take(hidden).keys(), given.alleles[hidden],
            given.samples,
        )  # fmt: skip
        run(tmp_path / "y.vcf", panel_h5, target, model=str(plain_copying))
        found = read_imputed(tmp_path / "y.vcf")
        np.testing.assert_allclose(
            left_out[at], found.values["HDS"][found.keys.index(keys[at])], atol=2e-3
        )


def test_empirical_r2_is_the_squared_correlation(done):
    keys, observed, left_out, er2 = left_out_dosages(done / "e.bcf")
    flat = (left_out.reshape(len(keys), -1), observed.reshape(len(keys), -1))
    expected = correlation(*flat) ** 2
    np.testing.assert_array_equal(np.isnan(er2), np.isnan(expected))
    np.testing.assert_allclose(er2, expected, atol=5e-3)  # of dosages as they are rounded
    assert np.nanmean(er2) > 0.8
    main = {row[1]: row[7] for row in rows_of(view(done / "x.vcf.gz"))}
    assert all(
        ("ER2=" in main[str(key[0])]) == (r2 == r2) for key, r2 in zip(keys, er2, strict=True)
    )


def test_sums_in_info_give_af_and_dr2(done):
    found = read_imputed(done / "x.vcf.gz")
    sums = DosageSums.of(found.values["HDS"].reshape(len(found.keys), -1))
    info = {
        name: np.array([r.INFO.get(name) for r in cyvcf2.VCF(str(done / "x.vcf.gz"))], float)
        for name in ("AN", "PSSD", "PVAR", "DR2", "AF", "PADJ")
    }
    assert (info["AN"] == 100).all()
    np.testing.assert_allclose(info["PSSD"], sums.between, atol=0.03)
    np.testing.assert_allclose(info["PVAR"], sums.within, atol=0.03)
    total = info["PSSD"] + info["PVAR"]
    known = total > 1e-3
    assert 0 < (known & found.typed).sum() < known.sum()
    calibration = open_folder("default").dr2
    estimate = np.divide(info["PSSD"], total, out=np.zeros_like(total), where=known)
    mean = info["AF"]
    expected = calibration.apply(
        estimate, 100 * np.minimum(mean, 1 - mean), np.full(len(mean), 100), info["PADJ"]
    )
    expected = np.where(found.typed, estimate, expected)
    np.testing.assert_allclose(info["DR2"][known], expected[known], atol=0.01)


def test_min_r2_leaves_out_untyped_sites(done, panel_h5, tmp_path):
    whole = read_imputed(done / "x.vcf.gz")
    summary = run(
        tmp_path / "x.vcf", panel_h5, min_r2=0.5, sites=tmp_path / "s.vcf",
        empirical=tmp_path / "e.vcf",
    )  # fmt: skip
    some = read_imputed(tmp_path / "x.vcf")
    keep = whole.typed | (whole.info["DR2"] >= 0.5)
    assert 0 < keep.sum() < len(keep)
    assert some.keys == [key for key, kept in zip(whole.keys, keep, strict=True) if kept]
    assert summary.counts["below_min_r2"] == (~keep).sum()
    assert dict(summary.rows())["written"].startswith(f"{keep.sum():,}: {(~keep).sum():,} of low")
    assert columns(tmp_path / "s.vcf", 0, 8) == columns(tmp_path / "x.vcf", 0, 8)
    assert columns(tmp_path / "e.vcf", 0, 99) == columns(done / "e.bcf", 0, 99)


def test_peers_7_records_that_the_panel_lacks_are_kept_and_flagged(done, panel_h5, tmp_path):
    given = read_target(TARGET)
    whole = read_imputed(done / "x.vcf.gz")
    inside = [k for k in given.sites.keys() if REGION.start_bp <= k[0] < REGION.stop_bp]
    extra = [(REGION.start_bp + 5, "A", "C"), (inside[4][0], "GATTACA", "G"),
             (REGION.stop_bp - 1, "T", "G"), (REGION.stop_bp + 10, "T", "G")]  # fmt: skip
    rng = np.random.default_rng(0)
    calls = rng.integers(0, 2, (4, 50, 2)).astype(np.int8)
    calls[0, :5] = -1
    calls[1, 7, 1] = -2
    rows = sorted([*zip(given.sites.keys(), given.alleles, strict=True),
                   *zip(extra, calls, strict=True)], key=lambda row: row[0][0])  # fmt: skip
    target = write_genotypes(
        tmp_path / "t.vcf", [row[0] for row in rows], [row[1] for row in rows], given.samples
    )
    for suffix in (".vcf.gz", ".bcf"):
        summary = run(tmp_path / f"x{suffix}", panel_h5, target, typed_only=True)
        assert summary.counts["typed_only"] == 3
        records = list(cyvcf2.VCF(str(tmp_path / f"x{suffix}")))
        found = {
            (r.POS, r.REF, r.ALT[0]): r for r in records if r.INFO.get("TYPED_ONLY") is not None
        }
        assert list(found) == sorted(extra[:3])
        assert [r.POS for r in records] == sorted(r.POS for r in records)
        assert len(records) == len(whole.keys) + 3
        first = found[extra[0]]
        af = calls[0, 5:].mean()
        np.testing.assert_allclose(first.format("DS")[:5, 0], 2 * af, atol=2e-3)
        np.testing.assert_array_equal(first.genotype.array()[5:, :2], calls[0, 5:])
        np.testing.assert_allclose(first.format("DS")[5:, 0], calls[0, 5:].sum(axis=1))
        assert first.INFO["AF"] == pytest.approx(af, abs=1e-5)
        assert first.INFO.get("DR2") is None
        assert found[extra[1]].INFO["AN"] == 99
        assert found[extra[1]].genotype.array()[7, 1] == -2
        others = [r for r in records if r.INFO.get("TYPED_ONLY") is None]
        np.testing.assert_array_equal(
            np.stack([r.format("DS")[:, 0] for r in others]), whole.dosage
        )
    bcftools("index", "-f", tmp_path / "x.bcf")


def test_samples_are_chosen_and_left_out(done, panel_h5, tmp_path):
    whole = read_imputed(done / "x.vcf.gz")
    chosen, gone = whole.samples[10:20], whole.samples[12:14]
    (tmp_path / "yes.txt").write_text("".join(f"{x}\tF\n" for x in reversed(chosen)))
    (tmp_path / "no.txt").write_text("\n".join(gone) + "\n\n")
    taken = TargetOptions(tmp_path / "yes.txt", tmp_path / "no.txt")
    run(tmp_path / "x.vcf", panel_h5, taken=taken)
    some = read_imputed(tmp_path / "x.vcf")
    assert some.samples == [x for x in chosen if x not in gone]  # in the order of the target
    index = [whole.samples.index(x) for x in some.samples]
    np.testing.assert_array_equal(some.values["HDS"], whole.values["HDS"][:, index])
    for name, text, message in (
        ("yes.txt", "nobody\n", "lacks 1 samples of the list .*: nobody"),
        ("yes.txt", "\n", "is empty"),
        ("no.txt", "\n".join(whole.samples), "leave none of the 50 samples"),
        ("no.txt", None, "cannot be read"),
    ):
        path = tmp_path / name
        path.unlink() if text is None else path.write_text(text)
        field = {"yes.txt": "samples", "no.txt": "exclude_samples"}[name]
        with pytest.raises(InputError, match=message):
            run(tmp_path / "y.vcf", panel_h5, taken=TargetOptions(**{field: path}))


def test_an_output_may_be_no_input_and_no_other_output(panel_h5, tmp_path):
    out = tmp_path / "x.vcf"
    for options, message in (
        ({"sites": out}, "imputed output"),
        ({"empirical": Path(TARGET)}, "target input"),
        ({"sites": tmp_path / "s.vcf", "empirical": tmp_path / "s.vcf"}, "sites output"),
    ):
        with pytest.raises(InputError, match=f"also the {message}"):
            run(out, panel_h5, **options)
    with pytest.raises(InputError, match="no suffix that is known"):
        run(out, panel_h5, sites=tmp_path / "s.txt")
    assert list(tmp_path.iterdir()) == []


def test_peers_6_a_failure_leaves_no_file(panel_h5, tmp_path, monkeypatch):
    from ragimpute.imputation import windows

    monkeypatch.setattr(windows, "correlation", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "x.vcf", panel_h5, sites=tmp_path / "s.bcf", empirical=tmp_path / "e.bcf")
    assert list(tmp_path.iterdir()) == []


def test_dr2_of_one_sample_is_that_of_its_panel(panel_h5, tmp_path):
    """DR2 was 0 where the one sample is homozygous, and --min-r2 .3 left all of these out."""
    samples = read_target(TARGET).samples
    found = {}
    for names in (samples[:1], samples):
        (tmp_path / "names.txt").write_text("\n".join(names))
        taken = TargetOptions(samples=tmp_path / "names.txt")
        summary = run(tmp_path / "x.vcf", panel_h5, taken=taken, min_r2=1e-9)
        assert any("--min-r2 with 1 samples" in line for line in summary.warnings) == (
            len(names) == 1
        )
        imputed = read_imputed(tmp_path / "x.vcf")
        found[len(names)] = dict(zip(imputed.keys, imputed.info["DR2"], strict=True))
        if len(names) == 1:
            assert (imputed.info["DR2"][imputed.typed] == 1).all()
            sure = np.abs(imputed.values["DS"][:, 0, 0] - 1) > 0.99
            sure &= (imputed.info["MAF"] < 0.01) & ~imputed.typed
            assert (imputed.info["DR2"][sure] >= 0.3).mean() > 0.5
    both = found[1].keys() & found[50].keys()
    alone, together = (np.mean([found[n][key] for key in both]) for n in (1, 50))
    assert abs(alone - together) < 0.15


@pytest.mark.parametrize("digits", [2, 4])
def test_decimals_change_only_how_dosages_are_written(done, panel_h5, tmp_path, digits):
    out, typed = tmp_path / "d.vcf.gz", tmp_path / "e.vcf.gz"
    run(out, panel_h5, digits=digits, compression_level=6, empirical=typed)
    assert columns(out, 0, 9) == columns(done / "x.vcf.gz", 0, 9)
    usual, found = (read_imputed(path).values for path in (done / "x.vcf.gz", out))
    for name in usual:
        unit = 10.0 ** -min(3, digits)
        np.testing.assert_allclose(found[name], usual[name], atol=unit, err_msg=name)
    for path, field in ((out, 1), (typed, 1)):
        numbers = {
            number
            for row in rows_of(view(path))
            for cell in row[9:]
            for number in cell.split(":")[field].split(",")
        }
        assert max(len(number.partition(".")[2]) for number in numbers) == digits
        assert not any(n.endswith("0") and "." in n for n in numbers)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"digits": 1}, "digits"),
        ({"digits": 5}, "digits"),
        ({"compression_level": 0}, "compression_level"),
        ({"compression_level": 13}, "compression_level"),
    ],
)
def test_decimals_and_levels_out_of_range(options, told):
    with pytest.raises(InputError, match=told):
        OutputOptions(**options)


def largest_gp(path):
    """GT as text, and the largest GP, of each record and sample; all samples are diploid."""
    shown = "[\\t%GT %GP]\\n"
    rows = [line.split("\t")[1:] for line in bcftools("query", "-f", shown, path).splitlines()]
    cells = [[cell.split(" ") for cell in row] for row in rows]
    return (
        np.array([[gt for gt, _ in row] for row in cells]),
        np.array([[max(map(float, gp.split(","))) for _, gp in row] for row in cells]),
    )


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
def test_genotypes_of_a_low_probability_are_missing(panel_h5, tmp_path, suffix):
    fixed = FIXED | {"fields": ("GT", "DS", "GP")}
    every, some = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    impute(TARGET, panel_h5, every, **fixed)
    done = impute(TARGET, panel_h5, some, output_options=OutputOptions(min_gp=0.97), **fixed)
    before, gp = largest_gp(every)
    after, same = largest_gp(some)
    np.testing.assert_array_equal(gp, same)
    low = gp < 0.97
    assert 0 < low.sum() < low.size
    np.testing.assert_array_equal(after, np.where(low, "./.", before))
    assert done.counts["below_min_gp"] == low.sum()
    assert f"{low.sum():,}" in dict(done.rows())["genotypes written as missing for their GP"]
    info, cells = slice(0, 9), (every, some)
    assert [r[info] for r in rows_of(view(cells[0]))] == [r[info] for r in rows_of(view(cells[1]))]


def test_missing_genotypes_are_alike_in_vcf_and_bcf_and_survive_a_merge(panel_h5, tmp_path):
    fixed = FIXED | {"fields": ("GT", "DS", "GP"), "output_options": OutputOptions(min_gp=0.97)}
    names = read_target(TARGET).samples
    parts = []
    for number, chosen in enumerate((names[:3], names[3:])):
        listed = tmp_path / f"{number}.txt"
        listed.write_text("\n".join(chosen))
        parts.append(tmp_path / f"{number}.bcf")
        impute(TARGET, panel_h5, parts[-1], target_options=TargetOptions(samples=listed), **fixed)
    impute(TARGET, panel_h5, tmp_path / "x.vcf", **fixed)
    merge(parts, tmp_path / "m.vcf")
    expected = [row[9:] for row in rows_of((tmp_path / "x.vcf").read_text())]
    assert any("./." in cell for row in expected for cell in row)
    assert [row[9:] for row in rows_of((tmp_path / "m.vcf").read_text())] == expected


@settings(max_examples=40, deadline=None)
@given(given_blocks(), st.sampled_from([0.5, 0.9, 0.97, 1.0]), st.sampled_from([2, 3, 4]))
def test_what_is_missing_is_what_the_written_gp_say(block, min_gp, digits):
    with TemporaryDirectory() as folder:
        limited, num = without_calls(block, min_gp, digits)
        paths = [Path(folder, name) for name in ("a.vcf", "b.vcf", "b.bcf")]
        write_block(paths[0], block, fields=("GT", "GP"), digits=digits)
        for path in paths[1:]:
            write_block(path, limited, fields=("GT", "GP"), digits=digits)
        texts = [rows_of(path.read_text()) for path in paths[:2]]
        assert view(paths[2]) == view(paths[1])
    observed = (block.called[..., 0] >= 0) & (block.called[..., 1] != -1)
    missing = 0
    for i, (before, after) in enumerate(zip(*texts, strict=True)):
        for j, (one, two) in enumerate(zip(before[9:], after[9:], strict=True)):
            (gt, gp), (new, new_gp) = one.split(":"), two.split(":")
            assert gp == new_gp
            if max(map(float, gp.split(","))) < min_gp - 1e-9 and not observed[i, j]:
                assert new == ("./." if "|" in gt else ".")
                missing += 1
            else:
                assert new == gt
    assert missing == num


def test_joined_records_are_judged_by_the_gp_of_all_their_genotypes(tmp_path):
    prob = [[[0.05, 0.05]], [[0.0, 0.06]], [[0.0, 0.0]]]
    block = make_block(prob, position=[100, 100, 200], ref=["A", "A", "A"], alt=["C", "G", "T"])
    block = dataclasses.replace(block, locus=np.array([0, 0, -1]))
    limited, num = without_calls(block, 0.9, 3)
    assert num == 1
    assert (limited.called[:2] == -3).all()
    assert (limited.called[2] == -1).all()
    _, num = without_calls(dataclasses.replace(block, locus=None), 0.9, 3)
    assert num == 0
    paths = [tmp_path / "j.vcf", tmp_path / "j.bcf"]
    heading = Heading(["s0"], [("20", 63_025_520)], joined=True)
    for path in paths:
        with VcfWriter(path, heading, fields=("GT", "GP")) as writer:
            writer.write(limited)
    assert rows_of(paths[0].read_text())[0][9].startswith("./.:")
    assert view(paths[0]) == view(paths[1])


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("x.bgen", {}, "holds probabilities"),
        ("x.pgen", {}, "holds dosages"),
        ("x.vcf", {"fields": ("DS", "GP")}, "which --format leaves out"),
    ],
)
def test_a_least_gp_needs_genotypes(tmp_path, name, options, told):
    with pytest.raises(InputError, match=told) as caught:
        impute(
            "t.vcf", "p.h5", tmp_path / name, output_options=OutputOptions(min_gp=0.9), **options
        )
    assert caught.value.hint


def test_a_least_gp_is_a_probability():
    with pytest.raises(InputError, match="min_gp"):
        OutputOptions(min_gp=90)
