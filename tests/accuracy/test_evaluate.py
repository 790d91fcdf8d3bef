"""evaluate: the packaged example against a plain computation, and input that does not fit."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict

import h5py
import numpy as np
import pytest
from cyvcf2 import VCF
from hypothesis import given, settings
from hypothesis import strategies as st
from m3vcf_fixtures import later_text, m3vcf_text

from ragimpute import example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region


def write_vcf(path, sites, samples, cells, *, formats="GT", contig="20", infos=None):
    """A VCF of (position, ref, alt) with cells[i][j], text, of sample j at site i."""
    lines = [
        "##fileformat=VCFv4.2",
        f"##contig=<ID={contig}>",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">',
        '##FORMAT=<ID=DS,Number=A,Type=Float,Description="Dosage">',
        '##INFO=<ID=DR2,Number=A,Type=Float,Description="r2">',
        '##INFO=<ID=TYPED,Number=0,Type=Flag,Description="Typed">',
        "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"])
        + "\t"
        + "\t".join(samples),
    ]
    for i, (position, ref, alt) in enumerate(sites):
        info = infos[i] if infos else "."
        fixed = [contig, str(position), ".", ref, alt, ".", ".", info, formats]
        lines.append("\t".join([*fixed, *cells[i]]))
    path.write_text("\n".join(lines) + "\n")
    return path


def plain(path, field):
    """Sites to values, read with cyvcf2 alone."""
    out = {}
    vcf = VCF(str(path))
    for v in vcf:
        if field == "DS":
            out[v.POS, v.REF, v.ALT[0]] = v.format("DS")[:, 0].astype(float)
        else:
            out[v.POS, v.REF, v.ALT[0]] = v.genotype.array()[:, :2].sum(axis=1).astype(float)
    return vcf.samples, out


def squared(x, y):
    """Squared correlation."""
    return np.corrcoef(np.ravel(x), np.ravel(y))[0, 1] ** 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The example, prepared and imputed: folder of panel.h5 and out.vcf.gz."""
    folder = tmp_path_factory.mktemp("run")
    gmap = example.path("chr20.b37.gmap.gz")
    prepare(example.path("panel.bcf"), folder / "panel.h5", genetic_map=gmap)
    impute(example.path("target.vcf.gz"), folder / "panel.h5", folder / "out.vcf.gz")
    return folder


@pytest.fixture(scope="module")
def result(run):
    return evaluate(example.path("truth.bcf"), run / "out.vcf.gz", run / "panel.h5")


def test_equals_a_plain_computation(run, result):
    samples, truth = plain(example.path("truth.bcf"), "GT")
    imputed_samples, dosage = plain(run / "out.vcf.gz", "DS")
    _, panel = plain(example.path("panel.bcf"), "GT")
    _, typed = plain(example.path("target.vcf.gz"), "GT")
    keys = [key for key in truth if key in panel and key not in typed]
    order = [imputed_samples.index(name) for name in samples]
    total = 2 * len(next(iter(panel.values())))
    count = np.array([panel[key].sum() for key in keys])
    t = np.stack([truth[key] for key in keys])
    d = np.stack([dosage[key][order] for key in keys])
    flip = 2 * count > total
    t[flip], d[flip] = 2 - t[flip], 2 - d[flip]
    maf = np.round(np.minimum(count, total - count) / total, 9)

    assert result.counts["scored"] == len(keys) == result.overall.num_sites
    assert result.overall.r2 == pytest.approx(squared(t, d), abs=1e-9)
    best, site = np.rint(d), []
    for row, low, high in zip(result.bins, MAF_BINS, MAF_BINS[1:], strict=False):
        here = (maf > low) & (maf <= high)
        assert row.num_sites == here.sum()
        assert row.r2 == pytest.approx(squared(t[here], d[here]), abs=1e-9)
        carrier = here[:, None] & ((t > 0) | (best > 0))
        assert row.concordance == pytest.approx((best == t)[carrier].mean())
        varying = [i for i in np.flatnonzero(here) if t[i].std() > 0]
        values = [squared(t[i], d[i]) if d[i].std() > 0 else 0.0 for i in varying]
        assert row.num_varying == len(varying)
        assert row.mean_site_r2 == pytest.approx(np.mean(values), abs=1e-9)
        site += values
    assert result.overall.mean_site_r2 == pytest.approx(np.mean(site), abs=1e-9)
    assert result.overall.r2 > 0.95
    near = (d / 2 >= 0.5) & (d / 2 < 0.55)
    assert result.calibration[10] == pytest.approx(
        [d[near].mean() / 2, t[near].mean() / 2, near.sum()]
    )


def test_dr2_is_compared_with_the_truth(run, result):
    for row in [*result.bins, result.overall]:
        # every site has DR2 here, so both means are over the same sites
        assert row.true_r2 == pytest.approx(row.mean_site_r2)
        assert 0 < row.mean_dr2 < 1
    assert result.quality[:, 2].sum() == result.overall.num_varying
    assert result.overall.dr2_correlation > 0.6
    assert result.calibration_error < 0.01


def test_typed_sites_from_a_file_or_from_flags(run, result):
    files = example.path("truth.bcf"), run / "out.vcf.gz", run / "panel.h5"
    by_file = evaluate(*files, typed=example.path("target.vcf.gz"))
    assert by_file.as_dict() == result.as_dict()
    assert result.counts["typed"] == 689
    assert not result.notes


def test_panel_may_be_a_vcf(run, result):
    files = example.path("truth.bcf"), run / "out.vcf.gz"
    from_vcf = evaluate(*files, example.path("panel.bcf"), threads=2)
    assert from_vcf.bins == result.bins
    assert from_vcf.overall == result.overall


def test_region(run, result):
    files = example.path("truth.bcf"), run / "out.vcf.gz", run / "panel.h5"
    parts = [Region.parse(text) for text in ("chr20:1-2400000", "20:2400001-")]
    halves = [evaluate(*files, region=part) for part in parts]
    assert sum(half.overall.num_sites for half in halves) == result.overall.num_sites
    assert halves[0].last_bp <= 2_400_000 < halves[1].first_bp
    assert (halves[0].contig, halves[0].first_bp, halves[1].last_bp) == (
        "20", result.first_bp, result.last_bp,
    )  # fmt: skip


def test_samples_are_matched_by_name(run, result, tmp_path):
    shuffled = tmp_path / "shuffled.vcf"
    with gzip.open(run / "out.vcf.gz", "rt") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    kept = ["\t".join(r if len(r) < 10 else [*r[:9], *reversed(r[9:])]) for r in rows]
    shuffled.write_text("\n".join(kept) + "\n")
    again = evaluate(example.path("truth.bcf"), shuffled, run / "panel.h5")
    assert again.overall.r2 == pytest.approx(result.overall.r2, abs=1e-12)
    assert again.overall.concordance == result.overall.concordance


def test_perfect_and_json(run):
    truth = example.path("truth.bcf")
    perfect = evaluate(truth, truth, run / "panel.h5")
    assert perfect.overall.r2 == perfect.overall.concordance == 1
    assert perfect.calibration_error == 0
    assert any("marks no site as typed" in line for line in perfect.notes)
    text = json.dumps(perfect.as_dict(), allow_nan=False)
    back = json.loads(text)
    assert back["overall"]["r2"] == 1
    assert back["overall"]["mean_dr2"] is None  # the truth has no DR2
    assert len(back["bins"]) == len(MAF_BINS) - 1
    table = perfect.table()
    assert all(len(row) == len(table[0]) for row in table)
    assert table[-1][:3] == ["all", f"{perfect.overall.num_sites:,}", "1.00000"]
    assert table[-1][5] == "-"


SITES = [(100, "A", "C"), (200, "G", "T"), (300, "C", "A"), (400, "T", "G")]
SAMPLES = ["s1", "s2", "s3", "s4"]
PANEL = [["0|0", "0|1", "0|0"], ["1|1", "1|1", "0|1"], ["0|1", "0|1", "0|0"], ["1|0", "0|0", "0|0"]]
TRUE = [[0, 1, 0, 2], [2, 2, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0]]


def small(folder, dosages=None, sites=SITES, samples=SAMPLES, **more):
    """Panel, truth and imputed file of four sites."""
    panel = write_vcf(folder / "panel.vcf", SITES, ["p1", "p2", "p3"], PANEL)
    called = [[("0|0", "0|1", "1|1")[n] for n in row] for row in TRUE]
    truth = write_vcf(folder / "truth.vcf", SITES, SAMPLES, called)
    dosages = TRUE if dosages is None else dosages
    cells = [[str(x) for x in row] for row in dosages]
    imputed = write_vcf(folder / "imp.vcf", sites, samples, cells, formats="DS", **more)
    return truth, imputed, panel


def test_absent_sites_count_as_dosage_zero(tmp_path):
    kept = [SITES[i] for i in (0, 2, 3)]
    given_dosages = [[0.1, 1, 0, 1.7], [1, 0.2, 0, 1], [0, 0, 1, 0]]
    result = evaluate(*small(tmp_path, given_dosages, kept))
    assert result.counts["absent"] == 1
    assert any("absent" in line for line in result.notes)
    # The absent site has ALT as its major allele: ALT dosage 0 is dosage 2 of the minor one.
    x = np.array([given_dosages[0], [2, 2, 2, 2], given_dosages[1], given_dosages[2]])
    y = np.array(TRUE, float)
    y[1] = 2 - y[1]
    assert result.overall.r2 == pytest.approx(squared(x, y), abs=1e-7)


def test_missing_and_odd_dosages_are_counted(tmp_path):
    odd = [["."] * 4, [2, 2, 1, 2.5], [1, 0, 0, 1], [-0.2, 0, 1, 0]]
    result = evaluate(*small(tmp_path, odd))
    assert result.counts["missing_dosage"] == 4
    assert result.counts["out_of_range"] == 2
    x = np.array([[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 1, 0]])
    y = np.array(TRUE)
    y[1] = 2 - y[1]
    assert result.overall.r2 == pytest.approx(squared(x, y))
    assert len(result.notes) == 3  # these two, and that no site is marked as typed


def test_missing_truth_is_not_scored(tmp_path):
    truth, imputed, panel = small(tmp_path)
    text = truth.read_text().replace("0|0\t0|1\t0|0\t1|1", ".|.\t0|1\t0|0\t1|1")
    truth.write_text(text)
    result = evaluate(truth, imputed, panel)
    assert result.counts["missing_truth"] == 1
    assert result.overall.r2 == 1
    assert result.calibration[:, 2].sum() == 15


def test_swapped_typed_records_are_typed(tmp_path):
    files = small(tmp_path)
    swapped = write_vcf(tmp_path / "typed.vcf", [(100, "C", "A")], ["s1"], [["0|0"]])
    assert evaluate(*files, typed=swapped).counts["typed"] == 1


def test_pseudo_diploid_dosages_of_haploid_samples(tmp_path):
    truth, _, panel = small(tmp_path)
    called = [[("0", "1")[n > 0] for n in row] for row in TRUE]
    write_vcf(truth, SITES, SAMPLES, called)
    doubled = [[("0|0:0", "1|1:2")[n > 0] for n in row] for row in TRUE]
    imputed = write_vcf(tmp_path / "d.vcf", SITES, SAMPLES, doubled, formats="GT:DS")
    haploid = [[("0", "1")[n > 0] for n in row] for row in TRUE]
    same = write_vcf(tmp_path / "h.vcf", SITES, SAMPLES, haploid, formats="DS")
    for path in (imputed, same):
        result = evaluate(truth, path, panel)
        assert result.overall.r2 == result.overall.concordance == 1
        assert result.counts["out_of_range"] == 0


@pytest.mark.parametrize("written", ["haploid", "doubled"])
def test_haploid_at_some_sites_alone(tmp_path, written):
    """As males on chrX; ALT is the panel's common allele everywhere, so that REF is counted."""
    sites = [(100 * i, "A", "G") for i in range(1, 9)]
    names = ["s1", "s2", "s3", "s4"]
    panel = write_vcf(tmp_path / "p.vcf", sites, ["p1", "p2"], [["1|1", "0|1"]] * 8)
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 2, (8, 4, 2))
    male = np.zeros((8, 4), bool)
    male[3:6, :2] = True
    cells, imputed = [], []
    for i in range(8):
        cells.append(
            [f"{a}" if m else f"{a}|{b}" for (a, b), m in zip(pairs[i], male[i], strict=True)]
        )
        imputed.append(
            [
                (f"{a}:{a}" if written == "haploid" else f"{a}|{a}:{2 * a}")
                if m
                else f"{a}|{b}:{a + b}"
                for (a, b), m in zip(pairs[i], male[i], strict=True)
            ]
        )
    truth = write_vcf(tmp_path / "t.vcf", sites, names, cells)
    given = write_vcf(tmp_path / "i.vcf", sites, names, imputed, formats="GT:DS")
    result = evaluate(truth, given, panel)
    assert result.overall.r2 == pytest.approx(1)
    assert result.overall.concordance == 1
    assert result.counts["out_of_range"] == 0


def test_all_that_prepare_reads_is_a_panel(tmp_path):
    """The same haplotypes as VCF, M3VCF, MVCF and scikit-allel HDF5 give the same figures."""
    truth, imputed, panel = small(tmp_path)
    pairs = np.array([[call.split("|") for call in row] for row in PANEL], dtype=np.int8)
    haplotypes, ploidy = pairs.reshape(len(PANEL), -1), [2] * pairs.shape[1]
    paths = [tmp_path / name for name in ("x.m3vcf", "x.mvcf", "x.h5")]
    paths[0].write_text(m3vcf_text(SITES, haplotypes, ploidy, [len(SITES)]))
    paths[1].write_text(later_text(SITES, haplotypes, ploidy, [len(SITES)], form="MVCF"))
    with h5py.File(paths[2], "w") as file:
        for name, values in zip(("POS", "REF", "ALT"), zip(*SITES, strict=True), strict=True):
            file[f"variants/{name}"] = np.array(values, dtype=None if name == "POS" else "S9")
        file["variants/CHROM"] = np.array(["20"] * len(SITES), dtype="S9")
        file["calldata/GT"] = pairs
    expected = evaluate(truth, imputed, panel)
    for path in paths:
        found = evaluate(truth, imputed, path)
        assert repr((found.counts, found.bins)) == repr((expected.counts, expected.bins))


def test_missing_samples_are_named(tmp_path):
    truth, _, panel = small(tmp_path)
    cells = [["0", "1"]] * 4
    imputed = write_vcf(tmp_path / "two.vcf", SITES, ["s1", "s3"], cells, formats="DS")
    with pytest.raises(InputError, match=r"2 of 4 samples.*two\.vcf: s2, s4") as error:
        evaluate(truth, imputed, panel)
    assert "bcftools view --force-samples" in error.value.hint
    result = evaluate(imputed, truth, panel)  # samples without truth are counted, no error
    assert result.counts["samples_without_truth"] == 2


def test_no_shared_site_says_ranges(tmp_path):
    truth, imputed, panel = small(tmp_path)
    moved = [(position + 5000, ref, alt) for position, ref, alt in SITES]
    cells = [["0|0"] * 4] * 4
    far = write_vcf(tmp_path / "far.vcf", moved, SAMPLES, cells)
    with pytest.raises(InputError, match=r"truth .*20:5100-5400 .* 20:100-400 .* 0% agree"):
        evaluate(far, imputed, panel)
    with pytest.raises(InputError, match=r"imputed file .*20:5100-5400 .* 20:100-400"):
        evaluate(truth, far, panel)
    with pytest.raises(InputError, match=r"all 4 sites .* are typed"):
        evaluate(truth, imputed, panel, typed=truth)


def test_other_contig(tmp_path):
    truth, imputed, panel = small(tmp_path)
    other = write_vcf(tmp_path / "x.vcf", SITES, SAMPLES, [["0|0"] * 4] * 4, contig="21")
    with pytest.raises(InputError, match="no records on the panel's contig 20; it holds 21"):
        evaluate(other, imputed, panel)
    chr20 = write_vcf(tmp_path / "y.vcf", SITES, SAMPLES, [["0|1"] * 4] * 4, contig="chr20")
    assert evaluate(truth, chr20, panel).counts["scored"] == 4


def test_panel_that_is_not_there(tmp_path):
    truth, imputed, _ = small(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        evaluate(truth, imputed, tmp_path / "none.vcf.gz")


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_invariants(tmp_path_factory, data):
    """Any dosages: figures in their ranges, and independent of the samples' order."""
    folder = tmp_path_factory.mktemp("any")
    value = st.integers(0, 20).map(lambda n: n / 10)
    row = st.lists(value, min_size=4, max_size=4)
    dosages = data.draw(st.lists(row, min_size=4, max_size=4))
    truth, imputed, panel = small(folder, dosages)
    result = evaluate(truth, imputed, panel)
    for figures in [*result.bins, result.overall]:
        for name in ("r2", "mean_site_r2", "concordance"):
            assert np.isnan(getattr(figures, name)) or 0 <= getattr(figures, name) <= 1
    assert sum(bin_.num_sites for bin_ in result.bins) == 4
    assert result.calibration[:, 2].sum() == 16
    order = data.draw(st.permutations(range(4)))
    cells = [[str(r[i]) for i in order] for r in dosages]
    names = [SAMPLES[i] for i in order]
    other = write_vcf(folder / "other.vcf", SITES, names, cells, formats="DS")
    again = evaluate(truth, other, panel)
    for one, two in zip([*again.bins, again.overall], [*result.bins, result.overall], strict=True):
        assert asdict(one) == pytest.approx(asdict(two), abs=1e-9, nan_ok=True)


def only(path, field, out):
    """The file with one FORMAT field alone, as Minimac4 writes HDS by default."""
    lines = []
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        if line.startswith("##FORMAT") and f"ID={field}," not in line:
            continue
        cells = line.split("\t")
        if not line.startswith("#"):
            at = cells[8].split(":").index(field)
            cells[8:] = [field, *(cell.split(":")[at] for cell in cells[9:])]
        lines.append("\t".join(cells))
    out.write_text("\n".join(lines) + "\n")
    return out


@pytest.fixture(scope="module")
def all_fields(run):
    out = run / "all.vcf.gz"
    impute(
        example.path("target.vcf.gz"), run / "panel.h5", out, fields=("GT", "DS", "GP", "HDS"),
        region=Region.parse("20:2000000-2200000"), ne=1e5, err=1e-3, fine_tune=False,
    )  # fmt: skip
    return out


def test_dosages_are_scored_whichever_field_has_them(run, all_fields, tmp_path):
    """Files with GP, or HDS alone, were scored by hard calls or refused."""
    region = Region.parse("20:2000000-2200000")
    found = {}
    for field in ("DS", "HDS", "GP", "GT"):
        path = only(all_fields, field, tmp_path / f"{field}.vcf")
        found[field] = evaluate(
            example.path("truth.bcf"), path, run / "panel.h5", region=region,
            typed=example.path("target.vcf.gz"),
        )  # fmt: skip
    for field in ("HDS", "GP"):
        assert found[field].overall.r2 == pytest.approx(found["DS"].overall.r2, abs=2e-4)
        assert found[field].notes == []
    hard = found["GT"]
    assert hard.overall.r2 < found["DS"].overall.r2 - 1e-3
    assert hard.counts["hard_calls"] == hard.counts["scored"] * hard.counts["samples"]
    (note,) = hard.notes
    assert "imputed dosages are hard calls" in note


def test_the_terminal_shows_what_a_reader_should_know(run, all_fields, tmp_path, command_line):
    path = only(all_fields, "GT", tmp_path / "x.vcf")
    code, _, err = command_line(
        "evaluate", "--truth", example.path("truth.bcf"), "--imputed", path, "--panel",
        run / "panel.h5", "--region", "20:2000000-2200000",
    )  # fmt: skip
    assert code == 0
    assert "imputed dosages are hard calls" in " ".join(err.split())


ROWS = st.lists(
    st.tuples(st.integers(20, 40), st.sampled_from(
        ["C", "G", ".", "*", "<DEL>", "C,G", "C,C", "A", "A,G", "G,<NON_REF>", "I"]
    )),
    min_size=1, max_size=20,
)  # fmt: skip


@given(ROWS, st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_counts_add_up_to_the_records_of_the_truth(tmp_path_factory, rows, with_gt):
    folder = tmp_path_factory.mktemp("sum")
    truth, imputed, panel = small(folder)
    if not with_gt:
        truth = imputed
    before = truth.read_text().splitlines()
    key = "GT" if with_gt else "DS"
    more = [
        f"20\t{10_000 + at}\t.\tA\t{alt}\t.\t.\t.\t{key}" + "\t." * len(SAMPLES)
        for at, alt in sorted(rows)
    ]
    more.insert(0, f"20\t0\t.\tA\tC\t.\t.\t.\t{key}" + "\t." * len(SAMPLES))
    head = [line for line in before if line.startswith("#")]
    sites = [line for line in before if not line.startswith("#")]
    changed = folder / "t.vcf"
    changed.write_text("\n".join([*head, more[0], *sites, *more[1:]]) + "\n")
    result = evaluate(changed, imputed, panel)
    name, text = result.record_row()
    whole, told = text.split(": ")
    numbers = [int(word) for word in whole.split() if word.isdigit()]
    assert name == "truth records"
    assert numbers[0] == len(sites) + len(more)
    assert sum(numbers) == sum(int(part.split()[0]) for part in told.split(", "))
