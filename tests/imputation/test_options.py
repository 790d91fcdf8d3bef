"""The one list of options: who reads it, and that none can be forgotten."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import ragimpute.cli.impute as command
from ragimpute import example
from ragimpute.errors import InputError, PanelError
from ragimpute.imputation import options as module
from ragimpute.imputation.impute import impute
from ragimpute.imputation.options import ImputeOptions, OutputOptions
from ragimpute.phasing.phase_target import PhaseOptions
from ragimpute.sites import Region
from ragimpute.target.inputs import TargetOptions

NESTED = {
    "target_options": TargetOptions,
    "output_options": OutputOptions,
    "phase_options": PhaseOptions,
}
SETS = {name: set(getattr(module, name)) for name in ("_READ", "_WRITTEN", "_HOW", "_NOT_FITTED")}
# Another value than the default for each option, those of the nested classes too.
OTHER = {
    "index": "p.index", "model": "context", "genetic_map": "x.gmap", "cm_per_mb": 2.0,
    "region": Region.parse("20:5-9"), "fields": ("HDS",), "ne": 5e4, "err": 0.01,
    "fine_tune": False, "array_fit": "a.fit", "threads": 3, "seed": 9, "window_cm": 3.0,
    "buffer_cm": 0.5, "device": "cpu", "max_memory": 2**30, "resume": True,
    "samples": Path("s.txt"), "exclude_samples": Path("e.txt"), "palindromes": "keep",
    "excluded_sites": Path("x.tsv"), "par": "X:1-5", "gvcf_min_gq": 9.0,
    "fasta": Path("r.fa"), "chain": Path("c.chain"), "likelihoods": "never",
    "use_indel_likelihoods": True, "min_r2": 0.5,
    "typed_only": True, "sites": Path("s.bcf"), "empirical": Path("e.bcf"),
    "phased_only": True, "with_targets": False, "join_multiallelics": True, "output_type": "b",
    "digits": 2, "compression_level": 6, "bgen_bits": 16, "bgen_compression": "zstd",
    "bgen_phased": True, "pvar": "plain", "pgen_phased": True,
    "min_gp": 0.9, "sites_file": Path("l.txt"),
    "sites_status": Path("l.tsv"),
}  # fmt: skip


def with_other(name):
    """Options of which one, perhaps of a nested class, has its other value."""
    for outer, kind in NESTED.items():
        if name in {one.name for one in dataclasses.fields(kind)}:
            return ImputeOptions(**{outer: kind(**{name: OTHER[name]})})
    return ImputeOptions(**{name: OTHER[name]})


def test_all_options_have_a_name_of_their_own():
    plain = [one.name for one in dataclasses.fields(ImputeOptions) if one.name not in NESTED]
    inner = [one.name for kind in NESTED.values() for one in dataclasses.fields(kind)]
    assert list(ImputeOptions().values()) == plain + inner
    assert len({*plain, *inner}) == len(plain + inner)
    assert set(OTHER) == {*plain, *inner}


def test_the_sets_name_options_and_do_not_overlap():
    names = set(ImputeOptions().values())
    seen: set[str] = set()
    for which, members in SETS.items():
        assert members <= names, which
        assert not members & seen, which
        seen |= members


@pytest.mark.parametrize("name", OTHER)
def test_each_option_is_read_by_those_that_must_know_of_it(name):
    before, after = ImputeOptions(), with_other(name)
    assert after.values() == before.values() | {name: OTHER[name]}
    changed = {
        "read": before.files_read() != after.files_read(),
        "written": before.files_written() != after.files_written(),
        "output": before.of_output() != after.of_output(),
        "fit": before.of_fit() != after.of_fit(),
    }
    found = {key for key, value in changed.items() if value}
    expected = {
        **{
            key: {"read"}
            for key in (
                "genetic_map",
                "samples",
                "exclude_samples",
                "index",
                "fasta",
                "chain",
                "sites_file",
            )
        },
        **{
            key: {"written"}
            for key in ("array_fit", "excluded_sites", "sites", "empirical", "sites_status")
        },
        **{key: set() for key in ("threads", "resume")},
        **{key: {"output", "fit"} for key in ("ne", "err", "fine_tune", "seed")},
    }
    assert found == expected.get(name, {"output"})


def test_an_option_that_nobody_thought_of_counts_everywhere():
    @dataclass(frozen=True)
    class More(ImputeOptions):
        brand_new: int = 1

    for read in (More.of_output, More.of_fit):
        assert read(More(brand_new=2))["brand_new"] == 2


def test_what_resume_keeps_survives_json():
    options = ImputeOptions(
        model=Path("m"), region=Region.parse("20:5-9"), fields=["GT", "DS"], ne=1e5, max_memory=5
    )
    told = options.of_output()
    assert json.loads(json.dumps(told)) == told
    assert told["region"] == "20:5-9"
    assert told["fields"] == ["GT", "DS"]
    assert told["model"] == "m"


def test_changes_are_made_to_given_options_and_to_the_defaults():
    given = ImputeOptions(seed=3, ne=1e5)
    assert ImputeOptions.of(given, ne=2e5) == ImputeOptions(seed=3, ne=2e5)
    assert ImputeOptions.of(None, seed=3, ne=1e5) == given
    assert ImputeOptions.of(None) == ImputeOptions()
    assert given == ImputeOptions(seed=3, ne=1e5)
    assert ImputeOptions(fields=["GT"]) == ImputeOptions(fields=("GT",))


def test_an_unknown_option_is_a_type_error_that_names_those_there_are(tmp_path):
    with pytest.raises(TypeError, match="impute has no option chunk_cm, sed; its options are"):
        impute("t.vcf", "p.h5", tmp_path / "x.vcf", chunk_cm=5, sed=1, seed=2)
    with pytest.raises(TypeError) as caught:
        ImputeOptions.of(None, chunk_cm=5)
    for one in dataclasses.fields(ImputeOptions):
        assert one.name in str(caught.value)


def test_the_command_line_sets_every_option():
    tree = ast.parse(inspect.getsource(command))
    calls = {
        ast.unparse(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)
        if ast.unparse(node.func) in {kind.__name__ for kind in (ImputeOptions, *NESTED.values())}
    }  # fmt: skip
    for kind in (ImputeOptions, *NESTED.values()):
        call = calls[kind.__name__]
        names = [one.name for one in dataclasses.fields(kind)]
        given = names[: len(call.args)] + [str(keyword.arg) for keyword in call.keywords]
        assert sorted(given) == sorted(names), kind.__name__


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"array_fit": "a.fit"}, "--array-fit"),
        ({"output_options": OutputOptions(empirical=Path("e.vcf"))}, "--empirical"),
    ],
)
def test_a_token_model_is_refused_before_anything_is_read(tmp_path, monkeypatch, options, flag):
    monkeypatch.chdir(tmp_path)
    run = sys.modules["ragimpute.imputation.impute"]
    model = SimpleNamespace(is_copying=False, path=tmp_path)
    monkeypatch.setattr(run, "open_folder", lambda name: model)
    monkeypatch.setattr(run, "require_packages", lambda folder, device: True)
    with pytest.raises(InputError, match=f"{flag} needs a copying model, but tokens is a token"):
        impute("no.vcf", "no.h5", "x.vcf", model="tokens", **options)
    with pytest.raises(PanelError, match=r"no\.h5"):
        impute("no.vcf", "no.h5", "x.vcf", model="tokens")


def test_options_give_what_keywords_give(panel_h5, plain_copying, tmp_path):
    same = {"model": plain_copying, "ne": 1e5, "err": 1e-3, "fields": ["GT", "HDS"],
            "region": Region.parse("20:2200000-2250000")}  # fmt: skip
    target = example.path("target.vcf.gz")
    impute(target, panel_h5, tmp_path / "a.vcf", **same)
    impute(target, panel_h5, tmp_path / "b.vcf", ImputeOptions(**same))
    assert (tmp_path / "a.vcf").read_bytes() == (tmp_path / "b.vcf").read_bytes()
