"""The names of devices that ``--device`` takes, read without torch and faiss."""

from __future__ import annotations

import re

from ragimpute.errors import InputError


def parse_device(name: str) -> tuple[str, int | None]:
    """The kind of device that a name stands for, and its number where the name has one.

    Parameters
    ----------
    name
        "auto", "cpu", "cuda", or "cuda:1" for the second GPU; "cpu:0", as torch calls the CPU of a
        process among several, is "cpu".

    Returns
    -------
    "auto", "cpu" or "cuda"; the number, counted from 0, or None.

    Raises
    ------
    InputError
        If the name is another one.
    """
    found = re.fullmatch(r"(auto)|(cpu)(?::\d+)?|(cuda)(?::(\d{1,4}))?", name)
    if found is None:
        raise InputError(f"there is no device {name!r}", hint="choose auto, cpu or cuda")
    return found[1] or found[2] or found[3], None if found[4] is None else int(found[4])
