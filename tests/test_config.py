"""Presets, overrides and what is said of a config that is wrong."""

from __future__ import annotations

from typing import get_args

import pytest
import yaml
from annotated_types import Ge, Gt
from pydantic import BaseModel, ValidationError

from ragimpute.config import (
    DROPPED,
    FusionConfig,
    MaskPart,
    RunConfig,
    dump_config,
    load_config,
    models_dir,
    preset_names,
)
from ragimpute.errors import ConfigError
from ragimpute.training.data.masks import MaskMixture

NAMED_IN_DESIGN = {
    "default", "original", "v10", "v10-tuned", "embedding-rag", *(f"v{i}" for i in range(2, 10)),
}  # fmt: skip


def test_a_dropped_preset_names_its_successor():
    for name, instead in DROPPED.items():
        with pytest.raises(ConfigError, match=f"no preset {name} any more") as caught:
            load_config(name)
        assert caught.value.hint == f"use {instead}"
        load_config(instead)


@pytest.fixture
def write(tmp_path):
    """Writes a YAML file and gives its path."""

    def make(text, name="c.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return make


def test_the_presets_are_there():
    assert set(preset_names()) >= NAMED_IN_DESIGN
    small = NAMED_IN_DESIGN - {"default"}
    assert {f"{name}-small" for name in small} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_comes_back(name, write):
    config = load_config(name)
    assert config.name == name
    assert config.description.endswith(".")
    assert load_config(write(dump_config(config))) == config
    assert load_config(models_dir() / name) == config
    if name.endswith("-small"):
        assert config.model.encoder.num_layers <= 2
        full = load_config(name.removesuffix("-small"))
        assert config.model.fusion == full.model.fusion
        # Of the reference encoder they change what memory it takes, not what it gives.
        memory = {"chunk", "checkpointing"}
        assert config.model.reference.model_dump(exclude=memory) == full.model.reference.model_dump(
            exclude=memory
        )
        assert config.mask == full.mask


# The runs of the original, as its scripts and its code of their days have them: fusion; width,
# layers and heads; batch and epochs; and whether the reconstruction loss was on.
SMALL, LARGE = (16, 4, 2), (128, 8, 4)
ORIGINAL = {
    "v2": ("concat", SMALL, (128, 10), False),
    "v3": ("rare_variant_aware", SMALL, (32, 10), False),
    "v4": ("rare_variant_aware", SMALL, (32, 10), False),
    "v5": ("enhanced_rare_variant", SMALL, (32, 10), False),
    "v6": ("dynamic_gate", SMALL, (64, 10), False),
    "v7": ("dynamic_gate", SMALL, (64, 10), False),
    "v8": ("dynamic_gate", SMALL, (32, 5), False),
    "v9": ("enhanced_rare_variant", LARGE, (64, 5), False),
    "v10": ("enhanced_rare_variant", LARGE, (64, 20), True),
    "original": ("enhanced_rare_variant", LARGE, (64, 20), True),
    "v10-tuned": ("enhanced_rare_variant", LARGE, (64, 20), True),
    "embedding-rag": ("enhanced_rare_variant", LARGE, (64, 20), True),
}
MASKS = {name: ["random"] for name in ORIGINAL} | {
    "v7": ["random", "maf_guided", "array_like"],
    "v8": ["random", "ld_guided", "array_like"],
} | {name: ["random", "array_like"] for name in ("v10", "v10-tuned", "embedding-rag")}  # fmt: skip


@pytest.mark.parametrize("name", ORIGINAL)
def test_presets_have_the_original_numbers(name):
    fusion, size, (batch_size, epochs), reconstruction = ORIGINAL[name]
    c = load_config(name)
    e = c.model.encoder
    assert (e.dim, e.num_layers, e.num_heads, e.dropout) == (*size, 0.1)
    assert c.model.fusion == FusionConfig(name=fusion, residual_scale=0.1, rare_weight_max=10)
    assert c.model.reference.mode == ("precomputed" if name == "embedding-rag" else "tokens")
    assert (c.data.max_sites, c.data.num_retrieved) == (1020, 3)
    assert [part.name for part in c.mask.parts] == MASKS[name]
    assert (c.mask.curriculum.every_epochs, c.mask.curriculum.step) == (1, 0.1)
    loss = c.loss
    assert (loss.kind, loss.gamma, loss.gamma_schedule, loss.reduction) == ("focal", 5, (), "sum")
    weights = (loss.haplotype_fused, loss.genotype, loss.reconstruction)
    assert weights == ((0.2, 0.3, 0.15) if reconstruction else (1, 1, 0))
    assert (c.optimizer.name, c.optimizer.weight_decay) == ("adam", 0.01)
    assert c.optimizer.betas == (0.9, 0.999)
    assert c.schedule.name == "inverse_sqrt"
    tuned = name == "v10-tuned"
    assert c.optimizer.lr == (6.25e-4 if tuned else 1e-5)
    if tuned:
        assert c.schedule.warmup_share == 0.1
    else:
        assert (c.schedule.warmup_steps, c.schedule.warmup_share) == (20_000, None)
    assert (c.train.batch_size, c.train.epochs) == (batch_size, epochs)
    assert (c.train.accumulation, c.train.clip, c.train.log_every) == (1, 1.0, 1000)


def test_the_original_differs_from_v10_where_v10_differs_from_it():
    original, v10 = load_config("original"), load_config("v10")
    assert original.model == v10.model
    assert original.data == v10.data
    masks = MaskMixture(original.mask)
    rates = []
    for _ in range(20):  # an epoch each
        rates.append(masks.rate(original.mask.parts[0]))
        masks.add_level()
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, *[0.8] * 13])
    assert original.loss.haplotype_ori == 0
    assert original.train.precision == "fp16"
    assert original.train.keep_epochs
    assert original.train.early_stopping.patience == 0
    assert not v10.train.keep_epochs


def test_overrides():
    config = load_config(
        "v10",
        overrides=["train.epochs=3", "optimizer.lr=1e-3", "loss.gamma_schedule=[2, 3]",
                   "data.windows_per_epoch=null", "model.fusion.name=concat", "name= mine ",
                   "mask.parts=[{name: random, rate: 0.2}]"],
    )  # fmt: skip
    assert config.train.epochs == 3
    assert config.optimizer.lr == 1e-3
    assert config.loss.gamma_schedule == (2, 3)
    assert config.data.windows_per_epoch is None
    assert (config.model.fusion.name, config.name) == ("concat", "mine")
    assert config.mask.parts == (MaskPart(name="random", rate=0.2),)
    base = load_config("v10")
    assert config.model.encoder == base.model.encoder
    assert config.mask.curriculum == base.mask.curriculum


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "not key=value"),
        ("=3", "not key=value"),
        ("train.epochs=[", "not valid YAML"),
        ("train.epochs.x=3", "epochs is not a group"),
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1 (found 0)"),
        ("train.epoch=3", "train.epoch is not a setting (did you mean epochs?)"),
        ("modle.encoder=3", "modle is not a setting (did you mean model?)"),
        ("model.encoder.qqqq=3", "model.encoder.qqqq is not a setting"),
        ("model.encoder.dim=130", "model.encoder: dim 130 is not a multiple of num_heads 4"),
        ("model.fusion.name=conact", "model.fusion.name: Input should be"),
        ("mask.parts=[]", "mask: parts is empty"),
        ("mask.parts=[{nmae: random}]", "mask.parts.0.nmae is not a setting (did you mean name?)"),
        ("data.typed_per_mb=[100, 50]", "data: typed_per_mb 100.0, 50.0 is not ascending"),
        ("optimizer.betas=[0.9, 1]", "optimizer.betas.1: Input should be less than 1"),
        ("optimizer.lr=.nan", "optimizer.lr: Input should be a finite number"),
        ("loss.gamma_schedule=[2, -1]", "loss.gamma_schedule.1: Input should be greater"),
        ("train=3", "train: Input should be"),
    ],
)
def test_wrong_overrides_are_named(override, message):
    with pytest.raises(ConfigError) as caught:
        load_config("v10", overrides=[override])
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_all_problems_at_once(write):
    path = write("extends: v10\ntrian: {}\ntrain: {epochs: 0, sede: 3}\nloss: {gamma: -1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in (str(path), "trian is not a setting (did you mean train?)", "train.epochs",
                 "train.sede is not a setting (did you mean seed?)", "loss.gamma"):  # fmt: skip
        assert part in caught.value.message
    assert "v10-small" in caught.value.hint


def test_extends(write, monkeypatch, tmp_path):
    write("extends: v10\nname: a\ntrain: {epochs: 3}\n", "a.yaml")
    path = write("extends: a.yaml\nname: b\ntrain: {seed: 4}\n", "b.yaml")
    monkeypatch.chdir("/")  # a file beside is found from anywhere
    config = load_config(path)
    expected = load_config("v10", overrides=["name=b", "train.epochs=3", "train.seed=4"])
    assert config == expected


def test_steps_of_warmup_that_are_given_later_replace_a_share(write):
    assert load_config("v10-tuned").schedule.warmup_share == 0.1
    steps, share = "schedule.warmup_steps=5", "schedule.warmup_share=0.2"
    for given, expected in (
        ([steps], (5, None)), ([share], (20_000, 0.2)), ([steps, share], (5, 0.2)),
        ([share, steps], (5, None)),
    ):  # fmt: skip
        schedule = load_config("v10-tuned", overrides=given).schedule
        assert (schedule.warmup_steps, schedule.warmup_share) == expected
    for text, expected in (("warmup_steps: 5", (5, None)), ("min_factor: 0.5", (20_000, 0.1))):
        schedule = load_config(write(f"extends: v10-tuned\nschedule: {{{text}}}\n")).schedule
        assert (schedule.warmup_steps, schedule.warmup_share) == expected


@pytest.mark.parametrize("chain", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_cycles_end(write, chain):
    for here, base in zip(chain, chain[1:] + chain[:1], strict=True):
        path = write(f"extends: {base}.yaml\n", f"{here}.yaml")
    with pytest.raises(ConfigError, match="extends itself") as caught:
        load_config(path)
    assert "extends" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 3000, "not valid YAML"),
        ("train: {epochs: 3\n", "not valid YAML at line"),
        ("- 1\n- 2\n", "not a mapping"),
        ("1: 2\n", "not a mapping"),
        ("{[1]: 2}\n", "not valid YAML"),
        ("extends: v11\n", "config v11 is neither a file nor a preset"),
    ],
)
def test_bad_files(write, text, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(text))
    assert message in caught.value.message


def test_not_utf_8(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "c.yaml")


def test_unknown_preset():
    with pytest.raises(ConfigError) as caught:
        load_config("v10-smal")
    assert caught.value.hint.startswith("did you mean v10-small? presets: ")


def test_an_empty_file_is_the_defaults(write):
    assert load_config(write("")) == RunConfig()


def numbers(model, prefix=""):
    """Name and field of every setting that is a number."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from numbers(kind, f"{prefix}{name}.")
        elif {int, float} & {kind, *get_args(kind)}:
            yield f"{prefix}{name}", field


def test_every_number_has_a_least_value():
    settings = dict(numbers(RunConfig))
    assert len(settings) > 30
    least = {
        name: next((b for b in field.metadata if isinstance(b, Ge | Gt)), None)
        for name, field in settings.items()
    }
    assert [name for name, bound in least.items() if bound is None] == []
    for name, bound in least.items():
        below = bound.ge - 1 if isinstance(bound, Ge) else bound.gt
        with pytest.raises(ConfigError, match=rf"{name}: .*\(found {below}"):
            load_config("default", overrides=[f"{name}={below}"])


def test_configs_do_not_change():
    config = load_config("v10")
    with pytest.raises(ValidationError):
        config.train.epochs = 5
    assert yaml.safe_load(dump_config(config))["train"]["epochs"] == 20


def test_a_part_of_the_validation_mask_leaves_the_rest():
    validation = load_config("v10", overrides=["mask.validation.rate=0.8"]).mask.validation
    assert validation == MaskPart(name="array_like", rate=0.8)
    validation = load_config("v10", overrides=["mask.validation.name=random"]).mask.validation
    assert validation == MaskPart(name="random", rate=0.9)


def test_no_is_a_precision(write):
    for config in (
        load_config("v10", overrides=["train.precision=no"]),
        load_config(write("train: {precision: no}\n")),
    ):
        assert config.train.precision == "no"
    with pytest.raises(ConfigError, match=r"train\.precision: Input should be"):
        load_config("v10", overrides=["train.precision=yes"])


def test_what_bounds_memory_is_no_part_of_the_shape():
    plain = load_config("v10").model
    for same in ("reference.chunk=512", "reference.chunk_bytes=1000", "encoder.checkpointing=true",
                 "reference.checkpointing=false"):  # fmt: skip
        assert plain.has_shape_of(load_config("v10", overrides=[f"model.{same}"]).model)
    for other in ("encoder.dim=64", "reference.mode=precomputed", "fusion.name=concat"):
        assert not plain.has_shape_of(load_config("v10", overrides=[f"model.{other}"]).model)


@pytest.mark.parametrize("value", ["0", "-3", "some", "1.5"])
def test_a_chunk_is_auto_or_a_number(value):
    with pytest.raises(ConfigError, match=r"model\.reference\.chunk"):
        load_config("v10", overrides=[f"model.reference.chunk={value}"])
    assert load_config("v10", overrides=["model.reference.chunk=7"]).model.reference.chunk == 7
