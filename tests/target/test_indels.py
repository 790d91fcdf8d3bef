"""Insertions and deletions in any spelling: with a FASTA, without one, and beside bcftools norm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcf_fixtures import vcf_text

from ragimpute.errors import InputError
from ragimpute.imputation.compare import compare
from ragimpute.io.fasta import Fasta
from ragimpute.io.vcf.read.records import site_table
from ragimpute.preparation.prepare import prepare
from ragimpute.target.indels import known_bases, left_aligned, look_alikes, trimmed
from ragimpute.target.inputs import InputFiles, TargetOptions

REPEATS = st.lists(
    st.tuples(st.sampled_from(["A", "C", "AC", "ACG", "T", "GAT", "N"]), st.integers(1, 6)),
    min_size=3, max_size=12,
).map(lambda parts: "".join(unit * count for unit, count in parts))  # fmt: skip


def applied(genome, key):
    """The genome with a variant in it."""
    position, ref, alt = key
    assert genome[position - 1 :].startswith(ref)
    return genome[: position - 1] + alt + genome[position - 1 + len(ref) :]


@st.composite
def indels(draw):
    """A genome, and an indel of it in some spelling."""
    genome = draw(REPEATS)
    at = draw(st.integers(1, len(genome) - 1))
    length = draw(st.integers(1, min(6, len(genome) - at)))
    ref, more = genome[at - 1 : at + length], draw(st.integers(0, 3))
    tail = genome[at + length : at + length + more]
    if draw(st.booleans()):
        return genome, (at, ref + tail, ref[:1] + tail)
    unit = draw(st.sampled_from([genome[at : at + length], "A", "CA"]))
    return genome, (at, ref + tail, ref[:1] + unit + ref[1:] + tail)


@given(
    st.integers(1, 9), st.text("ACGTN*<", max_size=4), st.text("ACGTN*<", max_size=4),
    st.text("ACGT", min_size=9, max_size=9),
)  # fmt: skip
def test_alleles_of_any_form_are_aligned(position, ref, alt, reference):
    """Empty ones too, which a BCF can hold."""
    moved, one, other = left_aligned(
        (position, ref, alt), lambda at: reference[max(0, at - 1) : at]
    )
    assert moved >= 0
    assert len(one) - len(other) == len(ref) - len(alt)
    indel = (position, ref, alt)
    list(look_alikes(indel, [indel], np.array([position]), {}))


@given(indels())
@settings(max_examples=150)
def test_all_spellings_become_the_leftmost(made):
    genome, key = made

    def base_at(position):
        return genome[position - 1] if 1 <= position <= len(genome) else ""

    found = left_aligned(key, base_at)
    changed = applied(genome, key)
    assert applied(genome, found) == changed
    same = [
        trimmed(position, genome[position - 1 : position - 1 + len(found[1])], alt)
        for position in range(1, len(genome) - len(found[1]) + 2)
        for alt in [changed[position - 1 : position - 1 + len(found[2])]]
        if alt and applied(genome, (position, genome[position - 1 : position - 1 + len(found[1])],
                                    alt)) == changed
    ]  # fmt: skip
    assert all(left_aligned(other, base_at) == found for other in same)
    assert found[0] <= min(other[0] for other in same)
    # Without bases nothing moves that is not within the alleles themselves.
    assert applied(genome, left_aligned(key, lambda _: "")) == changed


def test_they_are_those_of_bcftools_norm(tmp_path):
    rng = np.random.default_rng(3)
    genome = "".join(
        unit * int(count)
        for unit, count in zip(
            rng.choice(["A", "C", "AC", "ACG", "T", "GAT"], 400),
            rng.integers(1, 7, 400),
            strict=True,
        )
    )
    (tmp_path / "r.fa").write_text(f">20\n{genome}\n")
    rows = []
    for at in rng.integers(2, len(genome) - 20, 300).tolist():
        length = int(rng.integers(1, 7))
        ref = genome[at - 1 : at + length]
        if rng.random() < 0.5:
            rows.append((at, ref, ref[0], "0|1"))
        else:
            rows.append((at, ref[0], ref, "0|1"))
    rows.sort(key=lambda row: row[0])
    text = vcf_text(rows, ["a"])
    lines = text.splitlines()
    head = [line for line in lines if line.startswith("#")]
    body = [line.split("\t") for line in lines if not line.startswith("#")]
    for i, cells in enumerate(body):
        cells[2] = f"i{i}"
    (tmp_path / "x.vcf").write_text(
        "\n".join([*head, *("\t".join(cells) for cells in body)]) + "\n"
    )
    (tmp_path / "y.vcf").write_text(bcftools_norm(tmp_path / "r.fa", tmp_path / "x.vcf"))
    normed = {
        cells[2]: (int(cells[1]), cells[3], cells[4])
        for cells in (
            line.split("\t") for line in (tmp_path / "y.vcf").read_text().splitlines()
            if line[0] != "#"
        )
    }  # fmt: skip
    fasta = Fasta(tmp_path / "r.fa", "chr20")
    found = {f"i{i}": left_aligned(row[:3], fasta.base) for i, row in enumerate(rows)}
    assert found == normed
    assert sum(found[f"i{i}"] != row[:3] for i, row in enumerate(rows)) > 100


def bcftools_norm(fasta, path):
    """What bcftools norm writes; it says on standard error how many lines it has read."""
    from vcf_tools import run_bcftools

    done = run_bcftools("norm", "--no-version", "-f", fasta, path)
    assert done.returncode == 0, done.stderr
    return done.stdout


PREFIX = "GTCATCGGATTC"
GENOME = PREFIX + "A" * 6 + "G" + "CA" * 5 + "TTGCATGACC"


def sequence(first, length):
    """Bases of GENOME from a 1-based position on."""
    return GENOME[first - 1 : first - 1 + length]


@pytest.fixture
def inputs(tmp_path):
    """A function that makes a panel and a target of indels, and compares them."""
    (tmp_path / "r.fa").write_text(f">chr20\n{GENOME}\n")
    snps = [(p, sequence(p, 1), "ACGT"["CGTA".index(sequence(p, 1))]) for p in (2, 4, 6, 8, 33, 37)]

    def make(panel, target, *, fasta=None):
        rows = sorted([(*site, "0|1", "1|0") for site in [*snps, *panel]])
        (tmp_path / "p.vcf").write_text(vcf_text(rows))
        prepare(tmp_path / "p.vcf", tmp_path / "p.h5", cm_per_mb=1.0, force=True)
        rows = sorted([(*site, "0|1") for site in [*snps, *target]])
        (tmp_path / "t.vcf").write_text(vcf_text(rows, ["s"]))
        listed = tmp_path / "x.tsv"
        options = TargetOptions(excluded_sites=listed, fasta=fasta)
        found = compare(InputFiles(tmp_path / "t.vcf", tmp_path / "p.h5", options=options))
        cells = [line.split("\t") for line in listed.read_text().splitlines()[1:]]
        return found.fates["matched"] - len(snps), [row[-1] for row in cells]

    return make


LEFT = (12, "CA", "C")  # a deletion of an A, as far left as it goes
RIGHT = (17, "AA", "A")  # the same
WHOLE = (12, "CAAAAAA", "CAAAAA")  # the same; its REF tells all bases


def test_with_a_fasta_any_spelling_is_matched(inputs, tmp_path):
    fasta = tmp_path / "r.fa"
    for panel, target in [(LEFT, RIGHT), (RIGHT, LEFT), (WHOLE, RIGHT), (LEFT, (15, "AA", "A"))]:
        assert inputs([panel], [target], fasta=fasta) == (1, [])
    insertion = [(19, "G", "GCA"), (29, "A", "ACA")]
    assert inputs(insertion[:1], insertion[1:], fasta=fasta) == (1, [])
    matched, fix = inputs([LEFT], [(19, "GC", "G")], fasta=fasta)
    assert (matched, len(fix)) == (0, 1)
    assert "may be the panel's" not in fix[0]


def test_without_one_the_alleles_of_the_panel_tell_what_they_can(inputs):
    assert inputs([WHOLE], [RIGHT]) == (1, [])
    assert inputs([WHOLE], [LEFT]) == (1, [])
    assert inputs([LEFT], [(12, "CAAA", "CAA")]) == (1, [])
    between = [(p, "A", "C") for p in (13, 14, 15, 16)]
    assert inputs([LEFT, *between], [RIGHT]) == (1, [])


def test_what_may_be_a_site_of_the_panel_has_the_command_for_it(inputs, caplog):
    matched, (fix,) = inputs([LEFT], [RIGHT])
    assert matched == 0
    assert (
        fix == "may be the panel's 12:CA>C: give --fasta REF.fa, or bcftools norm -f REF.fa TARGET"
    )
    assert "1 insertions and deletions that the panel lacks may be some that it has" in caplog.text
    # A base between them that does not repeat tells them apart; so do other bases, or a length.
    assert "may be" not in inputs([LEFT, (15, "C", "G")], [RIGHT])[1][0]
    assert "may be" not in inputs([LEFT], [(17, "AC", "A")])[1][0]
    assert "may be" not in inputs([LEFT], [(17, "AAA", "A")])[1][0]
    assert "may be" not in inputs([LEFT], [(17, "A", "AA")])[1][0]


def test_the_command_of_the_table_mends_the_record(inputs, tmp_path):
    assert inputs([LEFT], [RIGHT])[0] == 0
    fasta = tmp_path / "20.fa"
    fasta.write_text(f">20\n{GENOME}\n")
    text = bcftools_norm(fasta, tmp_path / "t.vcf")
    (tmp_path / "n.vcf").write_text(text)
    found = compare(InputFiles(tmp_path / "n.vcf", tmp_path / "p.h5"))
    assert found.fates["not_in_panel"] == 0


def test_a_fasta_of_another_build_is_refused(inputs, tmp_path):
    other = tmp_path / "o.fa"
    other.write_text(f">20\n{'N' * len(GENOME)}\n")
    with pytest.raises(InputError, match="is of another reference than the panel"):
        inputs([LEFT], [RIGHT], fasta=other)


def test_alleles_that_the_fasta_contradicts_stay_and_are_told_of(inputs, tmp_path, caplog):
    matched, fix = inputs([LEFT], [(17, "TT", "T")], fasta=tmp_path / "r.fa")
    assert (matched, len(fix)) == (0, 1)
    assert "1 insertions and deletions of the target have alleles that FASTA" in caplog.text


def test_known_bases_leave_out_what_is_far_or_contradicts_itself():
    sites = site_table(
        "20",
        [10, 11, 11, 990, 2000],
        ["AC", "C", "G", "T", "A"],
        ["A", "T", "T", "C", "G"],
        ["."] * 5,
    )
    assert known_bases(sites, np.array([1000])) == {10: "A", 11: "", 990: "T"}
    assert known_bases(sites, np.array([1500])) == {990: "T"}
    assert known_bases(sites, np.zeros(0, np.int64)) == {}


@given(indels(), st.integers(-8, 8))
@settings(max_examples=150)
def test_the_same_variant_elsewhere_always_looks_alike(made, shift):
    genome, key = made

    def base_at(position):
        return genome[position - 1] if 1 <= position <= len(genome) else ""

    left = left_aligned(key, base_at)
    mine = trimmed(*key)
    if len(min(left[1:], key=len)) > 1 or len(min(mine[1:], key=len)) > 1 or left[0] == mine[0]:
        return
    if left[1][0] != left[2][0] or mine[1][0] != mine[2][0]:
        return
    known = {p: base_at(p) for p in range(1, len(genome) + 1) if (p + shift) % 3}
    assert list(look_alikes(mine, [left], np.array([left[0]]), known)) == [left]


def test_long_alleles_are_trimmed_at_once():
    """Alleles of structural variants: cut base by base, these would take minutes."""
    bases = "ACGTTGCA" * 100_000
    assert trimmed(1, bases + "A" + bases, bases + "C" + bases) == (len(bases) + 1, "A", "C")


@given(st.text("AC", min_size=1, max_size=8), st.text("AC", min_size=1, max_size=8))
def test_trimmed_as_the_algorithm_says(ref, alt):
    """Tan et al.: one base after the other, first at the end."""
    position, one, other = 7, ref, alt
    while len(one) > 1 and len(other) > 1 and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    while len(one) > 1 and len(other) > 1 and one[0] == other[0]:
        position, one, other = position + 1, one[1:], other[1:]
    assert trimmed(7, ref, alt) == (position, one, other)


@given(st.data())
def test_known_bases_of_long_alleles(data):
    """Of a REF of many bases those near an indel are known."""
    length = data.draw(st.integers(1001, 1400))
    places = np.array(sorted(data.draw(st.sets(st.integers(1, 2000), min_size=1, max_size=4))))
    bases = ("ACGT" * 350)[:length]
    whole = known_bases(site_table("20", [1], [bases], ["A"], ["."]), places)
    near = {p for p in range(1, length + 1) if ((places >= p - 200) & (places <= p + 1000)).any()}
    if places[0] <= 1001:
        assert whole == {p: bases[p - 1] for p in near}
