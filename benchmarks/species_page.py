"""Every kind of organism beside Beagle and Minimac4, as the table of docs/species.md.

Run: python benchmarks/species_page.py [DATA_FOLDER...] -o species-output --markdown docs/species.md
     python benchmarks/species_page.py --results species-output --markdown docs/species.md

All organisms of simulate_species.py are simulated into the output folder, unless they are there
already, and compared as compare.py compares, without times, and so are the data folders. Each
organism's figures are kept in a results.json of its own, and --results writes the table from
these without a run. The table replaces what stands between the
marks of the page. A row tells r2 over all untyped sites; whether ragimpute is ahead is counted in
bins of minor allele frequency, and only where that is more than chance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import compare
import one_line
from comparison_page import is_certain, markdown_table
from simulate_species import SPECIES, write_species

from ragimpute.errors import InputError
from ragimpute.model.checkpoint import write_text

BEGIN, END = "<!-- species_page.py writes from here -->", "<!-- to here -->"
_PEERS = ("Beagle", "Beagle, its ne", "Minimac4")


def rows_of(data: dict) -> list[list[str]]:
    """A row for each density of a data set, as results.json holds it.

    Columns: the data, the target, the panel's haplotypes, r2 of ragimpute and of the peers, in how
    many bins ragimpute is ahead of all of these, and the bins in which it is behind one of them.
    """
    rows = []
    for density in data["densities"]:
        entries = {entry["tool"]: entry["bins"] for entry in density["accuracy"]}
        own = next(name for name in entries if name.startswith("ragimpute"))
        peers = {_column(name): bins for name, bins in entries.items() if name != own}
        known = [
            (row["label"].replace("<=", "≤ "), [bins[i] for bins in peers.values()])
            for i, row in enumerate(entries[own])
            if row["label"] != "all" and row["r2"] is not None
        ]
        ahead = [all(_is_ahead(row) for row in rivals) for _, rivals in known if rivals]
        behind = [label for label, rivals in known if any(_is_behind(row) for row in rivals)]
        rows.append([
            data["name"].replace("_", " "), density["name"].replace("-", ", "),
            f"{data['num_haplotypes']:,}", _r2(entries[own][-1], error=True),
            *(_r2(peers[name][-1]) if name in peers else "-" for name in _PEERS),
            f"{sum(ahead)} of {len(known)}", ", ".join(behind) or "none",
        ])  # fmt: skip
    return rows


def _is_ahead(row: dict) -> bool:
    """Whether ragimpute is ahead of a peer in a bin, by more than chance."""
    return is_certain(row) and row["lead"] > 0


def _is_behind(row: dict) -> bool:
    """Whether ragimpute is behind a peer in a bin, by more than chance."""
    return is_certain(row) and row["lead"] < 0


def _column(tool: str) -> str:
    """The column of a peer."""
    return "Beagle, its ne" if tool.startswith("Beagle, ne ") else tool


def _r2(row: dict, *, error: bool = False) -> str:
    """r2 as text, with its standard error."""
    if row["r2"] is None:
        return "-"
    text = f"{row['r2']:.4f}"
    return f"{text} ± {row['r2_error']:.4f}" if error and row["r2_error"] is not None else text


def table(results: list[dict]) -> str:
    """What stands between the marks."""
    rows = [["data", "target", "panel haplotypes", "ragimpute", *_PEERS, "bins ahead",
             "bins behind"]]  # fmt: skip
    sets = [data for result in results for data in result["data"]]
    rows += [row for data in sets for row in rows_of(data)]
    about = [
        f"- {data['name'].replace('_', ' ')}: {data['about']}" for data in sets if data.get("about")
    ]
    versions = results[0]["versions"]
    said = ", ".join(
        f"{name} {versions[name]}"
        for name in ("ragimpute", "Beagle", "Minimac4")
        if name in versions
    )
    return "\n".join([
        f"{said}; no tool but *Beagle, its ne* is told anything of the species.", "",
        markdown_table(rows, texts=2), "", *about, *([""] if about else []),
    ])  # fmt: skip


def replace_table(page: Path, text: str) -> None:
    """Put a table between the marks of a page.

    Raises
    ------
    InputError
        If the page has not each mark once, in order.
    """
    before = page.read_text(encoding="utf-8")
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in tail or END in head:
        raise InputError(f"{page} must hold {BEGIN!r} and then {END!r}, each once")
    write_text(page, f"{head}{BEGIN}\n\n{text}\n{END}{tail}")


def measure(folders: list[Path], out: Path, beagle_ne: list[str], threads: str) -> None:
    """Compare the tools on data folders, each with figures of its own in a folder of ``out``.

    Parameters
    ----------
    beagle_ne
        As compare.py takes them: "N" for all folders, "NAME=N" for one.
    threads
        Of the tools.
    """
    for folder in folders:
        name = folder.resolve().name
        told = [text for text in beagle_ne if text.rpartition("=")[0] in ("", name)]
        words = [word for text in told for word in ("--beagle-ne", text)]
        words += ["--repeats", "0", "--threads", threads]
        compare.main([str(folder), "-o", str(out / name), *words])


def main(arguments: list[str]) -> None:
    """Simulate, compare, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="*", type=Path, help="further data folders")
    parser.add_argument("-o", "--output", type=Path, help="folder for data and figures")
    parser.add_argument(
        "--results", type=Path, help="write the table from the figures in this folder alone"
    )
    parser.add_argument("--markdown", type=Path, required=True, help="page with the two marks")
    parser.add_argument("--beagle-ne", action="append", default=[], metavar="FOLDER=N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", default="1")
    options = parser.parse_args(arguments)
    if (options.output is None) == (options.results is None):
        parser.error("give either -o or --results")
    folder = options.results or options.output
    if options.results is None:
        for name in SPECIES:
            if not (folder / "data" / name / "benchmark.toml").is_file():
                write_species(name, folder / "data" / name, options.seed)
        data = [*(folder / "data" / name for name in SPECIES), *options.data]
        measure(data, folder, options.beagle_ne, options.threads)
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*/results.json"))
    ]
    if not results:
        raise InputError(f"{folder} holds no */results.json")
    replace_table(options.markdown, table(results))


if __name__ == "__main__":
    one_line.run(main)
