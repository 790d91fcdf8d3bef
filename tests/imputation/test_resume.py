"""A run that is broken off at any moment and gone on with writes what an unbroken one writes."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.imputation import resume as impute_resume
from ragimpute.imputation import windows
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import OutputOptions
from ragimpute.imputation.resume import KeptRun, fingerprint
from ragimpute.preparation.prepare import prepare
from ragimpute.runtime.interrupts import Stopped
from ragimpute.sites import Region

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2350000")
SMALL = {"window_cm": 0.02, "buffer_cm": 0.2, "ne": 1e5, "err": 1e-3, "region": REGION}
NAMES = ("out", "sites", "typed")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The example's panel, and a model of copying alone."""
    folder = tmp_path_factory.mktemp("files")
    prepare(
        example.path("panel.bcf"), folder / "panel.h5",
        genetic_map=example.path("chr20.b37.gmap.gz"),
    )  # fmt: skip
    (folder / "ls").mkdir()
    (folder / "ls" / "config.yaml").write_text("extends: default\n")
    return folder


def run(files, folder, suffix=".vcf.gz", *, target=TARGET, **options):
    """Impute into a folder: all sites, sites alone, typed sites."""
    out = folder / f"out{suffix}"
    beside = ".vcf.gz" if suffix.endswith("gen") else suffix
    sites, typed = (folder / f"{name}{beside}" for name in NAMES[1:])
    extra = OutputOptions(0.3, typed_only=True, sites=sites, empirical=typed)
    return impute(
        target, files / "panel.h5", out, model=files / "ls", output_options=extra,
        **SMALL | options,
    )  # fmt: skip


def contents(folder):
    """What a folder holds, hidden files too."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def assert_same(found, expected):
    """Two folders hold the same files, byte for byte."""
    found, expected = contents(found), contents(expected)
    assert set(found) == set(expected)
    for name, data in expected.items():
        assert found[name] == data, name


def break_off(monkeypatch, number, error):
    """Raise in the window of that number."""
    whole = windows.WindowRun.write
    seen = []

    def broken(self, copied, outputs):
        seen.append(copied.window)
        if len(seen) > number:
            raise error
        return whole(self, copied, outputs)

    monkeypatch.setattr(windows.WindowRun, "write", broken)
    return seen


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf", ".vcf", ".bgen", ".pgen"])
def test_goes_on_to_the_same_bytes(files, tmp_path, monkeypatch, suffix):
    if suffix == ".pgen":
        pytest.importorskip("pgenlib")
        pytest.importorskip("zstandard")
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    plain.mkdir()
    kept.mkdir()
    whole = run(files, plain, suffix)
    total = 0
    for number in (2, 1, 3):
        with monkeypatch.context() as patch:
            break_off(patch, number, RuntimeError("broken off"))
            with pytest.raises(RuntimeError, match="broken off"):
                run(files, kept, suffix, resume=True, threads=2)
        total += number
        about = json.loads((kept / f".out{suffix}.resume" / "run.json").read_text())
        assert about["done"] == total < len(about["windows"])
        assert not {f"{name}{suffix}" for name in NAMES} & set(contents(kept))
    with monkeypatch.context() as patch:
        seen = break_off(patch, 10**6, AssertionError)
        done = run(files, kept, suffix, resume=True)
        assert len(seen) == len(about["windows"]) - total
    assert_same(kept, plain)
    assert not (kept / f".out{suffix}.resume").exists()
    assert done.settings["resumed"] == f"{total} of {len(about['windows'])} windows were kept"
    assert (done.dr2 == whole.dr2).all()
    assert (done.typed == whole.typed).all()
    assert done.counts == whole.counts
    assert done.warnings == whole.warnings


def test_the_network_is_fitted_anew_to_the_same(files, tmp_path, monkeypatch):
    """What was fitted is not kept; the windows that are left get it from the panel again."""
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    plain.mkdir()
    kept.mkdir()
    impute(TARGET, files / "panel.h5", plain / "out.vcf", **SMALL)
    with monkeypatch.context() as patch:
        break_off(patch, 2, RuntimeError("broken off"))
        with pytest.raises(RuntimeError, match="broken off"):
            impute(TARGET, files / "panel.h5", kept / "out.vcf", resume=True, **SMALL)
    done = impute(TARGET, files / "panel.h5", kept / "out.vcf", resume=True, **SMALL)
    assert done.settings["resumed"].startswith("2 of ")
    assert done.seconds["fine-tune"] > 0
    assert_same(kept, plain)


def test_phased_genotypes_are_kept(files, tmp_path, monkeypatch):
    unphased = tmp_path / "unphased.vcf"
    text = gzip.decompress(Path(TARGET).read_bytes()).decode()
    head, body = text.split("#CHROM", 1)
    unphased.write_text(head + "#CHROM" + body.replace("|", "/"))
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    plain.mkdir()
    kept.mkdir()
    whole = run(files, plain, target=unphased)
    with monkeypatch.context() as patch:
        break_off(patch, 0, RuntimeError("broken off"))
        with pytest.raises(RuntimeError, match="broken off"):
            run(files, kept, target=unphased, resume=True)
        patch.setattr("ragimpute.imputation.impute.phase_match", None)  # not called again
        with pytest.raises(RuntimeError, match="broken off"):
            run(files, kept, target=unphased, resume=True)
    assert (
        run(files, kept, target=unphased, resume=True).settings["phasing"]
        == (whole.settings["phasing"])
    )
    assert_same(kept, plain)


CHANGES = {
    "seed": ({"seed": 2}, "seed changed"),
    "network": ({"fine_tune": False}, "fine_tune changed"),
    "memory": ({"max_memory": 2**34}, "max_memory changed"),
    "target": ({"target": "other"}, "target input changed"),
    "version": ({}, "it was made by ragimpute 0.0, this is"),
    "damaged record": ({}, "it cannot be read"),
    "damaged window": ({}, "it cannot be read"),
    "cut short": ({}, "is missing or cut short"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_does_not_belong_together_starts_anew(files, tmp_path, monkeypatch, change):
    options, said = CHANGES[change]
    target = tmp_path / "target.vcf.gz"
    shutil.copy(TARGET, target)
    plain, kept = tmp_path / "plain", tmp_path / "kept"
    plain.mkdir()
    kept.mkdir()
    with monkeypatch.context() as patch:
        break_off(patch, 2, RuntimeError("broken off"))
        with pytest.raises(RuntimeError, match="broken off"):
            run(files, kept, target=target, resume=True)
    left = kept / ".out.vcf.gz.resume"
    if change == "target":
        with target.open("ab") as file:  # another end mark: the same records
            file.write(bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000"))
    elif change == "version":
        about = json.loads((left / "run.json").read_text())
        (left / "run.json").write_text(json.dumps(about | {"ragimpute": "0.0"}))
    elif change == "damaged record":
        (left / "run.json").write_text("{")
    elif change == "damaged window":
        path = left / "window-000001.npz"
        path.write_bytes(path.read_bytes()[:-100])
    elif change == "cut short":
        os.truncate(kept / ".sites.vcf.gz.part", 100)
    options = {key: value for key, value in options.items() if key != "target"}
    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(impute_resume.log, "warning", lines.append)
        seen = break_off(patch, 10**6, AssertionError)
        done = run(files, kept, target=target, resume=True, **options)
    lines = [line for line in lines if "cannot be resumed" in line]
    assert len(lines) == 1
    assert said in lines[0]
    assert lines[0].endswith("starting anew")
    assert done.settings["resumed"] == f"0 of {len(seen)} windows were kept"
    run(files, plain, target=target, **options)
    assert_same(kept, plain)


def test_nothing_is_left_of_a_run_that_kept_nothing(files, tmp_path, monkeypatch):
    break_off(monkeypatch, 0, InputError("broken off"))
    with pytest.raises(InputError, match="broken off"):
        run(files, tmp_path, resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_signal_says_what_is_kept(files, tmp_path, monkeypatch):
    break_off(monkeypatch, 2, Stopped(signal.SIGTERM))
    with pytest.raises(Stopped) as caught:
        run(files, tmp_path, resume=True)
    assert caught.value.left.startswith("2 of ")
    assert "--resume goes on from there" in caught.value.left
    assert {path.name for path in tmp_path.iterdir()} == {
        ".out.vcf.gz.resume", *(f".{name}.vcf.gz.part" for name in NAMES)
    }  # fmt: skip


def test_what_is_kept_is_on_the_disk_before_it_has_its_name(files, tmp_path, monkeypatch):
    """Else a power cut could leave the name of a file without its content."""
    synced, renamed = set(), []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(file):
        synced.add(os.fstat(file).st_ino)
        fsync(file)

    def noted_replace(source, path):
        if ".resume" in str(path):
            renamed.append(os.path.basename(path))
            synced.remove(os.stat(source).st_ino)
        replace(source, path)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    run(files, tmp_path, ".vcf", resume=True)
    assert {"run.json", "window-000000.npz"} <= set(renamed)


def test_two_runs_do_not_share_an_output(tmp_path):
    with KeptRun([tmp_path / "out.bcf"], inputs={}, options={}):
        with pytest.raises(InputError, match="another run is writing this output"):
            KeptRun([tmp_path / "out.bcf"], inputs={}, options={})
        assert (tmp_path / ".out.bcf.resume" / "run.json").is_file()
    assert list(tmp_path.iterdir()) == []


def test_standard_output_is_refused(files):
    with pytest.raises(InputError, match="standard output cannot be resumed"):
        impute(TARGET, files / "panel.h5", "-", model=files / "ls", resume=True)


def test_fingerprints_tell_contents_apart(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text("1")
    os.utime(tmp_path / "a", (0, 0))
    before = fingerprint(tmp_path)
    os.utime(tmp_path / "a")
    assert fingerprint(tmp_path) == before
    (tmp_path / "a").write_text("2")
    assert fingerprint(tmp_path)["a"] != before["a"]
    assert fingerprint(tmp_path)["b"] == before["b"]


def test_design7_11_killed_runs_go_on(files, tmp_path):
    """kill -9 after so many windows, as the command line is run, SIGTERM, and then a full disk."""
    kept_in, plain_in = tmp_path / "kept", tmp_path / "plain"
    kept_in.mkdir()
    plain_in.mkdir()
    out, plain = kept_in / "out.vcf.gz", plain_in / "out.vcf.gz"
    command = [
        sys.executable, "-m", "ragimpute", "impute", str(TARGET), "-p", str(files / "panel.h5"),
        "-m", str(files / "ls"), "--chunk-cm", "0.02", "--buffer-cm", "0.2", "-q",
    ]  # fmt: skip
    record = kept_in / ".out.vcf.gz.resume" / "run.json"
    for number, how in ((1, signal.SIGKILL), (4, signal.SIGTERM)):
        process = subprocess.Popen(
            [*command, "--resume", "-o", str(out)], stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and not done_of(record) >= number:
            time.sleep(0.005)
        process.send_signal(how)
        said = process.communicate()[1]
        if how == signal.SIGKILL:
            assert process.returncode == -how, said
        else:
            assert process.returncode == 128 + how, said
            assert re.match(r"Error: stopped by SIGTERM; \d+ of \d+ windows are kept in", said)
        assert done_of(record) >= number
        assert not out.exists()
    kept = done_of(record)
    part = kept_in / ".out.vcf.gz.part"
    # No file may grow beyond this: the system says so as it does of a full disk.
    limit = (part.stat().st_size + 20_000) // 1024
    full = subprocess.run(
        ["bash", "-c", f'ulimit -f {limit}; exec "$@"', "-", *command, "--resume", "-o", str(out)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert full.returncode == 1, full.stderr
    assert f"cannot write {out}: File too large" in " ".join(full.stderr.split())
    assert "Traceback" not in full.stderr
    assert "--resume goes on from there" in full.stderr
    assert done_of(record) >= kept
    assert not out.exists()
    subprocess.run([*command, "--resume", "-o", str(out)], check=True)
    subprocess.run([*command, "-o", str(plain)], check=True)
    assert_same(kept_in, plain_in)


def done_of(record):
    """Finished windows, as run.json says."""
    return json.loads(record.read_text())["done"] if record.is_file() else 0
