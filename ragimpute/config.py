"""All settings that change a result: pydantic models of the YAML presets, and how these are read.

YAML holds what changes results; command-line flags hold how a run is done. Unknown keys are
errors. A file may say ``extends: NAME``, a preset or a file beside it, and then holds only what
differs from that.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ragimpute.errors import ConfigError
from ragimpute.presets import DROPPED, models_dir, preset_names

FusionName = Literal[
    "enhanced_rare_variant",
    "log1p_maf",
    "rare_variant_aware",
    "dynamic_gate",
    "cross_attention",
    "concat",
    "fixed_concat",
    "copying",
]
MaskName = Literal["random", "array_like", "maf_guided", "ld_guided"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class _Group(BaseModel):
    """A group of settings: no unknown keys, no changes after reading, no infinities and no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class EmbeddingConfig(_Group):
    """What goes into a site's vector beside its allele."""

    position_cm: bool = True  # continuous genetic position
    order: bool = True  # rank of the site within its window
    af: bool = True  # global and population allele frequency
    position_cnn: bool = False  # convolution over gaps between sites


class EncoderConfig(_Group):
    """The transformer over the sites of a window."""

    dim: int = Field(default=128, ge=4)
    num_layers: int = Field(default=8, ge=1)
    num_heads: int = Field(default=4, ge=1)
    mlp_ratio: Positive = 4.0
    dropout: float = Field(default=0.1, ge=0, lt=1)
    checkpointing: bool = False

    @model_validator(mode="after")
    def _heads_divide(self) -> EncoderConfig:
        if self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        return self


class ReferenceConfig(_Group):
    """How retrieved haplotypes are encoded."""

    mode: Literal["tokens", "precomputed"] = "tokens"
    refresh: Literal["epoch", "once"] = "epoch"  # when precomputed embeddings are made again
    # A number: max(1, chunk // L) haplotypes are encoded at a time; auto: as many as fit.
    chunk: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    chunk_bytes: int | None = Field(default=None, ge=1)  # auto: what may be used; None: by device
    checkpointing: bool = True
    # Looked-up embeddings serve all targets. With frequencies in them they tell a panel sample its
    # own rare alleles in training, which they cannot tell a target.
    af: bool = True


class FusionConfig(_Group):
    """How retrieved haplotypes change the encoding of the target."""

    name: FusionName = "enhanced_rare_variant"
    residual_scale: Positive = 0.1
    rare_weight_max: Positive = 10.0
    haplotype_attention: bool = False  # attention between the two haplotypes of a sample


class CopyingNetConfig(_Group):
    """The residual network of the ``copying`` fusion, and how its evidence is collected."""

    width: int = Field(default=64, ge=4)
    num_context_layers: int = Field(default=0, ge=0)  # transformer layers over the sites in doubt
    num_heads: int = Field(default=4, ge=1)
    doubt: float = Field(default=0.01, gt=0, lt=0.5)
    max_context: int = Field(default=64, ge=2)  # sites in doubt that see each other
    # States that are read one by one, half of them carriers, half others; 0: none.
    num_set_tokens: int = Field(default=0, ge=0, le=48, multiple_of=2)
    set_dim: int = Field(default=24, ge=4)
    set_heads: int = Field(default=4, ge=1)


class HeadsConfig(_Group):
    """Which outputs a token model has beside the haplotype alleles."""

    genotype: bool = True
    reconstruction: bool = True  # the vectors that the reconstruction loss compares


class LiStephensConfig(_Group):
    """What a token model takes from Li-Stephens copying."""

    offset: bool = False  # its logit is where the network starts from: h_ori
    # and the network corrects it where the less likely allele has more than this probability
    doubt: float = Field(default=0.005, gt=0, lt=0.5)
    features: bool = False  # posteriors and match lengths of what is retrieved by site


class ModelConfig(_Group):
    """The parts of BERTWithRAG."""

    embedding: EmbeddingConfig = EmbeddingConfig()
    encoder: EncoderConfig = EncoderConfig()
    reference: ReferenceConfig = ReferenceConfig()
    fusion: FusionConfig = FusionConfig()
    copying: CopyingNetConfig = CopyingNetConfig()
    li_stephens: LiStephensConfig = LiStephensConfig()
    heads: HeadsConfig = HeadsConfig()

    def has_shape_of(self, other: ModelConfig) -> bool:
        """Whether two models have the same parts; what only bounds memory may differ."""
        return self._in_plain() == other._in_plain()

    def _in_plain(self) -> ModelConfig:
        """The config with the default of every setting that bounds memory and nothing else."""
        encoder = self.encoder.model_copy(update={"checkpointing": False})
        reference = ReferenceConfig(mode=self.reference.mode, refresh=self.reference.refresh)
        return self.model_copy(update={"encoder": encoder, "reference": reference})


#: Haplotypes that can be retrieved by site.
MAX_BY_SITE = 32


class DataConfig(_Group):
    """Training and validation examples."""

    max_sites: int = Field(default=1020, ge=8, le=1020)
    # tokens: "window": the nearest haplotypes of a window; "site": the most probable of each site
    retrieval: Literal["window", "site"] = "window"
    num_retrieved: int = Field(default=3, ge=1)
    num_carriers: int = Field(default=0, ge=0)  # site: of these, for carriers of a rare allele
    max_states: int = Field(default=6000, ge=2)  # site: haplotypes among which they are sought
    buffer_cm: Positive = 1.0  # site: copying sees so far beyond an index window
    validation_share: float = Field(default=0.1, gt=0, lt=1)
    max_validation_samples: int = Field(default=64, ge=1)
    windows_per_epoch: int | None = Field(default=None, ge=1)  # None: every window for every sample
    typed_per_mb: tuple[Positive, Positive] = (50.0, 1500.0)  # range of array densities, ascending
    num_arrays: int = Field(default=4, ge=1)  # copying: arrays drawn each epoch
    short_arrays: int = Field(default=0, ge=0)  # copying: of these, on short stretches of the panel
    max_haplotypes: int = Field(default=600, ge=2)  # copying: haplotypes left out for each array
    max_pairs: int = Field(default=600_000, ge=1)  # copying: sites in doubt kept of each array
    epochs_per_draw: int = Field(default=1, ge=1)  # copying: epochs that share their arrays
    num_workers: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ascending(self) -> DataConfig:
        low, high = self.typed_per_mb
        if low > high:
            raise ValueError(f"typed_per_mb {low}, {high} is not ascending")
        if self.retrieval == "site" and self.num_retrieved > MAX_BY_SITE:
            raise ValueError(
                f"num_retrieved {self.num_retrieved} is more than the {MAX_BY_SITE} haplotypes "
                "that are retrieved by site"
            )
        if self.num_carriers >= self.num_retrieved:
            raise ValueError(
                f"num_carriers {self.num_carriers} leaves none of num_retrieved "
                f"{self.num_retrieved} for the most probable haplotypes"
            )
        return self


class MaskPart(_Group):
    """One kind of mask, how often it is drawn, and how many sites it hides.

    ``typed_per_mb`` takes the place of ``rate``: a range of numbers of sites in a Mb that stay
    typed, as those of arrays, whatever share of the panel's sites they are.
    """

    name: MaskName = "random"
    weight: Positive = 1.0
    rate: Share = 0.5
    typed_per_mb: tuple[Positive, Positive] | None = None

    @model_validator(mode="after")
    def _ascending(self) -> MaskPart:
        if self.typed_per_mb is not None:
            low, high = self.typed_per_mb
            if low > high:
                raise ValueError(f"typed_per_mb {low}, {high} is not ascending")
        return self


class CurriculumConfig(_Group):
    """Every so many epochs the share of hidden sites is raised, up to a limit."""

    every_epochs: int = Field(default=0, ge=0)  # 0: never
    step: Share = 0.1
    max_rate: Share = 0.9


class MaskConfig(_Group):
    """Which sites a training example hides: a mixture of masks, and its curriculum."""

    parts: tuple[MaskPart, ...] = (
        MaskPart(name="random", weight=1.0, rate=0.5),
        MaskPart(name="array_like", weight=1.0, rate=0.9),
    )
    curriculum: CurriculumConfig = CurriculumConfig()
    ld_r2: Share = 0.8
    validation: MaskPart = MaskPart(name="array_like", weight=1.0, rate=0.9)

    @field_validator("validation", mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        # Without this, --set mask.validation.rate=0.8 would also make the mask a random one.
        return {"name": "array_like", "rate": 0.9, **value} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _has_parts(self) -> MaskConfig:
        if not self.parts:
            raise ValueError("parts is empty: name at least one mask")
        return self


class LossConfig(_Group):
    """A weighted sum of losses over hidden sites."""

    reduction: Literal["mean", "sum"] = "mean"  # over the sites of a batch
    kind: Literal["focal", "cross_entropy"] = "focal"
    gamma: float = Field(default=5.0, ge=0)
    gamma_schedule: tuple[NotNegative, ...] = ()  # a value for each epoch; the last one stays
    haplotype_fused: float = Field(default=1.0, ge=0)
    haplotype_ori: float = Field(default=1.0, ge=0)
    genotype: float = Field(default=1.0, ge=0)
    reconstruction: float = Field(default=0.0, ge=0)
    rare_weight: Literal["none", "inverse_maf", "log1p"] = "none"
    rare_weight_max: Positive = 10.0


class OptimizerConfig(_Group):
    """Adam or AdamW."""

    name: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-5
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    weight_decay: float = Field(default=0.01, ge=0)
    fused: bool = True  # on CUDA; elsewhere of no effect


class ScheduleConfig(_Group):
    """The learning rate over the steps of a run."""

    name: Literal["inverse_sqrt", "cosine", "constant"] = "inverse_sqrt"
    warmup_steps: int = Field(default=20_000, ge=0)
    # If set, the warm-up is this share of the run's steps, whatever warmup_steps says.
    warmup_share: float | None = Field(default=None, ge=0, lt=1)
    min_factor: Share = 0.0


class EarlyStoppingConfig(_Group):
    """Which validation figure chooses the best epoch, and how long it may fail to improve."""

    metric: Literal["r2_rare", "r2_all", "f1", "loss"] = "r2_rare"
    patience: int = Field(default=5, ge=0)  # epochs; 0: never stop early


class TrackerConfig(_Group):
    """Trackers beside TensorBoard, which is always written."""

    wandb: bool = False
    wandb_project: str = "ragimpute"
    mlflow: bool = False
    mlflow_experiment: str = "ragimpute"


class TrainConfig(_Group):
    """The training loop."""

    seed: int = Field(default=1, ge=0)
    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=1)
    accumulation: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    clip: float = Field(default=1.0, ge=0)  # 0: no clipping
    precision: Literal["no", "fp16", "bf16"] = "no"
    tf32: bool = True  # on CUDA; elsewhere of no effect
    compile: bool = False
    log_every: int = Field(default=1000, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_epochs: bool = False  # keep the weights of every epoch, beside the best and the last
    early_stopping: EarlyStoppingConfig = EarlyStoppingConfig()
    trackers: TrackerConfig = TrackerConfig()

    @field_validator("precision", mode="before")
    @classmethod
    def _no_is_a_word(cls, value: Any) -> Any:
        return "no" if value is False else value  # YAML 1.1 reads a bare no as false


class RunConfig(_Group):
    """All settings of a training run."""

    name: str = "unnamed"
    description: str = ""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    mask: MaskConfig = MaskConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> RunConfig:
        given = self.model.li_stephens
        if given.features and self.data.retrieval != "site":
            raise ValueError("model.li_stephens.features needs data.retrieval: site")
        if given.offset and self.loss.kind == "focal" and self.loss.gamma > 0:
            raise ValueError(
                "model.li_stephens.offset needs loss.kind: cross_entropy, as the logits of copying "
                "are those of probabilities"
            )
        return self


# A setting that is given later than another of its group, and so takes its place.
_INSTEAD_OF = {"warmup_steps": "warmup_share"}


def load_config(name_or_path: str | Path, *, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a preset or a YAML file, and check it whole.

    Parameters
    ----------
    name_or_path
        A shipped preset's name, a YAML file, or a folder that holds config.yaml.
    overrides
        ``key=value`` with dots between levels, e.g. "train.epochs=3"; values are YAML.

    Raises
    ------
    ConfigError
        If a file cannot be read, or anything in it is unknown or out of range: all problems in
        one message.
    """
    tree = _read_tree(name_or_path, ())
    for override in overrides:
        _apply_override(tree, override)
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        problems = [_problem(item) for item in error.errors()]
        raise ConfigError(
            f"config {name_or_path}: " + "; ".join(problems),
            hint="see docs/training.md for every key, or start from a preset: "
            + ", ".join(preset_names()),
        ) from None


def dump_config(config: RunConfig) -> str:
    """A config as YAML text that :func:`load_config` reads back."""
    out: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return out


def _read_tree(name_or_path: str | Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """A file's settings on top of those of the preset that it extends."""
    path = _find(name_or_path)
    if str(path) in seen:
        raise ConfigError(
            f"config {path} extends itself, by way of {' and '.join(seen[1:]) or 'itself'}",
            hint="remove one of the 'extends' lines",
        )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} cannot be read: {error}") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"config {path} is not valid YAML{where}", hint="check indentation and colons"
        ) from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict) or not all(isinstance(key, str) for key in tree):
        raise ConfigError(f"config {path} is not a mapping of settings", hint="write 'key: value'")
    base = tree.pop("extends", None)
    if base is None:
        return tree
    beside = path.parent / str(base)
    found = beside if beside.is_file() else str(base)
    return _merge(_read_tree(found, (*seen, str(path))), tree)


def _find(name_or_path: str | Path) -> Path:
    """The YAML file that a name or path stands for."""
    path = Path(name_or_path)
    if path.is_dir() and (path / "config.yaml").is_file():
        return path / "config.yaml"
    if path.is_file():
        return path
    preset = models_dir() / str(name_or_path) / "config.yaml"
    if "/" not in str(name_or_path) and preset.is_file():
        return preset
    if str(name_or_path) in DROPPED:
        instead = DROPPED[str(name_or_path)]
        raise ConfigError(
            f"there is no preset {name_or_path} any more; {instead} is as accurate, in half the "
            "time",
            hint=f"use {instead}",
        )
    close = difflib.get_close_matches(str(name_or_path), preset_names(), 1)
    raise ConfigError(
        f"config {name_or_path} is neither a file nor a preset",
        hint=(f"did you mean {close[0]}? " if close else "")
        + f"presets: {', '.join(preset_names())}",
    )


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` on top of ``below``, group by group."""
    replaced = {_INSTEAD_OF[key] for key in above if key in _INSTEAD_OF}
    merged = {key: value for key, value in below.items() if key not in replaced}
    for key, value in above.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[key] = _merge(old, value) if both and isinstance(old, dict) else value
    return merged


def _apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one ``key=value`` in a tree of settings."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override!r} is not key=value", hint="e.g. train.epochs=3")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from error
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 1e-3 as text
            value = float(value)
    *groups, last = key.strip().split(".")
    for group in groups:
        inner = tree.setdefault(group, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {override!r}: {group} is not a group of settings")
        tree = inner
    tree[last] = value
    tree.pop(_INSTEAD_OF.get(last, ""), None)


def _problem(item: Any) -> str:
    """One of pydantic's errors as a clause, with the key that may have been meant."""
    place = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{place}: {item['msg'].removeprefix('Value error, ')} (found {item['input']!r})"
    known = _keys_at(item["loc"][:-1])
    close = difflib.get_close_matches(str(item["loc"][-1]), known, 1)
    return f"{place} is not a setting" + (f" (did you mean {close[0]}?)" if close else "")


def _keys_at(place: Sequence[Any]) -> list[str]:
    """The settings of a group."""
    model: type[BaseModel] = RunConfig
    for part in place:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return list(MaskPart.model_fields) if "parts" in place else []
        model = inner
    return list(model.model_fields)
