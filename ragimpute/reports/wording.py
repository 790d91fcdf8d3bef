"""How reports name and write things: settings and stages in words, numbers, times, values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

# The settings of a run (the keys of ``ImputeSummary.settings``), in words and with units.
_SETTINGS = {
    "model": "model",
    "correction": "correction of the copies",
    "states": "haplotypes to copy from",
    "ne": "effective population size (ne)",
    "err": "mismatch probability (err)",
    "fields": "FORMAT fields written",
    "digits": "decimals of probabilities",
    "window_cm": "longest window, cM",
    "buffer_cm": "buffer on each side, cM",
    "threads": "threads",
    "seed": "seed of random choices",
    "device": "device of the network",
    "phasing": "phasing of the target",
    "phasing_passes": "passes of phasing",
    "phasing_states": "haplotypes in each step of phasing",
    "resumed": "resumed from an earlier run",
}
# The stages of a run (the keys of ``ImputeSummary.seconds``), in words.
_STAGES = {
    "read": "read the inputs",
    "model": "open the model",
    "phase": "phase the target",
    "retrieve": "find haplotypes to copy",
    "fit": "choose ne and err",
    "quality": "measure the sites",
    "load": "load the network",
    "fine-tune": "fit the network",
    "impute": "impute",
    "copy": "copy haplotypes",
    "network": "apply the network",
    "dosages": "compute AF and DR2",
    "format": "write the rows",
    "compress": "compress the output",
    "write": "write the output",
}
_PACKAGES = {"python": "Python", "numpy": "NumPy", "torch": "PyTorch"}
_UNITS = {"_cm": ", cM", "_mb": ", MiB", "_bp": ", bp", "_seconds": ", seconds"}


def words(name: str) -> str:
    """The name of a setting or figure with spaces; what it is measured in stands at its end.

    Names of counts lose the "num" that they begin with.
    """
    name = name.removeprefix("num_") or name
    for ending, unit in _UNITS.items():
        if name.endswith(ending):
            name = name.removesuffix(ending) + unit
    return name.replace("_", " ")


def setting_name(key: str) -> str:
    """What a reader calls a setting of a run."""
    return _SETTINGS.get(key, words(key))


def stage_name(key: str) -> str:
    """What a reader calls a stage of a run."""
    return _STAGES.get(key, words(key))


def package_name(key: str) -> str:
    """How a package spells its own name."""
    return _PACKAGES.get(key, key)


def by_stage(values: Mapping[str, float]) -> dict[str, float]:
    """Figures by the stage's name in words; those of stages with one name are kept apart."""
    named: dict[str, float] = {}
    for key, value in values.items():
        name = stage_name(key)
        named[f"{name} ({key})" if name in named else name] = value
    return named


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where undefined."""
    return "–" if value is None or math.isnan(value) else f"{value:,.{digits}f}"


def percent(share: float | None) -> str:
    """A share as per cent, or a dash where undefined."""
    return "–" if share is None or math.isnan(share) else f"{share:.1%}"


def duration(seconds: float) -> str:
    """A time in a unit that suits it."""
    if seconds < 120:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def setting(value: object) -> str:
    """The value of a setting as a reader writes it, never as Python does."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, 0) if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        return "; ".join(f"{words(str(key))}: {setting(item)}" for key, item in value.items())
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        parts = [setting(item) for item in value]
        separator = "; " if any(": " in part or ", " in part for part in parts) else ", "
        return separator.join(parts) or "none"
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def named_value(name: str, value: object) -> str:
    """The value of a setting or figure of a name as text; counts have commas, as seeds have not."""
    if name.startswith("num_") and isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return setting(value)


def flat(key: str, value: object) -> list[tuple[str, str]]:
    """Names and values of a tree, a row for each leaf; lists of plain values are one row.

    Empty values are left out.
    """
    if isinstance(value, Mapping):
        return [
            row
            for name, item in value.items()
            for row in flat(f"{key}: {words(str(name))}" if key else words(str(name)), item)
        ]
    if isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        return [
            row
            for i, item in enumerate(value)
            for row in flat(f"{key} {i + 1}" if len(value) > 1 else key, item)
        ]
    if value is None or (isinstance(value, str | list | tuple) and not len(value)):
        return []
    return [(key, setting(value))]
