"""benchmarks/robustness.py: what it hides, and what it shows."""

from __future__ import annotations

import numpy as np
import robustness
from compare import open_example
from vcf_tools import bcftools

from ragimpute.io.vcf.read.genotypes import read_target


def test_cases_are_what_their_names_say(tmp_path):
    data = open_example()
    found = {case.name: case for case in robustness.cases(data, tmp_path)}
    sizes = [name for name in found if "samples" in name]
    assert sizes == [f"{n} samples, omni" for n in (14, 28, 60, 100)]
    small = bcftools("query", "-l", found["14 samples, omni"].panel).split()
    assert len(small) == 14
    truth = read_target(data.truth)
    whole = len(truth.sites)
    for name, num in (
        ("half of all sites typed", -(-whole // 2)),
        ("three typed sites in all", 3),
        ("one typed site in all", 1),
    ):
        assert len(read_target(found[name].target).sites) == num
    for share in (0.1, 0.5):
        case = found[f"{share:.0%} of genotypes missing, omni"]
        missing = (read_target(case.target).alleles < 0).all(axis=2).mean()
        assert abs(missing - share) < 0.01
        assert case.typed == data.targets["omni"]


def test_a_case_is_scored_and_shown(tmp_path):
    data = open_example()
    case = next(robustness.cases(data, tmp_path))
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.yaml").write_text("extends: default\n")
    rows = [robustness.score(case, data, m, tmp_path / "o.vcf.gz") for m in (plain, "default")]
    assert rows[1].overall.r2 > rows[0].overall.r2 > 0.5
    header, _, row = robustness.table([(case.name, *rows)]).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert len(cells) == header.count("|") - 1
    assert cells[:2] == ["14 samples, omni", f"{rows[0].overall.r2:.5f}"]
    gain = 1e4 * (rows[1].bins[-1].r2 - rows[0].bins[-1].r2)
    assert cells[-1] == f"{gain:+.0f}"
    assert cells[3] == ("–" if np.isnan(rows[0].bins[0].r2) else cells[3])
