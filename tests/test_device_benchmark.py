"""The benchmark of a device prints a table of stages, and how far results are apart."""

from __future__ import annotations

import re

import device
import numpy as np
import pytest

from ragimpute import example
from ragimpute.preparation.prepare import prepare
from ragimpute.retrieval.nearest import NearestRows
from ragimpute.sites import Region


def test_a_table_of_both(capsys, tmp_path, monkeypatch):
    panel = tmp_path / "panel.h5"
    prepare(example.path("panel.bcf"), panel, genetic_map=example.path("chr20.b37.gmap.gz"),
            region=Region.parse("20:2000000-2060000"))  # fmt: skip
    before = NearestRows.search
    words = [str(panel), str(example.path("target.vcf.gz")), "--device", "torch-cpu", "--runs", "1"]
    assert device.main(words) == 0
    assert NearestRows.search is before
    title, *rows, last = capsys.readouterr().out.splitlines()
    assert title.startswith("torch-cpu against the kernels, torch ")
    names = [row.split("|")[1].strip() for row in rows[2:]]
    assert {"copy", "all", "copy: back and P(ALT), device"} <= set(names)
    assert names[-1] == "all"
    found = re.fullmatch(r"dosages: ([\d,]+), of which (\d+) differ .* at most (0\.\d+)", last)
    assert found is not None
    assert int(found[1].replace(",", "")) > 10_000
    assert float(found[3]) < 0.1


def test_medians_and_ratios():
    lines = device.table(
        [{"copy": x, "all": 2 * x, "nothing": 0.001} for x in (1.0, 3.0, 2.0)],
        [{"copy": 0.5, "copy: forward, device": 0.25, "all": 1.0}],
    )
    assert lines[2:] == [
        "| copy | 2.00 | 0.50 | 4.00 |",
        "| copy: forward, device |  | 0.25 |  |",
        "| all | 4.00 | 1.00 | 4.00 |",
    ]


def test_what_is_timed_is_put_back_after_an_error():
    before = [getattr(owner, name) for owner, name, _ in device.PARTS]

    def broken():
        with device.timed({}):
            now = [getattr(owner, name) for owner, name, _ in device.PARTS]
            assert not np.any([one is other for one, other in zip(now, before, strict=True)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert [getattr(owner, name) for owner, name, _ in device.PARTS] == before
