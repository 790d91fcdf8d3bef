"""docs/python.md is a notebook: its blocks run from top to bottom, and do what the page says."""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest

import ragimpute as ri
from ragimpute.imputation.arrays import ImputedArrays

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEXT = (DOCS / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The folder in which the blocks ran, what each printed, and the names that they left."""
    folder, before = tmp_path_factory.mktemp("notebook"), Path.cwd()
    names: dict[str, object] = {}
    printed = []
    os.chdir(folder)
    try:
        for number, block in enumerate(BLOCKS, 1):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(block, f"python.md, block {number}", "exec"), names)
            printed.append(said.getvalue())
    finally:
        os.chdir(before)
    names["imputer"].close()
    names["fast"].close()
    return folder, printed, names


def test_every_block_is_one_that_runs():
    assert len(re.findall(r"^```", TEXT, re.MULTILINE)) == 2 * len(BLOCKS)
    assert len(BLOCKS) > 10


def test_blocks_write_what_the_page_says(ran):
    folder, _, _ = ran
    made = sorted(path.name for path in folder.iterdir())
    assert made == ["accuracy.png", "imputed.vcf.gz", "imputed.vcf.gz.tbi", "panel.h5"]
    assert (folder / "accuracy.png").read_bytes()[:4] == b"\x89PNG"
    assert (folder / "accuracy.png").stat().st_size > 20_000
    assert (DOCS / "images" / "python.png").is_file()


def test_arrays_are_what_the_table_says(ran):
    imputed = ran[2]["imputed"]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", TEXT, re.MULTILINE))
    computed = {"dosages", "probabilities"}
    assert set(rows) == {*inspect.signature(ImputedArrays).parameters, *computed}
    sizes = {"M": len(imputed.sites), "N": len(imputed.samples), "2": 2, "3": 3}
    shapes = {name: shape for name, shape in rows.items() if shape.startswith("(")}
    assert len(shapes) == len(rows) - 4  # samples, sites, warnings and "both" of arrays have none
    assert imputed.both is None
    for name, shape in shapes.items():
        expected = tuple(sizes[x] for x in re.findall(r"\w", shape))
        assert getattr(imputed, name).shape == expected, name


def test_what_is_printed_is_true(ran):
    _, printed, names = ran
    everything = "".join(printed)
    assert "contig 20: 6,127 sites, 500 haplotypes\n" in everything
    assert "50 samples, 689 typed sites\n" in everything
    assert "6,127 sites, of which 689 typed" in everything
    assert "impute() argument 'region': expected Region, str such as" in everything
    assert "hint: the panel spans 20:2000021-2899979" in everything
    good, genotypes = names["good"], names["genotypes"]
    assert 1_000 < good.sum() == len(genotypes)
    assert np.bincount(genotypes.ravel()).shape == (3,)
    assert names["evaluation"].bins[-1].r2 > 0.95
    assert f"r2 {names['evaluation'].bins[-1].r2:.3f}\n" in everything


def test_every_public_name_is_on_the_page():
    assert not [name for name in ri.__all__ if f"ri.{name}" not in TEXT]
