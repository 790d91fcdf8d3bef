"""Probabilities of token models: the focal loss is undone, and calibrations keep the order."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.optimize import minimize_scalar

from ragimpute.config import LossConfig, load_config
from ragimpute.errors import ModelError
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import LoadedModel, load_model, save_model
from ragimpute.model.folder import WEIGHTS, open_folder
from ragimpute.model.probability import (
    CLASSES,
    FILE,
    TERMS,
    TRUST_FILE,
    Probabilities,
    calibration_terms,
    gamma_at,
    posterior_logit,
)
from ragimpute.training.losses import focal_loss

GAMMAS = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]), st.floats(0, 5))
LOGITS = st.floats(-30, 30)
FREQUENCIES = st.floats(0, 1)


def minimiser(prob, gamma):
    """The logit that has the least expected focal loss where an allele is ALT with ``prob``."""

    def expected(x):
        both = torch.tensor([x, x], dtype=torch.float64)
        truth = torch.tensor([1.0, 0.0], dtype=torch.float64)
        return float(focal_loss(both, truth, gamma=gamma) @ torch.tensor([prob, 1 - prob]).double())

    found = minimize_scalar(expected, bounds=(-20, 20), method="bounded", options={"xatol": 1e-9})
    return found.x


def link(x, gamma):
    return posterior_logit(torch.tensor(x, dtype=torch.float64), gamma)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-3, 1 - 1e-3), GAMMAS)
def test_it_undoes_what_the_focal_loss_does(prob, gamma):
    found = float(torch.sigmoid(link(minimiser(prob, gamma), gamma)))
    assert found == pytest.approx(prob, rel=1e-3, abs=1e-4)
    if gamma >= 2 and abs(prob - 0.5) > 0.2:  # the sigmoid does not
        plain = 1 / (1 + math.exp(-minimiser(prob, gamma)))
        assert abs(plain - 0.5) < abs(prob - 0.5) - 0.05


@settings(max_examples=60, deadline=None)
@given(st.lists(LOGITS, min_size=2, max_size=30), GAMMAS)
def test_it_is_odd_increasing_and_finite(values, gamma):
    x = torch.tensor(sorted(values), dtype=torch.float64)
    y = posterior_logit(x, gamma)
    assert torch.isfinite(y).all()
    assert torch.equal(posterior_logit(-x, gamma), -y)
    p, q = torch.sigmoid(y), torch.sigmoid(posterior_logit(-x, gamma))
    torch.testing.assert_close(q, 1 - p)
    apart = x.diff() > 1e-6
    assert (y.diff()[apart] > 0).all()
    assert (y.diff() >= 0).all()
    assert (y.abs() >= x.abs() - 1e-12).all()  # never less sure than the logit
    torch.testing.assert_close(posterior_logit(x.float(), gamma).double(), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_extreme_logits(gamma, dtype):
    x = torch.tensor([-1e4, -100, -30, 0, 30, 100, 1e4], dtype=dtype)
    y = posterior_logit(x, gamma)
    assert y.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.isfinite(y).all()
    assert (y.diff() > 0).all()
    assert y[3] == 0
    # Far out, (1 - q)^gamma / q is nearly all there is.
    assert float(y[4]) == pytest.approx((gamma + 1) * 30 - math.log1p(gamma), rel=1e-5)


def test_no_gamma_changes_nothing_and_a_negative_one_is_refused():
    x = torch.linspace(-30, 30, 7)
    assert torch.equal(posterior_logit(x, 0.0), x)
    with pytest.raises(ValueError, match="below 0"):
        posterior_logit(x, -1.0)


def test_gamma_of_an_epoch():
    assert gamma_at(LossConfig(kind="cross_entropy", gamma=5, gamma_schedule=(1, 2)), 0) == 0
    assert [gamma_at(LossConfig(gamma_schedule=(1, 2)), i) for i in range(4)] == [1, 2, 2, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(LOGITS, min_size=2, max_size=20), FREQUENCIES, GAMMAS,
    st.tuples(st.floats(0.05, 3), st.floats(0.05, 3), st.floats(-1, 1)),
)  # fmt: skip
def test_calibrated_probabilities_keep_order_and_turn_with_the_alleles(values, af, gamma, given):
    slope, rare, frequency = given
    how = Probabilities(gamma, (slope, rare - slope, frequency))
    x = torch.tensor(sorted(values), dtype=torch.float64)
    there = torch.full_like(x, af)
    p = how.of(x, there)
    assert ((p >= 0) & (p <= 1)).all()
    assert (p.diff() >= 0).all()
    torch.testing.assert_close(how.of(-x, 1 - there), 1 - p, rtol=1e-6, atol=1e-9)


def test_the_terms_of_rare_and_common_sites():
    z = torch.tensor([2.0, 2.0, 20.0], dtype=torch.float64)
    af = torch.tensor([0.5, 1e-4, 0.0], dtype=torch.float64)
    terms = torch.stack(calibration_terms(z, af), dim=1).numpy()
    odds = math.log(1e-4 / (1 - 1e-4))
    np.testing.assert_allclose(terms, [[2, 0, 0], [2, 2, odds], [12, 12, odds]], atol=1e-9)


@pytest.fixture
def folder(tmp_path):
    """A token model of focal loss with a schedule, whose weights are those of its second epoch."""
    config = load_config("v10-small", overrides=[
        "loss.gamma_schedule=[1, 2.5, 4]", "train.epochs=3", "model.encoder.dim=8",
        "model.encoder.num_layers=1",
    ])  # fmt: skip
    save_model(tmp_path / "m", build(config.model), config, {}, gamma=gamma_at(config.loss, 1))
    return tmp_path / "m"


def test_the_folder_says_which_gamma_its_weights_come_from(folder):
    assert open_folder(folder).probabilities == Probabilities(2.5)
    assert load_model(folder).probabilities == Probabilities(2.5)
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        about = dict(file.metadata())
    # Folders of before do not: then it is the schedule's last one.
    del about["gamma"]
    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata=about)
    assert open_folder(folder).probabilities == Probabilities(4.0)
    loaded = load_model(folder)
    assert LoadedModel("x", loaded.config, loaded.model, True).probabilities == Probabilities(4.0)
    for wrong in ("nan", "-1", "two", "inf"):
        about["gamma"] = wrong
        save_file(load_file(folder / WEIGHTS), folder / WEIGHTS, metadata=about)
        with pytest.raises(ModelError, match="gamma"):
            open_folder(folder)


def test_models_of_cross_entropy_and_copying_models_have_no_gamma(tmp_path):
    config = load_config("v10-small", overrides=["loss.kind=cross_entropy", "loss.gamma=5"])
    save_model(tmp_path / "m", build(config.model), config, {})
    assert open_folder(tmp_path / "m").probabilities == Probabilities()
    assert open_folder("default").probabilities == Probabilities()


def test_a_calibration_comes_back(folder):
    calibrated, trust = (0.9, 0.2, -0.05), (0.1, 0.9, 1.0, 1.1, 0.0, 0.5, 0.7)
    for coefficients, share in ((calibrated, ()), ((), trust), (calibrated, trust)):
        how = Probabilities(2.5, coefficients, {"num_samples": 7}, share)
        for name in (FILE, TRUST_FILE):
            (folder / name).unlink(missing_ok=True)
        for name, text in how.files().items():
            (folder / name).write_text(text)
        found = open_folder(folder).probabilities
        assert found == how
        assert found.provenance == {"num_samples": 7}
        assert load_model(folder).probabilities == how
    assert Probabilities(2.5).files() == {}


@pytest.mark.parametrize("spoil", [
    lambda text: "{",
    lambda text: "[]",
    lambda text: text.replace('"version": "1"', '"version": "0"'),
    lambda text: text.replace('"logit_rare"', '"logit_common"'),
    lambda text: text.replace("0.9", "-0.9"),
    lambda text: text.replace("0.9", "NaN"),
    lambda text: text.replace("0.2", "-0.95"),
    lambda text: json.dumps({"version": "1"}),
])  # fmt: skip
def test_damaged_calibrations_are_refused(folder, spoil):
    text = Probabilities(2.5, (0.9, 0.2, -0.05)).files()[FILE]
    assert all(name in text for name in TERMS)
    (folder / FILE).write_text(spoil(text))
    with pytest.raises(ModelError, match=re.escape(FILE)):
        open_folder(folder)


@pytest.mark.parametrize("spoil", [("0.25", "-0.1"), ("0.25", "NaN"), ("MAF > 0.2", "MAF > 0.3")])
def test_damaged_trust_is_refused(folder, spoil):
    text = Probabilities(0.0, trust=(0.25, *[1.0] * 6)).files()[TRUST_FILE]
    assert spoil[0] in text
    (folder / TRUST_FILE).write_text(text.replace(*spoil))
    with pytest.raises(ModelError, match=re.escape(TRUST_FILE)):
        open_folder(folder)


def test_trust_goes_by_the_class_that_a_frequency_ends():
    share = tuple(float(i) for i in range(len(CLASSES)))
    how = Probabilities(trust=share)
    maf = torch.tensor([0.001, 0.005, 0.0051, 0.01, 0.02, 0.05, 0.1, 0.2, 0.21, 0.5])
    expected = torch.tensor([0.0, 0, 1, 1, 2, 3, 4, 5, 6, 6])
    for af in (maf, 1 - maf):
        if af[0] > 0.5:  # 1 - 0.005 is not exact
            keep = torch.isin(maf, torch.tensor([0.001, 0.0051, 0.21, 0.5]))
        else:
            keep = torch.ones(len(maf), dtype=torch.bool)
        told = how.logit(torch.full_like(maf, 3.0), af, torch.full_like(maf, 2.0))
        assert torch.equal(told[keep], 2 + expected[keep])
