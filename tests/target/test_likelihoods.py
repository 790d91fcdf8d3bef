"""Likelihoods on their way to the panel's sites: turned, merged, counted, and beside calls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from vcf_fixtures import convert, vcf_text

from ragimpute.errors import InputError
from ragimpute.imputation.compare import compare
from ragimpute.imputation.impute import impute
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.io.vcf.read.likelihoods import LikelihoodOptions
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.target.inputs import InputFiles, TargetOptions
from ragimpute.target.likelihoods import (
    called_likelihoods,
    merge_likelihoods,
    turned_likelihoods,
)
from ragimpute.target.match import match_sites, no_match

FORMATS = "".join(
    f'##FORMAT=<ID={name},Number={number},Type={kind},Description="x">\n'
    for name, number, kind in (
        ("GT", 1, "String"), ("PL", "G", "Integer"), ("DP", 1, "Integer"), ("GP", "G", "Float"),
    )
)  # fmt: skip
SITES = [(100, "A", "G"), (200, "C", "T"), (300, "G", "A"), (400, "T", "TA"), (500, "A", "C")]
ALWAYS = LikelihoodOptions("always")
USED = InputFiles("t", "p", options=TargetOptions(likelihoods="always"))


@pytest.fixture
def panel(tmp_path):
    position, ref, alt = zip(*SITES, strict=True)
    batch = make_batch(np.zeros((len(SITES), 4, 2)), position, ref=ref, alt=alt)
    write_panel(tmp_path / "p.h5", [batch], samples=names(4), genetic_map=FlatMap())
    with Panel.open(tmp_path / "p.h5") as opened:
        yield opened


@pytest.fixture
def read(tmp_path):
    def make(rows, keys="GT:PL:DP", samples=("a", "b")):
        path = tmp_path / "t.vcf"
        path.write_text(vcf_text(rows, samples, formats=FORMATS, keys=keys))
        return read_target(path, likelihoods=ALWAYS)

    return make


def reads(found):
    """The likelihoods by panel site."""
    return dict(zip(found.panel_index.tolist(), found.likelihoods.tolist(), strict=True))


def test_exchanged_alleles_turn_likelihoods_round_and_strands_leave_them(panel, read):
    target = read([
        (100, "G", "A", "0/1:0,3,30:1", "1/1:60,6,0:2"),  # exchanged
        (200, "G", "A", "0/1:0,3,30:1", "1/1:60,6,0:2"),  # the other strand
        (300, "T", "C", "0/1:0,3,30:1", "1/1:60,6,0:2"),  # both
        (350, "T", "C", "0/1:0,3,30:1", "1/1:60,6,0:2"),  # not in the panel
        (500, "A", "C,G", "0/1:9,0,9,40,40,50:1", "0/0:.:."),
    ])  # fmt: skip
    found = match_sites(target, panel, 0, 5)
    assert reads(found) == {
        0: [[30, 3, 0], [0, 6, 60]],
        1: [[0, 3, 30], [60, 6, 0]],
        2: [[30, 3, 0], [0, 6, 60]],
        4: [[9, 0, 9], [0, 0, 0]],
    }
    assert found.counts["not_in_panel"] == 1
    assert found.has_reads().sum() == 7


def test_records_of_one_site_are_combined(panel, read):
    target = read([
        (100, "A", "G", "./.:0,3,30:1", "./.:0,3,30:1"),
        (100, "A", "G", "./.:0,3,30:1", "./.:60,6,0:2"),  # the same reads; other reads
        (200, "C", "T", "0|1:.:.", "1|1:.:."),  # an array, and reads
        (200, "C", "T", "./.:0,3,30:1", "./.:60,6,0:2"),
    ])  # fmt: skip
    found = match_sites(target, panel, 0, 5)
    assert reads(found) == {0: [[0, 3, 30], [51, 0, 21]], 1: [[0, 3, 30], [60, 6, 0]]}
    assert found.counts["duplicate"] == 2
    assert found.alleles.tolist() == [[[-1, -1], [-1, -1]], [[0, 1], [1, 1]]]
    both = -10 * np.log10(found.likelihoods_of(slice(1, 2)))
    np.testing.assert_allclose(both, [[[27, 0, 57], [120, 36, 0]]], atol=1e-4)


def test_calls_are_nearly_certain_and_silence_is_flat(panel, read):
    target = read([
        (100, "A", "G", "0/1:.:.", "0/0:.:."), (200, "C", "T", "1/1:.:.", "./.:0,0,0:0"),
    ])  # fmt: skip
    found = match_sites(target, panel, 0, 5).likelihoods_of(slice(None))
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, [[[1e-3, 1, 1e-3], [1, 1e-3, 1e-6]], [[1e-6, 1e-3, 1], [1, 1, 1]]], rtol=1e-5
    )


def test_sites_of_the_panel_without_records_are_flat(panel, read):
    target = read([
        (200, "C", "T", "./.:0,10,30:1", "1/1:.:."), (400, "T", "TA", "0/0:.:.", "./.:0,9,90:3"),
    ])  # fmt: skip
    found = match_sites(target, panel, 0, 5)
    whole = found.likelihoods_on(0, 5)
    assert whole.shape == (5, 2, 3)
    assert (whole[[0, 2, 4]] == 1).all()
    np.testing.assert_array_equal(whole[[1, 3]], found.likelihoods_of(slice(None)))
    np.testing.assert_array_equal(found.likelihoods_on(1, 3), whole[1:3])
    assert (whole[3, 1] == 1).all()  # those of an insertion are not used


def test_a_haploid_sample_has_two_genotypes(panel, read):
    target = read([
        (100, "A", "G", "0:0,30:2", "1:.:."), (200, "C", "T", ".:.:.", "0/0:.:."),
        (300, "G", "A", "1:40,0:2", "0/0:0,9,90:3"),
    ])  # fmt: skip
    found = match_sites(target, panel, 0, 5)
    assert found.alleles[:, 0, 1].tolist() == [-2, -2, -2]
    outer = found.likelihoods_of(slice(None))[:, 0][:, [0, 2]]
    np.testing.assert_allclose(outer, [[1, 1e-3], [1, 1], [1e-4, 1]], rtol=1e-5)
    np.testing.assert_allclose(
        found.likelihoods_of(slice(0, 1))[0, 1][[0, 2]], [1e-3, 1], rtol=1e-5
    )


def test_genotypes_alone_have_likelihoods_too(panel, tmp_path):
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text([(100, "A", "G", "0|1", "./.")]))
    found = match_sites(read_target(path), panel, 0, 5)
    assert found.likelihoods is None
    assert not found.has_reads().any()
    np.testing.assert_allclose(found.likelihoods_of(slice(None))[0, 1], 1)


triples = st.tuples(*[st.integers(0, 255)] * 3)


@settings(max_examples=50, deadline=None)
@given(st.lists(triples, min_size=1, max_size=4), st.data())
def test_merging_does_not_depend_on_order_or_repeats(given_rows, data):
    rows = np.array([np.array(row) - min(row) for row in given_rows], np.uint8)[:, None]
    whole = merge_likelihoods(rows)
    order = data.draw(st.permutations(range(len(rows))))
    np.testing.assert_array_equal(merge_likelihoods(rows[order]), whole)
    np.testing.assert_array_equal(merge_likelihoods(np.concatenate([rows, rows])), whole)
    flat = np.zeros_like(rows[:1])
    np.testing.assert_array_equal(merge_likelihoods(np.concatenate([flat, rows])), whole)
    assert whole.min() == 0
    turned = turned_likelihoods(rows, np.ones(len(rows), bool))
    np.testing.assert_array_equal(merge_likelihoods(turned), whole[:, ::-1])


def test_two_haploid_records_that_contradict_each_other_say_nothing():
    rows = np.array([[[0, 255, 30]], [[30, 255, 0]]], np.uint8)
    assert merge_likelihoods(rows).tolist() == [[0, 0, 0]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([(0, 0), (0, 1), (1, 1), (1, -2), (0, -2), (-1, -1), (-1, -2)])))
def test_the_called_genotype_is_the_likeliest(calls):
    alleles = np.array(calls, np.int8).reshape(1, -1, 2)
    found = called_likelihoods(alleles)
    for (first, second), row in zip(calls, found[0].tolist(), strict=True):
        if first < 0:
            assert row == [0, 0, 0]
        else:
            assert row.index(0) == (2 * first if second == -2 else first + second)
            assert sorted(row)[1] >= 30


def test_an_empty_match_has_room_for_none(read):
    target = read([(100, "A", "G", "./.:0,3,30:1", "./.:0,3,30:1")])
    assert no_match(target).likelihoods.shape == (0, 2, 3)


def qc(path, panel, **options):
    """What --qc-only finds, and its rows by name."""
    report = compare(InputFiles(path, panel, options=TargetOptions(**options)))
    return report, dict(report.rows())


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_qc_counts_reads(panel, tmp_path, suffix, caplog):
    rows = [
        (100, "A", "G", "0,3,30:1", "0,0,0:0", "0,0,0:0"),
        (200, "C", "T", "0,9,90:3", "0,0,0:0", "3,0,9:2"),
        (300, "G", "A,T", "0,3,30,.,.,.:1", "0,.,.,3,.,30:2", "0,0,0,0,0,0:0"),
        (400, "T", "TA", "0,3,30:1", "0,0,0:0", "0,0,0:0"),
    ]
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text(rows, ("a", "b", "c"), formats=FORMATS, keys="PL:DP"))
    path = path if suffix == ".vcf" else convert(path, suffix)
    found, shown = qc(path, panel.path)
    assert found.reads.without_reads == ("b",)
    assert found.reads.share == 4 / 12
    assert found.reads.mean_depth == 10 / 12
    assert (found.reads.num_incomplete, found.reads.num_indels) == (1 + 1 + 0, 1)
    assert shown["genotypes"] == "by their likelihoods (PL)"
    assert shown["mean depth (DP)"] == "0.833"
    assert not found.low_samples
    assert "1 samples have no genotype and no read at any panel site (b)" in caplog.text
    assert "have some of their likelihoods" in caplog.text


def test_flat_likelihoods_and_gp_are_warned_of(panel, tmp_path, caplog):
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text([(100, "A", "G", "0,0,0", ".")], formats=FORMATS, keys="PL"))
    qc(path, panel.path)
    assert "flat at all panel sites" in caplog.text
    gp = '##FORMAT=<ID=GP,Number=G,Type=Float,Description="x">\n'
    path.write_text(vcf_text([(100, "A", "G", "0.9,0.1,0", ".")], formats=gp, keys="GP"))
    qc(path, panel.path, likelihoods="always")
    assert "GP is used as likelihoods" in caplog.text


def test_a_target_in_memory_keeps_or_loses_its_likelihoods(panel, read):
    target = read([(100, "A", "G", "0/1:0,3,30:1", "1/1:60,6,0:2")])
    assert qc(target, panel.path)[0].reads.fields == ("PL",)
    assert qc(target, panel.path, likelihoods="never")[0].reads is None
    plain = read_target(target.file, likelihoods=None)
    assert qc(plain, panel.path)[0].reads is None
    with pytest.raises(InputError, match="the target has no likelihoods"):
        qc(plain, panel.path, likelihoods="always")


def test_a_wrong_word_is_refused():
    with pytest.raises(ValueError, match="auto, always, never, found 'often'"):
        TargetOptions(likelihoods="often")


def test_impute_says_that_it_needs_genotypes(panel, tmp_path):
    path = tmp_path / "t.vcf"
    rows = [(100, "A", "G", "0/1:0,3,30:1", "1/1:60,6,0:2")]
    path.write_text(vcf_text(rows, formats=FORMATS, keys="GT:PL:DP"))
    with pytest.raises(InputError, match="called genotypes only") as caught:
        impute(path, panel.path, tmp_path / "o.vcf", target_options=USED.options)
    assert "--qc-only" in caught.value.hint
    assert not (tmp_path / "o.vcf").exists()


def test_the_hint_of_wrong_likelihoods_works(panel, tmp_path):
    path = tmp_path / "t.vcf"
    path.write_text(
        vcf_text([(100, "A", "G", "0/1:0,3,30,4", "1/1:9,-2,0")], formats=FORMATS, keys="GT:PL")
    )
    with pytest.raises(InputError) as caught:
        qc(path, panel.path, likelihoods="always")
    assert "--likelihoods never" in caught.value.hint
    assert qc(path, panel.path, likelihoods="never")[0].fates["matched"] == 1


def test_the_hint_of_a_file_without_likelihoods_works(panel, tmp_path):
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text([(100, "A", "G", "0/1", "1/1")]))
    with pytest.raises(InputError, match="has no likelihoods") as caught:
        qc(path, panel.path, likelihoods="always")
    assert "leave out --likelihoods" in caught.value.hint
    assert qc(path, panel.path)[0].reads is None


def test_the_command_line_reads_likelihoods(panel, tmp_path, command_line):
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text([(100, "A", "G", "0,3,30", "9,0,9")], formats=FORMATS, keys="PL"))
    args = ["impute", str(path), "--panel", str(panel.path), "--qc-only"]
    shown = command_line(*args, "--likelihoods", "always", "--use-indel-likelihoods")
    assert "by their likelihoods (PL)" in str(shown)
