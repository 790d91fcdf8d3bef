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
from ragimpute.token_model.copying_evidence import CopyingEvidence
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


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Samples of a large population, and of two of one sample each, of which one is haploid."""
    path = tmp_path_factory.mktemp("uneven") / "p.h5"
    alleles = random_alleles(np.random.default_rng(1), NUM_SITES, 12)
    alleles[:, [0, 5], 1] = -2
    alleles[3] = np.where(alleles[3] == -2, -2, 0)
    alleles[3, 2, 1] = 1  # the only ALT
    samples = names(12)
    home = {0: "one haploid", 7: "one diploid"}
    write_panel(
        path, [make_batch(alleles)], samples=samples, genetic_map=FlatMap(),
        population_of={name: home.get(i, "many") for i, name in enumerate(samples)},
    )  # fmt: skip
    with Panel.open(path) as opened:
        yield opened


@pytest.mark.parametrize("by_site", [False, True])
def test_frequencies_leave_the_own_alleles_out(uneven, by_site):
    """Every frequency of a panel sample against a count over all others."""
    panel, rng = uneven, np.random.default_rng(3)
    ranges = np.array([[0, 30], [30, 41]])
    windows = TokenWindows(panel, ranges)
    every = panel.haplotypes(0, NUM_SITES).alleles()
    sample_of = panel.haplotype_sample
    own = np.array([np.resize(np.flatnonzero(sample_of == s), 2) for s in range(12)])
    window = np.resize([0, 1], 12)
    known = np.full((12, 2, 30), -1, np.int8)
    for b in range(12):
        start, stop = ranges[window[b]]
        known[b, :, : stop - start] = every[start:stop, own[b]].T
    shape = (12, 2, 3, 30) if by_site else (12, 2, 3)
    found = rng.integers(-1, panel.num_haplotypes, shape).astype(np.int32)
    found[1] = -1
    if by_site:  # nothing is retrieved at padded sites
        found[window == 1, ..., 11:] = -1
    hidden = rng.random((12, 30)) < 0.5
    batch = windows.batch(window, known, hidden, found, own=own)
    plain = windows.batch(window, known, hidden, found)
    changed = {"af", "af_p", "ref", "het", "hom", "rag_af_h1", "rag_af_h2"}
    for name in batch:
        assert torch.equal(batch[name], plain[name]) == (name not in changed), name
    home = panel.population[sample_of]

    def rest_of(b, population=None):
        others = sample_of != sample_of[own[b, 0]]
        return np.flatnonzero(others & ((home == population) if population is not None else True))

    def frequency(b, site, population):
        """In a population; in the rest of the panel if nobody else is of it."""
        there = rest_of(b, population)
        return every[site, there if len(there) else rest_of(b)].mean()

    for b in range(12):
        start, stop = ranges[window[b]].tolist()
        for i in range(stop - start):
            site = start + i
            af = every[site, rest_of(b)].mean()
            assert float(batch["af"][b, i]) == pytest.approx(af, abs=1e-6)
            doses = [
                every[site, sample_of == s].mean() for s in range(12) if s != sample_of[own[b, 0]]
            ]
            for name, dose in (("ref", 0), ("het", 0.5), ("hom", 1)):
                assert float(batch[name][b, i]) == pytest.approx(
                    np.mean(np.array(doses) == dose), abs=1e-6
                )
            retrieved = (
                found[b].ravel() if found.ndim == 3 else found[b, ..., : stop - start].ravel()
            )
            where = [home[j] for j in retrieved if j >= 0]
            mean = np.mean([frequency(b, site, p) for p in where]) if where else af
            assert float(batch["af_p"][b, i]) == pytest.approx(mean, abs=1e-5)
            for h in range(2):
                for k in range(3):
                    id_ = found[b, h, k, i] if by_site else found[b, h, k]
                    expected = frequency(b, site, home[id_]) if id_ >= 0 else af
                    assert float(batch[f"rag_af_h{h + 1}"][b, k, i]) == pytest.approx(
                        expected, abs=1e-6
                    )
    # The only carrier is not told by the frequency.
    assert float(batch["af"][2, 3]) == float(batch["het"][2, 3]) == 0
    assert float(plain["af"][2, 3]) > 0


def test_what_is_retrieved_by_site_by_loops(panel, alleles):
    windows = TokenWindows(panel, RANGES)
    rng = np.random.default_rng(4)
    window, known, hidden, _ = draw(4, RANGES, 5, 3, panel.num_haplotypes)
    found = rng.integers(-1, panel.num_haplotypes, (5, 2, 3, windows.length)).astype(np.int32)
    found[2] = -1
    n, k = 10, 3
    copying = CopyingEvidence(
        found.reshape(n, k, -1),
        rng.normal(size=(n, k, windows.length, 7)).astype(np.float32),
        rng.normal(size=(n, windows.length, 4)).astype(np.float32),
    )
    batch = windows.batch(window, known, hidden, found, copying)
    plain = windows.batch(window, known, hidden, found)
    af_p = panel.af_population(0, NUM_SITES)
    home = panel.population[panel.haplotype_sample]
    for b in range(5):
        start, stop = RANGES[window[b]]
        for h in range(2):
            row = 2 * b + h
            np.testing.assert_array_equal(batch[f"site_h{h + 1}"][b], copying.sites[row])
            np.testing.assert_array_equal(batch[f"state_h{h + 1}"][b], copying.states[row])
            logit, mass = copying.sites[row, :, 0], copying.states[row, ..., 0]
            np.testing.assert_array_equal(batch[f"ls_logit_h{h + 1}"][b], logit)
            np.testing.assert_array_equal(batch[f"rag_log_mass_h{h + 1}"][b], mass)
            np.testing.assert_array_equal(batch[f"rag_id_h{h + 1}"][b], found[b, h])
            for j in range(k):
                for i in range(windows.length):
                    id_, there = found[b, h, j, i], i < stop - start
                    token = batch[f"rag_seg_h{h + 1}"][b, j, i]
                    if not there or id_ < 0:
                        assert token == PAD
                        continue
                    assert token == alleles[start + i, id_]
                    own = batch[f"rag_af_h{h + 1}"][b, j, i]
                    assert own == af_p[home[id_], start + i]
    more = {f"{name}_h{h}" for name in ("ls_logit", "site", "state", "rag_log_mass") for h in "12"}
    assert batch.keys() - plain.keys() == more
    assert all(torch.equal(plain[name], batch[name]) for name in plain)
