"""The sites of an array, in whatever form they are listed."""

from __future__ import annotations

import gzip
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from site_list_fixtures import forms, positions
from vcf_fixtures import convert, vcf_text

from ragimpute.errors import InputError
from ragimpute.imputation.listed_sites import list_sites
from ragimpute.io.site_list import read_site_list
from ragimpute.panel.reader import Panel
from ragimpute.preparation.prepare import prepare
from ragimpute.sites import Region
from ragimpute.target.typed_sites import typed_sites

SITES = [
    (100 * (i + 1), *("AG" if i % 4 == 0 else "CT" if i % 4 == 1 else "AC" if i % 4 == 2 else "AT"))
    for i in range(80)
]


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """A panel of 80 sites of four kinds, a quarter of which read the same on both strands."""
    folder = tmp_path_factory.mktemp("panel")
    rng = np.random.default_rng(1)
    rows = [
        (*site, *(f"{a}|{b}" for a, b in rng.integers(0, 2, (6, 2)).tolist())) for site in SITES
    ]
    (folder / "p.vcf").write_text(vcf_text(rows, [f"s{i}" for i in range(6)]))
    prepare(folder / "p.vcf", folder / "p.h5", cm_per_mb=1000)
    with Panel.open(folder / "p.h5") as opened:
        yield opened


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(), packed=st.booleans(), contig=st.sampled_from(["20", "chr20"]),
    swapped=st.booleans(),
)  # fmt: skip
def test_every_form_tells_the_same(panel, tmp_path_factory, data, packed, contig, swapped):
    """Those of impute --sites-file, too; in either order of the alleles."""
    chosen = data.draw(st.lists(st.integers(0, 79), min_size=1, unique=True))
    sites = [(contig, SITES[i][0], *SITES[i][1:][:: -1 if swapped else 1]) for i in chosen]
    texts = forms(sites) | positions(sites)
    path = tmp_path_factory.mktemp("list") / "sites.txt"
    text = texts[data.draw(st.sampled_from(sorted(texts)))]
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    if "0|1" in text:  # with samples it is a target, whose contig has one spelling
        return
    found = typed_sites(path, panel, None, buffer_cm=0)
    np.testing.assert_array_equal(found.panel_index, sorted(chosen))
    assert found.num_records == len(chosen)
    assert sum(found.left_out.values()) == 0
    listed = list_sites(read_site_list(path), panel, 0, 80, contig="20")
    np.testing.assert_array_equal(np.flatnonzero(listed.mask), sorted(chosen))


def test_sites_by_their_ids_alone(tmp_path):
    """A list of rsIDs, or a manifest's sites without a place, are found among the panel's IDs."""
    rows = vcf_text([(*site, "0|1", "1|0") for site in SITES[:9]]).splitlines()
    rows = [row.replace("\t.\t", f"\trs{i}\t", 1) for i, row in enumerate(rows)]
    (tmp_path / "p.vcf").write_text("\n".join(rows) + "\n")
    prepare(tmp_path / "p.vcf", tmp_path / "p.h5", cm_per_mb=1000)
    with Panel.open(tmp_path / "p.h5") as panel:
        names = panel.sites.id.tolist()
        (tmp_path / "ids").write_text(f"{names[2]}\n{names[5]}\nrs999\n")
        found = typed_sites(tmp_path / "ids", panel, None, buffer_cm=0)
        assert found.panel_index.tolist() == [2, 5]
        (tmp_path / "ids").write_text("rs999\n")
        with pytest.raises(InputError, match="no site whose position is known"):
            typed_sites(tmp_path / "ids", panel, None, buffer_cm=0)


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
@pytest.mark.parametrize("samples", [0, 2])
def test_a_vcf_with_samples_or_without(panel, tmp_path, suffix, samples):
    chosen = range(0, 80, 2)
    rows = [(*SITES[i], *["0|1"] * samples) for i in chosen]
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text(rows, ["a", "b"][:samples]))
    if suffix != ".vcf":
        path = convert(path, suffix)
    found = typed_sites(path, panel, None, buffer_cm=0)
    np.testing.assert_array_equal(found.panel_index, list(chosen))


def test_what_is_no_panel_site_is_counted(panel, tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("20 100 A G\n20 150 A G\n20 200 A C\nX 100 A G\n20 300 G T\n")
    found = typed_sites(path, panel, None, buffer_cm=0)
    assert found.panel_index.tolist() == [0, 2]  # of the other strand, too
    assert found.num_records == 4
    assert {k: v for k, v in found.left_out.items() if v} == {
        "not_in_panel": 1, "allele_mismatch": 1,
    }  # fmt: skip


def test_only_the_region_with_its_buffers_is_read(panel, tmp_path):
    path = tmp_path / "s.txt"
    path.write_text("".join(f"20 {p} {r} {a}\n" for p, r, a in SITES))
    found = typed_sites(path, panel, Region.parse("20:2000-3000"), buffer_cm=0.5)
    assert found.panel_index.tolist() == list(range(14, 35))  # 1 cM is 1,000 bp


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "t.txt"),
        (b"\x00\x01\x02" * 50, "t.txt"),
        (b"20 100 A G\nnonsense\n", "t.txt, line 2 names no site"),
        (b"hello world\n", "t.txt, line 1 names no site"),
        (b"\xff\xfe\xff\n20 100 A G\n", "t.txt, line 1 names no site"),
        (b"\x28\xb5\x2f\xfd\0\0", "compressed by zstd"),
        (b"X 100 A G\n", "no site on the panel's contig 20; it has X"),
        (b"20 150 A G\n", "none of the 1 sites of .* is a panel site"),
        (gzip.compress(b"20 100 A G\n" * 500, mtime=0)[:40], "t.txt"),
    ],
)
def test_what_cannot_be_read_is_one_line(panel, tmp_path, content, said):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        typed_sites(path, panel, None, buffer_cm=0)
    assert len(str(caught.value).splitlines()) == 1


def test_a_damaged_file_of_sites_is_one_line(panel, tmp_path):
    path = tmp_path / "t.vcf"
    path.write_text(vcf_text([SITES[i] for i in range(80)], []))
    packed = convert(path, ".bcf")
    whole = packed.read_bytes()
    for stop in (40, len(whole) // 2, len(whole) - 30):
        packed.write_bytes(whole[:stop])
        with pytest.raises(InputError):
            typed_sites(packed, panel, None, buffer_cm=0)
    shutil.rmtree(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        typed_sites(packed, panel, None, buffer_cm=0)
