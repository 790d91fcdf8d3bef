"""How work that takes long tells its caller how far it is: one kind of function for all of it."""

from __future__ import annotations

from collections.abc import Callable

#: Called as ``progress(stage, done, total)``: the stage's name, such as "impute"; how much of it is
#: done, in whatever unit the stage counts; and how much there is, 0 if that is not known.
Progress = Callable[[str, int, int], None]


def no_progress(stage: str, done: int, total: int) -> None:
    """Take a report of progress and show nothing."""
