"""Windows, batches and tiles: how a run is cut, and that it does not show."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vcf_fixtures import bcftools, read_imputed

from ragimpute import example
from ragimpute.imputation import impute as impute_module
from ragimpute.imputation import windows
from ragimpute.imputation.impute import impute
from ragimpute.imputation.windows import max_window_sites, plan_windows
from ragimpute.panel.reader import Panel
from ragimpute.runtime.memory import plan_memory
from ragimpute.sites import Region

TARGET = example.path("target.vcf.gz")
FIXED = {"ne": 1e5, "err": 1e-3, "fine_tune": False, "region": Region.parse("20:2200000-2350000")}


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(st.sampled_from([0.0, 0.01, 0.3, 5.0]), min_size=1, max_size=60),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    window_cm=st.sampled_from([0.005, 0.1, 1.0, 7.0, 1000.0]),
    buffer_cm=st.sampled_from([0.0, 0.05, 2.0, 1000.0]),
    max_sites=st.integers(1, 70),
)
def test_windows(steps, ends, window_cm, buffer_cm, max_sites):
    cm = np.cumsum(steps)
    start, stop = sorted(round(end * len(cm)) for end in ends)
    planned = plan_windows(
        cm, start, stop, window_cm=window_cm, buffer_cm=buffer_cm, max_sites=max_sites
    )
    if start == stop:
        assert planned == []
        return
    assert planned[0][1] == start
    assert planned[-1][2] == stop
    assert all(a[2] == b[1] for a, b in pairwise(planned))
    for left, first, last, right in planned:
        assert 0 <= left <= first < last <= right <= len(cm)
        assert last - first <= max_sites
        assert cm[last - 1] - cm[first] <= window_cm * (1 + 1e-9)
        inside = (cm >= cm[first] - buffer_cm) & (cm <= cm[last - 1] + buffer_cm)
        assert np.flatnonzero(inside).tolist() == list(range(left, right))
    # None is so short that one more site of the next would have done: but for the last two.
    for (_, first, last, _), _ in list(pairwise(planned))[:-1]:
        assert last - first == max_sites or cm[last] - cm[first] > window_cm * (1 - 1e-9)


def test_wrong_windows():
    cm = np.zeros(3)
    for wrong in ({"window_cm": 0.0}, {"buffer_cm": -1.0}, {"max_sites": 0}):
        options = {"window_cm": 1.0, "buffer_cm": 1.0, "max_sites": 5} | wrong
        with pytest.raises(ValueError, match="window_cm"):
            plan_windows(cm, 0, 3, **options)


@pytest.fixture
def shares(monkeypatch):
    """Sets parts of the memory plan of the runs that follow."""

    def set_shares(**bounds):
        def planned(*args, **options):
            return replace(plan_memory(*args, **options), **bounds)

        monkeypatch.setattr(impute_module, "plan_memory", planned)

    return set_shares


def test_batches_tiles_and_the_disk_leave_the_output_unchanged(
    panel_h5, tmp_path, shares, monkeypatch
):
    impute(TARGET, panel_h5, tmp_path / "a.vcf", **FIXED)
    monkeypatch.setattr(windows, "_GROUP", 1)
    used = []
    spool = windows.Spool

    def noted(*args, **options):
        used.append(spool(*args, **options))
        return used[-1]

    monkeypatch.setattr(windows, "Spool", noted)
    shares(batch_bytes=1, spool_bytes=0, tile_bytes=4 * 100 * 37)
    impute(TARGET, panel_h5, tmp_path / "b.vcf", **FIXED)
    assert [s.on_disk for s in used] == [True]
    one, other = read_imputed(tmp_path / "a.vcf"), read_imputed(tmp_path / "b.vcf")
    moved = np.abs(one.dosage - other.dosage)
    assert moved.max() < 1.1e-3  # the network's products of other sizes round otherwise
    assert moved.mean() < 1e-6
    np.testing.assert_allclose(one.info["DR2"], other.info["DR2"], atol=1.1e-4)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.vcf", "b.vcf"]


def test_less_memory_makes_shorter_windows(panel_h5):
    with Panel.open(panel_h5) as panel:
        plan = plan_memory(None, uses_torch=False)
        sites = [
            max_window_sites(panel, replace(plan, window_bytes=size), 600)
            for size in (2**17, 2**21, 2**23)
        ]
        held = panel.haplotypes(0, panel.num_sites)
        compact = held.bits.nbytes + held.carriers.nbytes
        assert panel.bytes_per_site() * panel.num_sites == compact
    assert sites == sorted(sites)
    assert sites[0] == 1_000  # no fewer, whatever the memory
    assert 3 < sites[2] / sites[1] < 5


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200_000), st.floats(50, 20_000), st.integers(2**20, 2**32),
    st.floats(0.01, 50), st.floats(0.1, 4),
)  # fmt: skip
def test_windows_of_patterns_fit_with_their_buffers(
    num_sites, pattern_bytes, room, length_cm, buffer_cm
):
    position_cm = np.linspace(0, length_cm, num_sites)
    panel = SimpleNamespace(num_sites=num_sites, position_cm=position_cm, num_haplotypes=10**6)
    plan = replace(plan_memory(None, uses_torch=False), window_bytes=room)
    short = windows._short_buffer(SimpleNamespace(panel=panel), plan, pattern_bytes, buffer_cm)
    most = max_window_sites(panel, plan, 0, buffer_cm=short, pattern_bytes=pattern_bytes)
    assert 0 < short <= buffer_cm
    each = windows._site_bytes(panel, 0, pattern_bytes)
    if num_sites * each <= room:  # one window holds all
        assert most >= num_sites - 1
        assert short == buffer_cm
        return
    planned = plan_windows(
        position_cm, 0, num_sites, window_cm=1e9, buffer_cm=short, max_sites=most
    )
    for left, start, stop, right in planned:
        assert stop - start <= most
        assert (right - left - 4) * each <= max(room, (2 * 1_000 + 4) * each)


def test_the_number_of_targets_does_not_change_their_windows(panel_h5, tmp_path):
    """With the same typed sites a sample's dosages are its own, in any company."""
    impute(TARGET, panel_h5, tmp_path / "all.bcf", **FIXED)
    few = tmp_path / "few.vcf.gz"
    bcftools("view", "-s", "NA20821,HG00102", "-Oz", "-o", few, TARGET)
    impute(few, panel_h5, tmp_path / "few.bcf", **FIXED)
    whole, part = read_imputed(tmp_path / "all.bcf"), read_imputed(tmp_path / "few.bcf")
    columns = [whole.samples.index(name) for name in part.samples]
    np.testing.assert_array_equal(whole.dosage[:, columns], part.dosage)


@pytest.mark.parametrize(
    ("suffix", "fine_tune"), [("vcf.gz", False), ("bcf", True), ("vcf", False)]
)
def test_the_stages_add_up_to_the_whole(panel_h5, tmp_path, suffix, fine_tune):
    summary = impute(TARGET, panel_h5, tmp_path / f"x.{suffix}", ne=1e5, fine_tune=fine_tune)
    stages = {"read", "model", "fit", "copy", "load", "network", "dosages", "format", "compress"}
    # To fit the network measures the sites as well.
    assert set(summary.seconds) == stages | {"fine-tune" if fine_tune else "quality"}
    assert sum(summary.seconds.values()) == pytest.approx(summary.wall_seconds, rel=0.02)
    assert min(summary.seconds.values()) >= 0


def test_sites_of_one_position_come_into_one_window():
    cm = np.linspace(0, 1, 12)
    at = np.array([1, 1, 2, 2, 2, 3, 4, 4, 5, 6, 6, 6])
    options = {"window_cm": 40, "buffer_cm": 0, "position_bp": at}
    for most in range(1, 13):
        windows = plan_windows(cm, 0, 12, max_sites=most, **options)
        edges = [start for _, start, _, _ in windows]
        assert all(at[edge] != at[edge - 1] for edge in edges[1:])
        assert [stop for _, _, stop, _ in windows] == [*edges[1:], 12]
