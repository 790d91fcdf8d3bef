"""The exceptions that a user may see."""

from __future__ import annotations

import pickle

import pytest

from ragimpute import errors
from ragimpute.errors import (
    ConfigError,
    InputError,
    MissingPackageError,
    ModelError,
    PanelError,
    RagimputeError,
)

FAMILY = [InputError, PanelError, ConfigError, ModelError, MissingPackageError]


@pytest.mark.parametrize("kind", FAMILY)
def test_message_and_hint(kind):
    error = kind("a.vcf is not a VCF", hint="give a VCF")
    assert isinstance(error, RagimputeError)
    assert not isinstance(error, ValueError)  # that is a programmer's mistake
    assert (str(error), error.message, error.hint) == (
        "a.vcf is not a VCF", "a.vcf is not a VCF", "give a VCF",
    )  # fmt: skip
    assert kind("x").hint is None
    with pytest.raises(TypeError):
        kind("x", "the hint has a name")


@pytest.mark.parametrize("kind", FAMILY)
def test_crosses_processes(kind):
    error = pickle.loads(pickle.dumps(kind("a", hint="b")))
    assert type(error) is kind
    assert (str(error), error.hint) == ("a", "b")


def test_the_family_is_complete():
    public = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert public == {RagimputeError, *FAMILY}
