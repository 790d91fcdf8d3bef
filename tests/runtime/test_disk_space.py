"""Room on the disk: estimated before a run, and told of in one line when it ends."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections import namedtuple

import pytest

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.imputation.impute import impute
from ragimpute.runtime import disk_space
from ragimpute.runtime.disk_space import check_space, output_bytes

TARGET = example.path("target.vcf.gz")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    """Makes disks have so many bytes free."""

    def set_free(num_bytes):
        monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda folder: Usage(0, 0, num_bytes))

    return set_free


@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "bcf"])
@pytest.mark.parametrize("fields", ["GT,DS,GP", "GT", "DS,HDS,AP"])
def test_estimates_are_near_what_is_written(panel_h5, plain_copying, tmp_path, kind, fields):
    out = tmp_path / f"x.{kind}"
    names = fields.split(",")
    done = impute(TARGET, panel_h5, out, model=plain_copying, fields=names, ne=1e5, err=1e-3)
    estimate = output_bytes(kind, names, done.num_sites, done.num_samples)
    assert 0.6 < estimate / out.stat().st_size < 1.6


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

    monkeypatch.setattr(disk_space.shutil, "disk_usage", fail)
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
