"""Windows of tokens: every field of a batch against the panel, site by site."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names, random_alleles

from ragimpute.model.embedding import MASK, PAD
from ragimpute.panel.haplotypes import haplotype_columns
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.token_model.windows import TokenWindows, cut_windows_to, population_shares

NUM_SITES, NUM_SAMPLES = 90, 40
RANGES = np.array([[0, 30], [30, 41], [20, 60], [60, 90]])


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """Ninety sites of forty samples, of two populations; the last sample is haploid."""
    path = tmp_path_factory.mktemp("tokens") / "p.h5"
    alleles = random_alleles(np.random.default_rng(0), NUM_SITES, NUM_SAMPLES)
    alleles[:, -1, 1] = -2
    samples = names(NUM_SAMPLES)
    population_of = {name: "east" if i % 3 else "west" for i, name in enumerate(samples)}
    write_panel(
        path, [make_batch(alleles)], samples=samples, genetic_map=FlatMap(),
        population_of=population_of,
    )  # fmt: skip
    with Panel.open(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def alleles(panel):
    return panel.haplotypes(0, NUM_SITES).alleles()


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, NUM_SITES - 1),
    length=st.integers(1, NUM_SITES),
    ids=st.lists(st.integers(0, 2 * NUM_SAMPLES - 2), unique=True),
)
def test_columns_are_those_of_all_alleles(panel, alleles, start, length, ids):
    stop = min(NUM_SITES, start + length)
    index = np.array(ids, np.int64)
    found = haplotype_columns(panel.haplotypes(start, stop), index)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, alleles[start:stop, index].T)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=6), max_sites=st.integers(1, 100))
def test_windows_are_cut_evenly(lengths, max_sites):
    edges = np.concatenate([[7], 7 + np.cumsum(lengths)])
    windows = np.stack([edges[:-1], edges[1:]], axis=1)
    parts, of = cut_windows_to(windows, max_sites)
    size = parts[:, 1] - parts[:, 0]
    assert parts[0, 0] == 7
    assert parts[-1, 1] == edges[-1]
    np.testing.assert_array_equal(parts[1:, 0], parts[:-1, 1])
    assert size.max() <= max_sites
    for w, length in enumerate(lengths):
        own = size[of == w]
        assert own.sum() == length
        assert len(own) == -(-length // max_sites)
        assert own.max() - own.min() <= 1


def draw(seed, ranges, num, k, num_haplotypes):
    """A batch's input: windows, alleles with gaps, masks, retrieved haplotypes."""
    rng = np.random.default_rng(seed)
    length = int((ranges[:, 1] - ranges[:, 0]).max())
    window = rng.integers(0, len(ranges), num)
    alleles = rng.integers(-1, 2, (num, 2, length)).astype(np.int8)
    found = rng.integers(-1, num_haplotypes, (num, 2, k)).astype(np.int32)
    return window, alleles, rng.random((num, length)) < 0.5, found


def test_every_field_by_loops(panel, alleles):
    k, num = 3, 12
    windows = TokenWindows(panel, RANGES)
    assert windows.length == 40
    window, known, hidden, found = draw(0, RANGES, num, k, panel.num_haplotypes)
    found[3] = -1
    batch = windows.batch(window, known, hidden, found)
    af_p = panel.af_population(0, NUM_SITES)
    genotypes = panel.genotype_freq(0, NUM_SITES)
    home = panel.population[panel.haplotype_sample]
    for b in range(num):
        start, stop = RANGES[window[b]]
        assert batch["window"][b] == window[b]
        for i in range(windows.length):
            site = start + i
            inside = site < stop
            assert bool(batch["pad"][b, i]) == (not inside)
            assert bool(batch["mask"][b, i]) == bool(inside and hidden[b, i])
            if inside:
                assert batch["af"][b, i] == panel.af[site]
                where = [home[j] for j in found[b].ravel() if j >= 0]
                here = [af_p[p, site] for p in where] or [panel.af[site]]
                assert float(batch["af_p"][b, i]) == pytest.approx(np.mean(here), abs=1e-6)
                cm = panel.position_cm[site] - panel.position_cm[start]
                assert float(batch["pos"][b, i]) == pytest.approx(cm, abs=1e-7)
                shares = [float(batch[name][b, i]) for name in ("ref", "het", "hom")]
                assert shares == genotypes[site].tolist()
            for h in range(2):
                name = f"h{h + 1}"
                label = int(known[b, h, i]) if inside else -1
                assert batch[f"label_{name}"][b, i] == label
                token = PAD if not inside else MASK if label < 0 or hidden[b, i] else label
                assert batch[f"hap_{h + 1}"][b, i] == token
                for j in range(k):
                    id_ = found[b, h, j]
                    assert batch[f"rag_id_{name}"][b, j] == id_
                    there = inside and id_ >= 0
                    reference = alleles[site, id_] if there else PAD
                    assert batch[f"rag_seg_{name}"][b, j, i] == reference
                    if there:
                        assert batch[f"rag_af_{name}"][b, j, i] == af_p[home[id_], site]
    kinds = {name: value.dtype for name, value in batch.items()}
    assert {name for name, kind in kinds.items() if kind == torch.bool} == {"mask", "pad"}
    assert {name for name, kind in kinds.items() if kind == torch.float32} == {
        "pos", "af", "af_p", "ref", "het", "hom", "rag_af_h1", "rag_af_h2",
    }  # fmt: skip
    assert all(len(value) == num for value in batch.values())
    assert not torch.isnan(torch.cat([v.float().ravel() for v in batch.values()])).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_population_shares_by_loops(num, k, num_populations, seed):
    rng = np.random.default_rng(seed)
    home = rng.integers(0, num_populations, 9)
    found = rng.integers(-1, 9, (num, 2, k))
    shares = population_shares(found, home, num_populations)
    assert shares.shape == (num, num_populations)
    for row, ids in zip(shares, found, strict=True):
        there = [int(home[i]) for i in ids.ravel() if i >= 0]
        expected = [there.count(p) / max(1, len(there)) for p in range(num_populations)]
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_rows_do_not_influence_each_other(panel):
    windows = TokenWindows(panel, RANGES)
    window, known, hidden, found = draw(2, RANGES, 9, 2, panel.num_haplotypes)
    together = windows.batch(window, known, hidden, found)
    for b in range(9):
        row = slice(b, b + 1)
        alone = windows.batch(window[row], known[row], hidden[row], found[row])
        for name, value in alone.items():
            assert torch.equal(value, together[name][row]), name


def test_what_is_kept_is_bounded(panel):
    plain = TokenWindows(panel, RANGES)
    expected = [plain.window(w) for w in range(len(RANGES))]
    assert plain.window(2) is expected[2]
    cache_bytes = 2 * max(b.num_bytes for b in expected)
    small = TokenWindows(panel, RANGES, cache_bytes=cache_bytes)
    for w in (0, 1, 2, 3, 0, 1, 3, 2):
        block = small.window(w)
        np.testing.assert_array_equal(block.haplotypes.alleles(), expected[w].haplotypes.alleles())
        assert sum(b.num_bytes for b in small._blocks.values()) == small._num_bytes
        assert small._num_bytes <= cache_bytes
    assert small.window(2) is block
