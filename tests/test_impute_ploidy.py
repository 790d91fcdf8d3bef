"""chrX from end to end: PAR and the rest in one file, however males are written."""

from __future__ import annotations

import numpy as np
import pytest
from panel_fixtures import names
from slow_copying import mosaic_panel
from vcf_fixtures import read_imputed, write_genotypes

from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import OutputOptions
from ragimpute.panel.ploidy import PAR_BUILDS, par_regions
from ragimpute.phasing.phase import phase
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions
from ragimpute.target.ploidy import _Calls, _fitting_regions

# 120 sites each in PAR1, outside and in PAR2 of build 37; every third is typed.
POSITION = np.concatenate([
    2_600_000 + 500 * np.arange(120), 2_800_000 + 500 * np.arange(240),
    154_940_000 + 500 * np.arange(120),
])  # fmt: skip
OUTSIDE = np.arange(120, 360)
TYPED = np.arange(1, 480, 3)
KEYS = [(int(p), "A", "G") for p in POSITION]
MALES = [0, 2]  # of the targets; of the panel all samples of even number
FIXED = {"ne": 3e3, "err": 1e-3, "fields": ("GT", "DS", "GP", "HDS", "AP")}
LENGTHS = {"b37": PAR_BUILDS["b37"][0]}


def write(path, alleles, samples, males, how, rows=slice(None)):
    """A VCF in which males are "haploid" outside the PAR, or "doubled"."""
    made = alleles.copy()
    block = np.ix_(OUTSIDE, males)
    made[..., 1][block] = -2 if how == "haploid" else made[..., 0][block]
    index = np.arange(480)[rows]
    write_genotypes(path, [KEYS[i] for i in index], made[index], samples, contig="X")
    text = path.read_text().replace("##contig=<ID=X>", f"##contig=<ID=X,length={LENGTHS['b37']}>")
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Alleles of 40 panel samples and 4 targets (480, 44, 2), and the folder of two panels."""
    folder = tmp_path_factory.mktemp("chrx")
    alleles = mosaic_panel(np.random.default_rng(5), 480, 88, num_founders=8, switches=0.01)
    alleles = alleles.reshape(480, 44, 2).astype(np.int8)
    for how in ("haploid", "doubled"):
        source = write(folder / f"{how}.vcf", alleles[:, :40], names(40), range(0, 40, 2), how)
        prepare(source, folder / f"{how}.h5", cm_per_mb=1)
    return alleles, folder


@pytest.fixture
def run(made, plain_copying, tmp_path):
    """Imputes the four targets."""
    alleles, folder = made

    def one(how="haploid", panel="haploid", rows=TYPED, alleles=alleles, **options):
        target = write(tmp_path / "t.vcf", alleles[:, 40:], list("abcd"), MALES, how, rows)
        out = tmp_path / "x.vcf"
        impute(target, folder / f"{panel}.h5", out, model=plain_copying, **FIXED, **options)
        return read_imputed(out)

    return one


def test_design7_2_output_ploidy_is_that_of_the_input(made, run):
    alleles, _ = made
    found = run()
    assert found.keys == KEYS
    haploid = found.genotypes[:, :, 1] == -2
    expected = np.zeros((480, 4), bool)
    expected[np.ix_(OUTSIDE, MALES)] = True
    np.testing.assert_array_equal(haploid, expected)
    typed = alleles[TYPED, 40:].copy()
    typed[..., 1][expected[TYPED]] = -2
    np.testing.assert_array_equal(found.genotypes[TYPED], typed)
    for name in ("HDS", "AP2"):
        np.testing.assert_array_equal(np.isnan(found.values[name][:, :, -1]), expected)
    assert (np.isnan(found.values["GP"][:, :, 2]) == expected).all()
    assert (found.dosage[expected] <= 1).all()
    truth = np.where(expected[:, :, None] & [False, True], -2, alleles[:, 40:])
    assert (found.genotypes == truth).mean() > 0.97


def test_peers_70_info_counts_haplotypes(run):
    found = run()
    hds = found.values["HDS"].reshape(480, -1)
    there = ~np.isnan(hds)
    assert there.sum(axis=1)[[0, 200, 479]].tolist() == [8, 6, 8]
    af = np.nansum(hds, axis=1) / there.sum(axis=1)
    np.testing.assert_allclose(found.info["AF"], af, atol=6e-4)
    between = np.nansum((hds - af[:, None]) ** 2, axis=1) / there.sum(axis=1)
    dr2 = between / np.maximum(af * (1 - af), 1e-9)
    common = (af > 0.1) & (af < 0.9)
    np.testing.assert_allclose(found.info["DR2"][common], dr2[common], atol=5e-3)
    assert ((found.info["DR2"] >= 0) & (found.info["DR2"] <= 1)).all()


def test_peers_16_panel_males_count_once(run):
    once, twice = run(panel="haploid"), run(panel="doubled")
    for name, values in once.values.items():
        np.testing.assert_array_equal(twice.values[name], values)


def test_males_written_as_diploid_stay_so(run):
    once, twice = run("haploid"), run("doubled")
    assert (twice.genotypes >= 0).all()
    both = twice.values["HDS"][np.ix_(OUTSIDE, MALES)]
    np.testing.assert_array_equal(both[..., 0], both[..., 1])
    # A haploid sample is half of a homozygous diploid one.
    single = once.values["HDS"][np.ix_(OUTSIDE, MALES)][..., 0]
    np.testing.assert_allclose(both[..., 0], single, atol=1e-3)
    np.testing.assert_allclose(twice.dosage[np.ix_(OUTSIDE, MALES)], 2 * single, atol=2e-3)


def test_peers_15_25_the_parts_of_x_are_imputed_apart(run):
    whole = run()
    for region, rows in (
        ("X:2600000-2699520", slice(0, 120)), ("X:2699521-154931043", slice(120, 360)),
        ("X:154931044-155260560", slice(360, 480)),
    ):  # fmt: skip
        part = run(region=Region.parse(region))
        assert part.keys == KEYS[rows]
        for name, values in whole.values.items():
            expected = values[rows][:, :, : part.values[name].shape[2]]
            np.testing.assert_array_equal(part.values[name], expected)


def test_an_array_fit_holds_the_parts_of_x_apart(run, tmp_path):
    index = tmp_path / "x.index"
    first, again = run(array_fit=index), run(array_fit=index)
    files = [path.name for path in index.rglob("window_*")]
    assert len({name.split("_")[1] for name in files}) == len(files) == 3
    with_index = run(index=index)
    for name, values in run().values.items():
        np.testing.assert_array_equal(first.values[name], values)
        np.testing.assert_array_equal(again.values[name], values)
        np.testing.assert_array_equal(with_index.values[name], values)


def test_males_missing_genotypes_say_nothing_of_ploidy(made, run):
    alleles = made[0].copy()
    alleles[TYPED[::2], 40] = -1
    found = run(alleles=alleles)
    haploid = np.flatnonzero(found.genotypes[:, 0, 1] == -2)
    np.testing.assert_array_equal(haploid, OUTSIDE)


def test_the_border_lies_where_the_par_ends(made, run):
    # Typed sites are far from the border: it is the PAR that tells where ploidy changes.
    rows = np.concatenate([TYPED[TYPED < 90], TYPED[(TYPED > 160) & (TYPED < 300)],
                           TYPED[TYPED > 400]])  # fmt: skip
    found = run(rows=rows)
    np.testing.assert_array_equal(np.flatnonzero(found.genotypes[:, 0, 1] == -2), OUTSIDE)


@pytest.mark.parametrize("par", ["none", "X:1-2720000"])
def test_a_par_of_ones_own(made, plain_copying, tmp_path, par):
    alleles, _ = made
    # A panel that is diploid throughout, so that nothing but --par tells.
    source = write(tmp_path / "p.vcf", alleles[:, 40:], list("wxyz"), [], "haploid")
    rows = np.concatenate([TYPED[TYPED < 90], TYPED[(TYPED > 200) & (TYPED < 300)]])
    target = write(tmp_path / "t.vcf", alleles[:, :2], ["a", "b"], [0], "haploid", rows)
    impute(
        target, source, tmp_path / "x.vcf", cm_per_mb=1, model=plain_copying, **FIXED,
        target_options=TargetOptions(par=par), region=Region.parse("X:2600000-2950000"),
    )  # fmt: skip
    found = read_imputed(tmp_path / "x.vcf")
    haploid = np.array(found.keys, object)[found.genotypes[:, 0, 1] == -2][:, 0]
    # Without a border it is the first haploid record that begins the haploid part.
    assert haploid[0] == (POSITION[rows[rows > 200][0]] if par == "none" else 2_800_000)


def test_peers_5_all_outputs_have_one_ploidy(made, plain_copying, tmp_path):
    alleles, folder = made
    target = write(tmp_path / "t.vcf", alleles[:, 40:], list("abcd"), MALES, "haploid", TYPED)
    files = OutputOptions(empirical=tmp_path / "e.vcf")
    impute(
        target, folder / "haploid.h5", tmp_path / "x.vcf", model=plain_copying, **FIXED,
        output_options=files,
    )  # fmt: skip
    main = read_imputed(tmp_path / "x.vcf")
    rows = [line.split("\t") for line in (tmp_path / "e.vcf").read_text().splitlines()
            if line[0] != "#"]  # fmt: skip
    assert len(rows) == len(TYPED)
    for row, site in zip(rows, TYPED, strict=True):
        for sample, cell in enumerate(row[9:]):
            genotype, dosages = cell.split(":")
            haploid = main.genotypes[site, sample, 1] == -2
            assert len(genotype.split("|")) == len(dosages.split(",")) == (1 if haploid else 2)


def test_haploid_and_diploid_record_by_record(made, run):
    alleles = made[0].copy()
    alleles[TYPED[TYPED < 100][::2], 41, 1] = -2
    found = run(alleles=alleles)
    np.testing.assert_array_equal(found.genotypes[TYPED[:30], 1], alleles[TYPED[:30], 41])
    assert (found.genotypes[:, :, 0] >= 0).all()


def told_of(made, tmp_path, alleles, males, how, *, declared=True, **options):
    """Warnings of imputing targets with these genotypes, against a panel of haploid males."""
    _, folder = made
    target = write(tmp_path / "t.vcf", alleles, list("abcd"), males, how, TYPED)
    panel = folder / "haploid.h5"
    if not declared:
        for path in (target, source := tmp_path / "p.vcf"):
            text = (folder / "haploid.vcf").read_text() if path == source else path.read_text()
            path.write_text(text.replace(f",length={LENGTHS['b37']}", ""))
        panel = tmp_path / "p.h5"
        prepare(source, panel, cm_per_mb=1, force=True)
    (tmp_path / "o.vcf").unlink(missing_ok=True)
    done = phase(target, panel, tmp_path / "o.vcf", **options)
    return done.warnings


@pytest.mark.parametrize("declared", [True, False])
def test_issue20_17_a_male_with_some_heterozygotes_is_named(made, tmp_path, declared):
    alleles = made[0][:, 40:].copy()
    wrong = TYPED[(TYPED >= 120) & (TYPED < 360)][::30]
    alleles[OUTSIDE, 0, 1] = alleles[OUTSIDE, 0, 0]
    alleles[wrong, 0, 1] = 1 - alleles[wrong, 0, 0]  # "a" is written as diploid, with errors
    given = alleles.copy()
    told = told_of(made, tmp_path, alleles, [2], "haploid", declared=declared)
    found = [line for line in told if "too few heterozygotes on X" in line]
    assert len(found) == 1
    assert found[0].startswith("1 samples have")
    # Where neither file says of which build it is, the ploidy of "c" does.
    assert f"(a: {len(wrong)} where " in found[0]
    assert not any("haploid and diploid" in line for line in told)
    read = read_imputed(tmp_path / "o.vcf")
    np.testing.assert_array_equal(np.sort(read.genotypes[:, 0]), np.sort(given[TYPED, 0]))


def test_females_and_males_as_they_are_written_are_not_named(made, tmp_path):
    alleles = made[0][:, 40:]
    for how in ("haploid", "doubled"):
        for declared in (True, False):
            told = told_of(made, tmp_path, alleles, MALES, how, declared=declared)
            assert not any("heterozygotes" in line or "haploid" in line for line in told)
            assert not any("males" in line for line in told)


def test_regions_that_nothing_tells_are_one_line(made, tmp_path):
    alleles = made[0][:, 40:]
    told = told_of(
        made, tmp_path, alleles, MALES, "haploid", target_options=TargetOptions(par="none")
    )
    assert sum("2 samples have haploid and diploid genotypes" in line for line in told) == 1
    position = POSITION.copy()
    position[:120] += 10_000_000
    position[120:] += 20_000_000
    position[360:] = 90_000_000 + 500 * np.arange(120)  # of no build
    calls = _Calls.of(write_like(alleles))
    assert _fitting_regions("X", POSITION, calls) == par_regions("X", LENGTHS["b37"], None)
    assert _fitting_regions("X", np.sort(position), calls) == []
    assert calls.in_long_runs().all()


def write_like(alleles):
    """Alleles with haploid males."""
    made = alleles.copy()
    made[..., 1][np.ix_(OUTSIDE, MALES)] = -2
    return made
