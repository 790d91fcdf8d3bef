"""Runs of ``impute`` with genotype likelihoods: the command from a file of reads to a file."""

from __future__ import annotations

import gzip
import signal

import numpy as np
import pytest
from cyvcf2 import VCF
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel
from vcf_fixtures import read_imputed, vcf_text

from ragimpute.accuracy.dr2 import Dr2Calibration
from ragimpute.config import models_dir
from ragimpute.errors import InputError
from ragimpute.imputation.arrays import Imputer
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import OutputOptions
from ragimpute.jobs.merge import merge
from ragimpute.likelihoods import imputer
from ragimpute.likelihoods.fit import FittedPanel, simulate_reads
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.runtime.interrupts import Stopped
from ragimpute.target.inputs import TargetOptions

NUM_SITES, NUM_PANEL, NUM = 240, 40, 5
SAMPLES = [f"t{i}" for i in range(NUM)]
POSITION = 1000 + 500 * np.arange(NUM_SITES)
FORMATS = "".join(
    f'##FORMAT=<ID={name},Number={number},Type={kind},Description="x">\n'
    for name, number, kind in (("GT", 1, "String"), ("PL", "G", "Integer"))
)
# Several windows with buffers in 0.12 cM.
WINDOWS = {"window_cm": 0.03, "buffer_cm": 0.02}
FIELDS = ("GT", "DS", "GP", "HDS")


@pytest.fixture(scope="module")
def alleles():
    return mosaic_panel(np.random.default_rng(8), NUM_SITES, 2 * (NUM_PANEL + NUM))


@pytest.fixture(scope="module")
def panel(alleles, tmp_path_factory):
    path = tmp_path_factory.mktemp("panel") / "p.h5"
    of_panel = alleles[:, : 2 * NUM_PANEL].reshape(NUM_SITES, NUM_PANEL, 2)
    batch = make_batch(of_panel, POSITION, ref=["A"] * NUM_SITES, alt=["G"] * NUM_SITES)
    write_panel(path, [batch], samples=names(NUM_PANEL), genetic_map=FlatMap())
    return path


@pytest.fixture(scope="module")
def truth(alleles):
    return alleles[:, 2 * NUM_PANEL :].reshape(NUM_SITES, NUM, 2).astype(int)


def phred(likelihoods):
    """PL of likelihoods (..., G)."""
    best = likelihoods.max(axis=-1, keepdims=True)
    return np.minimum(np.rint(-10 * np.log10(np.maximum(likelihoods / best, 1e-25))), 255)


def write_reads(path, pl, samples, *, genotypes=None):
    """A VCF of PL (M, N, G), and of GT where it is given, shape (M, N) of texts."""
    rows = []
    for i, position in enumerate(POSITION):
        cells = [",".join(str(int(x)) for x in one) for one in pl[i]]
        if genotypes is not None:
            cells = [f"{gt}:{cell}" for gt, cell in zip(genotypes[i], cells, strict=True)]
        rows.append((int(position), "A", "G", *cells))
    keys = "PL" if genotypes is None else "GT:PL"
    path.write_text(vcf_text(rows, samples, formats=FORMATS, keys=keys))
    return path


@pytest.fixture(scope="module")
def reads(truth):
    return phred(simulate_reads(truth.sum(axis=2), 2.0, np.random.default_rng(4)))


@pytest.fixture(scope="module")
def target(reads, tmp_path_factory):
    return write_reads(tmp_path_factory.mktemp("target") / "t.vcf", reads, names(NUM))


def run(target, panel, out, **options):
    """Impute; what the file holds."""
    impute(target, panel, out, **{"fields": FIELDS} | options)
    return read_imputed(out)


def dosages(found):
    return found.values["DS"].reshape(NUM_SITES, -1)


def test_reads_bring_the_truth_nearer(target, panel, truth, tmp_path):
    found = run(target, panel, tmp_path / "o.vcf")
    assert np.corrcoef(dosages(found).ravel(), truth.sum(axis=2).ravel())[0, 1] ** 2 > 0.9
    with Panel.open(panel) as opened:
        assert len(dosages(found)) == opened.num_sites


def test_fields_agree(target, panel, tmp_path):
    found = run(target, panel, tmp_path / "o.vcf")
    gp, ds, hds = (found.values[name] for name in ("GP", "DS", "HDS"))
    np.testing.assert_allclose(gp.sum(axis=2), 1, atol=1e-6)
    ds = ds.reshape(NUM_SITES, NUM)
    np.testing.assert_allclose(gp[..., 1] + 2 * gp[..., 2], ds, atol=2.1e-3)
    np.testing.assert_allclose(hds.sum(axis=2), ds, atol=1.1e-3)
    # The joint is used: somewhere GP is far from the product.
    assert np.abs(gp[..., 2] - hds.prod(axis=2)).max() > 0.02


def test_genotypes_are_the_likeliest(target, panel, tmp_path):
    out = tmp_path / "o.vcf"
    found = run(target, panel, out)
    cells = [
        [cell.split(":")[0] for cell in line.split("\t")[9:]]
        for line in out.read_text().splitlines()
        if not line.startswith("#")
    ]
    num_alt = np.array([[text.count("1") for text in row] for row in cells])
    assert all("|" in text for row in cells for text in row)
    gp = found.values["GP"]
    chosen = np.take_along_axis(gp, num_alt[..., None], axis=2)[..., 0]
    assert (chosen >= gp.max(axis=2) - 1.1e-3).all()


def test_certain_likelihoods_give_the_genotypes(panel, truth, tmp_path):
    sure = np.full((NUM_SITES, NUM, 3), 255)
    np.put_along_axis(sure, truth.sum(axis=2)[..., None], 0, axis=2)
    sure[1::2] = 0  # every other site has no reads
    found = run(write_reads(tmp_path / "t.vcf", sure, names(NUM)), panel, tmp_path / "o.vcf")
    np.testing.assert_allclose(dosages(found)[::2], truth.sum(axis=2)[::2], atol=0.15)


def test_genotypes_that_are_declared_but_absent_are_no_genotypes(panel, truth, tmp_path):
    """Deep reads are sure; without GT there is nothing else to use."""
    deep = phred(simulate_reads(truth.sum(axis=2), 30.0, np.random.default_rng(6)))
    found = run(write_reads(tmp_path / "t.vcf", deep, SAMPLES), panel, tmp_path / "o.vcf")
    assert np.corrcoef(dosages(found).ravel(), truth.sum(axis=2).ravel())[0, 1] ** 2 > 0.98


def test_a_sample_without_reads_gets_the_frequencies(reads, panel, tmp_path):
    silent = reads.copy()
    silent[:, 2] = 0
    found = run(write_reads(tmp_path / "t.vcf", silent, names(NUM)), panel, tmp_path / "o.vcf")
    with Panel.open(panel) as opened:
        af = opened.af
    np.testing.assert_allclose(dosages(found)[:, 2], 2 * af, atol=6e-4)
    expected = np.stack([(1 - af) ** 2, 2 * af * (1 - af), af**2], axis=1)
    np.testing.assert_allclose(found.values["GP"][:, 2], expected, atol=1.1e-3)


def rows_of(path):
    return [line.split("\t") for line in path.read_text().splitlines() if line[:2] != "##"]


def test_threads_order_and_company_do_not_matter(reads, target, panel, tmp_path, monkeypatch):
    impute(target, panel, tmp_path / "one.vcf", fields=FIELDS)
    impute(target, panel, tmp_path / "two.vcf", fields=FIELDS, threads=2)
    one = rows_of(tmp_path / "one.vcf")
    assert one == rows_of(tmp_path / "two.vcf")
    monkeypatch.setattr(imputer, "_PER_SAMPLE", 2**40)  # one sample at a time
    impute(target, panel, tmp_path / "batches.vcf", fields=FIELDS)
    assert one == rows_of(tmp_path / "batches.vcf")
    order = [3, 0]
    some = write_reads(tmp_path / "t.vcf", reads[:, order], [names(NUM)[i] for i in order])
    impute(some, panel, tmp_path / "some.vcf", fields=FIELDS)
    for row, chosen in zip(one, rows_of(tmp_path / "some.vcf"), strict=True):
        assert [row[9 + i] for i in order] == chosen[9:]


def test_phase_goes_on_from_window_to_window(target, panel, tmp_path, monkeypatch):
    """Which haplotype of a window comes first does not matter: the one before decides."""
    impute(target, panel, tmp_path / "one.vcf", fields=FIELDS, **WINDOWS)
    plain, seen = FittedPanel.impute, []

    def turned(self, likelihoods):
        seen.append(self)
        found = plain(self, likelihoods)
        if len(seen) % 2:  # the first window keeps its order
            return found
        return [one._replace(allele_prob=one.allele_prob[:, ::-1]) for one in found]

    monkeypatch.setattr(FittedPanel, "impute", turned)
    impute(target, panel, tmp_path / "two.vcf", fields=FIELDS, **WINDOWS)
    assert len(seen) == 4
    assert rows_of(tmp_path / "one.vcf") == rows_of(tmp_path / "two.vcf")


def test_a_run_that_was_broken_off_goes_on(target, panel, tmp_path, monkeypatch):
    from ragimpute.imputation import windows

    out = tmp_path / "o.vcf.gz"
    impute(target, panel, tmp_path / "whole.vcf.gz", fields=FIELDS, resume=True, **WINDOWS)
    seen = []
    write = windows.WindowRun.write

    def broken(self, copied, outputs):
        seen.append(copied.window)
        if len(seen) > 2:
            raise Stopped(signal.SIGTERM)
        return write(self, copied, outputs)

    monkeypatch.setattr(windows.WindowRun, "write", broken)
    with pytest.raises(Stopped):
        impute(target, panel, out, fields=FIELDS, resume=True, **WINDOWS)
    monkeypatch.setattr(windows.WindowRun, "write", write)
    impute(target, panel, out, fields=FIELDS, resume=True, **WINDOWS)
    with gzip.open(out, "rt") as file, gzip.open(tmp_path / "whole.vcf.gz", "rt") as other:
        assert file.read() == other.read()


def test_haploid_samples(reads, truth, panel, tmp_path):
    """A haploid sample has half the dosage that a homozygous one has, nearly."""
    single = phred(simulate_reads(2 * truth[:, :, 0], 2.0, np.random.default_rng(3))[..., [0, 2]])
    rows = np.where(np.arange(NUM) < 2, "0", "")
    pl = [[single[m, i] if i < 2 else reads[m, i] for i in range(NUM)] for m in range(NUM_SITES)]
    genotypes = [["." if one else "./." for one in rows] for _ in range(NUM_SITES)]
    path = write_reads(tmp_path / "t.vcf", pl, names(NUM), genotypes=genotypes)
    impute(
        path, panel, tmp_path / "o.vcf", fields=FIELDS,
        target_options=TargetOptions(likelihoods="always"),
    )  # fmt: skip
    cells = [row[9:] for row in rows_of(tmp_path / "o.vcf")[1:]]
    for i in range(2):
        texts = [row[i].split(":") for row in cells]
        assert all("|" not in gt and gp.count(",") == 1 for gt, _, gp, _ in texts)
        dosage = np.array([float(ds) for _, ds, _, _ in texts])
        assert dosage.max() <= 1
        assert np.corrcoef(dosage, truth[:, i, 0])[0, 1] ** 2 > 0.8
    assert all("|" in row[2] for row in cells)


def test_bgen_has_the_genotype_probabilities(target, panel, tmp_path, monkeypatch):
    from ragimpute.io.bgen import writer

    found = run(target, panel, tmp_path / "o.vcf")
    rows = []
    encode = writer.encode_rows

    def told(prob, **options):
        rows.append(encode(prob, **options | {"bits": 16}))
        return encode(prob, **options)

    monkeypatch.setattr(writer, "encode_rows", told)
    impute(target, panel, tmp_path / "o.bgen")
    data = np.concatenate([part for part, _ in rows])
    coded = data[:, 10 + NUM : 10 + NUM + 4 * NUM].copy().view("<u2") / 65535  # 0/0, 0/1
    np.testing.assert_allclose(
        coded.reshape(NUM_SITES, NUM, 2), found.values["GP"][..., :2], atol=1.1e-3
    )


def test_bcf_is_as_the_text(target, panel, tmp_path):
    text = run(target, panel, tmp_path / "o.vcf").values
    binary = run(target, panel, tmp_path / "o.bcf").values
    for name in ("DS", "GP", "HDS"):
        np.testing.assert_allclose(text[name], binary[name], atol=1e-6)


def test_arrays_are_as_the_file(target, panel, tmp_path):
    found = run(target, panel, tmp_path / "o.vcf")
    with Imputer(panel) as opened:
        given = opened.impute(target)
    np.testing.assert_allclose(given.probabilities, found.values["GP"], atol=1.01e-3)
    np.testing.assert_allclose(given.dosages, dosages(found), atol=5.1e-4)
    assert not given.typed.any()


def test_genotypes_below_a_probability_are_missing(target, panel, tmp_path):
    out = tmp_path / "o.vcf"
    found = run(target, panel, out, output_options=OutputOptions(min_gp=0.9))
    missing = np.array([[c.startswith("./.") for c in row[9:]] for row in rows_of(out)[1:]])
    assert missing.any()
    np.testing.assert_array_equal(missing, found.values["GP"].max(axis=2) < 0.9 - 1e-6)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"array_fit": "fit"}, "--array-fit"),
        ({"output_options": OutputOptions(empirical="e.vcf")}, "--empirical"),
    ],
)
def test_what_cannot_be_had_is_refused(target, panel, tmp_path, options, word):
    with pytest.raises(InputError, match=word) as caught:
        impute(target, panel, tmp_path / "o.vcf", **options)
    assert "--likelihoods never" in caught.value.hint
    assert not (tmp_path / "o.vcf").exists()


def test_what_changes_nothing_is_said(target, panel, tmp_path):
    summary = impute(target, panel, tmp_path / "o.vcf", fine_tune=False)
    assert any("--no-fine-tune changes nothing" in line for line in summary.warnings)


def test_given_parameters_are_used(target, panel, tmp_path):
    usual = dosages(run(target, panel, tmp_path / "a.vcf"))
    other = dosages(run(target, panel, tmp_path / "b.vcf", ne=10.0, err=0.2))
    assert np.abs(usual - other).max() > 0.1


@pytest.mark.parametrize("suffix", [".vcf", ".bcf"])
def test_multiallelic_sites_and_records_that_the_panel_lacks(tmp_path, alleles, truth, suffix):
    """Joined records' GP add up to 1, and records of the target alone keep their genotypes."""
    num = 60
    position = np.repeat(1000 + 500 * np.arange(num // 2), 2)
    of_panel = alleles[:num, : 2 * NUM_PANEL].copy()
    of_panel[1::2] *= 1 - of_panel[::2]  # the ALTs of a site exclude each other
    batch = make_batch(
        of_panel.reshape(num, NUM_PANEL, 2), position, ref=["A"] * num, alt=["G", "T"] * (num // 2)
    )
    write_panel(tmp_path / "p.h5", [batch], samples=names(NUM_PANEL), genetic_map=FlatMap())
    num_alt = truth[:num:2].sum(axis=2)
    pl = phred(simulate_reads(num_alt, 2.0, np.random.default_rng(1))).astype(int)
    rows = []
    for i, at in enumerate(position[::2].tolist()):
        cells = ["./.:" + ",".join(map(str, one)) for one in pl[i].tolist()]
        rows.append((at, "A", "G", *cells))
        if i == 3:
            rows.append((at + 7, "C", "G", *["0|1:0,0,0"] * NUM))
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text(rows, SAMPLES, formats=FORMATS, keys="GT:PL"))
    extra = OutputOptions(join_multiallelics=True, typed_only=True, min_gp=0.9)
    out = tmp_path / f"o{suffix}"
    impute(path, tmp_path / "p.h5", out, output_options=extra, fields=("GT", "DS", "GP"))
    joined = lone = 0
    for record in VCF(str(out)):
        gp = record.format("GP")
        np.testing.assert_allclose(gp.sum(axis=1), 1, atol=1e-5)
        lone += position[6] + 7 == record.POS
        if len(record.ALT) == 2:
            joined += 1
            of = [[1, 4, 2, 2], [3, 4, 5, 5]]  # genotypes by copies of either ALT
            for alt in range(2):
                ds = record.format("DS")[:, alt]
                np.testing.assert_allclose(gp[:, of[alt]].sum(axis=1), ds, atol=0.02)
    assert joined == num // 2
    assert lone == 1


def test_a_sample_that_is_haploid_in_one_half(reads, panel, tmp_path):
    """It is diploid in the other half; dosages stay within the ploidy."""
    half = NUM_SITES // 2
    genotypes = [["./."] * NUM for _ in range(NUM_SITES)]
    for row in genotypes[:half]:
        row[0] = "."
    pl = [list(row) for row in reads]
    for row in pl[:half]:
        row[0] = row[0][[0, 2]]
    path = write_reads(tmp_path / "t.vcf", pl, SAMPLES, genotypes=genotypes)
    impute(path, panel, tmp_path / "o.vcf", fields=FIELDS)
    rows = rows_of(tmp_path / "o.vcf")[1:]
    cells = [row[9].split(":") for row in rows]
    single = np.array(["|" not in gt for gt, *_ in cells])
    assert single[:half].all()
    assert not single[half:].any()
    assert all(gp.count(",") == 1 for _, _, gp, _ in cells[:half])
    assert (np.array([float(ds) for _, ds, *_ in cells])[:half] <= 1).all()
    assert all("|" in cell for row in rows for cell in row[10:])


def test_dr2_is_calibrated_for_reads_and_merged_as_such(panel, reads, tmp_path):
    target = write_reads(tmp_path / "t.vcf", reads, SAMPLES)
    out = tmp_path / "out.vcf.gz"
    impute(target, panel, out)
    shipped = Dr2Calibration.read(models_dir() / "likelihoods")
    assert shipped.coefficients
    with gzip.open(out, "rt") as file:
        header = "".join(line for line in file if line.startswith("##"))
    assert Dr2Calibration.from_header(header).coefficients == pytest.approx(shipped.coefficients)
    batches = []
    for part in (SAMPLES[:2], SAMPLES[2:]):
        batches.append(tmp_path / f"{part[0]}.vcf.gz")
        (tmp_path / "names.txt").write_text("\n".join(part) + "\n")
        taken = TargetOptions(samples=tmp_path / "names.txt", likelihoods="always")
        impute(target, panel, batches[-1], target_options=taken)
    merged = tmp_path / "merged.vcf.gz"
    merge(batches, merged)
    found = [[v.INFO["DR2"] for v in VCF(str(path))] for path in (out, merged)]
    np.testing.assert_allclose(found[0], found[1], atol=2e-4)
