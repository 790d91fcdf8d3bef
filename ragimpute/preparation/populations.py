"""The table of samples and populations that ``prepare --populations`` reads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from ragimpute.errors import InputError
from ragimpute.sites import some_names

logger = logging.getLogger(__name__)

_SAMPLE_NAMES = {"sample", "samples", "#iid", "iid", "id", "sample_id", "sample name", "individual"}

_POPULATION_NAMES = {"pop", "population", "population_code", "population code", "group", "cluster"}


def read_populations(
    path: str | Path,
    samples: Sequence[str],
    *,
    known: Collection[str] | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> dict[str, str]:
    """Read a table of samples and their populations.

    Columns are separated by tabs (where there is one in the table) or blanks. A header may
    name them, as in 1000 Genomes ("sample pop super_pop gender"); without one, the first column is
    the sample and the second its population. Other columns are passed over.

    Parameters
    ----------
    path
        The table, plain text.
    samples
        The panel's samples.
    known
        Names that populations may have: the first column that holds nothing else is theirs.
    warn
        Called with one line if the table names samples that the panel lacks.

    Returns
    -------
    Population of each of ``samples``.

    Raises
    ------
    InputError
        If the table is missing, empty or not text, has blanks between its columns though names of
        panel samples hold blanks, a line has too few columns, a sample is given
        two populations, or a panel sample is not in it.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"population table {path} is not text") from error
    except OSError as error:
        raise InputError(f"population table {path} cannot be read: {error.strerror}") from error
    rows = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise InputError(f"population table {path} is empty", hint="two columns: sample population")
    every = set(samples)
    separator = "\t" if any("\t" in line for _, line in rows) else None
    blank = next((name for name in samples if len(name.split()) != 1 or name != name.strip()), None)
    if separator is None and blank is not None:
        raise InputError(
            f"population table {path} has blanks between its columns, and so has the name of panel "
            f"sample {blank!r}",
            hint="put tabs between the columns",
        )
    table = [
        (n, [cell if cell in every else cell.strip() for cell in line.split(separator)])
        for n, line in rows
    ]

    sample_column, population_column = 0, 1
    header = [cell.lower() for cell in table[0][1]]
    named = [i for i, cell in enumerate(header) if cell in _SAMPLE_NAMES]
    if named and not set(table[0][1]) & every:
        sample_column = named[0]
        named_so = [i for i, cell in enumerate(header) if cell in _POPULATION_NAMES]
        rest = [i for i in range(len(header)) if i != sample_column]
        if not named_so and not rest:
            raise InputError(f"population table {path} has no column of populations")
        population_column = (named_so or rest)[0]
        table = table[1:]
    if known is not None:
        population_column = _column_of(known, path, table, sample_column)

    population_of: dict[str, str] = {}
    for number, cells in table:
        if len(cells) <= max(sample_column, population_column) or not cells[population_column]:
            raise InputError(
                f"population table {path}, line {number}: expected a sample and its population, "
                f"found {' '.join(cells)!r}"
            )
        name, population = cells[sample_column], cells[population_column]
        if population_of.setdefault(name, population) != population:
            raise InputError(
                f"population table {path}, line {number}: sample {name} is {population} here, "
                f"but {population_of[name]} above"
            )
    without = [name for name in samples if name not in population_of]
    if without:
        raise InputError(
            f"population table {path} lacks {len(without):,} of {len(samples):,} panel samples: "
            f"{some_names(without)}",
            hint=f"its samples are named like {some_names(list(population_of))}",
        )
    unknown = [name for name in population_of if name not in every]
    if unknown:
        warn(
            f"population table {path.name} names {len(unknown):,} samples that the panel lacks: "
            f"{some_names(unknown)}"
        )
    return {name: population_of[name] for name in samples}


def _column_of(
    known: Collection[str], path: Path, table: list[tuple[int, list[str]]], sample_column: int
) -> int:
    """The first column beside the samples' that holds names of populations only."""
    width = min((len(cells) for _, cells in table), default=0)
    for column in range(width):
        if column != sample_column and all(cells[column] in known for _, cells in table):
            return column
    raise InputError(
        f"population table {path} has no column that holds nothing but {some_names(sorted(known))}",
        hint="give the table that the populations' numbers were made of",
    )
