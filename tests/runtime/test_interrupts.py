"""Signals unwind a run, but not where that would be lost."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ragimpute.runtime.interrupts import SIGNALS, Stopped, held, install, uninstall


@pytest.fixture
def installed():
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # pytest may itself run under nohup
    install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_unwinds(installed, number):
    done = []

    def work():
        try:
            signal.raise_signal(number)
        except Exception:
            done.append("taken for an error")
        finally:
            done.append("cleaned up")

    with pytest.raises(Stopped) as caught:
        work()
    assert done == ["cleaned up"]
    assert caught.value.signal == number
    signal.raise_signal(number)  # once more: ignored while the run cleans up


def test_a_signal_waits_until_it_may(installed):
    done = []

    def work():
        with held():
            with held():
                signal.raise_signal(signal.SIGTERM)
                done.append(1)
            done.append(2)
        done.append(3)

    with pytest.raises(Stopped) as caught:
        work()
    assert done == [1, 2]
    assert caught.value.signal == signal.SIGTERM
    with held():  # nothing is left of it
        done.append(4)


def test_an_error_meanwhile_gives_way(installed):
    def work():
        with held():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("inside")

    with pytest.raises(Stopped) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)


def test_a_signal_waits_for_a_callback_to_end(installed):
    """What is raised in a callback of llvmlite would be printed and dropped."""
    done = []
    callback = """
def run(done):
    signal.raise_signal(signal.SIGINT)
    for i in range(5):
        time.sleep(0.02)
        done.append(i)
"""
    names = {"__name__": "llvmlite.binding.executionengine", "signal": signal, "time": time}
    exec(callback, names)
    with pytest.raises(Stopped) as caught:
        call_and_wait(names["run"], done)
    assert done == [0, 1, 2, 3, 4]
    assert caught.value.signal == signal.SIGINT


def call_and_wait(call, done):
    call(done)
    for _ in range(12_000):  # ten minutes: it ends with the signal
        time.sleep(0.05)
    done.append("never stopped")


def test_afterwards_signals_end_the_process(installed):
    uninstall()
    for number in SIGNALS:
        assert signal.getsignal(number) == signal.SIG_DFL
    install()
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)
    uninstall()
    for number in SIGNALS:
        assert signal.getsignal(number) == signal.SIG_DFL


def test_what_is_ignored_stays_ignored(installed):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    install()
    signal.raise_signal(signal.SIGHUP)  # raises nothing
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_workers_end_at_once(installed):
    worker = os.fork()
    if worker == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)
    _, status = os.waitpid(worker, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGTERM
