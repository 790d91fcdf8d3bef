"""An index of an array changes no byte of what is imputed; what is not used of it is said."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panel_fixtures import names
from slow_copying import mosaic_panel
from typer.testing import CliRunner
from vcf_fixtures import convert, read_imputed, write_genotypes

from ragimpute.cli.main import app
from ragimpute.copying import states
from ragimpute.copying_model import imputer
from ragimpute.errors import InputError, ModelError, PanelError
from ragimpute.imputation import array_choice
from ragimpute.imputation.build_index import index_arrays
from ragimpute.imputation.impute import impute
from ragimpute.preparation.prepare import prepare
from ragimpute.retrieval.index_manifest import read_manifest
from ragimpute.runtime import memory
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions

NUM_SITES, NUM_PANEL = 480, 44
KEYS = [(1_000 * (i + 1), "A", "G") for i in range(NUM_SITES)]
TYPED = np.arange(1, NUM_SITES, 3)


def write_target(path, alleles, which, *, unphased=False):
    """A target of the samples of ``alleles`` (M, N, 2) at the panel sites ``which``."""
    write_genotypes(path, [KEYS[i] for i in which], alleles[which], names(alleles.shape[1]))
    if unphased:
        path.write_text(path.read_text().replace("|", "/"))
    return path


@pytest.fixture(scope="module", autouse=True)
def _little_is_held():
    """What the process of the tests holds beside does not count."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "resident_bytes", lambda: 150 * 2**20)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a panel of 44 samples, and targets of six others."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(7)
    alleles = mosaic_panel(rng, NUM_SITES, 100, num_founders=12, switches=0.02).astype(np.int8)
    alleles = alleles.reshape(NUM_SITES, 50, 2)
    write_genotypes(folder / "p.vcf", KEYS, alleles[:, :NUM_PANEL], names(NUM_PANEL))
    prepare(folder / "p.vcf", folder / "p.h5", cm_per_mb=10)
    lines = np.repeat(alleles[:, :NUM_PANEL, :1], 2, axis=2)
    write_genotypes(folder / "inbred.vcf", KEYS, lines, names(NUM_PANEL))
    prepare(folder / "inbred.vcf", folder / "inbred.h5", cm_per_mb=10)
    target = alleles[:, NUM_PANEL:]
    write_target(folder / "t.vcf", target, TYPED)
    write_target(folder / "unphased.vcf", target, TYPED, unphased=True)
    haploid = target.copy()
    haploid[:, ::2, 1] = -2
    write_target(folder / "haploid.vcf", haploid, TYPED)
    missing = target.copy()
    missing[rng.random(missing.shape[:2]) < 0.1] = -1
    write_target(folder / "missing.vcf", missing, TYPED)
    return folder, target


# Limits above which states are retrieved, and above which a panel is wide: it is copied whole; its
# states are retrieved; or, of a very large one, only what is asked for is read.
SIZES = {"whole": (6000, 20_000), "retrieved": (10, 20_000), "wide": (10, 30)}


def count_as(patch, size):
    """Let panels count as ones of another size."""
    retrieved, wide = SIZES[size]
    patch.setattr(states, "COPY_ALL_UP_TO", retrieved)
    patch.setattr(imputer, "COMPACT_ABOVE", wide)


def run(folder, out, target, *, panel="p.h5", **options):
    """Impute a target; the bytes of the output, and the summary."""
    summary = impute(folder / target, folder / panel, out, fields=("GT", "DS", "HDS"), **options)
    return out.read_bytes(), summary


@pytest.fixture(scope="module")
def indexes(made, tmp_path_factory):
    """Makes indexes, each once."""
    folder, _ = made
    here = tmp_path_factory.mktemp("indexes")
    known = {}

    def index_of(panel, size, **options):
        key = (panel, size, *sorted(options.items(), key=str))
        if key not in known:
            known[key] = here / f"{len(known)}.index"
            index_arrays(folder / panel, known[key], [folder / "t.vcf"], **options)
        return known[key]

    return index_of


@settings(max_examples=8, deadline=None)
@given(
    target=st.sampled_from(["t.vcf", "unphased.vcf", "haploid.vcf", "missing.vcf"]),
    panel=st.sampled_from(["p.h5", "inbred.h5"]),
    size=st.sampled_from(["whole", "retrieved", "wide"]),
    shared=st.sampled_from([
        {}, {"window_cm": 1.7, "buffer_cm": 0.4}, {"ne": 1e4, "err": 1e-3}, {"fine_tune": False},
        {"region": Region.parse("20:90001-330000"), "buffer_cm": 0.5}, {"seed": 5},
    ]),
    own=st.sampled_from([{}, {"threads": 2}, {"max_memory": 700 * 2**20}]),
)  # fmt: skip
def test_an_index_changes_no_byte(
    made, indexes, tmp_path_factory, target, panel, size, shared, own
):
    """``size``: how the panel is read, see ``SIZES``."""
    tmp_path = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        count_as(patch, size)
        index = indexes(panel, size, **shared)
        before = sorted(index.rglob("*"))
        options = {"panel": panel, **shared, **own}
        plain, _ = run(made[0], tmp_path / "x.vcf", target, **options)
        with_index, summary = run(made[0], tmp_path / "y.vcf", target, index=index, **options)
    assert with_index == plain
    assert summary.settings["index"] == f"array t.vcf, {_num_typed(shared):,} typed sites"
    assert not [line for line in summary.warnings if "index" in line]
    assert sorted(index.rglob("*")) == before


def _num_typed(options):
    """How many typed sites a run reads: those of its region, with buffers."""
    at = np.array([KEYS[i][0] for i in TYPED])
    if "region" not in options:
        return len(at)
    return int(((at >= 90_001 - 50_000) & (at <= 330_000 + 50_000)).sum())


def nothing(*args, **options):
    raise AssertionError("the panel is asked again")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_indexed_is_not_made_again(made, indexes, tmp_path, monkeypatch, size):
    from ragimpute.copying_model import panel_fit
    from ragimpute.panel.reader import PanelFile
    from ragimpute.retrieval.nearest import NearestRows

    count_as(monkeypatch, size)
    index = indexes("p.h5", size)
    for module, name in (
        (panel_fit, "fit_panel"), (imputer, "measure_sites"), (panel_fit, "adapt_network"),
        (panel_fit, "check_network"), (NearestRows, "__init__"), (PanelFile, "haplotypes"),
        (PanelFile, "compact"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, nothing)
    run(made[0], tmp_path / "x.vcf", "t.vcf", index=index)


@pytest.mark.parametrize("share", [0.03, 0.24, 0.3])
@pytest.mark.parametrize("size", SIZES)
def test_sites_that_the_target_lacks_are_imputed(made, indexes, tmp_path, monkeypatch, share, size):
    folder, target = made
    count_as(monkeypatch, size)
    rng = np.random.default_rng(3)
    lost = rng.choice(TYPED, int(share * len(TYPED)), replace=False)
    which = np.setdiff1d(TYPED, lost)
    write_target(tmp_path / "t.vcf", target, which)
    run(tmp_path, tmp_path / "x.vcf", "t.vcf", panel=folder / "p.h5")
    _, summary = run(
        tmp_path, tmp_path / "y.vcf", "t.vcf", panel=folder / "p.h5",
        index=indexes("p.h5", size),
    )  # fmt: skip
    one, two = (read_imputed(tmp_path / name) for name in ("x.vcf", "y.vcf"))
    said = [line for line in summary.warnings if "index" in line]
    assert len(said) == 1
    assert f"types {len(which)} of the {len(TYPED)} sites of array t.vcf, and 0 others" in said[0]
    if share < array_choice.MOST_LACKING:
        assert summary.settings["index"].endswith(f"the target lacks {len(lost)}")
        assert "they are imputed" in said[0]
    else:
        assert "index" not in summary.settings
        assert "is not used" in said[0]
    typed = np.isin(np.arange(NUM_SITES), which)
    truth = target.sum(axis=2)
    for found in (one, two):
        np.testing.assert_array_equal(found.dosage[typed], truth[typed])
    text = (tmp_path / "y.vcf").read_text().splitlines()
    flags = [line.split("\t")[7] for line in text if line[0] != "#"]
    assert [";TYPED" in flag for flag in flags] == typed.tolist()
    error = [np.abs(found.dosage[~typed] - truth[~typed]).mean() for found in (one, two)]
    assert error[1] < error[0] + 0.02


def test_with_sites_that_the_array_lacks_only_the_fit_is_used(made, indexes, tmp_path):
    folder, target = made
    which = np.union1d(TYPED, [3, 33, 300])
    write_target(tmp_path / "t.vcf", target, which)
    index = indexes("p.h5", "whole")
    plain, without = run(tmp_path, tmp_path / "x.vcf", "t.vcf", panel=folder / "p.h5")
    _, own = run(folder, tmp_path / "z.vcf", "t.vcf")
    _, summary = run(tmp_path, tmp_path / "y.vcf", "t.vcf", panel=folder / "p.h5", index=index)
    said = [line for line in summary.warnings if "index" in line]
    assert len(said) == 1
    assert "types 160 of the 160 sites of array t.vcf, and 3 others" in said[0]
    assert "ne, err and network of the array are used" in said[0]
    assert summary.settings["ne"] == own.settings["ne"]
    grown = tmp_path / "g.index"
    shutil.copytree(index, grown)
    exact, _ = run(tmp_path, tmp_path / "w.vcf", "t.vcf", panel=folder / "p.h5", array_fit=grown)
    assert exact == plain
    again, told = run(tmp_path, tmp_path / "v.vcf", "t.vcf", panel=folder / "p.h5", index=grown)
    assert again == plain
    assert told.settings["index"] == "array t.vcf, 163 typed sites"
    assert told.settings["ne"] == without.settings["ne"]


def test_of_several_arrays_the_best_is_taken(made, tmp_path):
    folder, target = made
    for name, which in (("a.vcf", TYPED[:130]), ("b.vcf", TYPED), ("c.vcf", TYPED[::2])):
        write_target(tmp_path / name, target, which)
    index = tmp_path / "i.index"
    done = index_arrays(folder / "p.h5", index, [tmp_path / "a.vcf", tmp_path / "b.vcf"])
    assert [array.num_made for array in done.arrays] == [1, 1]
    more = index_arrays(folder / "p.h5", index, [tmp_path / "b.vcf", tmp_path / "c.vcf"])
    assert [array.num_made for array in more.arrays] == [0, 1]
    write_target(tmp_path / "t.vcf", target, TYPED[2:])
    _, summary = run(tmp_path, tmp_path / "y.vcf", "t.vcf", panel=folder / "p.h5", index=index)
    assert summary.settings["index"].startswith("array b.vcf")
    fresh = index_arrays(folder / "p.h5", index, [tmp_path / "c.vcf"], force=True)
    assert [array.num_made for array in fresh.arrays] == [1]
    _, summary = run(tmp_path, tmp_path / "y.vcf", "t.vcf", panel=folder / "p.h5", index=index)
    assert "is not used" in summary.warnings[-1]


def test_only_an_index_of_the_panel_is_added_to_or_replaced(made, tmp_path):
    folder, _ = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    for force in (False, True):
        with pytest.raises(PanelError, match="exists already"):
            index_arrays(folder / "p.h5", tmp_path / "mine", [folder / "t.vcf"], force=force)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
    index_arrays(folder / "p.h5", tmp_path / "i", [folder / "t.vcf"])
    with pytest.raises(PanelError, match="was made from another panel"):
        index_arrays(folder / "inbred.h5", tmp_path / "i", [folder / "t.vcf"])
    index_arrays(folder / "inbred.h5", tmp_path / "i", [folder / "t.vcf"], force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i", "mine"]


def test_what_fails_leaves_nothing(made, tmp_path):
    folder, _ = made
    (tmp_path / "none.txt").write_text("20 7\n")
    for typed, out in (("none.txt", "i"), ("absent.vcf", "i")):
        with pytest.raises(InputError):
            index_arrays(folder / "p.h5", tmp_path / out, [tmp_path / typed])
    with pytest.raises(ModelError, match="token model"):
        index_arrays(folder / "p.h5", tmp_path / "i", [folder / "t.vcf"], model="v10-small")
    assert [path.name for path in tmp_path.iterdir()] == ["none.txt"]


def test_the_commands(made, tmp_path, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(tmp_path)
    for name in ("p.h5", "t.vcf"):
        shutil.copy(folder / name, name)
    convert(tmp_path / "t.vcf", ".bcf")

    def call(*words):
        done = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    call("index", "p.h5", "--typed", "t.bcf", "-o", "p.index")
    assert read_manifest("p.index")["kind"] == "none"
    call("impute", "t.vcf", "-p", "p.h5", "-o", "x.vcf.gz")
    call("impute", "t.vcf", "-p", "p.h5", "-o", "y.vcf.gz", "--index", "p.index", "-t", "2")
    assert (tmp_path / "x.vcf.gz").read_bytes() == (tmp_path / "y.vcf.gz").read_bytes()
    told = call("info", "p.index", "--verify")
    assert "t.bcf" in told
    assert "160 typed sites" in told
    window = next((tmp_path / "p.index").rglob("window_*"))
    content = bytearray(window.read_bytes())
    content[-5] ^= 1
    window.write_bytes(content)
    done = CliRunner().invoke(app, ["info", "p.index", "--verify"])
    assert "does not match its checksum" in str(done.exception)


def test_an_array_fit_of_an_older_version_is_refused(made, tmp_path, monkeypatch):
    folder, _ = made
    monkeypatch.chdir(tmp_path)
    for name in ("p.h5", "t.vcf"):
        shutil.copy(folder / name, name)
    (tmp_path / "old.fit").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(InputError, match="older versions of ragimpute") as caught:
        impute("t.vcf", "p.h5", "x.vcf", array_fit="old.fit")
    command = caught.value.hint.partition("name: ragimpute ")[2].split()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    impute("t.vcf", "p.h5", "x.vcf", array_fit="old.index")


def test_one_sample_of_the_array_is_enough(made, indexes, tmp_path):
    folder, _ = made
    (tmp_path / "s.txt").write_text(names(6)[2] + "\n")
    chosen = TargetOptions(samples=tmp_path / "s.txt")
    plain, _ = run(folder, tmp_path / "x.vcf", "t.vcf", target_options=chosen)
    found, _ = run(
        folder, tmp_path / "y.vcf", "t.vcf", target_options=chosen, index=indexes("p.h5", "whole")
    )
    assert found == plain
