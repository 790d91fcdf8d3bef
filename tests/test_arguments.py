"""Arguments of the public functions: what they may be, and what is said of others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragimpute.arguments import accepted, checked
from ragimpute.errors import InputError
from ragimpute.sites import Region


class Elsewhere(PathLike):
    """A path that is no :class:`pathlib.Path`."""

    def __fspath__(self):
        return "there"


@checked
def example(
    path: str | Path,
    region: Region | str | None = None,
    fields: Sequence[str] = ("GT",),
    paths: Sequence[str | Path] = (),
    rate: float | None = None,
    threads: int = 1,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
    options: Region | None = None,
    anything: Any = None,
    bare=None,
):
    """The docstring."""
    return path, region, fields, paths, rate, threads, force, progress, options, anything, bare


def given(position, **arguments):
    """What the function was given as one of its arguments."""
    return example(**{"path": "x", **arguments})[position]


def test_texts_become_what_they_stand_for():
    region = Region("20", 1, 1001)
    assert given(1, region="20:1-1000") == region
    assert given(1, region=region) is region
    assert given(8, options="20:1-1000") == region
    assert given(2, fields="GT,DS") == ["GT", "DS"]
    assert given(2, fields="GT, DS") == ["GT", "DS"]
    assert given(2, fields="GT") == ["GT"]
    with pytest.raises(InputError, match="'20:5-1' ends before it starts"):
        example("x", "20:5-1")


@pytest.mark.parametrize("fields", [("GT", "DS"), ["GT", "DS"], np.array(["GT", "DS"])])
def test_any_iterable_is_a_sequence(fields):
    assert list(given(2, fields=fields)) == ["GT", "DS"]
    assert given(3, paths=(Path(x) for x in "ab")) == [Path("a"), Path("b")]
    assert given(3, paths=["a", Path("b")]) == ["a", Path("b")]


def test_numbers_of_numpy_become_those_of_python():
    assert type(given(5, threads=np.int64(3))) is int
    assert type(given(4, rate=np.float32(0.5))) is float
    assert type(given(4, rate=2)) is int


def test_paths_of_any_kind_are_taken():
    assert given(0, path="there") == "there"
    assert given(0, path=Elsewhere()) == Path("there")


def test_defaults_and_what_may_be_anything_are_left_alone():
    assert example("x") == ("x", None, ("GT",), (), None, 1, False, None, None, None, None)
    assert given(9, anything=example) is example
    assert given(10, bare=example) is example
    assert given(7, progress=print) is print


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("path", 5, "str or Path, found int: 5"),
        ("path", None, "str or Path, found NoneType: None"),
        ("path", b"x", "str or Path, found bytes: b'x'"),
        ("region", 20, 'Region, str such as "20:1-1000" or None, found int: 20'),
        ("region", ("20", 1, 5), "str such as \"20:1-1000\" or None, found tuple: ('20', 1, 5)"),
        ("fields", 3, 'str such as "GT,DS" or sequence of str, found int: 3'),
        ("fields", ["GT", 3], "sequence of str, found list: ['GT', 3]"),
        ("fields", {"GT": 1}, "sequence of str, found dict: {'GT': 1}"),
        ("paths", "a", "sequence of str or Path, found str: 'a'"),
        ("rate", "1", "number or None, found str: '1'"),
        ("rate", True, "number or None, found bool: True"),
        ("threads", 1.5, "whole number, found float: 1.5"),
        ("threads", True, "whole number, found bool: True"),
        ("force", 1, "True or False, found int: 1"),
        ("progress", 1, "function or None, found int: 1"),
        ("options", {}, "or None, found dict: {}"),
    ],
)
def test_wrong_types_are_named(name, value, said):
    with pytest.raises(TypeError) as error:
        given(0, **{name: value})
    message = str(error.value)
    assert message.startswith(f"example() argument {name!r}: expected ")
    assert message.endswith(said)


def test_long_values_are_shortened():
    with pytest.raises(TypeError) as error:
        example("x", threads="a" * 1000)
    assert len(str(error.value)) < 150


def test_python_says_which_argument_is_missing_or_unknown():
    with pytest.raises(TypeError, match=r"example\(\) missing 1 required .*'path'"):
        example()
    with pytest.raises(TypeError, match=r"example\(\) got an unexpected .*'thread'"):
        example("x", thread=1)


@dataclass(frozen=True)
class Options:
    """Options of a function."""

    region: Region | None = None
    seed: int = 1


@checked
def configured(path: str, options: Options | None = None, *rest: int, **changes: object):
    """A function whose options may be given by name."""
    return path, options, rest, changes


def test_options_by_name_are_checked_by_their_dataclass():
    assert list(accepted(configured)) == ["region", "seed", "path", "options"]
    assert configured("x", region="20:1-1000", seed=2) == (
        "x", None, (), {"region": Region("20", 1, 1001), "seed": 2}
    )  # fmt: skip
    with pytest.raises(TypeError, match=r"configured\(\) argument 'seed': expected whole number"):
        configured("x", seed="2")
    with pytest.raises(TypeError, match=r"'options': expected Options or None, found dict"):
        configured("x", {})


def test_what_has_no_type_is_passed_on():
    assert configured("x", Options(), 1, "2", unknown=3)[2:] == ((1, "2"), {"unknown": 3})


def test_the_function_looks_as_before():
    assert example.__name__ == "example"
    assert example.__doc__ == "The docstring."
    assert list(inspect.signature(example).parameters)[:2] == ["path", "region"]
    assert example.__wrapped__("x", region=5)[1] == 5
