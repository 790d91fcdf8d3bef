"""Genetic maps: every layout gives the same map; bad files are refused with their line."""

from __future__ import annotations

import gzip
import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.preparation.genetic_map import GeneticMap

BP = [61_795, 63_231, 1_000_000, 5_000_000]
CM = [0.0, 0.001056, 0.7, 2.5]
QUERY = np.array([61_795, 62_513, 1_000_000, 3_000_000, 5_000_000])
EXPECTED = np.array([0.0, 0.000528, 0.7, 1.6, 2.5])

LAYOUTS = {
    "plink": ("", "20 . {cm} {bp}"),
    "plink tabs and ids": ("", "chr20\trs{bp}\t{cm}\t{bp}"),
    "plink blanks": ("", "  20   snp-{bp}     {cm}  {bp}"),
    "plink numeric id": ("", "20 {bp} {cm} {bp}"),
    "shapeit4": ("pos\tchr\tcM", "{bp}\t20\t{cm}"),
    "shapeit4 without header": ("", "{bp} chr20 {cm}"),
    "shapeit4 without header or chr": ("", "{bp} 20 {cm}"),
    "impute2": ("position COMBINED_rate(cM/Mb) Genetic_Map(cM)", "{bp} {rate} {cm}"),
    "impute2 without header": ("", "{bp} {rate} {cm}"),
    "eagle": ("chr position COMBINED_rate(cM/Mb) Genetic_Map(cM)", "20 {bp} {rate} {cm}"),
    "hapmap": ("Chromosome Position(bp) Rate(cM/Mb) Map(cM)", "chr20 {bp} {rate} {cm}"),
    "eagle without header": ("", "20 {bp} {rate} {cm}"),
    "minimac": ("#chr position Genetic_Map(cM)", "20 {bp} {cm}"),
    "two columns": ("bp cM", "{bp} {cm}"),
}


def render(header, row, bp=BP, cm=CM):
    rows = [
        row.format(bp=b, cm=c, rate=0.5 + 0.25 * i)
        for i, (b, c) in enumerate(zip(bp, cm, strict=True))
    ]
    return "\n".join(([header] if header else []) + rows) + "\n"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout, packed):
    text = render(*LAYOUTS[layout])
    path = tmp_path / "any.name"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    for contig in ("20", "chr20", None):
        found = GeneticMap.read(path, contig=contig)
        np.testing.assert_allclose(found.position_cm(QUERY), EXPECTED)


def test_windows_line_ends(tmp_path):
    path = tmp_path / "m"
    path.write_bytes(render(*LAYOUTS["eagle"]).replace("\n", "\r\n").encode())
    np.testing.assert_allclose(GeneticMap.read(path).position_cm(QUERY), EXPECTED)


def test_positions_as_r_writes_them(tmp_path):
    path = tmp_path / "m"
    path.write_text("20 . 1 1e+06\n20 . 2.5 2000000\n")
    np.testing.assert_allclose(GeneticMap.read(path).position_cm([1_500_000]), [1.75])


@pytest.mark.parametrize("contig", ["X", "chrX", "23"])
def test_contigs_are_told_apart(tmp_path, contig):
    path = tmp_path / "m"
    path.write_text(
        render("", "22 . {cm} {bp}") + render("", "23 . {cm} {bp}", cm=[2 * c for c in CM])
    )
    found = GeneticMap.read(path, contig=contig).position_cm(QUERY)
    np.testing.assert_allclose(found, 2 * EXPECTED)
    with pytest.raises(InputError, match=r"several contigs \(22, 23\)"):
        GeneticMap.read(path)
    with pytest.raises(InputError, match=r"no contig 7; it holds 22, 23"):
        GeneticMap.read(path, contig="7")


def test_beyond_the_ends_at_the_mean_rate(tmp_path):
    path = tmp_path / "m"
    path.write_text("1 . 10 1000000\n1 . 11 1500000\n1 . 14 3000000\n")
    found = GeneticMap.read(path).position_cm(np.array([0, 500_000, 3_000_000, 4_000_000]))
    np.testing.assert_allclose(found, [8, 9, 14, 16])


def test_duplicates_are_merged_with_a_warning(tmp_path, caplog):
    path = tmp_path / "m"
    path.write_text("1 . 1 100\n1 . 2 200\n1 . 4 200\n1 . 5 300\n")
    with caplog.at_level(logging.WARNING):
        found = GeneticMap.read(path)
    np.testing.assert_allclose(found.position_cm([100, 200, 300]), [1, 3, 5])
    assert "1 rows repeat a position (first at line 2, 200 bp)" in caplog.text


def test_morgans_are_suspected(tmp_path, caplog):
    path = tmp_path / "m"
    path.write_text("1 . 0 1\n1 . 0.01 1000001\n")
    GeneticMap.read(path)
    assert "Morgans" in caplog.text


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(2, 60), st.floats(0.1, 30), st.integers(1, 200_000_000), st.integers(1_000, 400_000)
)
def test_exchanged_columns_are_refused_and_the_right_ones_are_not(
    tmp_path, num, rate, first_bp, step
):
    at = first_bp + step * np.arange(num)
    cm = at * rate / 1e6
    path = tmp_path / "x.map"
    header = "chrom position cM\n"
    path.write_text(header + "".join(f"20 {b} {c:.9f}\n" for b, c in zip(at, cm, strict=True)))
    assert GeneticMap.read(path).mean_rate == pytest.approx(rate, rel=1e-3)
    path.write_text(header + "".join(f"20 {c:.9f} {b}\n" for b, c in zip(at, cm, strict=True)))
    with pytest.raises(InputError, match="expected at most 10,000") as caught:
        GeneticMap.read(path)
    assert "columns of bp and cM exchanged" in caught.value.hint


def test_a_map_without_end_is_refused_at_once(tmp_path, caplog):
    path = tmp_path / "huge.map"
    path.write_text("20 . 0 1000000\n20 . 300000000 1300000\n")
    with pytest.raises(InputError, match=r"rises by 1,000,000,000 cM/Mb, expected at most 10,000"):
        GeneticMap.read(path)
    path.write_text("20 . 0 1000000\n20 . 20000 61000000\n")
    with pytest.raises(InputError, match=r"rises by 20,000 cM in all"):
        GeneticMap.read(path)
    path.write_text("20 . 0 1000000\n20 . 5 1001000\n")
    GeneticMap.read(path)
    assert "rises by 5,000 cM/Mb, more than any chromosome that is known" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("pos chr cM\n", "is empty"),
        ("20 . 0 1\n20 . 2 3\n20 . 1 4\n", "line 3: position decreases from 2 to 1 cM"),
        ("pos chr cM\n9 1 0\n3 1 1\n", "line 3: position decreases from 9 to 3 bp"),
        ("20 . 0 1\n20 . x 3\n", "line 2: expected a position in cM, found 'x'"),
        ("20 . 0 1\n20 . nan 3\n", "line 2: expected a position in cM, found 'nan'"),
        ("pos chr cM\n1 1 0\n2x 1 1\n", "line 3: expected a position in bp, found '2x'"),
        ("20 . 0 1\n20 . 1\n", "line 2: 3 columns, expected 4"),
        ("20 . 0 1\n", "has 1 position of"),
        ("20 . 0 1\n20 . 0 5\n", "0 cM at every position"),
        ("chrom rate\n1 2\n", "names no position column"),
        ("chrom position rate\n1 2 3\n", "names no cM column"),
        ("1 2 3 4 5 6\n", "line 1: '1 2 3 4 5 6' is of no known layout"),
        ("chr1 rs5 100\n", "no known layout"),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "m"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        GeneticMap.read(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_unreadable(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        GeneticMap.read(tmp_path / "none")
    with pytest.raises(InputError, match="is a folder"):
        GeneticMap.read(tmp_path)
    path = tmp_path / "m.gz"
    path.write_bytes(gzip.compress(render(*LAYOUTS["plink"]).encode())[:-12])
    with pytest.raises(InputError, match="cannot be read"):
        GeneticMap.read(path)
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="not text"):
        GeneticMap.read(path)


def test_uniform():
    found = GeneticMap.uniform(1.5).position_cm(np.array([0, 2_000_000, 200_000_000]))
    np.testing.assert_allclose(found, [0, 3, 300])
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="expected a number from 1e-06 to 10000"):
            GeneticMap.uniform(rate)


@given(
    steps=st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 3)), min_size=2, max_size=30),
    queries=st.lists(st.integers(0, 10**8), min_size=1, max_size=50),
)
def test_monotone_and_exact_at_its_own_positions(steps, queries):
    bp, cm = np.cumsum(steps, axis=0).T
    if cm[0] == cm[-1]:
        cm = cm + np.arange(len(cm))
    found = GeneticMap(bp, cm, "drawn")
    assert (np.diff(found.position_cm(np.sort(queries))) >= 0).all()
    np.testing.assert_allclose(found.position_cm(bp), cm)


def test_example():
    found = GeneticMap.read(example.path("chr20.b37.gmap.gz"), contig="chr20")
    span = found.position_cm(np.array([2_000_000, 2_900_000]))
    assert 1.0 < np.ptp(span) < 6.0
