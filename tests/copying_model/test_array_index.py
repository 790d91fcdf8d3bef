"""What an index holds of an array: kept, taken again, and refused where it is damaged."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import FlatMap, make_batch, names
from slow_copying import mosaic_panel

from ragimpute import example
from ragimpute.copying import states
from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.window import Window
from ragimpute.copying_model import array_index, fine_tuning, imputer, panel_fit
from ragimpute.copying_model.array_index import (
    ArrayIndex,
    KeptWindow,
    TunedNetwork,
    array_folder,
    differences,
    made_for,
)
from ragimpute.errors import InputError, PanelError
from ragimpute.evidence.features import QUALITY_FEATURES, SITE_FEATURES
from ragimpute.evidence.site_quality import SiteQuality
from ragimpute.imputation.impute import impute
from ragimpute.model.checkpoint import save_model
from ragimpute.model.folder import open_folder
from ragimpute.model.trust import EDGES, Trust
from ragimpute.panel.reader import Panel
from ragimpute.preparation.panel_writer import write_panel
from ragimpute.retrieval.retriever import Retriever
from ragimpute.runtime import memory
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions
from tests.copying_model.test_correction import model_of

TARGET = example.path("target.vcf.gz")
ABOUT = {"format": "1", "model": "a"}
BOUNDS = (10, 20, 150, 160)
TYPED = np.arange(12, 160, 3)


def quality_of(num_sites, num_typed, seed=0):
    rng = np.random.default_rng(seed)
    untyped = rng.normal(size=(num_typed, len(QUALITY_FEATURES))).astype(np.float32)
    return SiteQuality(
        rng.uniform(1e-4, 0.3, num_typed).astype(np.float32),
        rng.normal(size=(num_sites, len(SITE_FEATURES))).astype(np.float32),
        float(rng.normal()),
        as_untyped=lambda: untyped,
    )


def layers_of(seed, sizes=((4, 7), (1, 4))):
    rng = np.random.default_rng(seed)
    return tuple(
        (rng.normal(size=shape).astype(np.float32), rng.normal(size=shape[:1]).astype(np.float32))
        for shape in sizes
    )


@pytest.fixture(scope="module", autouse=True)
def _little_is_held():
    """What the process of the tests holds beside does not count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "resident_bytes", lambda: 150 * 2**20)
        yield


@pytest.fixture(scope="module")
def panel(tmp_path_factory):
    """A panel of 180 sites and 60 haplotypes."""
    path = tmp_path_factory.mktemp("panel") / "p.h5"
    alleles = mosaic_panel(np.random.default_rng(3), 180, 60)
    write_panel(
        path, [make_batch(alleles.reshape(180, 30, 2))], samples=names(30), genetic_map=FlatMap()
    )
    with Panel.open(path) as opened:
        yield opened


def array_of(panel, folder, *, grows=True, about=ABOUT):
    return ArrayIndex(array_folder(folder, about), panel, about, "a.vcf", TYPED, grows=grows)


def window_of(panel):
    left, start, stop, right = BOUNDS
    return Window.build(
        panel.haplotypes(left, right), panel.position_cm[left:right], TYPED - left,
        (start - left, stop - left),
    )  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(
    rate=st.floats(1e-3, 1e3),
    mismatch=st.floats(1e-6, 0.4),
    key=st.tuples(*[st.integers(-1, 9)] * 3),
    has_trust=st.booleans(),
)
def test_what_was_fitted_is_told(panel, tmp_path_factory, rate, mismatch, key, has_trust):
    folder = tmp_path_factory.mktemp("fit") / "a.index"
    parameters, layers = CopyingParameters(rate, mismatch), layers_of(1)
    trust = Trust(np.linspace(0, 1.2, len(EDGES) + 1).astype(np.float32)) if has_trust else None
    made = array_of(panel, folder).part(panel)
    assert made.fit(key, 1.0) is None
    made.keep_fit(key, 1.0, parameters, TunedNetwork(layers, trust))
    again = ArrayIndex.open(array_folder(folder, ABOUT), panel)
    assert (again.name, again.about) == ("a.vcf", ABOUT)
    np.testing.assert_array_equal(again.typed_index, TYPED)
    found, tuned = again.part(panel).fit(key, 1.0)
    assert found == parameters
    for one, two in zip(tuned.layers, layers, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
    assert (tuned.trust is None) == (trust is None)
    if trust is not None:
        np.testing.assert_array_equal(tuned.trust.share, trust.share)
    assert again.part(panel).checked(tuned, [(4, 7), (1, 4)]) is tuned
    with pytest.raises(PanelError, match=r"is damaged: its network has layers"):
        again.part(panel).checked(tuned, [(4, 7), (2, 4)])
    other = (key[0] + 1, *key[1:])
    assert again.part(panel).fit(other, 1.0) is None
    assert again.as_fits().part(panel).fit(other, 9.0)[0] == parameters


def test_of_a_run_with_other_sites_the_nearest_stretch_is_taken(panel, tmp_path):
    made = array_of(panel, tmp_path / "a.index").part(panel)
    for key, cm, rate in (((0, -1, -1), 10.0, 1.0), ((1, -1, -1), 50.0, 2.0)):
        made.keep_fit(key, cm, CopyingParameters(rate, 0.01), None)
    fits = array_of(panel, tmp_path / "a.index").as_fits().part(panel)
    assert [fits.fit((7, -1, -1), cm)[0].switch_rate for cm in (0, 29, 31, 99)] == [1, 1, 2, 2]
    assert not fits.has_window(BOUNDS)


@pytest.mark.parametrize("whole", [True, False])
def test_a_window_is_told(panel, tmp_path, monkeypatch, whole):
    monkeypatch.setattr(states, "COPY_ALL_UP_TO", 100 if whole else 10)
    window = window_of(panel)
    retriever = None
    if not whole:
        retriever = Retriever(window.typed.words, num_slots=256)
        window.minor_alleles  # noqa: B018  as the imputer does
    quality = quality_of(150, len(TYPED))
    part = array_of(panel, tmp_path / "a.index").part(panel)
    assert part.window(BOUNDS, TYPED) is None
    part.keep_window(BOUNDS, KeptWindow(window, retriever, quality))
    again = array_of(panel, tmp_path / "a.index", grows=False).part(panel)
    assert again.has_window(BOUNDS)
    assert not again.has_window((10, 20, 151, 160))
    found, finder, told, wide = again.window(BOUNDS, TYPED)
    assert wide is None
    assert found.core == window.core
    for name, value in window.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], value, err_msg=name)
    assert (finder is None) == whole
    if finder is not None:
        targets = np.random.default_rng(1).integers(
            0, 2**32, (5, len(window.typed.words)), np.uint32
        )
        np.testing.assert_array_equal(finder.states(targets), retriever.states(targets))
    np.testing.assert_array_equal(told.mismatch_prob, quality.mismatch_prob)
    np.testing.assert_array_equal(told.features, quality.features)
    np.testing.assert_array_equal(told.as_untyped(), quality.as_untyped())
    assert told.rare_excess == quality.rare_excess != 0


def test_what_does_not_grow_is_not_written(panel, tmp_path):
    part = array_of(panel, tmp_path / "a.index", grows=False).part(panel)
    part.keep_window(BOUNDS, KeptWindow(window_of(panel), None, None))
    part.keep_fit((0, 0, 0), 1.0, CopyingParameters(1, 0.1), None)
    assert list(tmp_path.iterdir()) == []


def test_no_temporary_file_is_left(panel, tmp_path):
    part = array_of(panel, tmp_path / "a.index").part(panel)
    part.keep_window(BOUNDS, KeptWindow(window_of(panel), None, None))
    assert [path.name for path in tmp_path.iterdir()] == ["a.index"]
    files = sorted(path.name.split("_")[0] for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["array.safetensors", "manifest.json", "window"]


@pytest.fixture(scope="module")
def kept(panel, tmp_path_factory):
    """An index with a window and a fit."""
    folder = tmp_path_factory.mktemp("kept") / "a.index"
    part = array_of(panel, folder).part(panel)
    part.keep_window(BOUNDS, KeptWindow(window_of(panel), None, quality_of(150, len(TYPED))))
    part.keep_fit((0, 0, 0), 1.0, CopyingParameters(1, 0.1), TunedNetwork(layers_of(1), None))
    return folder


def read_all(panel, folder):
    array = ArrayIndex.open(array_folder(folder, ABOUT), panel)
    part = array.part(panel)
    part.fit((0, 0, 0), 1.0)
    part.window(BOUNDS, TYPED)


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 2), at=st.floats(0, 1), kind=st.sampled_from(["cut", "flip", "more"]))
def test_damage_is_one_line_or_of_no_effect_on_places(
    panel, kept, tmp_path_factory, which, at, kind
):
    folder = tmp_path_factory.mktemp("damaged") / "b.index"
    shutil.copytree(kept, folder)
    file = sorted((folder / "arrays").rglob("*.safetensors"))[which]
    content = bytearray(file.read_bytes())
    place = int(at * (len(content) - 1))
    if kind == "cut":
        content = content[:place]
    elif kind == "flip":
        content[place] ^= 0x40
    else:
        content += b"x"
    file.write_bytes(content)
    damage = None
    try:
        read_all(panel, folder)
    except PanelError as error:
        damage = error
    if damage is None:
        # Only alleles are not read before they are compared with the target's.
        assert kind == "flip"
        return
    assert "is damaged" in str(damage)
    assert "ragimpute index" in damage.hint
    assert len(str(damage).splitlines()) == 1


def test_a_file_under_the_name_of_another_is_refused(panel, kept, tmp_path):
    folder = tmp_path / "b.index"
    shutil.copytree(kept, folder)
    inside = array_folder(folder, ABOUT)
    window, fit = (next(inside.glob(f"{kind}_*")) for kind in ("window", "fit"))
    window.replace(inside / window.name.replace("_160.", "_161."))
    with pytest.raises(PanelError, match="is of something else"):
        array_of(panel, folder).part(panel).window((10, 20, 150, 161), TYPED)
    fit.write_bytes(b"not at all")
    with pytest.raises(PanelError, match="cannot be read"):
        array_of(panel, folder).part(panel).fit((0, 0, 0), 1.0)


def test_what_cannot_be_written_is_one_line(panel, tmp_path, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_index, "write_arrays", full)
    part = array_of(panel, tmp_path / "a.index").part(panel)
    with pytest.raises(InputError, match=r"cannot write index .*No space left"):
        part.keep_fit((0, 0, 0), 1.0, CopyingParameters(1, 0.1), None)


def another_model(folder):
    """The folder of a model that reads states, with random weights."""
    loaded = model_of("states")
    save_model(folder / "another", loaded.model, loaded.config, {})
    return folder / "another"


def test_it_is_known_what_an_array_was_made_for(tmp_path):
    model = open_folder("default")
    typed = np.array([1, 5, 9])
    options = {"seed": 1, "ne": None, "err": None, "fine_tune": True}
    about = made_for(typed, model, options)
    others = {
        "set of typed sites": made_for(typed[:2], model, options),
        "model": made_for(typed, open_folder(another_model(tmp_path)), options),
        **{f"--{name.replace('_', '-')}": made_for(typed, model, options | {name: value})
           for name, value in (("seed", 2), ("ne", 1e5), ("err", 1e-3), ("fine_tune", False))},
    }  # fmt: skip
    assert differences(about, about) == []
    for name, other in others.items():
        assert differences(about, other) == [name]
        assert array_folder(tmp_path, other) != array_folder(tmp_path, about)


@pytest.fixture(scope="module")
def first_run(panel_h5, tmp_path_factory):
    """A run that makes an index: folder with x.vcf.gz and a.index."""
    folder = tmp_path_factory.mktemp("array")
    impute(TARGET, panel_h5, folder / "x.vcf.gz", array_fit=folder / "a.index")
    return folder


def refuse(*args, **options):
    raise AssertionError("the panel is asked again")


def forbid(monkeypatch):
    """Let nothing be fitted or measured any more."""
    for module, name in (
        (panel_fit, "fit_panel"), (imputer, "measure_sites"),
        (panel_fit, "adapt_network"), (fine_tuning, "measure_sites"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, refuse)


@pytest.mark.parametrize("options", [{}, {"threads": 2}, {"max_memory": 10**9}])
@pytest.mark.parametrize("name", ["array_fit", "index"])
def test_the_next_run_asks_nothing_and_gives_the_same(
    panel_h5, first_run, tmp_path, monkeypatch, options, name
):
    without = impute(TARGET, panel_h5, tmp_path / "z.vcf.gz")
    before = sorted(first_run.rglob("*"))
    forbid(monkeypatch)
    given = {name: first_run / "a.index"} | options
    summary = impute(TARGET, panel_h5, tmp_path / "y.vcf.gz", **given)
    expected = (tmp_path / "z.vcf.gz").read_bytes()
    assert (first_run / "x.vcf.gz").read_bytes() == expected
    assert (tmp_path / "y.vcf.gz").read_bytes() == expected
    assert summary.settings["ne"] == without.settings["ne"]
    assert summary.warnings == without.warnings
    assert sorted(first_run.rglob("*")) == before


@pytest.mark.parametrize("several", [{"window_cm": 0.6}, {"ne": 1e5}, {"fine_tune": False}])
def test_other_windows_and_options(panel_h5, tmp_path, monkeypatch, several):
    index = tmp_path / "a.index"
    impute(TARGET, panel_h5, tmp_path / "x.vcf.gz", array_fit=index, **several)
    forbid(monkeypatch)
    for name in ("array_fit", "index"):
        impute(TARGET, panel_h5, tmp_path / "y.vcf.gz", **{name: index}, **several)
        assert (tmp_path / "y.vcf.gz").read_bytes() == (tmp_path / "x.vcf.gz").read_bytes()


def test_one_sample_takes_the_fit_of_many(panel_h5, first_run, tmp_path, monkeypatch):
    forbid(monkeypatch)
    chosen = tmp_path / "names"
    chosen.write_text(names_of(TARGET)[0] + "\n")
    summary = impute(
        TARGET, panel_h5, tmp_path / "y.vcf.gz", array_fit=first_run / "a.index",
        target_options=TargetOptions(samples=chosen),
    )  # fmt: skip
    assert summary.num_typed > 0


def names_of(path):
    from cyvcf2 import VCF

    return VCF(str(path)).samples


def other_options(folder, panel_h5):
    """Options that are not those of ``first_run``, and what a message says of each."""
    with Panel.open(panel_h5) as panel:
        middle = f"{panel.contig}:1-{panel.sites.position_bp[panel.num_sites // 2]}"
    return [
        ({"seed": 2}, "another --seed"),
        ({"model": another_model(folder)}, "another model"),
        ({"ne": 1e5}, "another --ne"),
        ({"fine_tune": False}, "another --fine-tune"),
        ({"region": Region.parse(middle), "buffer_cm": 0.0}, "another --region"),
        ({"window_cm": 0.6}, "lacks 5 of the run's 5 windows"),
    ]


@pytest.mark.parametrize("number", range(6))
def test_an_index_of_something_else_is_not_used_and_that_is_said(
    panel_h5, first_run, tmp_path, number
):
    options, said = other_options(tmp_path, panel_h5)[number]
    before = sorted(first_run.rglob("*"))
    impute(TARGET, panel_h5, tmp_path / "x.vcf.gz", **options)
    told = impute(
        TARGET, panel_h5, tmp_path / "y.vcf.gz", index=first_run / "a.index", **options
    ).warnings
    assert sum(said in line for line in told) == 1
    assert (tmp_path / "y.vcf.gz").read_bytes() == (tmp_path / "x.vcf.gz").read_bytes()
    assert sorted(first_run.rglob("*")) == before


@pytest.mark.parametrize("number", [0, 4, 5])
def test_an_index_grows_by_another_array(panel_h5, first_run, tmp_path, monkeypatch, number):
    options, _ = other_options(tmp_path, panel_h5)[number]
    index = tmp_path / "b.index"
    shutil.copytree(first_run / "a.index", index)
    impute(TARGET, panel_h5, tmp_path / "x.vcf.gz", **options)
    impute(TARGET, panel_h5, tmp_path / "y.vcf.gz", array_fit=index, **options)
    forbid(monkeypatch)
    impute(TARGET, panel_h5, tmp_path / "z.vcf.gz", array_fit=index, **options)
    expected = (tmp_path / "x.vcf.gz").read_bytes()
    assert (tmp_path / "y.vcf.gz").read_bytes() == expected
    assert (tmp_path / "z.vcf.gz").read_bytes() == expected


def test_a_window_that_was_lost_is_made_anew_with_its_fit(panel_h5, first_run, tmp_path):
    """Fitting measures the quality of the only window's sites: both are used, or none."""
    index = tmp_path / "b.index"
    shutil.copytree(first_run / "a.index", index)
    next(index.rglob("window_*")).unlink()
    impute(TARGET, panel_h5, tmp_path / "y.vcf.gz", array_fit=index)
    assert (tmp_path / "y.vcf.gz").read_bytes() == (first_run / "x.vcf.gz").read_bytes()
    files = {path.relative_to(index): path.read_bytes()
             for path in index.rglob("*") if path.is_file()}  # fmt: skip
    for name, content in files.items():
        assert (first_run / "a.index" / name).read_bytes() == content


def test_two_jobs_may_make_an_index_at_the_same_time(panel, tmp_path):
    one, two = (array_of(panel, tmp_path / "a.index").part(panel) for _ in range(2))
    one.keep_fit((0, 0, 0), 1.0, CopyingParameters(1, 0.1), None)
    two.keep_fit((0, 0, 0), 1.0, CopyingParameters(1, 0.1), None)
    other = {**ABOUT, "model": "b"}
    array_of(panel, tmp_path / "a.index", about=other).part(panel).keep_fit(
        (0, 0, 0), 1.0, CopyingParameters(2, 0.1), None
    )
    assert one.fit((0, 0, 0), 1.0)[0].switch_rate == 1
    found = array_index.arrays_of(tmp_path / "a.index", panel)
    assert sorted(array.about["model"] for array in found) == ["a", "b"]


def test_it_is_no_output_or_input_of_another_kind(panel_h5, tmp_path):
    out = tmp_path / "y.vcf.gz"
    for path in (out, panel_h5, TARGET):
        with pytest.raises(InputError, match="is also the"):
            impute(TARGET, panel_h5, out, array_fit=path)
    with pytest.raises(InputError, match="does not exist"):
        impute(TARGET, panel_h5, out, array_fit=tmp_path / "no" / "a.index")
    (tmp_path / "empty").mkdir()
    with pytest.raises(PanelError, match=r"holds no manifest.json"):
        impute(TARGET, panel_h5, out, array_fit=tmp_path / "empty")
    with pytest.raises(InputError, match="are both given"):
        impute(TARGET, panel_h5, out, array_fit=tmp_path / "a", index=tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_index_of_another_panel_is_refused(panel, panel_h5, kept, tmp_path):
    for name in ("array_fit", "index"):
        with pytest.raises(PanelError, match="was made from another panel"):
            impute(TARGET, panel_h5, tmp_path / "y.vcf.gz", **{name: kept})
