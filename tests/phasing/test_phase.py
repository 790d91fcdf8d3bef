"""phase and impute of unphased files: what is written, kept, refused and left alone."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import torch
from typer.testing import CliRunner
from vcf_fixtures import bcftools, convert, read_imputed, rows_of, view

from ragimpute import example
from ragimpute.accuracy.phase_errors import count_phase_errors
from ragimpute.cli.main import app
from ragimpute.config import load_config
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import OutputOptions
from ragimpute.io.vcf.header import read_header
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.panel.reader import Panel
from ragimpute.phasing.phase import phase
from ragimpute.phasing.phase_target import PhaseOptions, read_typed
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from ragimpute.target.match import match_sites

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2350000")
NUM_SAMPLES = 12  # of the packaged target
FIXED = {"ne": 1e5, "err": 1e-3}


@pytest.fixture(scope="session")
def panel(tmp_path_factory):
    """The packaged panel, prepared."""
    out = tmp_path_factory.mktemp("phase") / "panel.h5"
    prepare(example.path("panel.bcf"), out, genetic_map=example.path("chr20.b37.gmap.gz"))
    return out


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory):
    """Copying alone: what it imputes does not change with the weights that ship."""
    config = load_config("default")
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("model") / "untrained"
    save_model(folder, build(config.model).eval(), config, {})
    return folder


def lines():
    """Header and rows, as lists of columns, of the packaged target's first samples."""
    text = gzip.decompress(TARGET.read_bytes()).decode().splitlines()
    head = [line for line in text if line.startswith("##")]
    head.append("\t".join(text[len(head)].split("\t")[: 9 + NUM_SAMPLES]))
    return head, [line.split("\t")[: 9 + NUM_SAMPLES] for line in text[len(head) :]]


def phased(**options):
    """The packaged target's first samples as read."""
    return read_target(TARGET, samples=read_header(TARGET).samples[:NUM_SAMPLES], **options)


def write(path, head, rows):
    path.write_text("\n".join([*head, *("\t".join(row) for row in rows)]) + "\n")
    return path


def unphased(path, *, seed=None):
    """The packaged target without its phase; with a seed, alleles in an order that is drawn."""
    head, rows = lines()
    rng = np.random.default_rng(seed)
    for row in rows:
        for i in range(9, len(row)):
            alleles = row[i].split("|")
            if seed is not None and rng.random() < 0.5:
                alleles.reverse()
            row[i] = "/".join(alleles if seed is not None else sorted(alleles))
    return write(path, head, rows)


def test_phase_writes_the_typed_sites_phased(tmp_path, panel):
    given = unphased(tmp_path / "target.vcf")
    out = tmp_path / "phased.vcf.gz"
    done = phase(given, panel, out)
    found, true = read_target(out), phased()
    assert found.samples == true.samples
    assert found.sites.keys() == true.sites.keys()
    assert found.phased.all()
    assert "/" not in "".join(row[9] for row in rows_of(view(out)))
    np.testing.assert_array_equal(np.sort(found.alleles, axis=2), np.sort(true.alleles, axis=2))
    errors = count_phase_errors(true.alleles, found.alleles, true.phased)
    assert errors.switch_rate < 0.04
    het = true.alleles[:, :, 0] != true.alleles[:, :, 1]
    assert (done.num_samples, done.num_sites) == (NUM_SAMPLES, 689)
    assert (done.num_unphased, done.num_missing) == (int(het.sum()), 0)
    assert (tmp_path / "phased.vcf.gz.tbi").is_file()
    assert dict(done.rows())["phasing"].startswith(f"{het.sum():,} genotypes")


def test_phase_does_not_depend_on_threads_or_format(tmp_path, panel):
    given = unphased(tmp_path / "target.vcf")
    phase(given, panel, tmp_path / "one.vcf.gz", region=REGION, threads=1)
    phase(given, panel, tmp_path / "two.vcf.gz", region=REGION, threads=2)
    phase(given, panel, tmp_path / "three.bcf", region=REGION, threads=2)
    one = (tmp_path / "one.vcf.gz").read_bytes()
    assert one == (tmp_path / "two.vcf.gz").read_bytes()
    assert rows_of(view(tmp_path / "three.bcf")) == rows_of(view(tmp_path / "one.vcf.gz"))
    sites = read_target(tmp_path / "three.bcf").sites.position_bp
    assert sites.min() >= REGION.start_bp
    assert sites.max() < REGION.stop_bp


def test_phase_fills_missing_and_leaves_haploid(tmp_path, panel):
    head, rows = lines()
    for i, row in enumerate(rows):
        row[9:] = [cell.replace("|", "/") for cell in row[9:]]
        if i % 7 == 0:
            row[9] = "./."
        row[10] = row[10][0]
    given = write(tmp_path / "target.vcf", head, rows)
    done = phase(given, panel, tmp_path / "out.vcf", region=REGION)
    found, true = read_target(tmp_path / "out.vcf"), read_target(given, region=REGION)
    assert done.num_missing == 2 * int((true.alleles[:, 0, 0] == -1).sum()) > 0
    assert (found.alleles[:, 0] >= 0).all()
    np.testing.assert_array_equal(found.alleles[:, 1], true.alleles[:, 1])


def test_issue20_17_a_ploidy_that_flips_is_kept_and_named(tmp_path, panel):
    head, rows = lines()
    num_typed = len(phased(region=REGION).sites)
    inside = [row for row in rows if REGION.start_bp <= int(row[1]) < REGION.stop_bp]
    assert len(inside) == num_typed
    inside[3][9] = inside[3][9][0]  # one haploid call amid diploid ones
    for i, row in enumerate(inside):
        row[10] = row[10][0]  # haploid throughout: no warning
        row[11] = row[11] if i % 10 else row[11][0]
    given = write(tmp_path / "a.vcf", head, inside)
    done = phase(given, panel, tmp_path / "out.vcf", region=REGION)
    told = [line for line in done.warnings if "haploid and diploid" in line]
    assert len(told) == 1
    assert told[0].startswith("2 samples have")
    assert f": 1 haploid, {num_typed - 1:,} diploid;" in told[0]
    true, found = read_target(given), read_target(tmp_path / "out.vcf")
    np.testing.assert_array_equal(found.alleles[:, :, 1] == -2, true.alleles[:, :, 1] == -2)


def test_phase_sets_are_read_and_kept(tmp_path, panel):
    """Two sets in which the true order is turned at every other site: it must stay so."""
    head, rows = lines()
    head.insert(1, '##FORMAT=<ID=PS,Number=1,Type=Integer,Description="Phase set">')
    true = phased().alleles
    middle = len(rows) // 2
    seen = 0
    for i, row in enumerate(rows):
        row[8] = "GT:PS"
        row[9:] = [f"{cell.replace('|', '/')}:." for cell in row[9:]]
        if true[i, 0, 0] != true[i, 0, 1]:
            order = true[i, 0] if seen % 2 else true[i, 0, ::-1]
            seen += 1
            row[9] = f"{order[0]}|{order[1]}:{100 if i < middle else 200}"
    assert seen > 50
    given = write(tmp_path / "target.vcf", head, rows)
    read = read_target(given)
    sets = read.phase_set
    assert sets is not None
    assert (sets[:, 1:] == -1).all()
    before, behind = (set(part.tolist()) - {-1} for part in (sets[:middle, 0], sets[middle:, 0]))
    assert len(before) == len(behind) == 1
    assert before != behind

    again = read_target(convert(given, ".bcf"))
    np.testing.assert_array_equal(again.phase_set, sets)

    phase(given, panel, tmp_path / "out.vcf")
    found = read_target(tmp_path / "out.vcf")
    for half in (slice(0, middle), slice(middle, None)):
        het = read.alleles[half, 0, 0] != read.alleles[half, 0, 1]
        turned = (found.alleles[half, 0, 0] != read.alleles[half, 0, 0])[het]
        assert turned.all() or not turned.any()
    every = np.ones(true.shape[:2], bool)
    assert count_phase_errors(true[:, 1:], found.alleles[:, 1:], every[:, 1:]).switch_rate < 0.04


def cut_into_sets(path, place, *, labels=str, header=True):
    """The packaged target, all phased, where ``place(row, sample)`` names the set of each.

    Every other set has its two haplotypes exchanged. A set named None is none.
    """
    head, rows = lines()
    if header:
        head.insert(1, '##FORMAT=<ID=PS,Number=1,Type=String,Description="Phase set">')
    for i, row in enumerate(rows):
        row[8] = "GT:PS"
        for j in range(9, len(row)):
            label = place(i, j)
            one, other = row[j].split("|")
            if one == other or label is None:
                row[j] += ":."
            else:
                row[j] = f"{other}|{one}" if label % 2 else row[j]
                row[j] += f":{labels(label)}"
    return write(path, head, rows)


def switch_rate(path):
    """Switch errors of a phased file, as a share."""
    true, found = phased(region=REGION).alleles, read_target(path)
    return count_phase_errors(true, found.alleles, np.ones(true.shape[:2], bool)).switch_rate


@pytest.mark.parametrize(
    "place",
    [
        lambda i, j: (i + 3 * j) // 40,  # one after the other
        lambda i, j: None if i % 3 else 1,  # one set, within genotypes of none
        lambda i, j: 5 if i % 3 else 10 + i // 60,  # sets within one that spans all (GIAB's PATMAT)
        lambda i, j: (i // 40) + i % 2,  # overlapping
    ],
)
def test_sets_are_put_in_order(tmp_path, panel, place):
    given = cut_into_sets(tmp_path / "a.vcf", place, header=False)
    phase(given, panel, tmp_path / "out.vcf", region=REGION, buffer_cm=0.1)
    assert switch_rate(tmp_path / "out.vcf") < 0.02


def test_impute_puts_sets_in_order_though_all_is_phased(tmp_path, panel, plain_model):
    given = cut_into_sets(tmp_path / "a.vcf", lambda i, j: i // 40, labels="{}_A_G".format)
    options = {"model": plain_model, "region": REGION, **FIXED}
    summary = impute(given, panel, tmp_path / "a.bcf", **options)
    assert f"{NUM_SAMPLES} samples have several" in summary.settings["phase_sets"]
    told = f"{NUM_SAMPLES} samples are phased only within phase sets"
    assert sum(line.startswith(told) for line in summary.warnings) == 1
    truth = write(tmp_path / "true.vcf", *lines())
    impute(truth, panel, tmp_path / "true.bcf", **options)
    one, true = (read_imputed(tmp_path / f"{name}.bcf") for name in ("a", "true"))
    r2 = np.corrcoef(one.dosage[~one.typed].ravel(), true.dosage[~one.typed].ravel())[0, 1] ** 2
    assert r2 > 0.99
    with pytest.raises(InputError, match="only within phase sets") as raised:
        impute(given, panel, tmp_path / "b.bcf", phase_options=PhaseOptions(True), **options)
    assert f"{NUM_SAMPLES} of {NUM_SAMPLES} samples" in str(raised.value)
    assert not (tmp_path / "b.bcf").exists()


def test_a_single_set_counts_as_phased(tmp_path, panel, plain_model):
    given = cut_into_sets(tmp_path / "a.vcf", lambda i, j: 100)
    options = {"model": plain_model, "region": REGION, **FIXED}
    summary = impute(
        given, panel, tmp_path / "a.bcf", phase_options=PhaseOptions(phased_only=True), **options
    )
    assert "phasing" not in summary.settings
    impute(write(tmp_path / "b.vcf", *lines()), panel, tmp_path / "b.bcf", **options)
    one, other = (read_imputed(tmp_path / f"{name}.bcf") for name in "ab")
    np.testing.assert_array_equal(one.dosage, other.dosage)


def test_the_panel_at_typed_sites_is_read_in_pieces(panel):
    with Panel.open(panel) as source:
        index = match_sites(read_target(TARGET), source, 0, source.num_sites).panel_index
        typed = read_typed(source, index, sites_at_once=64)
        alleles = source.haplotypes(0, source.num_sites).alleles(index)
    site = np.arange(len(index))
    bits = typed.words[site // 32] >> (site % 32).astype(np.uint32)[:, None] & 1
    np.testing.assert_array_equal(bits, alleles)


def test_design7_1_impute_phases_first(tmp_path, panel, plain_model):
    options = {"model": plain_model, "region": REGION, **FIXED}
    impute(write(tmp_path / "true.vcf", *lines()), panel, tmp_path / "true.bcf", **options)
    summary = impute(unphased(tmp_path / "a.vcf"), panel, tmp_path / "a.bcf", **options)
    impute(unphased(tmp_path / "b.vcf", seed=4), panel, tmp_path / "b.bcf", **options)
    true, one, other = (read_imputed(tmp_path / f"{name}.bcf") for name in ("true", "a", "b"))
    np.testing.assert_array_equal(one.dosage, other.dosage)
    rest = ~one.typed
    r2 = np.corrcoef(one.dosage[rest].ravel(), true.dosage[rest].ravel())[0, 1] ** 2
    assert 0.98 < r2 < 1
    np.testing.assert_array_equal(one.dosage[one.typed], true.dosage[one.typed])
    assert "genotypes against the panel and the other samples" in summary.settings["phasing"]
    assert summary.seconds["phase"] > 0


def test_a_phased_target_is_not_phased_again(tmp_path, panel, plain_model):
    options = {"model": plain_model, "region": REGION, **FIXED}
    given = write(tmp_path / "a.vcf", *lines())
    summary = impute(given, panel, tmp_path / "a.bcf", **options)
    assert "phasing" not in summary.settings
    found, target = read_target(tmp_path / "a.bcf"), phased(region=REGION)
    row = {key: i for i, key in enumerate(found.sites.keys())}
    typed = found.alleles[[row[key] for key in target.sites.keys()]]
    np.testing.assert_array_equal(typed, target.alleles)


def test_records_that_the_panel_lacks_stay_unphased_and_are_named(tmp_path, panel, plain_model):
    head, rows = lines()
    for row in rows:
        row[9:] = [cell.replace("|", "/") for cell in row[9:]]
    other = next(row for row in rows if row[9:].count("0/1") > 1)
    other[3:5] = ["A", "ACGT"]
    num = sum(cell in ("0/1", "1/0") for cell in other[9:])
    given = write(tmp_path / "a.vcf", head, rows)
    region = Region("20", int(other[1]) - 50_000, int(other[1]) + 50_000)
    summary = impute(
        given, panel, tmp_path / "a.bcf", model=plain_model, region=region, **FIXED,
        output_options=OutputOptions(typed_only=True),
    )  # fmt: skip
    assert any(line.startswith(f"{num} unphased genotypes of rec") for line in summary.warnings)


def test_peers_50_65_phased_only_refuses(tmp_path, panel):
    with pytest.raises(InputError, match="is not phased") as raised:
        impute(
            unphased(tmp_path / "a.vcf"), panel, tmp_path / "a.bcf",
            phase_options=PhaseOptions(phased_only=True),
        )  # fmt: skip
    assert "--phased-only" in raised.value.hint
    assert not (tmp_path / "a.bcf").exists()


def test_the_command(tmp_path, panel):
    given, out = unphased(tmp_path / "a.vcf"), tmp_path / "out.vcf"
    arguments = ["phase", str(given), "-p", str(panel), "-o", str(out), "-r", str(REGION)]
    done = CliRunner().invoke(app, [*arguments, "--phase-without-targets", "--seed", "3"])
    assert done.exit_code == 0, done.output
    assert "genotypes against the panel" in done.output
    assert "other samples" not in done.output
    phase(given, panel, tmp_path / "same.vcf", region=REGION, with_targets=False, seed=3)
    assert rows_of(out.read_text()) == rows_of((tmp_path / "same.vcf").read_text())


def test_an_output_that_is_an_input_is_refused(tmp_path, panel):
    given = unphased(tmp_path / "a.vcf")
    before = given.read_bytes()
    with pytest.raises(InputError):
        phase(given, panel, given)
    assert given.read_bytes() == before


def test_other_samples_are_left_out_on_request(tmp_path, panel):
    """Without the other samples a sample's phase is the same whoever is beside it."""
    given = unphased(tmp_path / "a.vcf")
    alone = tmp_path / "alone.vcf"
    bcftools("view", "--no-version", "-S", "^" + str(_without_first(tmp_path)), "-o", alone, given)
    first = read_target(given).samples[0]
    assert read_target(alone).samples == [first]
    for path, out in ((given, "all.vcf"), (alone, "one.vcf")):
        phase(path, panel, tmp_path / out, region=REGION, with_targets=False)
    whole, single = read_target(tmp_path / "all.vcf"), read_target(tmp_path / "one.vcf")
    np.testing.assert_array_equal(whole.alleles[:, :1], single.alleles)


def _without_first(folder):
    """A list of all samples but the first."""
    path = folder / "others.txt"
    path.write_text("\n".join(phased().samples[1:]) + "\n")
    return path


def test_ne_and_err_reach_phasing_in_impute_as_in_phase(tmp_path, panel, plain_model):
    given = unphased(tmp_path / "a.vcf")
    options = {"region": REGION, "ne": 2000.0, "err": 0.02}
    said = impute(given, panel, tmp_path / "a.bcf", model=plain_model, **options).settings
    by_phase = phase(given, panel, tmp_path / "b.vcf", **options).settings
    assert said["phasing_ne"] == by_phase["phasing_ne"] == "2e+03"
    assert said["phasing_err"] == by_phase["phasing_err"] == "0.02"
    chosen = phase(given, panel, tmp_path / "c.vcf", region=REGION).settings
    assert chosen["phasing_ne"] != "1.5e+05"  # fitted


@pytest.mark.parametrize("with_targets", [True, False])
def test_fitted_parameters_do_not_depend_on_threads(tmp_path, panel, with_targets):
    given = unphased(tmp_path / "a.vcf")
    done = [
        phase(
            given, panel, tmp_path / f"{n}.vcf", region=REGION, threads=n, with_targets=with_targets
        )
        for n in (1, 2)
    ]
    assert done[0].settings == done[1].settings
    one, two = (rows_of((tmp_path / f"{n}.vcf").read_text()) for n in (1, 2))
    assert one == two
