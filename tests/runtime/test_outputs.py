"""Outputs that would replace an input, cannot be written or do not fit; files that appear whole."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections import namedtuple

import pytest

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.runtime import outputs
from ragimpute.runtime.outputs import NewFiles, check_output, check_space, output_bytes, replacing

TARGET = example.path("target.vcf.gz")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def given(tmp_path):
    path = tmp_path / "given.vcf"
    path.write_text("x")
    return path


def test_names_that_are_free(given, tmp_path, monkeypatch):
    inputs = {"target input": given, "map input": None, "panel input": tmp_path / "none"}
    (tmp_path / "old.vcf").write_text("of an earlier run")
    for name in ("new.vcf", "old.vcf"):
        check_output(tmp_path / name, inputs)
    monkeypatch.chdir(tmp_path)
    check_output("new.vcf", inputs)
    assert sorted(os.listdir()) == ["given.vcf", "old.vcf"]


def test_inputs_by_any_name(given, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "symbolic.vcf").symlink_to("given.vcf")
    (tmp_path / "twice.vcf").symlink_to("symbolic.vcf")
    (tmp_path / "by_folder").symlink_to(".")
    os.link(given, tmp_path / "hard.vcf")
    monkeypatch.chdir(tmp_path)
    for name in ("given.vcf", "folder/../given.vcf", "symbolic.vcf", "twice.vcf",
                 "by_folder/given.vcf", "hard.vcf", given):  # fmt: skip
        with pytest.raises(InputError, match="is also the target input") as caught:
            check_output(name, {"map input": None, "target input": given})
        assert str(name) in caught.value.message
    given.unlink()  # an input that is still to come
    with pytest.raises(InputError, match="is also the target input"):
        check_output("symbolic.vcf", {"target input": given})


def test_places_that_cannot_be_written(given, tmp_path):
    (tmp_path / "folder.vcf").mkdir()
    for name, message, hint in (
        ("folder.vcf", "is a folder", "name a file"),
        ("none/x.vcf", "none does not exist", "mkdir -p"),
        ("given.vcf/x.vcf", "given.vcf is not a folder", "mkdir -p"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            check_output(tmp_path / name, {"target input": given})
        assert hint in caught.value.hint


def test_a_folder_that_may_not_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match="may not be written to"):
        check_output(tmp_path / "x.vcf", {})


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("before")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "before"
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "made"

    def write(name, error=None):
        with replacing(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
            if error is not None:
                raise error

    write("one")
    with pytest.raises(KeyError):
        write("two", KeyError())
    assert [entry.name for entry in path.iterdir()] == ["one"]
    write("three")
    assert [entry.name for entry in path.iterdir()] == ["three"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


def test_several_files_get_their_names_together(tmp_path):
    files = NewFiles()
    one, two = tmp_path / "one", tmp_path / "two"
    files.name(one).write_text("1")
    files.name(two).write_text("2")
    assert not one.exists()
    files.finish()
    assert (one.read_text(), two.read_text()) == ("1", "2")
    files.drop()  # nothing is left to be dropped
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_a_file_that_a_later_process_needs_is_not_dropped(tmp_path):
    files = NewFiles()
    kept = files.name(tmp_path / "x", kept=tmp_path / ".x.part")
    assert kept == tmp_path / ".x.part"
    kept.write_text("half")
    files.name(tmp_path / "y").write_text("half")
    files.drop()
    assert os.listdir(tmp_path) == [".x.part"]
    files.name(tmp_path / "x", kept=kept)
    files.finish()
    assert (tmp_path / "x").read_text() == "half"


@pytest.fixture
def free(monkeypatch):
    """Makes disks have so many bytes free."""

    def set_free(num_bytes):
        monkeypatch.setattr(outputs.shutil, "disk_usage", lambda folder: Usage(0, 0, num_bytes))

    return set_free


@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "bcf"])
@pytest.mark.parametrize("fields", ["GT,DS,GP", "GT", "DS,HDS,AP"])
def test_estimates_are_near_what_is_written(panel_h5, plain_copying, tmp_path, kind, fields):
    out = tmp_path / f"x.{kind}"
    names = fields.split(",")
    done = impute(TARGET, panel_h5, out, model=plain_copying, fields=names, ne=1e5, err=1e-3)
    estimate = output_bytes(kind, names, done.num_sites, done.num_samples)
    assert 0.6 < estimate / out.stat().st_size < 1.6


@pytest.mark.parametrize("kind", ["bgen", "pgen"])
def test_estimates_of_sets_count_all_files(panel_h5, plain_copying, tmp_path, kind):
    if kind == "pgen":
        pytest.importorskip("pgenlib")
        pytest.importorskip("zstandard")
    done = impute(TARGET, panel_h5, tmp_path / f"x.{kind}", model=plain_copying, ne=1e5, err=1e-3)
    estimate = output_bytes(kind, (), done.num_sites, done.num_samples)
    assert 0.6 < estimate / sum(path.stat().st_size for path in tmp_path.iterdir()) < 1.6


def test_what_fits_is_not_warned_of(free, tmp_path):
    free(1_000)
    assert check_space(tmp_path, output=400, temporary=600) is None


def test_an_estimate_that_does_not_fit_is_a_warning(free, panel_h5, plain_copying, tmp_path):
    free(2**20 // 4)
    done = impute(TARGET, panel_h5, tmp_path / "x.vcf", model=plain_copying)
    lines = [line for line in done.warnings if "free" in line]
    assert len(lines) == 1
    assert f"take about 5.0 MiB, but {tmp_path} has 0.2 MiB free" in lines[0]
    assert (tmp_path / "x.vcf").stat().st_size == pytest.approx(5.0 * 2**20, rel=0.1)


def test_what_cannot_fit_is_refused(free, panel_h5, plain_copying, tmp_path, monkeypatch):
    """All of the example's window waits on disk: 6,127 sites of 100 haplotypes."""
    from ragimpute.runtime.memory import MemoryPlan

    plan = MemoryPlan(2**30, 2**29, 2**27, 2**20, 2**20)
    monkeypatch.setattr(
        sys.modules["ragimpute.imputation.impute"], "plan_memory", lambda *_, **__: plan
    )
    free(2**20)
    with pytest.raises(InputError, match=r"will take 2\.3 MiB of disk, but .* has 1\.0 MiB free"):
        impute(TARGET, panel_h5, tmp_path / "x.vcf.gz", model=plain_copying)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_does_not_say_is_taken_as_it_is(monkeypatch, tmp_path):
    def fail(folder):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(outputs.shutil, "disk_usage", fail)
    assert check_space(tmp_path, output=2**60, temporary=2**60) is None


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf", ".vcf"])
def test_peers_26_27_a_disk_that_fills_up_is_told_of_in_one_line(
    panel_h5, plain_copying, tmp_path, suffix
):
    """The system refuses to let a file grow as it does on a full disk."""
    out = tmp_path / f"x{suffix}"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(
        [sys.executable, "-m", "ragimpute", "impute", TARGET, "-p", panel_h5, "-m", plain_copying,
         "-o", out, "-q"], capture_output=True, text=True, check=False, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    first, second = done.stderr.strip().splitlines()
    assert first == f"Error: cannot write {out}: File too large"
    assert second.strip().startswith(
        "hint: check that the folder exists, may be written to and has"
    )
    assert list(tmp_path.iterdir()) == []
