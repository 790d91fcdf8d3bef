"""The tables and the page of the comparison of fusions, from what results.json holds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from comparison_page import about_table, markdown_table

from ragimpute.model.checkpoint import write_text

#: The forms in which token fusions are trained, in the order of the columns.
LETTERS = ("a", "b", "c")
#: Decimals of the figures: a correction of Li-Stephens differs little from it over all sites.
_DECIMALS = {"r2_all": 5, "ls_r2_all": 5}
_COPYING = ""  # the letter of the copying model, which has a form of its own

_HEAD = """# Fusions

A *fusion* is the part of a model that joins what a target shows with what was retrieved for it;
[the model](model.md#fusing) explains each. This page compares them, each trained in three forms. It
was made on {date}, by

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

_FUSIONS = """## Every fusion in three forms

Panel {name}: {num_haplotypes:,} haplotypes, {num_sites:,} sites in {where}. The forms are:

- **(a) As the original retrieves, with true probabilities.** The preset `v10-small`. Each target
  haplotype retrieves the {a[num_retrieved]} panel haplotypes that are nearest to it in a whole
  window. The network is trained with focal loss (γ {a[gamma]:g}), and what it puts out is made a
  probability by the formula of [the model](model.md#probabilities).
- **(b) Retrieval by site.** The same, but each haplotype retrieves {b[num_retrieved]} haplotypes at
  each site: those that Li–Stephens copying finds most probable there. Where the minor allele is
  rare, {b[num_carriers]} of these places are for its most probable carriers. The more probable a
  retrieved haplotype is, the more it weighs in the fusion. The network is told no more of copying
  than that.
- **(c) A correction of Li–Stephens.** The preset `v10-rag-small`, which retrieves as (b) does. The
  network starts from the probability that Li–Stephens copying gives. Where that is in doubt, it
  learns by cross-entropy what to add to its logit. It also reads how probable each retrieved
  haplotype is and how long it matches the target. The embeddings of what is retrieved are looked
  up.

All were trained on windows of at most {a[max_sites]} sites in batches of {a[batch_size]}, for
{steps} steps, with the same array-like masks and the same seed. The network is that of the preset:
D {a[dim]} and {a[num_layers]} layers in (a) and (b), D {c[dim]} and {c[num_layers]} in (c).

Figures are those of the last epoch, on held-out samples of whom an array-like tenth of the sites is
left. The samples, the sites and the masks are the same in the three forms. *LS* is plain
Li–Stephens on them. There are two, because copying sees only the window in (a), but in (b) and (c)
also what lies up to {b[buffer_cm]:g} cM beside it. *Rare* means a MAF of at most 1 %, and a dash
that there is no such figure.

`copying` is the preset `default`. It is another family, which also corrects Li–Stephens, and so it
stands under (c). It takes as many steps, but its batches are sites in doubt, and its arrays are as
dense as that tenth and drawn anew over the whole panel (which its time of a step leaves out). So
it has an *LS* of its own to be compared with. The row with another seed also holds out other
samples, and so has an *LS* of its own, too.
"""

_SIZES = """### Size

Forms (a) and (b) have the same parameters.
"""

_REFERENCES = """## References read or looked up

`v10-small` reads what is retrieved in every step. `embedding-rag-small` encodes a haplotype in a
window when it is first asked for in an epoch, and looks it up from then on. The table compares
one whole epoch of each, on the first {num_sites:,} sites of the panel, in batches of 8. The time
of encoding counts. `v10-small` keeps all activations of what it reads; `v10` recomputes them
(`reference.checkpointing`).
"""


def fusion_table(results: dict) -> list[list[str]]:
    """A header and a row for each fusion: r2 and seconds a step in each form, beside LS."""
    forms = [f"({letter})" for letter in LETTERS]
    header = ["fusion"]
    for name, ls in (("r²", "LS"), ("rare r²", "rare LS")):
        header += [f"{name} {form}" for form in forms] + [f"{ls} (a)", f"{ls} (b), (c)"]
    rows = [header + [f"s / step {form}" for form in forms]]
    for row in results["fusions"]:
        cells = [_name(row)]
        for name in ("r2_all", "r2_rare"):
            cells += [_figure(row, letter, name) for letter in LETTERS]
            beside = "b" if "b" in row["forms"] else "c"
            cells += [_figure(row, letter, f"ls_{name}") for letter in ("a", beside)]
        found = [_found(row, letter) for letter in LETTERS]
        cells += [f"{one['step_cpu_s']:.3f}" if one else "-" for one in found]
        rows.append(cells)
    return rows


def size_table(results: dict) -> list[list[str]]:
    """A header and a row for each fusion: parameters, and the memory of training in each form."""
    rows = [["fusion", "parameters (a), (b)", "parameters (c)",
             *(f"MiB ({letter})" for letter in LETTERS)]]  # fmt: skip
    for row in results["fusions"]:
        found = {letter: _found(row, letter) for letter in LETTERS}
        parameters = [found[letter] for letter in "ac"]
        rows.append([
            _name(row), *(f"{one['parameters']:,}" if one else "-" for one in parameters),
            *(f"{_extra_mib(one):.0f}" if one else "-" for one in found.values()),
        ])  # fmt: skip
    return rows


def reference_table(results: dict) -> list[list[str]]:
    """A header and a row for each K and window: steps per second and memory of both modes."""
    rows = [["K", "window", "read, steps / s", "looked up, steps / s", "times as fast",
             "read, MiB", "looked up, MiB"]]  # fmt: skip
    for row in results["references"]:
        read, kept = row["tokens"], row["precomputed"]
        rates = [1 / mode["step_cpu_s"] for mode in (read, kept)]
        rows.append([
            str(row["num_retrieved"]), str(row["max_sites"]), *(f"{rate:.2f}" for rate in rates),
            f"{rates[1] / rates[0]:.2f}", *(f"{_extra_mib(mode):.0f}" for mode in (read, kept)),
        ])  # fmt: skip
    return rows


def findings(results: dict) -> list[str]:
    """Sentences that say what the table of fusions says, as Markdown list items."""
    rows = [row for row in results["fusions"] if not row["extra"] and "a" in row["forms"]]
    said = [_about_form(rows, letter) for letter in LETTERS]
    said.append(_about_change(rows, "a", "b", "Retrieval by site, (b) in place of (a),"))
    said.append(
        _about_change(rows, "b", "c", "The correction of Li–Stephens, (c) in place of (b),")
    )
    said.append(_about_seeds(results["fusions"]))
    return [f"- {text}" for text in said if text]


def _about_form(rows: Sequence[dict], letter: str) -> str:
    """How the fusions do in one form."""
    known = {_name(row): r2 for row in rows if (r2 := _known(row, letter, "r2_all")) is not None}
    if not known:
        return ""
    leads = [lead for row in rows if (lead := _lead(row, letter, "r2_all")) is not None]
    num_ahead = sum(lead > 0 for lead in leads)
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    text = f"Under ({letter}), {num_ahead} of {len(rows)} token fusions pass Li–Stephens"
    text += f", by up to {max(leads):.5f}" if num_ahead else ""
    return (
        f"{text}. The highest r² is {known[best]:.5f} ({best}), the lowest {known[worst]:.5f} "
        f"({worst})."
    )


def _about_change(rows: Sequence[dict], before: str, after: str, what: str) -> str:
    """What one form changes in another, over the fusions."""
    parts = []
    for name, words in (("r2_all", "r²"), ("r2_rare", "rare r²")):
        pairs = [(_known(row, before, name), _known(row, after, name)) for row in rows]
        change = [y - x for x, y in pairs if x is not None and y is not None]
        if change:
            parts.append(
                f"{words} by {statistics.fmean(change):+.4f} on average ({min(change):+.4f} to "
                f"{max(change):+.4f})"
            )
    return f"{what} changes {' and '.join(parts)} over the token fusions." if parts else ""


def _about_seeds(rows: Sequence[dict]) -> str:
    """How much the distance to Li-Stephens differs between two seeds."""
    by = {row["extra"]: row for row in rows if row["fusion"] == "enhanced_rare_variant"}
    told = []
    for letter in LETTERS if {"", "another seed"} <= set(by) else ():
        leads = [_lead(by[extra], letter, "r2_all") for extra in ("", "another seed")]
        if leads[0] is not None and leads[1] is not None:
            told.append(f"{abs(leads[1] - leads[0]):.5f} under ({letter})")
    if not told:
        return ""
    return (
        "With another seed, the distance from `enhanced_rare_variant` to Li–Stephens changes by "
        f"{', '.join(told)}. Two rows of a form that differ by less need not really differ."
    )


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
    first = results["fusions"][0]["forms"]["a"]
    where = f"{data['contig']}:{data['first_bp']:,}-{data['last_bp']:,}"
    parts = [
        _HEAD.format(
            date=results["date"], command=results["command"], start_mib=first["start_mib"],
            about=about_table(results["machine"], results["versions"]),
        ),
        *(f"- {note}\n" for note in results["notes"]),
        _FUSIONS.format(where=where, steps=first["steps"], **data, **results["forms"]),
        markdown_table(fusion_table(results)) + "\n",
        "What the table says:\n",
        "\n".join(findings(results)) + "\n",
        _SIZES,
        markdown_table(size_table(results)) + "\n",
        _REFERENCES.format(**results["part"]),
        markdown_table(reference_table(results)) + "\n",
    ]  # fmt: skip
    write_text(path, "\n".join(parts))


def _name(row: dict) -> str:
    """A row's fusion, and what is added to it."""
    return f"`{row['fusion']}`" + (f" + {row['extra']}" if row["extra"] else "")


def _found(row: dict, letter: str) -> dict | None:
    """What was found of a form; that of the copying model stands under (c)."""
    forms: dict[str, dict] = row["forms"]
    return forms.get(letter) or (forms.get(_COPYING) if letter == "c" else None)


def _known(row: dict, letter: str, name: str) -> float | None:
    """A figure; None where there is none."""
    found = _found(row, letter)
    value: float | None = found["figures"][name] if found else None
    return value


def _figure(row: dict, letter: str, name: str) -> str:
    """A figure as text."""
    value = _known(row, letter, name)
    return "-" if value is None else f"{value:.{_DECIMALS.get(name, 4)}f}"


def _lead(row: dict, letter: str, name: str) -> float | None:
    """A figure less that of Li-Stephens on the same sites."""
    ours, plain = _known(row, letter, name), _known(row, letter, f"ls_{name}")
    return None if ours is None or plain is None else ours - plain


def _extra_mib(found: dict) -> float:
    """Peak memory of a training less what was there before it began, MiB."""
    return float(found["peak_mib"] - found["start_mib"])
