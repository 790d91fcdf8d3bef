"""How impute, phase and --qc-only begin: what is opened, read of a target, and warned of."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from vcf_fixtures import read_imputed, vcf_text, write_genotypes

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.imputation.compare import compare
from ragimpute.imputation.impute import impute
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.panel.reader import Panel, PanelFile
from ragimpute.panel.views import PanelView
from ragimpute.sites import Region
from ragimpute.target import qc
from ragimpute.target.inputs import InputFiles, TargetOptions, open_inputs, take_target
from ragimpute.target.qc import TargetReport

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2300000")


def test_panel_target_and_match_belong_together(panel_h5, monkeypatch):
    closed = []
    monkeypatch.setattr(PanelFile, "close", lambda self: closed.append(self))
    report = TargetReport()
    with ExitStack() as stack:
        inputs = open_inputs(
            InputFiles(TARGET, panel_h5, region=REGION, buffer_cm=0.1), stack, report
        )
        position = inputs.panel.sites.position_bp
        assert position[inputs.start - 1] < REGION.start_bp <= position[inputs.start]
        assert position[inputs.stop - 1] < REGION.stop_bp <= position[inputs.stop]
        match, target = inputs.match, inputs.target
        np.testing.assert_array_equal(
            position[match.panel_index], target.sites.position_bp[match.row]
        )
        assert match.panel_index[0] < inputs.start  # the buffer is read too
        assert match.panel_index[-1] >= inputs.stop
        cm = inputs.panel.position_cm
        assert cm[match.panel_index[0]] >= cm[inputs.start] - 0.1
        assert inputs.contigs == [("20", inputs.panel.contig_length)]
        inside = (match.panel_index >= inputs.start) & (match.panel_index < inputs.stop)
        assert report.counts["typed"] == inside.sum() > 0
        assert report.num_samples == len(target.samples)
        assert report.num_haplotypes == inputs.panel.num_haplotypes
        assert report.qc is not None
        assert not closed
    assert closed == [inputs.panel]


def test_a_view_is_taken_before_the_target_is_read_and_used_instead(panel_h5, tmp_path):
    order = []

    class View(PanelView):
        """The panel under another name."""

        contig = "20"

    def view(panel, start, stop):
        order.append((panel, start, stop))
        (tmp_path / "t.vcf").write_text(text)  # there was none until now
        return View(panel)

    key = read_target(TARGET, region=REGION).sites.keys()[0]
    text = vcf_text([(*key, "0|1", "1|1")])
    with ExitStack() as stack:
        files = InputFiles(tmp_path / "t.vcf", panel_h5, region=REGION)
        inputs = open_inputs(files, stack, TargetReport(), view=view)
        assert isinstance(inputs.panel, View)
        assert order[0][1:] == (inputs.start, inputs.stop)
        assert inputs.match.alleles.reshape(-1).tolist() == [0, 1, 1, 1]


def test_warnings_are_logged_once_and_kept(panel_h5, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(qc.log, "warning", lines.append)
    report = TargetReport()
    key = read_target(TARGET, region=REGION).sites.keys()[0]
    (tmp_path / "t.vcf").write_text(vcf_text([(*key, "0|1", "./.")]))
    with ExitStack() as stack:
        open_inputs(InputFiles(tmp_path / "t.vcf", panel_h5, region=REGION), stack, report)
    assert report.warnings == lines
    assert sum("1 samples have no genotype at any panel site" in line for line in lines) == 1


def test_a_panel_prepared_for_the_run_is_removed_and_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report = TargetReport()
    files = InputFiles(TARGET, example.path("panel.bcf"), cm_per_mb=1.0, region=REGION)
    with ExitStack() as stack:
        inputs = open_inputs(files, stack, report)
        assert Path(inputs.panel.path).is_relative_to(tmp_path)
        assert [line for line in report.warnings if "was prepared for this run only" in line]
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_unphased_genotypes_are_refused_where_asked(panel_h5, tmp_path):
    key = read_target(TARGET, region=REGION).sites.keys()[0]
    (tmp_path / "t.vcf").write_text(vcf_text([(*key, "0/1", "1|1")]))
    files = InputFiles(tmp_path / "t.vcf", panel_h5, region=REGION)
    with ExitStack() as stack:
        assert not open_inputs(files, stack, TargetReport()).match.phased.all()
    with ExitStack() as stack, pytest.raises(InputError, match="is not phased: 1 unphased"):
        open_inputs(files, stack, TargetReport(), phased_only=True)


def test_files_have_the_names_that_messages_give_them():
    options = TargetOptions(samples=Path("s"), exclude_samples=Path("e"))
    files = InputFiles("t", "p", genetic_map="m", options=options)
    assert files.named() == {
        "target input": "t", "panel input": "p", "map input": "m", "list of samples": Path("s"),
        "excluded samples": Path("e"), "FASTA input": None, "chain input": None,
    }  # fmt: skip


TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2300000")
FIXED = {"ne": 1e5, "err": 1e-3, "region": REGION, "fields": ("GT", "DS", "HDS")}


@pytest.fixture(scope="module")
def given():
    """The example's target."""
    return read_target(TARGET)


@pytest.fixture
def run(panel_h5, plain_copying, tmp_path):
    """Imputes a target of some genotypes, or text; gives what was written and the summary."""

    def one(target, **options):
        out = tmp_path / "x.vcf"
        summary = impute(target, panel_h5, out, model=plain_copying, **{**FIXED, **options})
        return read_imputed(out), summary

    return one


def warned(summary, text):
    return any(text in line for line in summary.warnings)


def test_peers_61_a_sample_without_genotypes_has_the_panels_frequencies(
    given, run, panel_h5, tmp_path
):
    alleles = given.alleles.copy()
    alleles[:, 3] = -1
    alleles[:, 8, 0] = -1  # one haplotype alone
    target = write_genotypes(tmp_path / "t.vcf", given.sites.keys(), alleles, given.samples)
    found, summary = run(target)
    expected, _ = run(TARGET)
    with Panel.open(panel_h5) as panel:
        start, stop = panel.site_range(REGION)
        af = panel.af[start:stop]
    for sample, haplotype in ((3, 0), (3, 1), (8, 0)):
        np.testing.assert_allclose(found.values["HDS"][:, sample, haplotype], af, atol=6e-4)
    rest = [i for i in range(50) if i not in (3, 8)]
    np.testing.assert_array_equal(found.values["HDS"][:, rest], expected.values["HDS"][:, rest])
    np.testing.assert_array_equal(found.values["HDS"][:, 8, 1], expected.values["HDS"][:, 8, 1])
    assert summary.untyped_samples == [given.samples[3]]
    assert warned(summary, f"1 samples have no genotype at any panel site ({given.samples[3]})")


def test_peers_62_a_sample_with_few_genotypes_is_named(given, run, tmp_path):
    alleles = given.alleles.copy()
    alleles[np.arange(len(alleles)) % 5 > 0, 4] = -1
    target = write_genotypes(tmp_path / "t.vcf", given.sites.keys(), alleles, given.samples)
    found, summary = run(target)
    assert warned(summary, f"1 samples have less than half of their genotypes ({given.samples[4]})")
    assert found.samples == given.samples


@pytest.mark.parametrize(
    ("call", "expected"),
    [("./1", (-1, -1)), ("1/.", (-1, -1)), (".|1", (-1, 1)), ("1|.", (1, -1)), (".", (-1, -1)),
     ("./.", (-1, -1)), (".|.", (-1, -1)), ("1/1", (1, 1)), ("1", (1, -2))],
)  # fmt: skip
def test_half_missing_genotypes(panel_h5, tmp_path, given, call, expected):
    key = next(k for k in given.sites.keys() if k[0] > REGION.start_bp)
    (tmp_path / "t.vcf").write_text(vcf_text([(*key, call, "0|1")]))
    with Panel.open(panel_h5) as panel:
        target, match = take_target(
            tmp_path / "t.vcf", panel, REGION, TargetOptions(), TargetReport(),
            buffer_cm=0.1, threads=1,
        )  # fmt: skip
    assert tuple(match.alleles[0, 0].tolist()) == expected
    assert target.phased.all()


def test_half_missing_genotypes_are_imputed(given, run, tmp_path):
    here = [i for i, k in enumerate(given.sites.keys()) if REGION.start_bp <= k[0] < 2_300_000]
    text = write_genotypes(
        tmp_path / "t.vcf", given.sites.keys(), given.alleles, given.samples
    ).read_text()
    lines = text.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("#CHROM"))
    row = head + 1 + here[len(here) // 2]
    cells = lines[row].split("\t")
    cells[9] = "./1"
    lines[row] = "\t".join(cells)
    (tmp_path / "t.vcf").write_text("\n".join(lines) + "\n")
    found, _ = run(tmp_path / "t.vcf")
    assert (found.genotypes[:, :, 0] >= 0).all()
    site = found.keys.index(given.sites.keys()[here[len(here) // 2]])
    assert found.typed[site]
    assert found.genotypes[site, 0].min() >= 0


def test_peers_2_a_region_with_few_records_goes_on(given, run, tmp_path, panel_h5):
    rows = [(2_250_000 + 7 * i, "A", "G", "0|1", "1|1") for i in range(20)]
    with Panel.open(panel_h5) as panel:
        taken = {key[0] for key in panel.sites.keys()}
    rows = [row for row in rows if row[0] not in taken]
    (tmp_path / "t.vcf").write_text(vcf_text(rows))
    found, summary = run(tmp_path / "t.vcf")
    assert warned(summary, "no record that the panel has in the region")
    assert (found.info["DR2"] == 0).all()
    assert not found.typed.any()
    with pytest.raises(InputError, match="no target record is a panel site"):
        run(tmp_path / "t.vcf", region=None)


def test_windows_without_typed_sites_are_named(given, run, tmp_path):
    keys = given.sites.keys()
    some = [i for i, key in enumerate(keys) if not 2_230_000 < key[0] < 2_270_000]
    target = write_genotypes(
        tmp_path / "t.vcf", [keys[i] for i in some], given.alleles[some], given.samples
    )
    found, summary = run(target, window_cm=0.01, buffer_cm=0.001)
    assert warned(summary, "windows have no typed site (20:22")
    assert warned(summary, "DR2 is 0")
    gap = np.array([2_240_000 < key[0] < 2_260_000 for key in found.keys])
    assert (found.info["DR2"][gap] == 0).any()


def test_peers_31_typed_sites_that_run_against_their_neighbours(given, run, tmp_path):
    alleles = given.alleles.copy()
    af = (alleles == 1).mean(axis=(1, 2))
    here = [i for i, k in enumerate(given.sites.keys())
            if REGION.start_bp + 9000 < k[0] < 2_290_000 and 0.3 < af[i] < 0.45]  # fmt: skip
    wrong = here[len(here) // 2]
    alleles[wrong] = 1 - alleles[wrong]
    target = write_genotypes(tmp_path / "t.vcf", given.sites.keys(), alleles, given.samples)
    found, summary = run(target)
    at = given.sites.keys()[wrong]
    assert warned(summary, f"1 typed sites run against the sites around them (20:{at[0]})")
    # What was observed is kept all the same.
    np.testing.assert_array_equal(found.genotypes[found.keys.index(at)], alleles[wrong])
    clean, summary = run(TARGET)
    assert not warned(summary, "run against")
    assert clean.samples == found.samples


def test_one_sample_alone_tells_nothing_of_its_neighbours(given, run, tmp_path):
    """Over two haplotypes a correlation is 1 or -1."""
    for i in range(3):
        alleles = given.alleles[:, i : i + 1]
        target = write_genotypes(
            tmp_path / "t.vcf", given.sites.keys(), alleles, given.samples[i : i + 1]
        )
        assert not warned(run(target)[1], "run against")


def test_peers_32_swaps_and_flips_change_nothing(given, run, tmp_path):
    expected, _ = run(TARGET)
    strand = str.maketrans("ACGT", "TGCA")
    keys, alleles = list(given.sites.keys()), given.alleles.copy()
    for i, (position, ref, alt) in enumerate(keys):
        if len(ref) + len(alt) > 2:
            continue
        if i % 4 in (1, 3):
            ref, alt, alleles[i] = alt, ref, 1 - alleles[i]
        if i % 4 in (2, 3):
            ref, alt = ref.translate(strand), alt.translate(strand)
        keys[i] = position, ref, alt
    target = write_genotypes(tmp_path / "t.vcf", keys, alleles, given.samples)
    found, summary = run(target)
    for fate in ("matched", "swapped", "flipped", "flipped_swapped"):
        assert summary.counts[fate] > 20
    assert warned(summary, "of the other strand than the panel")
    assert summary.qc.palindromes["found"] > 0
    lost = summary.counts["ambiguous_strand"]
    assert lost < 10
    typed = np.flatnonzero(found.typed)
    np.testing.assert_array_equal(found.genotypes[typed], expected.genotypes[typed])
    assert np.abs(found.dosage - expected.dosage).mean() < 2e-3


def test_peers_40_contigs_are_mapped_by_name(given, run, tmp_path):
    expected, _ = run(TARGET)
    for contig in ("chr20", "Chr20", "CHR20"):
        target = write_genotypes(
            tmp_path / "t.vcf", given.sites.keys(), given.alleles, given.samples, contig=contig
        )
        found, summary = run(target)
        assert set(found.contig) == {contig}
        np.testing.assert_array_equal(found.dosage, expected.dosage)
        assert warned(summary, f"contig 20 of the panel is {contig} in the target")


def test_design7_8_peers_19_info_is_never_trusted(given, run, tmp_path):
    target = write_genotypes(tmp_path / "t.vcf", given.sites.keys(), given.alleles, given.samples)
    text = target.read_text().replace("\t.\t.\t.\tGT", "\t.\t.\tAC=99;AN=3;AF=0.9\tGT")
    infos = "".join(
        f'##INFO=<ID={name},Number={n},Type={kind},Description="x">\n'
        for name, n, kind in (("AC", "A", "Integer"), ("AN", 1, "Integer"), ("AF", "A", "Float"))
    )
    target.write_text(text.replace("##FORMAT", infos + "##FORMAT", 1))
    found, _ = run(target)
    expected, _ = run(TARGET)
    np.testing.assert_array_equal(found.dosage, expected.dosage)
    np.testing.assert_array_equal(found.info["AF"], expected.info["AF"])


def test_the_table_is_written_before_any_failure(panel_h5, tmp_path):
    rows = [(2_100_000 + i, "A", "G", "0|1", "1|1") for i in range(3)]
    (tmp_path / "t.vcf").write_text(vcf_text(rows))
    options = TargetOptions(excluded_sites=tmp_path / "x.tsv")
    with pytest.raises(InputError, match="no target record is a panel site"):
        compare(InputFiles(tmp_path / "t.vcf", panel_h5, options=options))
    assert len((tmp_path / "x.tsv").read_text().splitlines()) == 4
    (tmp_path / "x.tsv").unlink()
    with pytest.raises(InputError, match="no target record is a panel site"):
        impute(tmp_path / "t.vcf", panel_h5, tmp_path / "y.vcf", target_options=options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.vcf", "x.tsv"]
