"""Headers and records of every command that writes VCF say the same: what is declared is written.

A filter on a field that the header declares and no record has keeps nothing, without a word.
"""

from __future__ import annotations

import re

import cyvcf2
import numpy as np
import pytest
import torch
from vcf_fixtures import bcftools, rows_of, view, write_genotypes

from ragimpute import example
from ragimpute.config import load_config
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import OutputOptions
from ragimpute.io.vcf.read.genotypes import read_target
from ragimpute.jobs.merge import merge
from ragimpute.model.bert_rag import build
from ragimpute.model.checkpoint import save_model
from ragimpute.phasing.phase import phase
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions

TARGET = example.path("target.vcf.gz")
REGION = Region.parse("20:2200000-2260000")
FIXED = {"region": REGION, "ne": 1e5, "err": 1e-3, "fine_tune": False}
QUALITY = ["AF", "MAF", "DR2", "R2", "INFO", "ER2", "PR2", "PADJ", "AN", "PSSD", "PVAR"]
OF_COPYING = {"ER2", "PR2", "PADJ"}  # which token models do not know


def declared_and_written(path):
    """Names of the header's INFO and FORMAT fields, and those that any record has."""
    text = view(path)
    declared = [re.findall(rf"^##{kind}=<ID=(\w+)", text, re.M) for kind in ("INFO", "FORMAT")]
    rows = rows_of(text)
    infos = {pair.partition("=")[0] for row in rows for pair in row[7].split(";")}
    formats = {name for row in rows for name in (row[8].split(":") if len(row) > 8 else [])}
    return declared, [infos, formats]


def check(path, infos, formats):
    """The header declares these fields in this order, and some record has each of them."""
    declared, written = declared_and_written(path)
    assert declared == [infos, formats]
    assert written == [set(infos), set(formats)]


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
@pytest.mark.parametrize("fields", ["GT", "GT,DS,GP", "HDS", "GT,AP,GP", "GT,DS,GP,HDS,AP"])
def test_impute(panel_h5, tmp_path, fields, suffix):
    names = fields.split(",")
    out = tmp_path / f"x{suffix}"
    impute(
        TARGET, panel_h5, out, fields=names, **FIXED,
        output_options=OutputOptions(sites=tmp_path / "s.vcf", empirical=tmp_path / "e.bcf"),
    )  # fmt: skip
    check(out, [*QUALITY, "IMP", "TYPED"], fields.replace("AP", "AP1,AP2").split(","))
    check(tmp_path / "s.vcf", [*QUALITY, "IMP", "TYPED"], [])
    check(tmp_path / "e.bcf", [*QUALITY, "TYPED"], ["GT", "LDS"])


def test_records_that_the_panel_lacks(panel_h5, tmp_path):
    given = read_target(TARGET, region=REGION)
    sites = [("20", *key) for key in given.sites.keys()]
    sites.append(("20", sites[-1][1] + 1, "A", "C"))
    target = write_genotypes(
        tmp_path / "t.vcf", [site[1:] for site in sites],
        np.concatenate([given.alleles, given.alleles[-1:]]), given.samples,
    )  # fmt: skip
    for suffix in (".vcf", ".bcf"):
        out = tmp_path / f"x{suffix}"
        lacked = OutputOptions(typed_only=True)
        impute(target, panel_h5, out, fields=("GT",), output_options=lacked, **FIXED)
        check(out, [*QUALITY, "IMP", "TYPED", "TYPED_ONLY"], ["GT"])


def test_a_model_that_cannot_leave_out_typed_sites_declares_no_er2(panel_h5, tmp_path):
    config = load_config("v10-small")
    torch.manual_seed(3)
    save_model(tmp_path / "model", build(config.model), config, {})
    out = tmp_path / "x.vcf"
    region = Region.parse("20:2200000-2215000")
    impute(TARGET, panel_h5, out, fields=("GT",), model=tmp_path / "model", region=region)
    check(out, [name for name in [*QUALITY, "IMP", "TYPED"] if name not in OF_COPYING], ["GT"])


@pytest.mark.parametrize("suffix", [".vcf", ".vcf.gz", ".bcf"])
def test_phase_and_merge(panel_h5, tmp_path, suffix):
    given = read_target(TARGET, region=REGION)
    target = tmp_path / "t.vcf"
    write_genotypes(target, given.sites.keys(), given.alleles, given.samples)
    target.write_text(target.read_text().replace("|", "/"))
    phase(target, panel_h5, tmp_path / f"p{suffix}", ne=1e5, err=1e-3)
    check(tmp_path / f"p{suffix}", ["TYPED"], ["GT"])
    parts = []
    for i, samples in enumerate((given.samples[:3], given.samples[3:])):
        (tmp_path / "names.txt").write_text("\n".join(samples))
        parts.append(tmp_path / f"{i}{suffix}")
        impute(
            TARGET, panel_h5, parts[-1], fields=("GT", "HDS"), **FIXED,
            target_options=TargetOptions(samples=tmp_path / "names.txt"),
        )  # fmt: skip
    merge(parts, tmp_path / f"m{suffix}")
    merged = [name for name in [*QUALITY, "IMP", "TYPED"] if name != "ER2"]
    check(tmp_path / f"m{suffix}", merged, ["GT", "HDS"])


@pytest.mark.parametrize("suffix", [".vcf.gz", ".bcf"])
def test_filters_of_other_programs_find_r2_and_info(panel_h5, tmp_path, suffix):
    """``bcftools view -i 'INFO/R2>=0.3'`` kept nothing, as R2 was declared and never written."""
    out = tmp_path / f"x{suffix}"
    impute(TARGET, panel_h5, out, fields=("GT", "HDS"), **FIXED)
    records = list(cyvcf2.VCF(str(out)))
    for name in ("R2", "INFO"):
        kept = rows_of(bcftools("view", "-i", f"INFO/{name}>=0.3", out))
        assert 0 < len(kept) == sum(r.INFO[name] >= np.float32(0.3) for r in records) < len(records)
