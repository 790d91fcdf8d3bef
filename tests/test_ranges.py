"""Options that are numbers have a least and a most, in every command and in Python."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcf_fixtures import vcf_text

from ragimpute import arguments
from ragimpute.config import load_config
from ragimpute.errors import ConfigError, InputError, PanelError
from ragimpute.imputation.options import ImputeOptions, OutputOptions
from ragimpute.jobs.merge import merge
from ragimpute.jobs.split import make_plan
from ragimpute.phasing.phase import PhaseRunOptions
from ragimpute.preparation.genetic_map import GeneticMap
from ragimpute.preparation.prepare import PrepareOptions, prepare

KINDS = (ImputeOptions, OutputOptions, PhaseRunOptions, PrepareOptions)


@given(st.floats())
def test_a_number_is_in_its_range_or_refused(value):
    for name, (low, high, _) in arguments._RANGES.items():
        for kind in KINDS:
            if name not in {one.name for one in fields(kind)}:
                continue
            if low <= value <= high:
                assert getattr(kind(**{name: value}), name) == value
                continue
            with pytest.raises(InputError, match=f"^{name} is .*, expected a number from") as error:
                kind(**{name: value})
            assert error.value.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e300])
def test_plan_merge_and_maps_check_their_numbers(value):
    with pytest.raises(InputError, match=r"chunk_cm is .* expected a number from 0.0001 to 100000"):
        make_plan("panel.h5", chunk_cm=value)
    with pytest.raises(InputError, match=r"cm_per_mb is .* expected a number from 1e-06 to 10000"):
        GeneticMap.uniform(value)
    with pytest.raises(InputError, match=r"min_r2 is .* expected a number from 0 to 1"):
        merge(["a.vcf", "b.vcf"], "c.vcf", min_r2=value)


@pytest.mark.parametrize(
    "words",
    [
        ("impute", "t.vcf", "-p", "p.h5", "-o", "o.vcf", "--ne", "nan"),
        ("impute", "t.vcf", "-p", "p.h5", "-o", "o.vcf", "--ne", "1e12"),
        ("impute", "t.vcf", "-p", "p.h5", "-o", "o.vcf", "--err", "nan"),
        ("impute", "t.vcf", "-p", "p.h5", "-o", "o.vcf", "--min-r2", "nan"),
        ("impute", "t.vcf", "-p", "p.h5", "-o", "o.vcf", "--chunk-cm", "inf"),
        ("impute", "t.vcf", "-p", "p.h5", "-o", "o.vcf", "--buffer-cm", "nan"),
        ("impute", "t.vcf", "-p", "p.vcf", "-o", "o.vcf", "--cm-per-mb", "1e9"),
        ("phase", "t.vcf", "-p", "p.h5", "-o", "o.vcf", "--ne", "inf"),
        ("prepare", "p.vcf", "-o", "p.h5", "--window-cm", "nan"),
        ("prepare", "p.vcf", "-o", "p.h5", "--cm-per-mb", "0"),
        ("plan", "p.h5", "--chunk-cm", "inf"),
    ],
)
def test_the_command_line_says_what_may_be_given(command_line, words):
    code, out, err = command_line(*words)
    assert not out
    if code == 2:  # refused by the range that the option itself has
        assert f"Invalid value for '{words[-2]}'" in err
        return
    assert code == 1, err
    lines = err.splitlines()
    assert lines[0].startswith("Error: ")
    assert ", expected a number from " in lines[0]
    assert lines[1].startswith("  hint: ")
    assert len(lines) == 2


def test_rates_that_no_chromosome_has(tmp_path):
    rows = [(p, "A", "G", "0|1", "1|1") for p in (1_000_000, 21_000_000)]
    (tmp_path / "p.vcf").write_text(vcf_text(rows))
    with pytest.raises(PanelError, match=r"span 100,000 cM, expected at most 10,000") as caught:
        prepare(tmp_path / "p.vcf", tmp_path / "p.h5", cm_per_mb=5_000.0)
    assert "--cm-per-mb" in caught.value.hint
    assert not (tmp_path / "p.h5").exists()
    for rate, said in ((0.01, "is only 0.01 cM/Mb; if its unit is Morgans"), (1, None)):
        done = prepare(tmp_path / "p.vcf", tmp_path / "p.h5", cm_per_mb=rate, force=True)
        assert any("--cm-per-mb" in line for line in done.warnings) == (said is not None)
        assert said is None or said in done.warnings[0]


@pytest.mark.parametrize("text", ["optimizer.lr=.inf", "optimizer.lr=.nan", "loss.gamma=.inf"])
def test_settings_are_finite(text):
    with pytest.raises(ConfigError, match="finite"):
        load_config("default", overrides=[text])
