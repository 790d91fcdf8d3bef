"""What a panel says of an array: kept, taken again, and refused where it is of something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragimpute import example
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying_model import (
    array_fit,
)
from ragimpute.copying_model import (
    fine_tuning as adaptation,
)
from ragimpute.copying_model import (
    imputer as impute_models,
)
from ragimpute.copying_model import (
    panel_fit as stretch_fits,
)
from ragimpute.copying_model.array_fit import ArrayFit, TunedNetwork, made_for
from ragimpute.errors import InputError
from ragimpute.evidence.features import SITE_FEATURES
from ragimpute.evidence.site_quality import SiteQuality
from ragimpute.imputation.impute import impute
from ragimpute.model.checkpoint import save_model
from ragimpute.model.folder import open_folder
from ragimpute.model.trust import EDGES, Trust
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions
from tests.copying_model.test_correction import model_of

TARGET = example.path("target.vcf.gz")
ABOUT = {"format": "1", "panel": "a"}


def quality_of(num_sites, num_typed, seed=0):
    rng = np.random.default_rng(seed)
    return SiteQuality(
        rng.uniform(1e-4, 0.3, num_typed).astype(np.float32),
        rng.normal(size=(num_sites, len(SITE_FEATURES))).astype(np.float32),
        float(rng.normal()),
    )


def layers_of(seed, sizes=((4, 7), (1, 4))):
    rng = np.random.default_rng(seed)
    return tuple(
        (rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[:1]).astype(np.float32))
        for shape in sizes
    )


@given(
    rate=st.floats(1e-3, 1e3),
    mismatch=st.floats(1e-6, 0.4),
    key=st.tuples(*[st.integers(-1, 9)] * 3),
)
def test_what_is_kept_is_told(tmp_path_factory, rate, mismatch, key):
    path = tmp_path_factory.mktemp("fit") / "a.fit"
    parameters, layers = CopyingParameters(rate, mismatch), layers_of(1)
    trust = Trust(np.linspace(0, 1.2, len(EDGES) + 1).astype(np.float32)) if key[0] > 3 else None
    made = ArrayFit.open(path, ABOUT)
    assert made.part(0).parameters(key) is None
    assert made.part(0).quality((3, 9), 2) is None
    made.part(0).keep_fit(key, parameters, TunedNetwork(layers, trust))
    made.part(1).keep_quality((3, 9), quality_of(6, 2))
    made.save()
    again = ArrayFit.open(path, ABOUT)
    assert again.part(0).parameters(key) == parameters
    assert again.part(1).parameters(key) is None
    tuned = again.part(0).network(key, [(4, 7), (1, 4)])
    for one, two in zip(tuned.layers, layers, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
    assert (tuned.trust is None) == (trust is None)
    if trust is not None:
        np.testing.assert_array_equal(tuned.trust.share, trust.share)
    found = again.part(1).quality((3, 9), 2)
    np.testing.assert_array_equal(found.mismatch_prob, quality_of(6, 2).mismatch_prob)
    np.testing.assert_array_equal(found.features, quality_of(6, 2).features)
    assert found.rare_excess == quality_of(6, 2).rare_excess != 0
    assert again.part(0).quality((3, 9), 2) is None


def test_a_file_is_written_only_where_there_is_something_new(tmp_path):
    path = tmp_path / "a.fit"
    made = ArrayFit.open(path, ABOUT)
    made.save()
    assert not path.exists()
    made.part(0).keep_quality((0, 5), quality_of(5, 2))
    made.save()
    before = path.stat().st_mtime_ns
    again = ArrayFit.open(path, ABOUT)
    again.part(0).keep_quality((0, 5), quality_of(5, 2))
    again.save()
    assert path.stat().st_mtime_ns == before
    again.part(0).keep_quality((5, 9), quality_of(4, 1))
    again.save()
    assert len(ArrayFit.open(path, ABOUT).tensors) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["a.fit"]


def test_damage_is_one_line(tmp_path):
    path = tmp_path / "a.fit"
    made = ArrayFit.open(path, ABOUT)
    made.part(0).keep_quality((0, 50), quality_of(50, 20))
    made.save()
    whole = path.read_bytes()
    for content in (b"", whole[:100], whole[:-7], b"\x00" * 50):
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read") as caught:
            ArrayFit.open(path, ABOUT)
        assert "remove the file" in caught.value.hint
    path.write_bytes(whole)
    for sites, typed in (((0, 50), 21), ((0, 50), 0)):
        with pytest.raises(InputError, match=r"is damaged.*mismatch_prob has shape \(20,\)"):
            ArrayFit.open(path, ABOUT).part(0).quality(sites, typed)
    made.part(0).keep_quality(
        (0, 50), replace(quality_of(50, 20), features=np.full((50, 5), np.nan))
    )
    with pytest.raises(InputError, match="not finite"):
        made.part(0).quality((0, 50), 20)


def test_what_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    made = ArrayFit.open(tmp_path / "a.fit", ABOUT)
    made.part(0).keep_quality((0, 5), quality_of(5, 2))

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_fit, "save_file", full)
    with pytest.raises(InputError, match=r"cannot write array fit .*No space left"):
        made.save()
    assert list(tmp_path.iterdir()) == []


def another_model(folder):
    """The folder of a model that reads states, with random weights."""
    loaded = model_of("states")
    save_model(folder / "another", loaded.model, loaded.config, {})
    return folder / "another"


def test_it_is_known_what_a_fit_was_made_for(tmp_path):
    model = open_folder("default")
    typed = np.array([1, 5, 9])
    options = {"seed": 1, "ne": None, "err": None, "fine_tune": True}
    about = made_for("p", typed, model, options)
    others = {
        "panel": made_for("q", typed, model, options),
        "typed": made_for("p", typed[:2], model, options),
        "model": made_for("p", typed, open_folder(another_model(tmp_path)), options),
        **{name: made_for("p", typed, model, options | {name: value})
           for name, value in (("seed", 2), ("ne", 1e5), ("err", 1e-3), ("fine_tune", False))},
    }  # fmt: skip
    for name, other in others.items():
        assert [key for key in about if about[key] != other[key]] == [name]


@pytest.fixture(scope="module")
def first_run(panel_h5, tmp_path_factory):
    """A run that writes a fit: folder with x.vcf.gz and a.fit."""
    folder = tmp_path_factory.mktemp("array")
    impute(TARGET, panel_h5, folder / "x.vcf.gz", array_fit=folder / "a.fit")
    return folder


def refuse(*args, **options):
    raise AssertionError("the panel is asked again")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_next_run_asks_nothing_and_gives_the_same(
    panel_h5, first_run, tmp_path, monkeypatch, threads
):
    without = impute(TARGET, panel_h5, tmp_path / "z.vcf.gz")
    for module, name in (
        (stretch_fits, "fit_panel"), (impute_models, "measure_sites"),
        (stretch_fits, "adapt_network"), (adaptation, "measure_sites"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, refuse)
    summary = impute(
        TARGET, panel_h5, tmp_path / "y.vcf.gz", array_fit=first_run / "a.fit", threads=threads
    )
    expected = (tmp_path / "z.vcf.gz").read_bytes()
    assert (first_run / "x.vcf.gz").read_bytes() == expected
    assert (tmp_path / "y.vcf.gz").read_bytes() == expected
    assert summary.settings["ne"] == without.settings["ne"]


@pytest.mark.parametrize("several", [{"window_cm": 0.6}, {"ne": 1e5}, {"fine_tune": False}])
def test_other_windows_and_options(panel_h5, tmp_path, monkeypatch, several):
    fit = tmp_path / "a.fit"
    impute(TARGET, panel_h5, tmp_path / "x.vcf.gz", array_fit=fit, **several)
    monkeypatch.setattr(impute_models, "measure_sites", refuse)
    monkeypatch.setattr(stretch_fits, "adapt_network", refuse)
    impute(TARGET, panel_h5, tmp_path / "y.vcf.gz", array_fit=fit, **several)
    assert (tmp_path / "y.vcf.gz").read_bytes() == (tmp_path / "x.vcf.gz").read_bytes()


def test_one_sample_takes_the_fit_of_many(panel_h5, first_run, tmp_path, monkeypatch):
    monkeypatch.setattr(stretch_fits, "adapt_network", refuse)
    names = tmp_path / "names"
    names.write_text("NA12156\n" if "NA12156" in names_of(TARGET) else names_of(TARGET)[0] + "\n")
    summary = impute(
        TARGET, panel_h5, tmp_path / "y.vcf.gz", array_fit=first_run / "a.fit",
        target_options=TargetOptions(samples=names),
    )  # fmt: skip
    assert summary.num_typed > 0


def names_of(path):
    from cyvcf2 import VCF

    return VCF(str(path)).samples


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seed": 2}, "another --seed"),
        ({"model": None}, "another model"),
        ({"ne": 1e5}, "another --ne"),
        ({"fine_tune": False}, "another --fine-tune"),
    ],
)
def test_a_fit_of_something_else_is_refused(panel_h5, first_run, tmp_path, options, said):
    fit = first_run / "a.fit"
    before = fit.read_bytes()
    if "model" in options:
        options = {"model": another_model(tmp_path / "models")}
    with pytest.raises(InputError, match=said) as caught:
        impute(TARGET, panel_h5, tmp_path / "y.vcf.gz", array_fit=fit, **options)
    assert "name another file" in caught.value.hint
    assert not list(tmp_path.glob("y.vcf*"))
    assert fit.read_bytes() == before


def test_a_fit_of_another_region_is_refused(panel_h5, first_run, tmp_path):
    middle = read_positions(panel_h5)
    region = Region.parse(f"{middle[0]}:1-{middle[1]}")
    with pytest.raises(InputError, match="another set of typed sites"):
        impute(TARGET, panel_h5, tmp_path / "y.vcf.gz", array_fit=first_run / "a.fit",
               region=region, buffer_cm=0.0)  # fmt: skip


def read_positions(panel_h5):
    """The panel's contig and a position in its middle."""
    from ragimpute.panel.reader import Panel

    with Panel.open(panel_h5) as panel:
        return panel.contig, int(panel.sites.position_bp[panel.num_sites // 2])


def test_it_is_no_output_or_input_of_another_kind(panel_h5, tmp_path):
    out = tmp_path / "y.vcf.gz"
    for path in (out, panel_h5, TARGET):
        with pytest.raises(InputError, match="is also the"):
            impute(TARGET, panel_h5, out, array_fit=path)
    with pytest.raises(InputError, match="does not exist"):
        impute(TARGET, panel_h5, out, array_fit=tmp_path / "no" / "a.fit")
    assert list(tmp_path.iterdir()) == []
