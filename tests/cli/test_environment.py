"""What ``ragimpute info --environment`` says of an install."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import numba
import pytest
from package_copies import copy_package

from ragimpute import __version__
from ragimpute.cli.environment import describe_environment
from ragimpute.kernels import store
from ragimpute.kernels.processor import this_processor
from ragimpute.kernels.store import foreseen


def test_versions_level_and_kernels_are_told():
    rows = dict(describe_environment())
    assert rows["ragimpute"].startswith(f"{__version__}, in ")
    assert rows["processor level"] == this_processor().level
    assert rows["numba"] == numba.__version__
    assert rows["torch"].startswith(importlib.metadata.version("torch").partition("+")[0])
    total = len(foreseen())
    assert f"of {total} from the install" in rows["kernels"]
    assert "not installed" not in rows.values()


@pytest.fixture
def elsewhere(tmp_path):
    """``ragimpute info --environment`` of a copy without compiled kernels."""
    root = copy_package(tmp_path)

    def run(**environment):
        command = [sys.executable, "-m", "ragimpute", "info", "--environment"]
        environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "400", **environment}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.root = root
    return run


def test_an_install_without_kernels_says_what_will_be_compiled(elsewhere, tmp_path):
    total = len(foreseen())
    (elsewhere.root / "pyproject.toml").unlink()  # no checkout
    said = elsewhere(HOME=str(tmp_path / "absent"))
    assert f"0 of {total} from the install, 0 kept, {total} to be compiled at first use" in said
    assert f"in {tmp_path / 'absent' / '.cache' / 'ragimpute'}" in said
    assert not (tmp_path / "absent").exists()  # to tell changes nothing


def test_where_nothing_can_be_kept_and_where_nothing_is_compiled(monkeypatch, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setattr(store, "is_checkout", lambda: False)
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(blocked))
    said = dict(describe_environment())
    assert said["new kernels are kept"].startswith("nowhere: no folder can be written")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert dict(describe_environment())["kernels"].startswith("run as Python")


def test_info_without_a_path_says_what_it_takes(command_line):
    code, _, err = command_line("info")
    assert code == 2
    assert "--environment" in err
