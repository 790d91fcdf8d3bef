"""The exceptions that a user may see, each with a message written for a person.

``cli`` catches :class:`RagimputeError` and nothing else: it prints ``Error:`` and, where there is
one, ``hint:``, and exits with code 1. A wrong call by a programmer is a ``ValueError`` instead.
"""

from __future__ import annotations


class RagimputeError(Exception):
    """Base of every error that a user can cause and mend.

    Parameters
    ----------
    message
        One line: what is wrong, where (path, sample, chrom:pos), what was expected and found.
    hint
        One line that says how to mend it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(RagimputeError):
    """A target, truth, map, table or option value that cannot be used as it is."""


class PanelError(RagimputeError):
    """A panel, or an index made from one, that is damaged, unfit or of another origin."""


class ConfigError(RagimputeError):
    """A YAML file or ``--set`` override that does not describe a valid run."""


class ModelError(RagimputeError):
    """A model directory that is damaged, of another version, or cannot be trained further."""


class MissingPackageError(RagimputeError):
    """A package that this command or option needs is not installed, or cannot be imported."""
