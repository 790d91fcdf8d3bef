"""Alleles by haplotype, as an index holds them: what is taken is what the panel gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragimpute.copying_model.haplotype_major import HaplotypeMajor
from ragimpute.errors import PanelError
from ragimpute.retrieval import mapped_arrays
from ragimpute.retrieval.mapped_arrays import Later, MappedArrays, write_arrays
from tests.panel.test_compact import assert_same, panel_of


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """300 sites, 230 haplotypes: rows of bits and lists of carriers."""
    opened, _ = panel_of(tmp_path_factory.mktemp("p"), 300, 115)
    with opened:
        yield opened


def mapped(path, compact, **changed):
    """The form by haplotype of a file, of which some arrays may be changed."""
    arrays = HaplotypeMajor.arrays_of(compact)
    write_arrays(path, {**arrays, **changed}, {})
    file = MappedArrays(path, PanelError, by_page=True)
    return HaplotypeMajor.of_arrays(
        file.get, compact.alt_is_minor, compact.num_haplotypes, PanelError
    )


@settings(deadline=None, max_examples=20)
@given(
    bounds=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 999),
)
def test_some_haplotypes_are_as_in_the_panel(panel, tmp_path_factory, bounds, share, seed):
    start, stop = sorted(bounds)
    compact = panel.compact(start, stop)
    found = mapped(tmp_path_factory.mktemp("i") / "a.safetensors", compact)
    kept = np.flatnonzero(np.random.default_rng(seed).random(compact.num_haplotypes) < share)
    one, other = found.select(kept), compact.select(kept)
    assert_same(one, other)
    assert (one.blocks is None) == (other.blocks is None)
    if one.blocks is not None:
        assert one.blocks.first_row == other.blocks.first_row
        for a, b in zip(one.blocks.patterns, other.blocks.patterns, strict=True):
            np.testing.assert_array_equal(a.patterns[a.number], b.patterns[b.number])
    assert found.num_carriers == compact.num_carriers
    np.testing.assert_array_equal(found.row, compact.row)


def test_single_pages_are_the_same(panel, tmp_path, monkeypatch):
    monkeypatch.setattr(mapped_arrays, "_LARGE", 1)
    asked = []
    usual = MappedArrays._read_as_asked
    monkeypatch.setattr(
        MappedArrays, "_read_as_asked", lambda *args: asked.append(args[1:]) or usual(*args)
    )
    compact = panel.compact(0, 300)
    found = mapped(tmp_path / "a.safetensors", compact)
    kept = np.arange(0, 230, 7)
    assert_same(found.select(kept), compact.select(kept))
    assert len(asked) == 3  # what is checked is read whole


@pytest.mark.parametrize("name", ["site_offsets_of", "sites_of", "pattern_of"])
@pytest.mark.parametrize("value", [-1, 1 << 14])
def test_numbers_out_of_range_are_refused(panel, tmp_path, name, value):
    """The file has its checksums: it was damaged before it was written, or on purpose."""
    compact = panel.compact(0, 300)
    array = HaplotypeMajor.arrays_of(compact)[name]
    array = (array.make() if isinstance(array, Later) else array).copy()
    array.reshape(-1)[array.size // 2] = np.asarray(value).astype(array.dtype)
    damaged = mapped(tmp_path / "a.safetensors", compact, **{name: array})
    with pytest.raises(PanelError, match="out of range"):
        damaged.select(np.arange(compact.num_haplotypes))


@pytest.mark.parametrize("name", ["pattern_offsets", "row_of_site"])
def test_patterns_that_do_not_fit_are_refused(panel, tmp_path, name):
    compact = panel.compact(0, 300)
    array = HaplotypeMajor.arrays_of(compact)[name].copy()
    array[-1] = 999_999
    with pytest.raises(PanelError, match="patterns do not fit"):
        mapped(tmp_path / "a.safetensors", compact, **{name: array})


def test_an_array_that_is_not_what_it_was_to_be_is_a_mistake(tmp_path):
    later = Later(np.int32, (3,), lambda: np.zeros(4, np.int32))
    with pytest.raises(ValueError, match="a is int32"):
        write_arrays(tmp_path / "a.safetensors", {"a": later}, {})
    assert list(tmp_path.iterdir()) == []
