"""report_data: JSON says what the run did, and MultiQC gets what it takes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_fixtures import evaluation, history, summary

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.errors import InputError
from ragimpute.reports.by_file_name import report_evaluate, report_impute
from ragimpute.reports.figures import (
    impute_figures,
    multiqc_evaluate,
    multiqc_impute,
    plain,
    train_figures,
)
from ragimpute.target.qc import NOTED, QcSummary

# Of an evaluation: what it is of.
_OF_A_FILE = ("truth", "imputed", "panel", "contig", "first_bp", "last_bp", "notes")


def qc(**rates):
    """Counts of a target, made up."""
    return QcSummary(
        200, 0.93, {"matched": 180}, {"found": 3, "other_strand": 1}, dict.fromkeys(NOTED, 0), rates
    )


def test_figures_of_a_run():
    run = summary(qc=qc(a=1.0, b=0.5), peak_mb={"read": 100.0, "write": 321.5})
    tree = impute_figures(run)
    untyped = ~run.typed
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert tree["num_untyped"] == 1_800
    assert tree["mean_dr2"] == pytest.approx(run.dr2[untyped].mean())
    assert sum(tree["dr2_histogram"]["sites"]) == 1_800
    assert len(tree["dr2_histogram"]["edges"]) == len(tree["dr2_histogram"]["sites"]) + 1
    assert [row["maf_high"] for row in tree["dr2_by_maf"]] == list(MAF_BINS[1:])
    for row in tree["dr2_by_maf"]:
        here = untyped & (run.maf > row["maf_low"]) & (run.maf <= row["maf_high"])
        assert row["num_sites"] == here.sum() == sum(row["num_sites_by_dr2"].values())
        if here.any():
            assert row["mean_dr2"] == pytest.approx(run.dr2[here].mean())
    (along,) = tree["dr2_along"]
    assert (along["mb"], along["num_sites"], along["num_typed"]) == (1, 2_000, 200)
    assert tree["samples"] == [{"name": "a", "call_rate": 1.0}, {"name": "b", "call_rate": 0.5}]
    assert tree["qc"]["overlap"] == 0.93
    assert tree["peak_mib"] == {"read": 100.0, "write": 321.5}
    assert tree["seconds"]["impute"] == 3.25
    assert tree["warnings"] == ["20 records are swapped"]


def test_the_page_on_reports_names_every_key():
    text = (Path(__file__).resolve().parents[2] / "docs" / "reports.md").read_text()
    for key in [*impute_figures(summary()), *train_figures([], "", {}), *evaluation().as_dict()]:
        if key not in _OF_A_FILE:
            assert f"`{key}`" in text, key


def test_a_run_that_types_everything_has_no_dr2():
    tree = impute_figures(summary(typed=np.ones(2_000, bool)))
    assert tree["mean_dr2"] is None
    assert tree["share_dr2_0.8"] is None
    assert sum(tree["dr2_histogram"]["sites"]) == 0
    (row,) = multiqc_impute(summary(typed=np.ones(2_000, bool)))["data"].values()
    assert "mean_dr2" not in row


def test_multiqc_table_has_a_header_for_each_figure():
    tree = multiqc_impute(summary(qc=qc(a=1.0), settings={"region": "20:1-9"}))
    assert tree["plot_type"] == "table"
    ((name, row),) = tree["data"].items()
    assert name == "out 20:1-9"
    assert list(row) == list(tree["headers"])
    assert row["overlap"] == 93


def test_multiqc_plot_of_accuracy():
    result = evaluation()
    tree = multiqc_evaluate({"a/ours.vcf.gz": result, "theirs.bcf": evaluation(5)})
    assert list(tree["data"]) == ["ours", "theirs"]
    points = {f"{b.maf_high:g}": b.r2 for b in result.bins if not math.isnan(b.r2)}
    assert tree["data"]["ours"] == points
    assert len(points) > 3


def test_training(tmp_path):
    rows = history()
    rows[0]["f1"] = math.nan
    tree = train_figures(rows, "name: x\n", {"seed": np.int64(3)})
    assert len(tree["epochs"]) == len(rows)
    assert tree["epochs"][0]["f1"] is None
    assert tree["epochs"][1]["f1"] == rows[1]["f1"]
    assert tree["provenance"] == {"seed": 3}


def test_names_say_what_is_written(tmp_path):
    paths = [tmp_path / name for name in ("r.html", "r.json", "r_mqc.json")]
    report_impute(summary(), paths)
    assert paths[0].read_text().startswith("<!doctype html>")
    assert json.loads(paths[1].read_text())["format"] == "ragimpute-impute-report"
    assert json.loads(paths[2].read_text())["plot_type"] == "table"
    with pytest.raises(InputError, match=r"r\.pdf is neither"):
        report_impute(summary(), [tmp_path / "r.pdf"])
    report_evaluate({"x": evaluation()}, tmp_path / "e.json")
    assert json.loads((tmp_path / "e.json").read_text())["x"]["truth"] == "truth.bcf"
    report_evaluate({"x": evaluation()}, tmp_path / "e_mqc.json")
    assert json.loads((tmp_path / "e_mqc.json").read_text())["plot_type"] == "linegraph"
    assert len(list(tmp_path.iterdir())) == 5


def test_plain():
    given = {1: np.float32(0.5), "a": np.array([1.0, np.nan]), "b": (True, None, np.inf)}
    assert plain(given) == {"1": 0.5, "a": [1.0, None], "b": [True, None, None]}


def test_json_needs_nothing_that_draws(tmp_path):
    code = (
        "import sys; from ragimpute.reports.by_file_name import report_evaluate, report_impute\n"
        f"report_evaluate({{}}, {str(tmp_path / 'r.json')!r})\n"
        "print(sorted({'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert json.loads((tmp_path / "r.json").read_text()) == {}
