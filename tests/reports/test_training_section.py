"""The report of a training run: curves, figures of the last epoch, and how it was made."""

from __future__ import annotations

import pytest
from report_fixtures import history

from ragimpute.reports.training_section import train_section, training_plots


def test_plots_and_their_names():
    found = training_plots(history())
    assert [name for name, *_ in found] == ["loss", "r2", "r2_by_maf", "f1", "learning_rate"]
    assert all(figure is not None for _, figure, *_ in found)
    by_name = {name: figure.axes[0] for name, figure, *_ in found}
    assert by_name["loss"].get_yscale() == "linear"
    labels = [line.get_label() for line in by_name["r2_by_maf"].get_lines()]
    assert labels == ["model", "Li–Stephens"]
    last = by_name["r2_by_maf"].get_lines()[0].get_ydata()
    assert last.tolist() == pytest.approx([0.1 * k + 0.1 for k in range(8)])
    assert all(figure is None for _, figure, *_ in training_plots([]))


def test_losses_that_span_much_are_on_a_logarithmic_axis():
    rows = [{"epoch": 1.0, "train_loss": 5.0}, {"epoch": 2.0, "train_loss": 0.1}]
    assert training_plots(rows)[0][1].axes[0].get_yscale() == "log"
    rows[1]["train_loss"] = -0.1
    assert training_plots(rows)[0][1].axes[0].get_yscale() == "linear"


def test_r2_by_maf_is_of_the_last_epoch_that_has_it():
    rows = history(3)
    for key in list(rows[2]):
        if key.startswith(("r2_<", "ls_r2_<")):
            del rows[2][key]
    rows[1]["r2_<=0.002"] = 0.77
    (axes,) = training_plots(rows)[2][1].axes
    assert axes.get_lines()[0].get_ydata()[0] == 0.77
    for key in list(rows[1]):
        if key.startswith("ls_r2_<"):
            del rows[1][key]
    (axes,) = training_plots(rows)[2][1].axes
    assert len(axes.get_lines()) == 1


def test_the_section():
    rows = history(4)
    rows[2]["val_loss"] = 0.001
    provenance = {"seed": 3, "init": "", "nothing": None, "versions": {"torch": "2.4"}, "lr": 1e-3}
    section = train_section(rows, "name: x\n", provenance)
    tiles = {tile["name"]: (tile["value"], tile["note"]) for tile in section.tiles}
    assert tiles["Epochs"] == ("4", "400 steps")
    assert tiles["Validation loss"] == ("0.001", "lowest, at epoch 3")
    assert tiles["r², all sites"] == ("0.9000", "Li–Stephens 0.8900")
    assert tiles["F1"] == ("0.6500", "last epoch")
    assert len(section.figures) == 5
    assert section.notes == []
    (table,) = section.tables
    assert table.head[:2] == ["epoch", "step"]
    assert [row[0] for row in table.rows] == ["1", "2", "3", "4"]
    assert all(len(row) == len(table.head) for row in table.rows)
    assert section.pairs == [
        ("How it was made", [("lr", "0.001"), ("seed", "3"), ("versions: torch", "2.4")])
    ]
    assert section.texts == [("Configuration (config.yaml)", "name: x\n")]


def test_the_section_of_nothing():
    section = train_section([], "", {})
    assert section.notes == ["No epoch was completed, so there are no curves."]
    assert (section.figures, section.tables, section.texts) == ([], [], [])
    section = train_section([{"train_loss": 1.0}], "", {})
    (table,) = section.tables
    assert table.head == ["epoch", "training loss"]
    assert table.rows == [["1", "1.0000"]]
    assert len(section.figures) == 1


def test_panels_are_a_table_and_not_a_list_of_python():
    panels = [{"name": "a", "num_sites": 20_000}, {"name": "b", "num_train_samples": 5}]
    section = train_section(history(), "", {"panels": panels, "seed": 3})
    table = section.tables[-1]
    assert table.caption == "Panels"
    assert table.head == ["number", "name", "sites", "train samples"]
    assert table.rows == [["1", "a", "20,000", "–"], ["2", "b", "–", "5"]]
    assert section.pairs == [("How it was made", [("seed", "3")])]
