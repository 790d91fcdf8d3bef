"""Simulated organisms: what a folder holds, and that each kind is what its name says."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import replace

import compare
import numpy as np
import pytest
import simulate_species
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate_species import SPECIES, breed, choose_typed, gamete, simulate, write_species

from ragimpute.io.vcf.read.genotypes import read_target

LENGTH_MB = {"mosquito": 0.01, "human_50": 0.1, "human_14": 0.2}


def small(name):
    """A kind of organism with little sequence and few targets."""
    kind = SPECIES[name]
    length = LENGTH_MB.get(name, 2.0)
    return replace(kind, length_mb=length, num_targets=6, num_panel=min(kind.num_panel, 40))


@pytest.mark.parametrize("name", SPECIES)
def test_every_site_varies_in_the_panel(name):
    kind = small(name)
    position, panel, targets, rates = simulate(kind, 3)
    assert panel.shape == (len(position), kind.num_panel)
    assert targets.shape == (len(position), 12)
    assert (np.diff(position) > 0).all()
    assert position[0] >= 1
    assert position[-1] <= rates.sequence_length
    assert set(np.unique(targets)) <= {0, 1}
    count = panel.sum(axis=1)
    assert ((count > 0) & (count < kind.num_panel)).all()
    if kind.sites_per_mb is not None:
        assert len(position) == round(kind.sites_per_mb * kind.length_mb)
    again = simulate(kind, 3)
    np.testing.assert_array_equal(again[1], panel)
    np.testing.assert_array_equal(again[2], targets)


def test_inbred_lines_are_homozygous():
    for name, groups in (("inbred", (1, 2)), ("founders", (1,))):
        found = simulate(small(name), 1)
        for group in groups:
            np.testing.assert_array_equal(found[group][:, ::2], found[group][:, 1::2])
    _, _, targets, _ = simulate(small("founders"), 1)
    assert (targets[:, ::2] != targets[:, 1::2]).any()


def test_half_of_an_f2_is_heterozygous():
    kind = replace(small("f2"), num_targets=60)
    _, panel, targets, _ = simulate(kind, 1)
    for alleles in (panel, targets):
        heterozygous = (alleles[:, ::2] != alleles[:, 1::2]).mean()
        assert 0.3 < heterozygous < 0.7
        assert 0.3 < alleles.mean(axis=0).mean() < 0.7


def test_a_child_has_an_allele_of_its_dam_at_each_site():
    kind = small("livestock_family")
    _, panel, targets, _ = simulate(kind, 1)
    dam = panel[:, 12:24].reshape(len(panel), -1, 2).sum(axis=2)  # after six sires
    child = targets.reshape(len(targets), -1, 2).sum(axis=2)
    assert dam.shape == child.shape
    assert (np.abs(dam - child) < 2).all()
    stranger = np.roll(dam, 1, axis=1)
    assert (np.abs(stranger - child) == 2).any()


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=40).map(sorted),
)
def test_a_gamete_is_a_mosaic_of_its_parent(seed, morgan):
    parent = np.stack([np.zeros(len(morgan), np.int8), np.ones(len(morgan), np.int8)])
    where = np.array(morgan)
    strand = gamete(parent, where, np.random.default_rng(seed))
    assert strand.shape == where.shape
    together = np.diff(where) == 0
    assert (np.diff(strand)[together] == 0).all()


def test_gametes_cross_over_as_often_as_the_map_says():
    parent = np.stack([np.zeros(201, np.int8), np.ones(201, np.int8)])
    rng = np.random.default_rng(1)
    strands = [gamete(parent, np.linspace(0, 2, 201), rng) for _ in range(400)]
    crossed = np.mean([np.count_nonzero(np.diff(strand)) for strand in strands])
    assert crossed == pytest.approx(2, abs=0.3)


def test_children_have_two_parents():
    parents = np.repeat(np.arange(5, dtype=np.int8)[:, None, None], 2, axis=1)
    children = breed(parents, 30, np.zeros(1), np.random.default_rng(1))
    assert children.shape == (30, 2, 1)
    assert (children[:, 0] != children[:, 1]).all()
    later = breed(parents, 3, np.zeros(1), np.random.default_rng(1), generations=4, size=9)
    assert later.shape == (3, 2, 1)


def test_arrays_type_common_sites():
    panel = np.zeros((300, 200), np.int8)
    panel[::3, :1] = 1  # 0.5 %
    panel[1::3, :2] = 1  # 1 %
    panel[2::3, :199] = 1
    assert (choose_typed(panel, 50) % 3 == 1).all()
    assert len(choose_typed(panel, 50)) == 50
    assert len(choose_typed(panel, 1_000)) == 100


def test_a_folder_is_what_compare_reads(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(SPECIES, "inbred", replace(small("inbred"), num_targets=300))
    monkeypatch.setattr(
        sys, "argv", ["simulate_species.py", "inbred", "--seed", "2", "-o", str(tmp_path)]
    )
    simulate_species.main()
    assert "inbred: 300 sites, 80 dense, 20 sparse" in capsys.readouterr().out
    data = compare.open_folder(tmp_path / "inbred")
    assert list(data.targets) == ["dense", "sparse"]
    assert data.made_by == "python benchmarks/simulate_species.py inbred --seed 2 -o ."
    truth, dense = read_target(data.truth), read_target(data.targets["dense"])
    assert truth.samples == dense.samples
    assert dense.phased.all()
    rows = np.searchsorted(truth.sites.position_bp, dense.sites.position_bp)
    np.testing.assert_array_equal(truth.sites.position_bp[rows], dense.sites.position_bp)
    wrong = (truth.alleles[rows] != dense.alleles).mean()
    assert wrong == pytest.approx(0.001, abs=0.0006)
    assert data.genetic_map.read_text() == "1 . 0 1\n1 . 8 2000000\n"
    known = tomllib.loads((tmp_path / "inbred" / "benchmark.toml").read_text())
    assert known == {"about": SPECIES["inbred"].about, "beagle_ne": 10_000}


@pytest.mark.parametrize("words", [["no-such"], [], ["inbred"]])
def test_a_wrong_call_is_said(words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["simulate_species.py", *words])
    with pytest.raises(SystemExit):
        simulate_species.main()
    said = capsys.readouterr().err
    assert ("no kind no-such; there are salmon" if "no-such" in words else "-o") in said


def test_kinds_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["simulate_species.py", "--list"])
    simulate_species.main()
    assert len(capsys.readouterr().out.splitlines()) == len(SPECIES)


def test_known_rates_are_on_the_map(tmp_path, monkeypatch):
    monkeypatch.setitem(SPECIES, "human_50", small("human_50"))
    counts = write_species("human_50", tmp_path, 1)
    assert counts["dense"] <= counts["sites"]
    assert len((tmp_path / "simulated.map").read_text().splitlines()) > 2
    assert "beagle_ne" not in (tmp_path / "benchmark.toml").read_text()
