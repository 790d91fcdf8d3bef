"""How far a run has come: the words of it, bars on a terminal, lines elsewhere."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from hypothesis import example as also
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from ragimpute import example
from ragimpute.accuracy.evaluate import evaluate
from ragimpute.cli import progress
from ragimpute.cli.progress import Lines, Running, StageClock, duration, showing_bars
from ragimpute.imputation.impute import impute
from ragimpute.jobs.merge import merge
from ragimpute.phasing.phase import phase
from ragimpute.runtime.stages import UNITS, reporting
from ragimpute.sites import Region

REGION = Region.parse("20:2000000-2100000")


class Time:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (Running("copy", 0.0, 12_300_000, 33_100_000),
         "37%, 12.3/33.1 M alleles, 1.2 M/s, 0:17 left"),
        (Running("write", 0.0, 500, 8_000), "6%, 500/8,000 sites, 50/s, 2:30 left"),
        (Running("prepare", 0.0, 31_500_000, 63_000_000), "50%, 31.5/63.0 Mb, 0:10 left"),
        (Running("read target", 0.0, 0, 1_500), "0%, 0.0/1.5 kb, 0:10"),
        (Running("find states", 0.0, 0, 1), "0:10"),
        (Running("validation", 0.0, 40, 0), "40 batches, 4.0/s, 0:10"),
        (Running("epoch 2/3", 0.0, 10, 40), "25%, 10/40 batches, 1.0/s, 0:30 left"),
        (Running("fit network", 1.0, 8, 8, 3.0), "done, 8 batches, 2.0 s"),
        (Running("copy", 0.0, 4, 4, 3_723.0), "done, 4 alleles, 1:02:03"),
        (Running("load network", 0.0, 1, 1, 0.04), "done, 0.0 s"),
    ],
)  # fmt: skip
def test_words_of_a_stage(stage, text):
    assert stage.text(10.0) == text


@settings(max_examples=300, deadline=None)
@also("collect evidence", 10_000, 10_000, 1.0)
@also("fit parameters", 1, 999_999, 0.2)
@given(
    st.sampled_from(sorted(UNITS)), st.integers(0, 10**13), st.integers(0, 10**13),
    st.floats(0, 1e6),
)  # fmt: skip
def test_every_stage_fits_80_columns(name, a, b, now):
    done, total = sorted((a, b))
    for stage in (Running(name, 0.0, done, total), Running(name, 0.0, done, done, now)):
        # name, a blank, the bar, a blank
        assert len(stage.text(now)) + len("collect evidence") + 1 + 12 + 1 <= 80


def test_durations():
    assert [duration(s) for s in (0, 59.6, 754, 3723)] == ["0:00", "1:00", "12:34", "1:02:03"]
    assert [duration(86_400 * days) for days in (3, 9, 2_000)] == ["72:00:00", "9 days", "years"]


def test_a_stage_begins_and_ends_once_and_may_come_again():
    time, log = Time(), []
    clock = StageClock(
        began=lambda stage: log.append(("began", stage.name)),
        ended=lambda stage: log.append(("ended", stage.name, stage.seconds(time.now))),
        clock=time,
    )
    clock("copy", 0, 10)
    time.now = 2.0
    clock("copy", 5, 10)
    clock("read", 0, 1)
    time.now = 3.0
    clock("copy", 10, 10)
    clock("copy", 10, 10)  # told twice
    assert [stage.name for stage in clock.under_way()] == ["read"]
    time.now = 4.0
    clock("copy", 0, 10)
    assert log == [("began", "copy"), ("began", "read"), ("ended", "copy", 3.0), ("began", "copy")]


def lines(time, written):
    """A clock, and the lines that its stages become."""
    told = Lines(written.append, before=10.0, between=30.0)
    clock = StageClock(ended=lambda stage: told.ended(clock, stage), clock=time)
    return told, clock


def test_short_runs_write_no_line_and_long_ones_all():
    time, written = Time(), []
    told, clock = lines(time, written)
    clock("read target", 0, 1_000_000)
    time.now = 2.0
    clock("read target", 1_000_000, 1_000_000)
    clock("copy", 0, 2_000_000)
    assert written == []
    time.now = 11.0
    clock("copy", 500_000, 2_000_000)
    told.tell(clock)  # as the thread does
    assert written == [
        "   0:02  read target: done, 1.0 Mb, 2.0 s",
        "   0:11  copy: 25%, 0.5/2.0 M alleles, 55.6 k/s, 0:27 left",
    ]
    time.now = 40.0
    clock("copy", 2_000_000, 2_000_000)
    assert written[-1] == "   0:40  copy: done, 2.0 M alleles, 38.0 s"


def test_a_thread_writes_lines_while_nothing_is_reported(monkeypatch):
    written = []
    told = Lines(written.append, before=0.01, between=0.01)
    clock = StageClock()
    with told.telling(clock):
        clock("copy", 0, 2)
        while len(written) < 3:
            pass
    count = len(written)
    assert all("copy: 0%, 0/2 alleles" in line for line in written)
    assert len(written) == count


def test_peers_30_bars_on_a_terminal():
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=80)
    with showing_bars(console, lambda stage: None, lambda stage: None) as clock:
        assert "starting" in shown.getvalue()  # from the first moment on
        for done in range(4):
            clock("write", done, 3)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert "write" in plain
    assert "done, 3 sites, 0.0 s" in plain
    assert "…" not in plain
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]+", plain))


def stages_of(run):
    """The stages that a run tells of: how often each is told of, and whether it ended."""
    calls = []
    with reporting(lambda *call: calls.append(call)):
        run()
    found = {}
    for name, done, total in calls:
        found.setdefault(name, []).append((done, total))
    return found


@pytest.fixture(scope="module")
def unphased(tmp_path_factory):
    """The example's target without its phase."""
    from vcf_fixtures import view

    path = tmp_path_factory.mktemp("unphased") / "u.vcf"
    text = view(example.path("target.vcf.gz"))
    path.write_text("".join(
        line if line.startswith("#") else line.replace("|", "/")
        for line in text.splitlines(keepends=True)
    ))  # fmt: skip
    return path


def test_every_stage_is_told_of_moves_and_ends(panel_h5, unphased, tmp_path):
    def run_impute():
        impute(unphased, panel_h5, tmp_path / "i.vcf.gz", region=REGION, window_cm=0.05)

    def run_merge():
        phase(unphased, panel_h5, tmp_path / "p.vcf", region=REGION)
        impute(unphased, panel_h5, tmp_path / "j.vcf.gz", region=REGION, threads=2)

    def run_evaluate():
        evaluate(example.path("truth.bcf"), tmp_path / "i.vcf.gz", panel_h5, region=REGION)

    imputed = stages_of(run_impute)
    assert {"read target", "phase", "read panel", "fit parameters", "measure sites", "copy",
            "write", "impute", "finish output"} <= set(imputed)  # fmt: skip
    assert len(imputed["copy"]) > 4 * imputed["copy"].count((0, imputed["copy"][0][1]))
    inside = {done for done, total in imputed["impute"] if 0 < done < total}
    assert len(inside) > 4  # it moves within windows, of which there are fewer
    phased = stages_of(run_merge)
    assert {"phase", "write"} <= set(phased)
    scored = stages_of(run_evaluate)
    assert {"read truth", "read imputed file", "score"} <= set(scored)
    for found in (imputed, phased, scored):
        for name, calls in found.items():
            assert calls[-1][0] == calls[-1][1] > 0, name


def test_merge_tells_how_far_it_is(panel_h5, tmp_path, make_vcf):
    from vcf_fixtures import bcftools

    impute(example.path("target.vcf.gz"), panel_h5, tmp_path / "a.vcf.gz", region=REGION,
           ne=1e5, err=1e-3, fields=["GT", "DS", "HDS"])  # fmt: skip
    names = tmp_path / "names"
    lines = bcftools("query", "-l", tmp_path / "a.vcf.gz").splitlines()
    names.write_text("".join(f"{name} other-{name}\n" for name in lines))
    bcftools("reheader", "-s", names, "-o", tmp_path / "b.vcf.gz", tmp_path / "a.vcf.gz")
    bcftools("index", "-t", tmp_path / "b.vcf.gz")
    paths = [tmp_path / "a.vcf.gz", tmp_path / "b.vcf.gz"]
    found = stages_of(lambda: merge(paths, tmp_path / "m.vcf.gz"))
    assert found["merge"][0] == (0, 63_025_520)
    assert found["merge"][-1] == (63_025_520, 63_025_520)


def test_the_defaults_of_the_lines():
    assert progress.SECONDS_BETWEEN_LINES == 30.0
    assert progress.SECONDS_BEFORE_LINES == 10.0
