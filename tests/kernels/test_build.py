"""The step that compiles the kernels that ship."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from package_copies import copy_package

from ragimpute.kernels.build import record
from ragimpute.kernels.loader import MachineCode
from ragimpute.kernels.store import SUFFIX, Entry, Named, folder_name, write_kernel

# Kernels that take little to compile; the last two take code from another file.
FEW = [
    ["ragimpute.panel.packing:add_gaps", "(uint32[::1], int64[::1], int32[::1],)"],
    [
        "ragimpute.panel.packing:fill_rows",
        "(uint64[::1], uint32[::1], uint64[:, ::1], uint64[:, ::1],)",
    ],
    [
        "ragimpute.copying.carriers:_turn_bits_into",
        "(uint64[:, ::1], int32[::1], uint64[:, ::1], uint64[:, ::1],)",
    ],
]
LEVELS = ("x86-64-v3", "x86-64-v4")


@pytest.fixture
def copy(tmp_path):
    """A copy of the package with few kernels, and the step in it: (exit status, stderr)."""
    root = copy_package(tmp_path)
    (root / "ragimpute" / "kernels" / "signatures.json").write_text(json.dumps(FEW))

    def compile_them(*words):
        command = [sys.executable, "-m", "ragimpute.kernels.build", *words]
        environment = {name: value for name, value in os.environ.items() if "NUMBA" not in name}
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
        return done.returncode, done.stderr

    compile_them.root = root
    compile_them.compiled = root / "ragimpute" / "compiled"
    return compile_them


def names_in(folder):
    return {path.name for path in folder.glob(f"*{SUFFIX}")}


def test_kernels_of_several_levels_are_compiled_once(copy):
    levels = [word for level in LEVELS for word in ("--level", level)]
    status, said = copy(*levels, "--jobs", "2")
    assert status == 0, said
    assert said.splitlines() == ["compiled 0 of 6 kernels", "compiled 6 of 6 kernels"]
    folders = [copy.compiled / folder_name(level) for level in LEVELS]
    assert names_in(folders[0]) == names_in(folders[1])
    assert len(names_in(folders[0])) == 3
    for folder in folders:
        made_by = json.loads((folder / "made_by.json").read_text())
        assert made_by["python"] == sys.version.split()[0]
        assert {"ragimpute", "numba", "llvmlite"} < set(made_by)
    # Machine code of the levels differs, though its name is the same.
    first = sorted(names_in(folders[0]))[-1]
    assert (folders[0] / first).read_bytes() != (folders[1] / first).read_bytes()
    assert copy(*levels) == (0, "")


def test_after_a_change_what_it_touches_is_compiled_and_the_rest_stays(copy):
    assert copy("--quiet") == (0, "")
    (folder,) = copy.compiled.iterdir()
    before = names_in(folder)
    path = copy.root / "ragimpute" / "kernels" / "bit_transpose.py"
    path.write_text(path.read_text() + "\n# changed\n")
    assert "compiled 2 of 2 kernels" in copy()[1]
    after = names_in(folder)
    assert len(after) == 3
    assert len(after & before) == 1


def test_files_that_no_kernel_matches_are_removed(copy):
    copy("--quiet")
    (folder,) = copy.compiled.iterdir()
    stale = folder / Named("ragimpute.gone:kernel", "0" * 16, "0" * 12).file_name()
    stale.write_text("")
    copy("--quiet")
    assert not stale.exists()
    assert len(names_in(folder)) == 3


def test_a_kernel_that_cannot_be_compiled_ends_the_step(copy):
    path = copy.root / "ragimpute" / "panel" / "packing.py"
    text = path.read_text()
    path.write_text(text.replace("total = np.int64(0)\n", "total = 'text' + 1\n"))
    status, said = copy("--quiet")
    assert status != 0
    assert "ragimpute.panel.packing:add_gaps cannot be compiled for" in said


def test_what_commands_have_compiled_is_recorded_slowest_first(tmp_path):
    signatures = tmp_path / "signatures.json"
    (gaps, gaps_signature), (mix, mix_signature), (turn, turn_signature) = FEW
    gone = ["ragimpute.gone:kernel", "(int8,)"]
    other_arguments = [gaps, "(int8,)"]
    signatures.write_text(json.dumps([[mix, mix_signature], gone, other_arguments]))
    folder = tmp_path / "cache" / "deep"
    for kernel, signature, size in (
        (gaps, gaps_signature, 10), (turn, turn_signature, 1_000), (mix, mix_signature, 100),
        ("ragimpute.gone:other", "()", 5), ("toys:kernel", "()", 5),
    ):  # fmt: skip
        name = Named(kernel, "0" * 16, f"{size:012d}")
        write_kernel(folder, name, signature, MachineCode("", "none", (), b"x" * size), b"")
    (folder / f"damaged-0-0{SUFFIX}").write_text("")
    recorded = record([tmp_path / "cache"], signatures)
    expected = [Entry(turn, turn_signature), Entry(mix, mix_signature), Entry(gaps, gaps_signature)]
    assert recorded == expected
    assert [Entry(*pair) for pair in json.loads(signatures.read_text())] == expected
    assert set(record([], signatures)) == set(expected)
