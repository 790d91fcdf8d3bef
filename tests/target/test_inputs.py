"""How impute, phase and --qc-only begin."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from vcf_fixtures import vcf_text

from ragimpute import example
from ragimpute.errors import InputError
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.panel.reader import PanelFile
from ragimpute.panel.views import PanelView
from ragimpute.sites import Region
from ragimpute.target import report as target_report
from ragimpute.target.inputs import InputFiles, open_inputs
from ragimpute.target.load import TargetOptions
from ragimpute.target.report import TargetReport

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2300000")


def test_panel_target_and_match_belong_together(panel_h5, monkeypatch):
    closed = []
    monkeypatch.setattr(PanelFile, "close", lambda self: closed.append(self))
    report = TargetReport()
    with ExitStack() as stack:
        inputs = open_inputs(
            InputFiles(TARGET, panel_h5, region=REGION, buffer_cm=0.1), stack, report
        )
        position = inputs.panel.sites.position_bp
        assert position[inputs.start - 1] < REGION.start_bp <= position[inputs.start]
        assert position[inputs.stop - 1] < REGION.stop_bp <= position[inputs.stop]
        match, target = inputs.match, inputs.target
        np.testing.assert_array_equal(
            position[match.panel_index], target.sites.position_bp[match.row]
        )
        assert match.panel_index[0] < inputs.start  # the buffer is read too
        assert match.panel_index[-1] >= inputs.stop
        cm = inputs.panel.position_cm
        assert cm[match.panel_index[0]] >= cm[inputs.start] - 0.1
        assert inputs.contigs == [("20", inputs.panel.contig_length)]
        inside = (match.panel_index >= inputs.start) & (match.panel_index < inputs.stop)
        assert report.counts["typed"] == inside.sum() > 0
        assert report.num_samples == len(target.samples)
        assert report.num_haplotypes == inputs.panel.num_haplotypes
        assert report.qc is not None
        assert not closed
    assert closed == [inputs.panel]


def test_a_view_is_taken_before_the_target_is_read_and_used_instead(panel_h5, tmp_path):
    order = []

    class View(PanelView):
        """The panel under another name."""

        contig = "20"

    def view(panel, start, stop):
        order.append((panel, start, stop))
        (tmp_path / "t.vcf").write_text(text)  # there was none until now
        return View(panel)

    key = read_target(TARGET, region=REGION).sites.keys()[0]
    text = vcf_text([(*key, "0|1", "1|1")])
    with ExitStack() as stack:
        files = InputFiles(tmp_path / "t.vcf", panel_h5, region=REGION)
        inputs = open_inputs(files, stack, TargetReport(), view=view)
        assert isinstance(inputs.panel, View)
        assert order[0][1:] == (inputs.start, inputs.stop)
        assert inputs.match.alleles.reshape(-1).tolist() == [0, 1, 1, 1]


def test_warnings_are_logged_once_and_kept(panel_h5, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(target_report.log, "warning", lines.append)
    report = TargetReport()
    key = read_target(TARGET, region=REGION).sites.keys()[0]
    (tmp_path / "t.vcf").write_text(vcf_text([(*key, "0|1", "./.")]))
    with ExitStack() as stack:
        open_inputs(InputFiles(tmp_path / "t.vcf", panel_h5, region=REGION), stack, report)
    assert report.warnings == lines
    assert sum("1 samples have no genotype at any panel site" in line for line in lines) == 1


def test_a_panel_prepared_for_the_run_is_removed_and_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    report = TargetReport()
    files = InputFiles(TARGET, example.path("panel.bcf"), cm_per_mb=1.0, region=REGION)
    with ExitStack() as stack:
        inputs = open_inputs(files, stack, report)
        assert Path(inputs.panel.path).is_relative_to(tmp_path)
        assert [line for line in report.warnings if "was prepared for this run only" in line]
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_unphased_genotypes_are_refused_where_asked(panel_h5, tmp_path):
    key = read_target(TARGET, region=REGION).sites.keys()[0]
    (tmp_path / "t.vcf").write_text(vcf_text([(*key, "0/1", "1|1")]))
    files = InputFiles(tmp_path / "t.vcf", panel_h5, region=REGION)
    with ExitStack() as stack:
        assert not open_inputs(files, stack, TargetReport()).match.phased.all()
    with ExitStack() as stack, pytest.raises(InputError, match="is not phased: 1 unphased"):
        open_inputs(files, stack, TargetReport(), phased_only=True)


def test_files_have_the_names_that_messages_give_them():
    options = TargetOptions(samples=Path("s"), exclude_samples=Path("e"))
    files = InputFiles("t", "p", genetic_map="m", options=options)
    assert files.named() == {
        "target input": "t", "panel input": "p", "map input": "m", "list of samples": Path("s"),
        "excluded samples": Path("e"),
    }  # fmt: skip
