"""The plan covers every site once, and what is imputed by it joins to what one run writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcf_fixtures import bcftools, join, read_imputed

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.io.target_file import open_target
from ragimpute.io.vcf.header import read_header
from ragimpute.jobs.split import _typed_share, make_plan, plan_batches, plan_regions
from ragimpute.panel.reader import Panel
from ragimpute.sites import Region

TARGET = example.path("target.vcf.gz")


@given(
    gaps=st.lists(st.integers(0, 50), min_size=0, max_size=60),
    cm_per_bp=st.sampled_from([0.0, 0.001, 0.1, 3.0]),
    chunk_cm=st.floats(0.01, 200),
)
def test_peers_49_every_site_is_in_one_region(gaps, cm_per_bp, chunk_cm):
    bp = 100 + np.cumsum([0, *gaps]).astype(np.int32)
    cm = bp * cm_per_bp
    regions = plan_regions("x", bp, cm, chunk_cm=chunk_cm)
    parsed = [Region.parse(r.region) for r in regions]
    assert (parsed[0].start_bp, parsed[-1].stop_bp) == (bp[0], bp[-1] + 1)
    for before, after in pairwise(parsed):
        assert before.stop_bp == after.start_bp
    counts = [np.count_nonzero((bp >= r.start_bp) & (bp < r.stop_bp)) for r in parsed]
    assert counts == [r.num_sites for r in regions]
    assert min(counts) >= 1
    assert sum(counts) == len(bp)
    assert all(r.stop_cm - r.start_cm <= chunk_cm + 1e-3 for r in regions)


def test_regions_are_of_even_length_and_no_more_than_asked_for():
    bp = np.arange(1, 10_001, dtype=np.int32)
    regions = plan_regions("x", bp, bp * 0.01, chunk_cm=30)
    assert [r.num_sites for r in regions] == [2500] * 4
    assert len(plan_regions("x", bp, bp * 0.01, chunk_cm=1000)) == 1


@given(
    gaps=st.lists(st.integers(0, 3_000_000), min_size=0, max_size=60),
    chunk_cm=st.none() | st.floats(0.01, 200),
    chunk_mb=st.floats(0.001, 100),
)
def test_regions_are_no_longer_than_asked_for_in_mb_and_cm(gaps, chunk_cm, chunk_mb):
    bp = 100 + np.cumsum([0, *gaps]).astype(np.int32)
    cm = bp * 1e-6
    regions = plan_regions("x", bp, cm, chunk_cm=chunk_cm, chunk_mb=chunk_mb)
    assert sum(r.num_sites for r in regions) == len(bp)
    ends = np.cumsum([0, *(r.num_sites for r in regions)])
    spans = [int(bp[stop - 1] - bp[start]) for start, stop in pairwise(ends.tolist())]
    assert max(spans) <= chunk_mb * 1e6 + 1
    assert all(r.stop_cm - r.start_cm <= (chunk_cm or np.inf) + 1e-3 for r in regions)
    starts = [Region.parse(r.region).start_bp for r in regions]
    assert starts == bp[ends[:-1]].tolist()


def test_chunks_of_a_genome_by_length():
    bp = np.arange(1, 60_000_001, 1000, dtype=np.int32)
    regions = plan_regions("20", bp, bp * 1e-6, chunk_mb=25)
    assert [r.region for r in regions] == [
        "20:1-20000000", "20:20000001-40000000", "20:40000001-59999001"
    ]  # fmt: skip
    # Without a length of either kind 20 cM are the most, with both kinds both are.
    assert len(plan_regions("20", bp, bp * 1e-6)) == 3
    assert len(plan_regions("20", bp, bp * 1e-6, chunk_cm=100, chunk_mb=100)) == 1
    assert len(plan_regions("20", bp, bp * 1e-6, chunk_cm=10, chunk_mb=25)) == 6


@given(
    num=st.integers(1, 400),
    site_bytes=st.floats(0, 1e7),
    more=st.floats(0, 1e7),
)
def test_more_bytes_never_need_less_memory(num, site_bytes, more):
    """What a job is promised grows with its sites, and stays within what a run ever uses."""
    bp = np.arange(1, num + 1, dtype=np.int32)
    few, many = (
        plan_regions("x", bp, bp * 1.0, chunk_cm=50, site_bytes=each)
        for each in (site_bytes, site_bytes + more)
    )
    for less, greater in zip(few, many, strict=True):
        assert 512 <= less.memory_mb <= greater.memory_mb <= 1280
        assert less.memory_mb % 128 == 0


@pytest.mark.parametrize(
    ("name", "num_typed"), [("target.vcf.gz", 689), ("truth.bcf", 6127), ("without index", None)]
)
def test_the_targets_index_says_how_much_is_typed(panel_h5, tmp_path, name, num_typed):
    """A sequenced target needs more memory than an array's."""
    path = tmp_path / "target.vcf.gz" if num_typed is None else example.path(name)
    if num_typed is None:
        shutil.copy(TARGET, path)
    with Panel.open(panel_h5) as panel:
        share = _typed_share(open_target(path), panel)
    assert share == (0.15 if num_typed is None else pytest.approx(num_typed / 6127))


@pytest.mark.parametrize(("contig", "share"), [("chr20", 1.0), ("21", 0.15)])
def test_records_of_other_contigs_do_not_count(panel_h5, tmp_path, contig, share):
    names = tmp_path / "names"
    names.write_text(f"20 {contig}\n")
    path = tmp_path / "truth.bcf"
    bcftools("annotate", "--rename-chrs", names, "-Ob", "-o", path, example.path("truth.bcf"))
    bcftools("index", path)
    with Panel.open(panel_h5) as panel:
        assert _typed_share(open_target(path), panel) == share


def test_a_region_is_given_what_a_run_of_it_uses(panel_h5, tmp_path):
    """The peak of a run, measured by the operating system, is below what the plan says."""
    (planned,) = make_plan(panel_h5).regions
    # getrusage would include the memory of this process, from which the other one is forked.
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ragimpute.imputation.impute import impute\n"
        "impute(*sys.argv[1:])\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0])\n"
    )
    words = [sys.executable, "-c", code, str(TARGET), str(panel_h5), str(tmp_path / "out.bcf")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert 50 < int(done.stdout) / 1024 < planned.memory_mb


@pytest.mark.parametrize(("chunk_cm", "num"), [(0, 3), (-1, 3), (float("nan"), 3), (1, 0)])
def test_a_plan_of_nothing_is_refused(chunk_cm, num):
    with pytest.raises(ValueError, match="chunk_cm"):
        plan_regions("x", np.arange(num, dtype=np.int32), np.arange(num), chunk_cm=chunk_cm)


@given(num=st.integers(1, 200), most=st.integers(1, 250))
def test_every_sample_is_in_one_batch(num, most):
    names = [f"s{i}" for i in range(num)]
    batches = plan_batches(names, most)
    assert list(chain(*batches)) == names
    sizes = [len(batch) for batch in batches]
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1


def test_what_is_printed(panel_h5, command_line, tmp_path):
    words = ("plan", panel_h5, TARGET, "--chunk-cm", 1, "--samples-per-batch", 20)
    code, out, err = command_line(*words, "--batch-dir", tmp_path / "batches")
    assert (code, err) == (0, "")
    header, *lines = (line.split("\t") for line in out.splitlines())
    assert header == ["region", "num_sites", "start_cm", "stop_cm", "batch", "num_samples",
                      "first_sample", "last_sample", "memory_mb"]  # fmt: skip
    assert len(lines) == 9
    samples = read_header(TARGET).samples
    written = [(tmp_path / "batches" / f"{i}.txt").read_text().split() for i in (1, 2, 3)]
    assert list(chain(*written)) == samples
    assert [line[5:8] for line in lines[::3]] == [[str(len(w)), w[0], w[-1]] for w in written]

    code, out, _ = command_line(*words, "--format", "json")
    tree = json.loads(out)
    assert code == 0
    assert [r["region"] for r in tree["regions"]] == [line[0] for line in lines[:3]]
    assert [str(r["memory_mb"]) for r in tree["regions"]] == [line[-1] for line in lines[:3]]
    assert [b["samples"] for b in tree["batches"]] == written
    with Panel.open(panel_h5) as panel:
        assert tree["checksum"] == panel.checksum
        assert sum(r["num_sites"] for r in tree["regions"]) == panel.num_sites
    assert "batches" not in json.loads(command_line("plan", panel_h5, "--format", "json")[1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--samples-per-batch", 3), "--samples-per-batch needs a target"),
        (("--batch-dir", "x"), "--batch-dir needs a target"),
        (("--region", "20:1-5"), "has no site in 20:1-5"),
        (("--region", "7"), "holds contig 20"),
    ],
)
def test_what_cannot_be_planned(panel_h5, command_line, words, message):
    code, out, err = command_line("plan", panel_h5, *words)
    assert (code, out) == (1, "")
    assert message in err


def test_batches_do_not_overwrite_files(panel_h5, command_line, tmp_path):
    (tmp_path / "mine").write_text("x")
    words = ("plan", panel_h5, TARGET, "--batch-dir", tmp_path)
    code, _, err = command_line(*words)
    assert code == 1
    assert "is not empty" in err
    assert command_line(*words, "--force")[0] == 0
    assert (tmp_path / "1.txt").read_text().split() == read_header(TARGET).samples
    assert (tmp_path / "mine").read_text() == "x"


@pytest.mark.parametrize("suffix", ["vcf.gz", "bcf"])
def test_regions_join_to_what_one_run_writes(panel_h5, tmp_path, suffix):
    plan = make_plan(panel_h5, chunk_cm=1.0)
    assert len(plan.regions) == 3
    parts = []
    for number, planned in enumerate(plan.regions):
        parts.append(tmp_path / f"{number}.{suffix}")
        region = Region.parse(planned.region)
        impute(TARGET, panel_h5, parts[-1], region=region, buffer_cm=0.4, fine_tune=False)
    joined, whole = tmp_path / f"joined.{suffix}", tmp_path / f"whole.{suffix}"
    join(joined, parts)
    bcftools("index", joined)
    impute(TARGET, panel_h5, whole, fine_tune=False)
    found, expected = read_imputed(joined), read_imputed(whole)
    assert found.keys == expected.keys
    np.testing.assert_array_equal(found.typed, expected.typed)
    # ne and err are chosen for each region, and its buffer ends, here .4 cM away: dosages move.
    moved = np.abs(found.dosage - expected.dosage)
    assert 0 < moved.mean() < 2e-3
    assert np.quantile(moved, 0.999) < 0.15


def test_with_given_parameters_the_joined_dosages_hardly_move(panel_h5, tmp_path):
    options = {"ne": 1e5, "err": 1e-3, "buffer_cm": 0.4, "fine_tune": False}
    parts = []
    for planned in make_plan(panel_h5, chunk_cm=1.0).regions:
        parts.append(tmp_path / f"{len(parts)}.bcf")
        impute(TARGET, panel_h5, parts[-1], region=Region.parse(planned.region), **options)
    impute(TARGET, panel_h5, tmp_path / "whole.bcf", **options)
    found = np.concatenate([read_imputed(part).dosage for part in parts])
    moved = np.abs(found - read_imputed(tmp_path / "whole.bcf").dosage)
    assert 0 < moved.mean() < 1.2e-3


def test_a_plan_needs_no_panel_sites_outside_the_region(panel_h5):
    region = Region.parse("20:2200000-2350000")
    plan = make_plan(panel_h5, chunk_cm=0.3, region=region)
    with Panel.open(panel_h5) as panel:
        start, stop = panel.site_range(region)
        at = panel.sites.position_bp
    assert sum(r.num_sites for r in plan.regions) == stop - start
    assert Region.parse(plan.regions[0].region).start_bp == at[start]
    with pytest.raises(InputError, match="has no site in"):
        make_plan(panel_h5, region=Region.parse("20:1-2"))
