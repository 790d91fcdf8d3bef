"""Outputs that would replace an input, or cannot be written, are refused before any work."""

from __future__ import annotations

import os

import pytest

from ragimpute.errors import InputError
from ragimpute.runtime.outputs import NewFiles, check_output, replacing


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
