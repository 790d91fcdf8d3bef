"""The tables and the page of the comparison of fusions, from what results.json holds."""

from __future__ import annotations

from pathlib import Path

from comparison_page import about_table, markdown_table

from ragimpute.model.checkpoint import write_text

_HEAD = """# Fusions

A *fusion* is the part of a model that joins what a target shows with what was retrieved for it;
[the model](model.md#fusing) explains each. This page compares them. It was made on {date}, by

```bash not-run
{command}
```

The models are small and trained on a CPU. They show what a fusion costs and how soon it learns,
but not what it would reach at the size of the original, after days on a GPU. Each model was
trained by a process of its own, on one thread. Times are CPU times (user and system) of training
steps, with the making of their batches. Memory is the peak of resident memory, less what Python
and its libraries hold before training ({start_mib:.0f} MiB).

| | |
|---|---|
{about}
"""

_FUSIONS = """## Every fusion

Panel {name}: {num_haplotypes:,} haplotypes, {num_sites:,} sites in {where}. The form is
`v10-small` with windows of 128 sites: D 32, 2 layers, 4 heads, K 3, focal loss with γ 2, batches
of 8, {steps} steps. Figures are those of the last epoch, on held-out samples of whom an
array-like tenth of the sites is left. *LS* is plain Li–Stephens with the same sites, and *rare*
means a MAF of at most 1 %.

`copying` is the preset `default`. It takes as many steps, but its batches are sites in doubt, and
its arrays are as dense as that tenth and drawn anew over the whole panel. So it has an *LS* of
its own to be compared with. One row has another seed, which also holds out other samples: rows
that differ by no more than these two rows do not really differ.
"""

_REFERENCES = """## References read or looked up

`v10-small` reads what is retrieved in every step. `embedding-rag-small` encodes a haplotype in a
window when it is first asked for in an epoch, and looks it up from then on. The table compares
one whole epoch of each, on the first {num_sites:,} sites of the panel, in batches of 8. The time
of encoding counts. `v10-small` keeps all activations of what it reads; `v10` recomputes them
(`reference.checkpointing`).
"""


def fusion_table(results: dict) -> list[list[str]]:
    """A header and a row for each form."""
    rows = [["fusion", "parameters", "memory, MiB", "s / step",
             "r²", "LS r²", "rare r²", "LS rare r²", "F1"]]  # fmt: skip
    for row in results["fusions"]:
        figures = row["figures"]
        name = f"`{row['fusion']}`" + (f" + {row['extra']}" if row["extra"] else "")
        names = ("r2_all", "ls_r2_all", "r2_rare", "ls_r2_rare", "f1")
        rows.append([
            name, f"{row['parameters']:,}", f"{_extra_mib(row):.0f}", f"{row['step_cpu_s']:.3f}",
            *("-" if figures[k] is None else f"{figures[k]:.4f}" for k in names),
        ])  # fmt: skip
    return rows


def reference_table(results: dict) -> list[list[str]]:
    """A header and a row for each K and window: steps per second and memory of both modes."""
    rows = [["K", "window", "read, steps / s", "looked up, steps / s", "times as fast",
             "read, MiB", "looked up, MiB"]]  # fmt: skip
    for row in results["references"]:
        read, kept = row["tokens"], row["precomputed"]
        rates = [1 / mode["mean_step_cpu_s"] for mode in (read, kept)]
        rows.append([
            str(row["num_retrieved"]), str(row["max_sites"]), *(f"{rate:.2f}" for rate in rates),
            f"{rates[1] / rates[0]:.2f}", *(f"{_extra_mib(mode):.0f}" for mode in (read, kept)),
        ])  # fmt: skip
    return rows


def write_page(results: dict, path: Path) -> None:
    """Write the page.

    Parameters
    ----------
    results
        What results.json holds.
    path
        The page.
    """
    data = results["data"]
    first = results["fusions"][0]
    where = f"{data['contig']}:{data['first_bp']:,}-{data['last_bp']:,}"
    parts = [
        _HEAD.format(
            date=results["date"], command=results["command"], start_mib=first["start_mib"],
            about=about_table(results["machine"], results["versions"]),
        ),
        *(f"- {note}\n" for note in results["notes"]),
        _FUSIONS.format(where=where, steps=first["steps"], **data),
        markdown_table(fusion_table(results)) + "\n",
        _REFERENCES.format(**results["part"]),
        markdown_table(reference_table(results)) + "\n",
    ]  # fmt: skip
    write_text(path, "\n".join(parts))


def _extra_mib(row: dict) -> float:
    """Peak memory of a training less what was there before it began, MiB."""
    return row["peak_mib"] - row["start_mib"]
