"""Windows flow through a pipeline: the output, its errors and what is kept stay as without it."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragimpute import example
from ragimpute.copying import states
from ragimpute.errors import PanelError
from ragimpute.imputation import impute as command
from ragimpute.imputation.impute import impute
from ragimpute.imputation.pipeline import run_windows
from ragimpute.imputation.windows import Flow, WindowRun, plan_flow
from ragimpute.panel.views import PanelAhead
from ragimpute.runtime.memory import STATE_BYTES, MemoryPlan
from ragimpute.runtime.stages import reporting
from ragimpute.runtime.threads import Crew, start
from ragimpute.sites import Region

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2240000")
FAST = {"ne": 1e5, "err": 1e-3, "fine_tune": False, "region": REGION, "buffer_cm": 0.05}


@pytest.fixture(scope="module")
def expected(panel_h5, tmp_path_factory):
    """What one thread writes, by the length of windows and the largest panel that is copied whole;
    made when it is first asked for."""
    made = {}

    def of(window_cm, whole_up_to):
        key = window_cm, whole_up_to
        if key not in made:
            out = tmp_path_factory.mktemp("expected") / "out.bcf"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(states, "COPY_ALL_UP_TO", whole_up_to)
                impute(TARGET, panel_h5, out, window_cm=window_cm, **FAST)
            made[key] = out.read_bytes()
        return made[key]

    return of


@settings(
    max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    threads=st.sampled_from([2, 3, 8]),
    window_cm=st.sampled_from([0.02, 1.0]),
    whole_up_to=st.sampled_from([6000, 10]),
    batch=st.sampled_from([1, 2**20, 2**28]),
    spool=st.sampled_from([2_000, 2**26]),
)
def test_neither_threads_nor_batches_change_a_byte(
    panel_h5, expected, tmp_path_factory, monkeypatch, threads, window_cm, whole_up_to, batch, spool
):  # fmt: skip
    out = tmp_path_factory.mktemp("found") / "out.bcf"
    with monkeypatch.context() as patch:
        patch.setattr(states, "COPY_ALL_UP_TO", whole_up_to)
        patch.setattr(
            command, "plan_memory",
            lambda *_, **__: MemoryPlan(2**30, 2**28, batch, spool, 2**16),
        )  # fmt: skip
        before = threading.active_count()
        impute(TARGET, panel_h5, out, window_cm=window_cm, threads=threads, **FAST)
        assert threading.active_count() == before
    assert out.read_bytes() == expected(window_cm, whole_up_to)


@pytest.mark.parametrize("stage", ["prepare", "write"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_error_of_any_stage_is_raised_and_leaves_nothing(
    panel_h5, plain_copying, tmp_path, monkeypatch, stage, threads
):
    whole, seen = getattr(WindowRun, stage), []

    def broken(self, *given):
        seen.append(given)
        if len(seen) == 3:
            raise PanelError("the panel is damaged there")
        return whole(self, *given)

    monkeypatch.setattr(WindowRun, stage, broken)
    before = threading.active_count()
    with pytest.raises(PanelError, match="damaged there"):
        impute(
            TARGET, panel_h5, tmp_path / "out.vcf.gz", model=plain_copying, window_cm=0.02,
            threads=threads, **FAST,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() == before


class Recorded:
    """A run of windows that notes when each stage begins and ends."""

    def __init__(self, pause=lambda stage, number: None):
        self.noted, self._pause, self._lock = [], pause, threading.Lock()

    def note(self, *what):
        with self._lock:
            self.noted.append(what)

    def stage(self, name, number):
        self.note(name, number, "begins")
        self._pause(name, number)
        self.note(name, number, "ends")
        return SimpleNamespace(number=number, spool=SimpleNamespace(close=lambda: None))

    def prepare(self, window):
        return self.stage("prepare", window)

    def copy(self, ready):
        return self.stage("copy", ready.number)

    def write(self, _, copied):
        return self.stage("write", copied.number).number


def flow(run, num, threads, plan):
    """Windows 0 to ``num`` - 1 through the stages of a recorded run; what each is written as."""
    with Crew(threads):
        return run_windows(
            [(run, number) for number in range(num)], plan,
            begin=lambda number: run.note("begin", number), write=run.write, threads=threads,
        )  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(
    num=st.integers(0, 6), threads=st.integers(1, 4), beside=st.sets(st.integers(1, 5)),
    writes=st.booleans(),
)  # fmt: skip
def test_each_stage_takes_the_windows_in_order(num, threads, beside, writes):
    run = Recorded()
    assert flow(run, num, threads, Flow(frozenset(beside), writes)) == list(range(num))
    for stage in ("prepare", "copy", "write"):
        mine = [what[1:] for what in run.noted if what[0] == stage]
        assert mine == [(n, when) for n in range(num) for when in ("begins", "ends")]
    at = {what: i for i, what in enumerate(run.noted)}
    for number in range(1, num):
        if number not in beside:
            assert at["copy", number - 1, "ends"] < at["prepare", number, "begins"]
        if not writes:
            assert at["write", number - 1, "ends"] < at["copy", number, "begins"]


def test_windows_are_prepared_and_written_while_another_is_copied():
    meet = {"prepare": threading.Barrier(2, timeout=20), "write": threading.Barrier(2, timeout=20)}

    def pause(stage, number):
        if stage == "copy" and number < 2:
            meet["prepare"].wait()
        if stage == "prepare" and number > 0:
            meet["prepare"].wait()
        if (stage, number) in {("copy", 2), ("write", 1)}:
            meet["write"].wait()

    assert flow(Recorded(pause), 3, 3, Flow(frozenset({1, 2}), True)) == [0, 1, 2]


@pytest.mark.parametrize("num", [1, 3])
def test_long_work_of_the_first_window_is_done_beside_the_rest_of_its_preparation(num):
    meet, by = threading.Barrier(2, timeout=20), []

    class Preparing(Recorded):
        def prepare(self, window):
            by.append(threading.current_thread())
            if window == 0:
                long = start(meet.wait, is_long=True)
                meet.wait()
                long.result()
            return super().prepare(window)

    assert flow(Preparing(), num, 2, Flow(frozenset(range(1, num)), True)) == list(range(num))
    assert by[0] is threading.main_thread()


@pytest.mark.parametrize("window_cm", [0.02, 1.0])
def test_the_first_window_is_read_while_the_target_is(
    panel_h5, plain_copying, monkeypatch, window_cm
):
    asked, kept = [], []
    ahead, keep = PanelAhead.__init__, PanelAhead.will_read

    def begin(self, whole, start, stop):
        asked.append((start, stop))
        ahead(self, whole, start, stop)

    def will_read(self, stretches):
        kept.append(stretches[0])
        keep(self, stretches)
        assert self._ahead is not None

    monkeypatch.setattr(PanelAhead, "__init__", begin)
    monkeypatch.setattr(PanelAhead, "will_read", will_read)
    impute(TARGET, panel_h5, "-", model=plain_copying, window_cm=window_cm, threads=2, **FAST)
    assert asked == kept
    assert len(asked) == 1


def test_two_windows_are_at_work_only_where_both_fit(panel_h5, plain_copying):
    seen = []

    def stop(windows, inputs, ploidy, memory, *, threads, is_bounded, pattern_bytes):
        assert pattern_bytes is None  # that is for likelihoods
        seen.append((windows, inputs, ploidy, memory))
        return plan_flow(windows, inputs, ploidy, memory, threads=threads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "plan_flow", stop)
        impute(TARGET, panel_h5, "-", model=plain_copying, window_cm=0.02, **FAST)
    windows, inputs, ploidy, memory = seen[0]
    assert len(windows) > 2
    ample = replace(memory, window_bytes=2**40, spool_bytes=2**40)
    assert plan_flow(windows, inputs, ploidy, ample, threads=1) == (Flow(frozenset(), False), ample)
    found, each = plan_flow(windows, inputs, ploidy, ample, threads=2)
    assert found == Flow(frozenset(range(1, len(windows))), True)
    assert each == ample
    # Within a bound of the user's, the states that the second window holds count, too.
    tight = replace(ample, window_bytes=STATE_BYTES)
    assert plan_flow(windows, inputs, ploidy, tight, threads=2)[0] == found
    assert not plan_flow(windows, inputs, ploidy, tight, threads=2, is_bounded=True)[0].beside
    assert plan_flow(windows, inputs, ploidy, ample, threads=2, is_bounded=True)[0] == found
    # So do the probabilities, which wait on disk otherwise.
    found, each = plan_flow(windows, inputs, ploidy, ample, threads=2, is_bounded=True)
    assert found.writes_beside
    assert each.spool_bytes == ample.spool_bytes // 2
    scarce = replace(memory, window_bytes=1, spool_bytes=1)
    for is_bounded in (False, True):
        assert plan_flow(windows, inputs, ploidy, scarce, threads=2, is_bounded=is_bounded) == (
            Flow(frozenset(), not is_bounded), scarce,
        )  # fmt: skip


def test_room_on_disk_is_counted_for_each_window_that_waits_there(
    panel_h5, plain_copying, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(command, "check_space", lambda *_, temporary, **__: asked.append(temporary))
    monkeypatch.setattr(
        command, "plan_memory", lambda *_, **__: MemoryPlan(2**30, 2**28, 2**20, 2_000, 2**16)
    )
    for threads in (1, 2):
        impute(
            TARGET, panel_h5, tmp_path / "out.bcf", model=plain_copying, window_cm=0.02,
            threads=threads, **FAST,
        )  # fmt: skip
    assert asked == [asked[0], 2 * asked[0]]
    assert asked[0] > 2_000


def test_the_stages_that_are_told_end_once_and_never_go_back(panel_h5, plain_copying, tmp_path):
    told, lock = {}, threading.Lock()

    def progress(stage, done, total):
        with lock:
            told.setdefault(stage, []).append((done, total))

    with reporting(progress):
        impute(
            TARGET, panel_h5, tmp_path / "o.vcf.gz", model=plain_copying, window_cm=0.02,
            threads=3, **FAST,
        )  # fmt: skip
    done = [done for done, _ in told["impute"]]
    assert done == sorted(done)
    assert {total for _, total in told["impute"]} == {done[-1]}
    for name in ("read panel", "copy", "write"):
        assert told[name][-1][0] == told[name][-1][1]
        assert all(done <= total for done, total in told[name])
