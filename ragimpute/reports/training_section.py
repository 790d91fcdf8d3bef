"""The section of reports about a training run, and its curves as files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ragimpute.accuracy.metrics import MAF_BINS
from ragimpute.reports import plots
from ragimpute.reports.figures import History
from ragimpute.reports.sections import Section, Table
from ragimpute.reports.wording import flat, named_value, number, words

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_NAN = float("nan")
_COLUMNS = {
    "step": "step", "train_loss": "training loss", "val_loss": "validation loss", "lr": "rate",
    "f1": "F1", "precision": "precision", "recall": "recall", "r2_all": "r², all",
    "ls_r2_all": "Li–Stephens", "r2_rare": "r², rare", "ls_r2_rare": "Li–Stephens",
}  # fmt: skip
_LABELS = [f"<={edge:g}" for edge in MAF_BINS[1:]]


def training_plots(history: History) -> list[tuple[str, Figure | None, str, str]]:
    """(file name, figure or None, heading, caption) of each curve."""
    loss = plots.curves(
        history,
        {"train_loss": "training", "val_loss": "validation"},
        label="loss",
        log=_spans(history),
    )
    r2 = {
        "r2_all": "all sites", "ls_r2_all": "all sites, Li–Stephens",
        "r2_rare": "MAF ≤ 0.01", "ls_r2_rare": "MAF ≤ 0.01, Li–Stephens",
    }  # fmt: skip
    calls = {"f1": "F1", "precision": "precision", "recall": "recall"}
    return [
        ("loss", loss, "Loss", "Mean over the batches of an epoch; where validation rises while "
         "training falls, the model overfits."),
        ("r2", plots.curves(history, r2, label="aggregate r²", unit=True,
         dashed=("ls_r2_all", "ls_r2_rare")), "Accuracy on held-out samples",
         "Dashed: plain Li–Stephens copying on the same samples and masks."),
        ("r2_by_maf", _r2_by_maf(history), "Accuracy by allele frequency",
         "At the last epoch, on held-out samples; dashed: plain Li–Stephens copying."),
        ("f1", plots.curves(history, calls, label="minor-allele calls", unit=True),
         "F1, precision and recall", "Of minor alleles called on held-out haplotypes."),
        ("learning_rate", plots.curves(history, {"lr": "learning rate"}, label="learning rate"),
         "Learning rate", "At the end of each epoch."),
    ]  # fmt: skip


def _spans(history: History) -> bool:
    """Whether losses are positive and span more than a factor of 10."""
    losses = [v for key in ("train_loss", "val_loss") for v in plots.series(history, key)[1]]
    return bool(losses) and min(losses) > 0 and max(losses) > 10 * min(losses)


def _r2_by_maf(history: History) -> Figure | None:
    """r2 by MAF bin at the last epoch that has it."""
    for row in reversed(history):
        ours = [row.get(f"r2_{label}", _NAN) for label in _LABELS]
        if all(map(math.isnan, ours)):
            continue
        lines = {"model": ours}
        plain = [row.get(f"ls_r2_{label}", _NAN) for label in _LABELS]
        if not all(map(math.isnan, plain)):
            lines["Li–Stephens"] = plain
        return plots.r2_by_maf(lines, dashed=("Li–Stephens",))
    return None


def train_section(history: History, config_text: str, provenance: Mapping[str, Any]) -> Section:
    """The section about training."""
    section = Section("training", "Training")
    last = history[-1] if history else {}
    if not history:
        section.notes.append("No epoch was completed, so there are no curves.")
    if note := provenance.get("note"):  # it is no better than Li-Stephens copying
        section.notes.append(f"{note[0].upper()}{note[1:]}.")
    section.tile("Epochs", f"{len(history):,}", _steps(last))
    losses, best = plots.series(history, "val_loss")[1], _NAN
    if len(losses):
        best = float(losses.min())
        at = plots.series(history, "val_loss")[0][int(losses.argmin())]
        section.tile("Validation loss", f"{best:.4g}", f"lowest, at epoch {at:.0f}")
    for key, name in (("r2_all", "r², all sites"), ("r2_rare", "r², MAF ≤ 0.01"), ("f1", "F1")):
        value, plain = last.get(key, _NAN), last.get(f"ls_{key}", _NAN)
        if not math.isnan(value):
            against = "" if math.isnan(plain) else f"Li–Stephens {plain:.4f}"
            section.tile(name, number(value, 4), against or "last epoch")
    for _, figure, heading, caption in training_plots(history):
        section.plot(figure, heading, caption, f"{heading} by epoch. {_alt(history, heading)}")
    if history:
        section.tables.append(_history_table(history))
    made = dict(sorted(provenance.items()))
    made.pop("note", None)
    for key, value in provenance.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            section.tables.append(_table_of(words(key).capitalize(), made.pop(key)))
    section.pairs = [("How it was made", flat("", made))]
    if config_text:
        section.texts = [("Configuration (config.yaml)", config_text)]
    return section


def _table_of(caption: str, entries: Sequence[Mapping[str, Any]]) -> Table:
    """A table of entries that have names in common, a row for each; what one lacks is a dash."""
    keys = list(dict.fromkeys(key for one in entries for key in one))
    rows = [
        [str(i + 1), *(named_value(key, one.get(key)) for key in keys)]
        for i, one in enumerate(entries)
    ]
    return Table(caption, ["number", *map(words, keys)], rows)


def _steps(row: Mapping[str, float]) -> str:
    """How many steps were made."""
    step = row.get("step", _NAN)
    return "" if math.isnan(step) else f"{step:,.0f} steps"


def _alt(history: History, heading: str) -> str:
    """The first and the last value of each curve, as text for readers who do not see the plot."""
    of_heading = {
        "Loss": ("train_loss", "val_loss"),
        "Accuracy on held-out samples": ("r2_all", "ls_r2_all", "r2_rare", "ls_r2_rare"),
        "F1, precision and recall": ("f1", "precision", "recall"),
        "Learning rate": ("lr",),
    }
    parts = []
    for key in of_heading.get(heading, ()):
        _, values = plots.series(history, key)
        if len(values):
            parts.append(f"{_COLUMNS[key]} from {values[0]:.4g} to {values[-1]:.4g}")
    return "; ".join(parts) + "." if parts else "The values are in metrics.csv."


def _history_table(history: History) -> Table:
    """The main figures of each epoch."""
    keys = [key for key in _COLUMNS if any(math.isfinite(row.get(key, _NAN)) for row in history)]
    rows = []
    for i, row in enumerate(history):
        cells = [f"{row.get('epoch', i + 1):.0f}"]
        for key in keys:
            value = row.get(key, _NAN)
            if math.isnan(value):
                cells.append("–")
            elif key == "step":
                cells.append(f"{value:,.0f}")
            else:
                cells.append(f"{value:.3g}" if key == "lr" else f"{value:.4f}")
        rows.append(cells)
    head = ["epoch", *(_COLUMNS[key] for key in keys)]
    return Table("Epoch by epoch", head, rows)
