"""Mutated and strange inputs end in output or in one line of error: no crash, no hang, no litter.

The short form; ``make fuzz`` is the long one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import fuzz_mutations
import fuzz_worker
import pytest
from fuzz_corpus import KINDS, Case, link_inputs, make_case, make_inputs
from fuzz_faults import faults, listing
from fuzz_worker import NOT_CAUGHT, Outcome, Worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_fuzz import END, START, Figures, run_case, run_cases, write_page
from strange_vcfs import strange_vcfs
from vcf_fixtures import bcftools

FIRST_SEED, NUM_CASES = 1, 7 * len(KINDS)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder of good inputs."""
    return make_inputs(tmp_path_factory.mktemp("fuzz") / "good")


@pytest.fixture(scope="module")
def worker(good):
    with Worker(good, limit_s=600) as server:
        yield server


@pytest.fixture(scope="module")
def keys(good):
    """The panel's sites with one ALT, as (position, ref, alt)."""
    rows = bcftools("query", "-f", "%POS\t%REF\t%ALT\n", good / "panel.vcf").splitlines()
    cells = [row.split("\t") for row in rows]
    return [(int(bp), ref, alt) for bp, ref, alt in cells if alt in "ACGT" and ref in "ACGT"]


def test_mutated_inputs(good, worker, tmp_path):
    figures = Figures((FIRST_SEED, FIRST_SEED + NUM_CASES))
    bad = []
    for seed in range(FIRST_SEED, FIRST_SEED + NUM_CASES):
        folder = tmp_path / str(seed)
        folder.mkdir()
        case, outcome, found = run_case(seed, good, worker, folder)
        figures.add(case, outcome, found)
        if found:
            bad.append(f"{case}\n  {found}\n{outcome.err[-2000:]}")
        shutil.rmtree(folder)
    assert not bad, "\n".join(bad)
    assert set(figures.cases) == set(KINDS)
    assert min(figures.cases.values()) == NUM_CASES // len(KINDS)
    # A corpus of which all is refused, or nothing is, tests little.
    assert 0.2 * NUM_CASES < figures.refused.total() < 0.95 * NUM_CASES


def test_good_inputs_have_no_fault(good, worker, tmp_path):
    for name, kind in KINDS.items():
        for words in set(kind.commands):
            folder = tmp_path / "case"
            link_inputs(good, folder)
            words = tuple(word.replace("FILE", kind.files[0]) for word in words)
            before = listing(folder)
            outcome = worker.run(words, folder, tmp_path)
            # train is given no panel: it is its config that is read
            expected = 1 if words[0] == "train" else 0
            assert outcome.code == expected, (name, words, outcome.err)
            assert faults(words, outcome, before, folder) == []
            shutil.rmtree(folder)


@settings(
    max_examples=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(data=st.data())
def test_strange_vcfs_are_imputed(good, worker, keys, data):
    text = data.draw(strange_vcfs(keys))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        link_inputs(good, folder)
        target = folder / "target.vcf"
        target.unlink()
        target.write_text(text)
        for words in (
            ("impute", "target.vcf", "-p", "panel.h5", "-m", "plain", "-o", "out.vcf.gz", "-q"),
            ("phase", "target.vcf", "-p", "panel.h5", "-o", "out.vcf", "-q"),
            ("info", "target.vcf"),
        ):
            before = listing(folder)
            outcome = worker.run(words, folder, Path(scratch))
            assert outcome.code == 0, outcome.err
            assert faults(words, outcome, before, folder) == []
        samples = bcftools("query", "-l", folder / "out.vcf.gz").splitlines()
        head = next(line for line in text.splitlines() if line.startswith("#CHROM"))
        assert samples == head.split("\t")[9:]


def test_a_case_follows_from_its_seed(good, tmp_path):
    def make(name):
        folder = tmp_path / name
        case = make_case(4711, good, folder)
        return case, (folder / case.file).read_bytes()

    assert make("once") == make("again")
    kind = list(KINDS)[4711 % len(KINDS)]
    assert make("third")[0].kind == kind


def test_mutations_leave_good_inputs_alone(good, tmp_path):
    before = listing(good)
    for seed in range(2 * len(KINDS)):
        make_case(seed, good, tmp_path / str(seed))
    assert listing(good) == before


def test_values_are_spoilt_under_checksums_that_fit(good, tmp_path):
    from ragimpute.errors import PanelError
    from ragimpute.panel.reader import Panel

    said = set()
    for seed in range(30):
        path = tmp_path / f"{seed}.h5"
        shutil.copy(good / "panel.h5", path)
        fuzz_mutations.hdf5_values(random.Random(seed), path)
        try:
            with Panel.open(path) as panel:
                panel.verify()
        except PanelError as error:
            said.add(str(error).partition("is damaged: ")[2])
    assert len(said) > 3
    assert not all("checksum" in text for text in said)


# ---- what is counted as a fault

WORDS = ("impute", "t.vcf", "-p", "p.h5", "-o", "out.vcf")
ROWS = "##fileformat=VCFv4.2\n#CHROM\tPOS\n20\t1\n"


def judge(folder, *, code=1, err="Error: no\n", seconds=1.0, words=WORDS, before=None):
    outcome = Outcome(code, seconds, "", err)
    return faults(words, outcome, listing(folder) if before is None else before, folder)


@pytest.mark.parametrize(
    ("code", "err", "fault"),
    [
        (1, "Error: no\n  hint: yes\n", None),
        (1, "WARNING: odd\nError: no\n", None),
        (2, "Usage: ragimpute impute\n", None),
        (None, "", "hang"),
        (-11, "", "crash"),
        (NOT_CAUGHT, "Traceback\nKeyError: 'x'\n", "traceback: KeyError: 'x'"),
        (1, "Traceback (most recent call last)\n", "traceback"),
        (3, "", "exit code"),
        (2, "Error: no\n", "message"),
        (1, "", "message"),
        (1, "Error: a\nError: b\n", "message"),
        (1, "[E::hts] no\nError: b\n", "message"),
        (1, "Error: " + "x" * 5000, "message"),
        (1, "Error: out of memory\n", "memory"),
    ],
)
def test_faults_of_endings(tmp_path, code, err, fault):
    found = judge(tmp_path, code=code, err=err)
    assert len(found) == (fault is not None)
    assert fault is None or found[0].startswith(fault)


def test_faults_of_files(tmp_path):
    (tmp_path / "in.vcf").write_text(ROWS)
    before = listing(tmp_path)
    assert judge(tmp_path, code=0, err="") == ["output: out.vcf is not there"]
    out = tmp_path / "out.vcf"
    out.write_text(ROWS)
    assert judge(tmp_path, code=0, before=before) == []
    assert judge(tmp_path, before=before) == ["left behind: out.vcf"]
    for text, problem in (
        (ROWS[:-1], "cut"),
        ("20\t1\n", "cut"),
        (ROWS + "20\n", "lengths"),
        (ROWS + "20\tnan\n", "NaN"),
    ):
        out.write_text(text)
        assert problem in judge(tmp_path, code=0, before=before)[0]
    out.write_text(ROWS)
    (tmp_path / ".out.vcf.1.tmp").write_text("")
    assert judge(tmp_path, code=0, before=before) == ["temporary: .out.vcf.1.tmp"]
    (tmp_path / ".out.vcf.1.tmp").unlink()
    (tmp_path / "in.vcf").write_text("x")
    assert judge(tmp_path, code=0, before=before) == ["input: in.vcf changed"]


@pytest.mark.parametrize(
    ("command", "ending", "err"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, "Segmentation fault"),
        ("[None for _ in iter(int, 1)]", None, "in command"),
        ("int('not caught')", NOT_CAUGHT, "ValueError: invalid literal"),
        ("bytearray(100 * 2**30)", NOT_CAUGHT, "MemoryError"),
        ("return int(words[0])", 3, ""),
    ],
)
def test_the_worker_sees_how_a_command_ends(tmp_path, command, ending, err):
    task = {"words": ["3"], "folder": str(tmp_path), "logs": str(tmp_path), "limit_s": 1}
    script = tmp_path / "fork.py"  # in a process of its own: pytest's has threads, so cannot fork
    script.write_text(
        f"""
import os, signal, time, fuzz_worker

def command(words):
    {command}

fuzz_worker._call = command
child = os.fork()
if child == 0:
    fuzz_worker._child({task!r})
print(fuzz_worker._wait(child, time.perf_counter() + {2 if ending is None else 600}))
"""
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(fuzz_worker.__file__)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(ending if ending is None else int(ending)), done.stderr
    assert err in (tmp_path / "err").read_text()


def test_figures_go_between_the_marks_of_a_page(tmp_path):
    figures = Figures((1, 4), seconds=60)
    case = Case(1, "panel.h5", "panel.h5", ("raw",), ("info", "panel.h5"))
    figures.add(case, Outcome(0, 0.5, "", ""), [])
    figures.add(case, Outcome(1, 0.5, "", "Error: x"), [])
    figures.add(case, Outcome(-11, 2.5, "", ""), ["crash: ended by signal 11"])
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_page(figures, page)
    text = page.read_text()
    assert text.startswith(f"before\n{START}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| panel.h5 | 3 | 1 | 1 | 1 |" in text
    assert "3 mutated inputs (seeds 1 to 3), 1 minutes, 1 at a time, the longest 2.5 s" in text
    assert "1 had a fault (1 crash)" in text


@pytest.mark.slow
def test_shares_of_a_long_run_add_up():
    """As ``make fuzz`` runs them, two at a time."""
    shown = []
    figures = run_cases(900, 2 * len(KINDS), jobs=2, show=shown.append)
    assert set(figures.cases.values()) == {2}
    assert figures.faulty.total() == 0, "\n".join(shown)
    assert figures.seconds > figures.longest_s > 0
