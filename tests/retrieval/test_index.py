"""The window index against brute force; what was saved comes back; what is damaged is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel
from vcf_fixtures import vcf_text

from ragimpute.errors import InputError, PanelError
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.retrieval.index import WindowIndex, code_alleles
from ragimpute.retrieval.index_manifest import (
    MANIFEST,
    manifest_digest,
    read_manifest,
    require_all_sites,
)
from ragimpute.token_model.build_index import build_index

WINDOWS = np.array([[0, 50], [50, 51], [51, 180]])


def make_panel(path, num_samples=30, num_sites=180, seed=0):
    """A panel of mosaics."""
    alleles = mosaic_panel(np.random.default_rng(seed), num_sites, 2 * num_samples)
    write_panel(
        path,
        [make_batch(alleles.reshape(num_sites, num_samples, 2))],
        samples=names(num_samples),
        genetic_map=FlatMap(),
    )
    return path


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    with Panel.open(make_panel(tmp_path_factory.mktemp("panel") / "p.h5")) as opened:
        yield opened


@pytest.fixture(scope="module")
def alleles(panel):
    return panel.haplotypes(0, panel.num_sites).alleles()


def brute_force(alleles, query):
    """Mismatches (H,) of each haplotype (L, H) at the query's (L,) observed sites."""
    return np.array([
        sum(q >= 0 and a != q for q, a in zip(query, alleles[:, h], strict=True))
        for h in range(alleles.shape[1])
    ])  # fmt: skip


def queries(alleles, seed, n, hidden):
    """Noisy copies of haplotypes (L, H) with hidden sites: (n, L)."""
    rng = np.random.default_rng(seed)
    out = alleles[:, rng.integers(0, alleles.shape[1], n)].T.copy()
    out ^= rng.random(out.shape) < 0.1
    out[rng.random(out.shape) < hidden] = -1
    return out.astype(np.int8)


@pytest.fixture(scope="module")
def index(panel):
    return WindowIndex.build(panel, windows=WINDOWS)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    window=st.integers(0, 2),
    k=st.integers(1, 70),
    hidden=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    excluded=st.integers(0, 2),
    share=st.sampled_from([None, 0.0, 0.1, 0.8]),
)
def test_the_nearest_are_found(panel, alleles, index, seed, window, k, hidden, excluded, share):
    part = alleles[slice(*WINDOWS[window])]
    query = queries(part, seed, 4, hidden)
    rng = np.random.default_rng(seed)
    exclude = np.array([[0, 1], [2, -1], [-1, -1], [58, 59]])[:, :excluded] if excluded else None
    allowed = None if share is None else rng.random(60) < share
    found = index.search(window, query, k, exclude=exclude, allowed=allowed)
    assert found.shape == (4, k)
    assert found.dtype == np.int32
    for i in range(4):
        may = np.ones(60, bool) if allowed is None else allowed.copy()
        if exclude is not None:
            may[exclude[i][exclude[i] >= 0]] = False
        distance = brute_force(part, query[i])
        there = found[i][found[i] >= 0]
        assert len(set(there.tolist())) == len(there) == min(k, may.sum())
        assert (found[i][len(there) :] == -1).all()
        assert may[there].all()
        np.testing.assert_array_equal(distance[there], np.sort(distance[may])[: len(there)])


def test_queries_do_not_influence_each_other(alleles, index):
    query = queries(alleles[51:180], 3, 9, 0.5)
    together = index.search(2, query, 5, exclude=np.arange(18).reshape(9, 2))
    for i in range(9):
        alone = index.search(2, query[i : i + 1], 5, exclude=np.array([[2 * i, 2 * i + 1]]))
        np.testing.assert_array_equal(alone[0], together[i])


def test_no_haplotype_is_favoured_among_equals(panel):
    windows = np.array([[i, i + 2] for i in range(0, 160, 2)])
    index = WindowIndex.build(panel, windows=windows)
    blind = np.full((1, 2), -1, np.int8)
    first = [index.search(w, blind, 1)[0, 0] for w in range(80)]
    assert len(set(first)) > 30


def test_markers_only(panel, alleles):
    markers = np.arange(180) % 3 == 0
    index = WindowIndex.build(panel, windows=WINDOWS, markers=markers)
    query = queries(alleles[:50], 1, 5, 0.3)
    found = index.search(0, query, 60)
    for i in range(5):
        at = markers[:50]
        distance = brute_force(alleles[:50][at], query[i][at])
        np.testing.assert_array_equal(distance[found[i]], np.sort(distance))
    assert not markers[50]  # a window without markers knows nobody from anybody
    np.testing.assert_array_equal(np.sort(index.search(1, query[:1, :1], 60)[0]), np.arange(60))


@given(st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_codes(num_sites, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-1, 2, (2, 1, num_sites)).astype(np.int8)
    codes = code_alleles(a), code_alleles(b)
    assert codes[0].shape == (1, max(1, -(-num_sites // 4)))
    bits = np.bitwise_count(codes[0] ^ codes[1]).sum()
    both = (a >= 0) & (b >= 0)
    one = (a >= 0) != (b >= 0)
    assert bits == 2 * ((a != b) & both).sum() + one.sum()


@pytest.mark.parametrize("kind", ["flat", "ivf"])
def test_saved_and_opened(tmp_path, kind):
    with Panel.open(make_panel(tmp_path / "p.h5", num_samples=150)) as panel:
        built = WindowIndex.build(
            panel, kind=kind, windows=WINDOWS, markers=np.arange(180) % 5 != 0
        )
        num_bytes = built.save(tmp_path / "p.index")
        files = list((tmp_path / "p.index").iterdir())
        assert num_bytes == sum(file.stat().st_size for file in files)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["p.h5", "p.index"]
        opened = WindowIndex.open(tmp_path / "p.index", panel)
        for name in ("kind", "num_lists", "num_probes", "num_haplotypes", "panel_checksum"):
            assert getattr(opened.description, name) == getattr(built.description, name)
        np.testing.assert_array_equal(opened.windows, WINDOWS)
        np.testing.assert_array_equal(opened.markers, built.markers)
        assert opened.description.recall == pytest.approx(built.description.recall, abs=1e-4)
        whole = panel.haplotypes(0, 180).alleles()
        for w, (start, stop) in enumerate(WINDOWS):
            query = queries(whole[start:stop], w, 20, 0.4)
            exclude = np.arange(40).reshape(20, 2)
            np.testing.assert_array_equal(
                opened.search(w, query, 7, exclude=exclude),
                built.search(w, query, 7, exclude=exclude),
            )
        built.save(tmp_path / "p.index")  # over the old one
        assert sorted(p.name for p in tmp_path.iterdir()) == ["p.h5", "p.index"]


def test_inverted_lists_find_most(tmp_path):
    with Panel.open(make_panel(tmp_path / "p.h5", num_samples=600)) as panel:
        exact = WindowIndex.build(panel, kind="flat")
        lists = WindowIndex.build(panel, kind="ivf")
        about = lists.description
        assert (about.num_lists, about.num_probes) == (30, 3)
        assert exact.description.recall == 1
        assert 0.8 < about.recall <= 1
        alleles = panel.haplotypes(*panel.windows[0]).alleles()
    query = queries(alleles, 5, 40, 0.2)
    distance = np.array([brute_force(alleles, q) for q in query])
    rows = np.arange(40)[:, None]
    true = np.take_along_axis(distance, exact.search(0, query, 10), axis=1)
    found = lists.search(0, query, 10)
    assert (found >= 0).all()
    assert (distance[rows, found] <= true[:, -1:]).mean() > 0.6


def test_auto_is_exhaustive_for_small_panels(index):
    assert (index.description.kind, index.description.num_lists) == ("flat", 0)


@pytest.fixture
def saved(tmp_path, panel, index):
    index.save(tmp_path / "p.index")
    return tmp_path / "p.index"


def test_another_panel(saved, tmp_path):
    make_panel(tmp_path / "other.h5", seed=1)
    with (
        Panel.open(tmp_path / "other.h5") as other,
        pytest.raises(PanelError, match="made from another panel") as caught,
    ):
        WindowIndex.open(saved, other)
    assert "ragimpute index" in caught.value.hint


def change(saved, **entries):
    """Write other values into a manifest."""
    manifest = json.loads((saved / MANIFEST).read_text())
    (saved / MANIFEST).write_text(json.dumps(manifest | entries))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"format": "x"}, "is not an index of version 1"),
        ({"format_version": 2}, "found version 2"),
        ({"windows": [[0, 90], [90, 91], [91, 180]]}, "does not match its checksum"),
        ({"windows": [[0, 180]]}, "is not an index of version"),
        ({"windows": [["a"], 1, None]}, "does not match its checksum"),
        ({"markers_hex": "zz"}, "does not match its checksum"),
        ({"num_haplotypes": 59}, "does not match its checksum"),
        ({"kind": "ivf"}, "does not match its checksum"),
        ({"files": [1, 2, 3]}, "does not match its checksum"),
        ({"recall_at_10": None}, "is not an index of version"),
    ],
)
def test_tampered_manifests(panel, saved, entries, message):
    change(saved, **entries)
    with pytest.raises(PanelError, match=message) as caught:
        WindowIndex.open(saved, panel)
    assert str(saved) in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": NaN}', "\x00\xff"])
def test_manifests_that_are_none(panel, saved, text):
    (saved / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(PanelError, match=r"damaged|not an index"):
        WindowIndex.open(saved, panel)


def test_damaged_and_missing_files(panel, saved, tmp_path):
    query = np.zeros((1, 50), np.int8)
    file = saved / "window_00000.faiss"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(PanelError, match=r"window_00000\.faiss does not match its checksum"):
        WindowIndex.open(saved, panel).search(0, query, 1)
    file.unlink()
    opened = WindowIndex.open(saved, panel)
    with pytest.raises(PanelError, match=r"window_00000\.faiss is missing"):
        opened.search(0, query, 1)
    assert opened.search(1, query[:, :1], 1).shape == (1, 1)  # the others are whole
    with pytest.raises(PanelError, match="does not exist"):
        WindowIndex.open(tmp_path / "nothing", panel)
    with pytest.raises(PanelError, match=f"holds no {MANIFEST}"):
        read_manifest(tmp_path)


def test_wrong_calls(panel, index):
    with pytest.raises(ValueError, match="49 sites, window 0 has 50"):
        index.search(0, np.zeros((1, 49), np.int8), 1)
    with pytest.raises(ValueError, match="k 0"):
        index.search(0, np.zeros((1, 50), np.int8), 0)
    with pytest.raises(ValueError, match="'hnsw'"):
        WindowIndex.build(panel, kind="hnsw")


def test_build_index(panel, tmp_path):
    position, ref, alt = zip(*[panel.sites.keys()[i] for i in (3, 77, 150)], strict=True)
    rows = [(*row, "0|1", "1|0") for row in zip(position, ref, alt, strict=True)]
    (tmp_path / "array.vcf").write_text(vcf_text(rows))
    calls = []
    out = tmp_path / "p.index"
    summary = build_index(panel.path, out, sites=tmp_path / "array.vcf",
                          progress=lambda *call: calls.append(call))  # fmt: skip
    assert (summary.num_sites, summary.num_haplotypes, summary.kind) == (3, 60, "flat")
    assert calls[-1] == ("index", summary.num_windows, summary.num_windows)
    assert np.flatnonzero(WindowIndex.open(out, panel).markers).tolist() == [3, 77, 150]
    with pytest.raises(PanelError, match="exists already"):
        build_index(panel.path, out)
    assert build_index(panel.path, out, force=True).num_sites == 180
    (tmp_path / "folder").mkdir()
    with pytest.raises(PanelError, match="exists already"):
        build_index(panel.path, tmp_path / "folder", force=True)
    (tmp_path / "array.vcf").write_text(vcf_text([(5, "A", "C", "0|1", "1|0")]))
    with pytest.raises(InputError, match="no target record is a panel site"):
        build_index(panel.path, tmp_path / "new", sites=tmp_path / "array.vcf")
    assert not (tmp_path / "new").exists()


def forge(saved, **entries):
    """Write other values into a manifest, and the checksum that fits them."""
    manifest = json.loads((saved / MANIFEST).read_text()) | entries
    change(saved, **(manifest | {"manifest_sha256": manifest_digest(manifest)}))


@pytest.mark.parametrize(
    "entries",
    [
        {"windows": [["a"], 1, None]},
        {"windows": [[0, 50], [50, 40], [91, 180]]},
        {"windows": [[0, True], [90, 91], [91, 10**30]]},
        {"markers_hex": "zz"},
        {"markers_hex": "ff"},
        {"files": [1, 2, 3]},
        {"files": [{"file": "../x", "sha256": ""}] * 3},
        {"files": [{"file": "x", "sha256": None}] * 3},
    ],
)
def test_manifests_that_are_amiss_though_their_checksum_fits(panel, saved, entries):
    forge(saved, **entries)
    with pytest.raises(PanelError, match=r"windows, files or markers of manifest\.json are amiss"):
        WindowIndex.open(saved, panel)


def test_sizes_that_lie_though_their_checksum_fits(panel, saved):
    manifest = json.loads((saved / MANIFEST).read_text())
    first, *others = manifest["windows"]
    for entries, problem in (
        ({"num_haplotypes": manifest["num_haplotypes"] + 8}, "its panel of"),
        ({"num_sites": manifest["num_sites"] + 1}, "its panel of"),
        ({"windows": [[first[0], panel.num_sites + 1], *others]}, "its panel of"),
    ):
        forge(saved, **(manifest | entries))
        with pytest.raises(PanelError, match=problem):
            WindowIndex.open(saved, panel)
    forge(saved, **(manifest | {"windows": [[0, 7], *others]}))
    with pytest.raises(PanelError, match="is not of window 0"):
        WindowIndex.open(saved, panel).search(0, np.zeros((1, 7), np.int8), 1)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 10)).filter(lambda w: w[0] < w[1])))
def test_windows_leave_out_no_site(windows):
    panel = SimpleNamespace(num_sites=10, path="p.h5")
    if {site for start, stop in windows for site in range(start, stop)} == set(range(10)):
        require_all_sites("p.index", panel, windows)
    else:
        with pytest.raises(PanelError, match="do not cover the panel's 10 sites") as caught:
            require_all_sites("p.index", panel, windows)
        assert "ragimpute index p.h5 -o p.index --force" in caught.value.hint
