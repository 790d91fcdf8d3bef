"""Where compiled kernels are looked for and kept, and what a user is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from package_copies import ROOT, copy_package

from ragimpute.kernels.loader import MachineCode
from ragimpute.kernels.store import (
    SUFFIX,
    Entry,
    Named,
    find_kernel,
    foreseen,
    read_entry,
    read_kernel,
    read_machine_code,
    write_kernel,
)

# Two kernels, of which one inlines a function of another file.
TOOLS = """
from ragimpute.kernels.compile import inlined
@inlined
def twice(x, i):
    return 2 * x[i]
"""
COUNTED = """
from ragimpute.kernels.compile import kernel
from tools import twice
@kernel
def count(x):
    return x.shape[0]
@kernel
def double(x):
    return twice(x, 0)
"""
RUN = (
    "import sys\n"
    "import numpy as np\n"
    "from ragimpute.kernels import store as kernel_store\n"
    "from counted import count, double\n"
    "print(count(np.zeros(3)), double(np.full(2, 4.0)), len(kernel_store.compiled_here),\n"
    "      'numba.np.linalg' in sys.modules)\n"
)


# Another function that calls a kernel, and is compiled when that has come from disk.
CALLER = (
    "import numba\n"
    "import numpy as np\n"
    "from ragimpute.kernels import store as kernel_store\n"
    "from counted import double\n"
    "double(np.full(2, 4.0))\n"
    "caller = numba.njit(nogil=True, _nrt=False)(lambda x: double(x) + 1)\n"
    "print(caller(np.full(2, 5.0)), len(kernel_store.compiled_here))\n"
)


@pytest.fixture
def toys(tmp_path):
    """A folder of two small modules with kernels, and a function that runs them."""
    folder = tmp_path / "toys"
    folder.mkdir()
    (folder / "tools.py").write_text(TOOLS)
    (folder / "counted.py").write_text(COUNTED)

    def run(folder=folder, cache=tmp_path / "cache", *, program=RUN, **environment):
        path = os.pathsep.join([str(folder), *filter(None, sys.path)])
        # Python would run the bytecode that it has kept of a file which changes within a second and
        # keeps its size, as a test changes "tools.py".
        environment = {"PYTHONPATH": path, "NUMBA_CACHE_DIR": str(cache), **environment,
                       "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    run.folder, run.cache = folder, tmp_path / "cache"
    return run


def kernels_in(folder: Path) -> set[str]:
    """Names of the files of kernels, at any depth."""
    return {path.name for path in folder.rglob(f"*{SUFFIX}")}


def test_a_kernel_is_compiled_once_and_found_without_what_compiling_needs(toys):
    assert toys() == ["3", "8.0", "2", "True"]
    assert toys() == ["3", "8.0", "0", "False"]


def test_a_kernel_from_disk_becomes_part_of_one_that_is_compiled(toys):
    toys()
    assert toys(program=CALLER) == ["11.0", "0"]


def test_a_change_in_another_file_is_seen_and_what_was_kept_is_removed(toys):
    toys()
    before = kernels_in(toys.cache)
    (toys.folder / "tools.py").write_text(TOOLS.replace("2 *", "3 *"))
    assert toys()[:3] == ["3", "12.0", "1"]
    after = kernels_in(toys.cache)
    assert len(after) == len(before) == 2
    assert len(after & before) == 1  # count's, which has no part in the change


def test_a_copied_cache_serves_at_another_path(toys, tmp_path):
    toys()
    shutil.copytree(toys.folder, tmp_path / "elsewhere")
    shutil.copytree(toys.cache, tmp_path / "moved")
    shutil.rmtree(toys.cache)
    assert toys(tmp_path / "elsewhere", tmp_path / "moved")[2] == "0"


def test_levels_of_processors_are_kept_apart(toys):
    toys()
    assert toys(NUMBA_CPU_NAME="generic")[2] == "2"
    assert toys()[2] == "0"
    assert toys(NUMBA_CPU_NAME="generic")[2] == "0"
    assert toys(NUMBA_OPT="1")[2] == "2"  # other settings make other code


@pytest.mark.parametrize("damage", [b"", b"not json\n", b'{"kernel": 1}\n', None])
def test_a_damaged_file_is_compiled_anew(toys, damage):
    toys()
    for path in toys.cache.rglob(f"*{SUFFIX}"):
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 5] if damage is None else damage)
    assert toys() == ["3", "8.0", "2", "True"]
    assert toys()[2] == "0"


def test_two_jobs_that_compile_side_by_side_do_no_harm(toys):
    environment = {
        "PYTHONPATH": os.pathsep.join([str(toys.folder), *filter(None, sys.path)]),
        "NUMBA_CACHE_DIR": str(toys.cache),
    }
    jobs = [
        subprocess.Popen([sys.executable, "-c", RUN], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    for job in jobs:
        out, _ = job.communicate()
        assert out.split()[:2] == [b"3", b"8.0"]
    assert toys()[2] == "0"
    assert len(kernels_in(toys.cache)) == 2
    assert not list(toys.cache.rglob(".*"))  # no temporary file


@pytest.fixture
def bare(tmp_path):
    """A copy of the package that carries no compiled kernels, and a run of one kernel in it."""
    root = copy_package(tmp_path)
    code = (
        "import numpy as np\n"
        "from ragimpute.panel.packing import add_gaps\n"
        "out = np.zeros(2, np.int32)\n"
        "add_gaps(np.array([3, 4], np.uint32), np.array([0, 2]), out)\n"
        "print(out)\n"
    )

    def run(**environment):
        environment = {"PATH": os.environ["PATH"], **environment}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "[3 7]\n"
        return done.stderr

    run.root = root
    return run


def test_one_line_says_how_many_kernels_are_compiled_and_where_they_are_kept(bare, tmp_path):
    said = bare(NUMBA_CACHE_DIR=str(tmp_path / "mine"))
    total = len(foreseen())
    assert len(said.splitlines()) == 1
    assert f"{total} of {total} kernels are to be compiled" in said
    assert "this install carries none ('make' compiles them in a checkout)" in said
    assert f"kept in {tmp_path / 'mine'}" in said
    assert bare(NUMBA_CACHE_DIR=str(tmp_path / "mine")) == ""


def test_an_install_keeps_kernels_in_the_users_cache(bare, tmp_path):
    (bare.root / "pyproject.toml").unlink()  # no checkout
    said = bare(XDG_CACHE_HOME=str(tmp_path / "xdg"), HOME=str(tmp_path / "home"))
    assert f"kept in {tmp_path / 'xdg' / 'ragimpute'}" in said
    assert "in a checkout" not in said
    assert kernels_in(tmp_path / "xdg")
    said = bare(HOME=str(tmp_path / "home"))
    assert f"kept in {tmp_path / 'home' / '.cache' / 'ragimpute'}" in said
    assert bare(HOME=str(tmp_path / "home")) == ""


def test_where_nothing_can_be_kept_one_line_says_so(bare, tmp_path):
    blocked = tmp_path / "a file"
    blocked.write_text("")
    (bare.root / "pyproject.toml").unlink()
    said = bare(NUMBA_CACHE_DIR=str(blocked), XDG_CACHE_HOME=str(blocked), HOME=str(blocked))
    assert len(said.splitlines()) == 1
    assert "kept nowhere" in said
    assert f"{blocked}" in said
    assert "set NUMBA_CACHE_DIR to a folder that can" in said


def test_why_what_ships_does_not_match_is_said(bare, tmp_path):
    compiled = bare.root / "ragimpute" / "compiled"
    home = str(tmp_path / "home")
    other = compiled / "cp27-x86-64-v1"
    other.mkdir(parents=True)
    (other / "made_by.json").write_text("{}")
    (bare.root / "pyproject.toml").unlink()
    assert "carries those of cp27-x86-64-v1, and needs cp3" in bare(HOME=home)
    shutil.rmtree(home)
    from ragimpute.kernels.store import folder_name

    ours = compiled / folder_name()
    ours.mkdir()
    (ours / "made_by.json").write_text('{"numba": "0.1", "llvmlite": "0.2"}')
    said = bare(HOME=home)
    assert "compiled by numba 0.1 (now " in said
    assert "llvmlite 0.2 (now " in said


def test_arguments_that_were_not_foreseen_are_said_to_be(bare):
    code = (
        "import numpy as np\n"
        "from ragimpute.panel.packing import add_gaps\n"
        "out = np.zeros(2, np.int64)\n"
        "add_gaps(np.array([3, 4], np.uint64), np.array([0, 2]), out)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=bare.root, capture_output=True, text=True, check=True
    )
    assert len(done.stderr.splitlines()) == 1
    assert "kernel ragimpute.panel.packing:add_gaps for arguments that were not" in done.stderr


def test_a_file_says_what_it_is_and_only_a_whole_one_is_read(tmp_path):
    name = Named("ragimpute.copying.shared_kernel:copy_shared", "0123456789abcdef", "0123456789ab")
    code = MachineCode("symbol", "none", ("memset",), b"machine\ncode")
    write_kernel(tmp_path, name, "(float32[::1],)", code, b"the\nrest")
    path = tmp_path / name.file_name()
    assert Named.parse(path.name) == name
    assert read_kernel(path) == (b"machine\ncode", b"the\nrest")
    assert read_machine_code(path) == code
    assert read_entry(path) == Entry(name.kernel, "(float32[::1],)")
    write_kernel(tmp_path, name._replace(signature="ffffffffffff"), "(int8,)", code, b"other")
    assert len(kernels_in(tmp_path)) == 2
    write_kernel(tmp_path, name._replace(code="f" * 16), "(int8,)", code, b"new")
    assert len(kernels_in(tmp_path)) == 1  # both of the old code are gone
    assert Named.parse("something.else") is None
    assert read_kernel(tmp_path / "absent") is None
    assert read_machine_code(tmp_path / "absent") is None
    assert read_entry(tmp_path / "absent") is None


def test_folders_of_other_versions_go_when_nothing_was_read_for_half_a_year(tmp_path):
    old, fresh = tmp_path / "0.0.1-numba0.1-cp27-x", tmp_path / "0.0.2-numba0.1-cp27-x"
    for folder in (old, fresh):
        folder.mkdir()
        (folder / f"a-b-c{SUFFIX}").write_text("")
    os.utime(old / f"a-b-c{SUFFIX}", (0, 0))
    (tmp_path / "something of the user's").mkdir()
    name = Named("module:function", "0" * 16, "0" * 12)
    code = MachineCode("symbol", "none", (), b"code")
    write_kernel(tmp_path / "0.0.3-numba0.1-cp27-x", name, "()", code, b"")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {fresh.name, "0.0.3-numba0.1-cp27-x", "something of the user's"}


def test_every_foreseen_kernel_is_there():
    assert len(set(foreseen())) == len(foreseen()) > 30
    for entry in foreseen():
        assert callable(find_kernel(entry.kernel))


@pytest.mark.slow
def test_a_changed_feature_changes_what_impute_writes(tmp_path):
    root = copy_package(tmp_path, compiled=True)
    example = ROOT / "ragimpute" / "example"

    def dosages(name):
        command = [
            sys.executable, "-m", "ragimpute", "impute", str(example / "target.vcf.gz"),
            "--panel", str(example / "panel.bcf"), "--map", str(example / "chr20.b37.gmap.gz"),
            "-o", str(tmp_path / name), "--quiet",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        text = (tmp_path / name).read_text()
        return [line for line in text.splitlines() if not line.startswith("#")], done.stderr

    before, _ = dosages("before.vcf")
    path = root / "ragimpute" / "evidence" / "describe_kernel.py"
    text = path.read_text()
    share = "out[COPYING.top_share] = "
    changed = text.replace(
        f"{share}top_sum / interval.total", f"{share}1.0 - top_sum / interval.total"
    )
    assert changed != text
    path.write_text(changed)
    after, said = dosages("after.vcf")
    assert "kernels are to be compiled" in said
    assert len(after) == len(before)
    assert after != before
