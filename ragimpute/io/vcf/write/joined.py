"""Write sites that are ALTs of one locus as one record, with FORMAT and INFO numbers for each ALT.

The numbers are those of the split records, rounded alike; GP is of the genotypes of all alleles, in
the order of the VCF specification: 0/0, 0/1, 1/1, 0/2, 1/2, 2/2, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ragimpute.io.imputed import NO_CALL
from ragimpute.io.vcf.header import SINGLE_INFOS, TYPED, Field
from ragimpute.io.vcf.site_info import declared_fields, joined_info
from ragimpute.io.vcf.write.bcf import FLOAT_END, FLOAT_MISSING, INT8_END
from ragimpute.io.vcf.write.info_text import NumberColumn
from ragimpute.io.vcf.write.sample_text import number_texts
from ragimpute.sites import Sites
from ragimpute.symbolic import is_symbolic

# GT of more ALTs does not fit into the bytes of a BCF; such loci are written as split records.
MAX_ALTS = 62
_MISSING, _END = -1, -2  # among units of the last decimal

# A field's name, and shape (N, numbers): in units of the last decimal, or alleles for GT; -1
# missing, -2 no number.
Values = tuple[str, np.ndarray]


class JoinedRows(NamedTuple):
    """Records of k ALTs each.

    Attributes
    ----------
    leader
        Shape (g,), int: the row of each record's first ALT, in whose place it is written.
    sites
        g sites, whose ALTs are separated by commas.
    allele_prob, called
        Shape (g, k, N, 2), as in ``ImputedBlock``.
    info
        The INFO numbers, with k for each record.
    typed
        Shape (g,): the number of each record's flag.
    both
        Shape (g, k, N), as in ``ImputedBlock``, or None.
    """

    leader: np.ndarray
    sites: Sites
    allele_prob: np.ndarray
    called: np.ndarray
    info: dict[str, NumberColumn]
    typed: np.ndarray
    both: np.ndarray | None


def joinable(locus: np.ndarray, sites: Sites, declarations: Sequence[str]) -> np.ndarray:
    """The loci of whose sites one record can tell: what INFO says of the alleles is of a record.

    Sites whose INFO differs, but for fields that have a value for each ALT, stay apart; and so do
    symbolic alleles that have not the ID of the others: only those of one record of the panel are
    joined, such as <CN0>,<CN2>.

    Parameters
    ----------
    locus
        Shape (m,), int: as in ``ImputedBlock``.
    sites
        m sites.
    declarations
        Header lines that declare the fields of ``sites.info``.

    Returns
    -------
    Shape (m,), int: the same or other numbers; -1 where a site is alone.
    """
    rows = np.flatnonzero(locus >= 0)
    info = None if sites.info is None else sites.info
    symbolic = [is_symbolic(alt) for alt in sites.alt[rows].tolist()]
    if not any(symbolic) and (info is None or not info[rows].any()):
        return locus
    fields = declared_fields(declarations)
    groups: dict[int, list[list[int]]] = {}
    is_name = dict(zip(rows.tolist(), symbolic, strict=True))

    def fits(group: list[int], i: int) -> bool:
        told = [*group, i]
        infos = ["" if info is None else info[j] for j in told]
        names = {is_name[j] for j in told}
        if True in names and len({sites.id[j] for j in told}) > 1:
            return False
        if len(names) > 1 and not any(infos):
            return False
        return joined_info(infos, fields) is not None

    for i in rows.tolist():
        parts = groups.setdefault(int(locus[i]), [])
        part = next((part for part in parts if fits(part, i)), None)
        if part is None:
            parts.append([i])
        else:
            part.append(i)
    out = np.full(len(locus), -1, np.int64)
    several = [part for parts in groups.values() for part in parts if len(part) > 1]
    for number, part in enumerate(several):
        out[part] = number
    return out


def joined_rows(
    locus: np.ndarray,
    sites: Sites,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray | None],
    info: dict[str, NumberColumn],
    typed: np.ndarray,
    fields: dict[str, Field] | None = None,
) -> Iterator[JoinedRows]:
    """The records to be joined, those with equally many ALTs together.

    Parameters
    ----------
    locus
        Shape (m,), int: rows of one number >= 0 are ALTs of one record.
    sites, info, typed
        Of the m rows.
    arrays
        P(ALT) and observed alleles, shape (m, N, 2) each, and P(both have ALT), (m, N), or None.
    fields
        How the fields of ``sites.info`` are declared.
    """
    order = np.argsort(locus, kind="stable")
    order = order[locus[order] >= 0]
    starts = np.flatnonzero(np.diff(locus[order], prepend=-1))
    sizes = np.diff(np.append(starts, len(order)))
    for size in np.unique(sizes).tolist():
        rows = order[starts[sizes == size][:, None] + np.arange(size)]  # (g, k)
        leader = rows[:, 0]
        one = sites.take(leader)
        alt, ids = one.alt.copy(), one.id.copy()
        for i, group in enumerate(rows.tolist()):
            alt[i] = ",".join(sites.alt[group])
            named = dict.fromkeys(x for j in group for x in sites.id[j].split(";") if x != ".")
            ids[i] = ";".join(named) or "."
        told = None
        if sites.info is not None:
            told = sites.info[leader].copy()
            for i, group in enumerate(rows.tolist()):
                told[i] = joined_info(sites.info[group].tolist(), fields or {}) or ""
        flags = np.asarray(typed, np.int64)[rows]
        yield JoinedRows(
            leader, Sites(one.contig, one.position_bp, one.ref, alt, ids, told),
            arrays[0][rows], arrays[1][rows],
            {name: _joined_column(name, column, rows) for name, column in info.items()},
            np.where((flags == TYPED).any(axis=1), TYPED, flags[:, 0]),
            None if arrays[2] is None else arrays[2][rows],
        )  # fmt: skip


def _joined_column(name: str, column: NumberColumn, rows: np.ndarray) -> NumberColumn:
    """The numbers of the rows (g, k) of an INFO field, k for each record."""
    if name in SINGLE_INFOS:
        first = rows[:, 0]
        return NumberColumn(column.text[first], column.length[first], column.value[first])
    num, size = rows.shape
    width = column.text.shape[1]
    text = np.zeros((num, size * (width + 1)), np.uint8)
    length = np.zeros(num, np.int64)
    value = np.where(column.length[rows] > 0, column.value[rows], np.nan)
    for i in np.flatnonzero(~np.isnan(value).all(axis=1)).tolist():
        parts = [bytes(column.text[j, : column.length[j]]) or b"." for j in rows[i].tolist()]
        joined = b",".join(parts)
        text[i, : len(joined)] = np.frombuffer(joined, np.uint8)
        length[i] = len(joined)
    return NumberColumn(text, length, value)


def sample_values(
    formats: Sequence[str],
    prob: np.ndarray,
    called: np.ndarray,
    digits: int,
    both: np.ndarray | None = None,
) -> list[Values]:
    """The values of each FORMAT field of a record with k ALTs.

    Parameters
    ----------
    formats
        Names of fields.
    prob, called
        Shape (k, N, 2), as in ``ImputedBlock``.
    digits
        Decimals of probabilities.
    both
        Shape (k, N), as in ``ImputedBlock``, or None.

    Raises
    ------
    ValueError
        If a probability is not in [0, 1].
    """
    haploid = np.isnan(prob[0, :, 1]) | (called[0, :, 1] == -2)
    exact = prob.astype(np.float64)
    exact[:, haploid, 1] = 0
    if not ((exact >= 0) & (exact <= 1)).all():
        raise ValueError("allele_prob must be in [0, 1], with NaN only in [..., 1]")
    scale = 10**digits
    each = np.floor(exact * scale + 0.5).astype(np.int64).transpose(1, 0, 2)  # (N, k, 2)
    second = np.where(haploid[:, None], _END, each[:, :, 1])
    made: list[Values] = []
    for name in formats:
        if name == "GT":
            carried = np.where(called >= 0, called == 1, exact > 0.5)
            allele = np.where(carried.any(axis=0), carried.argmax(axis=0) + 1, 0)  # (N, 2)
            allele[(called == NO_CALL).any(axis=(0, 2))] = _MISSING
            allele[haploid, 1] = _END
            made.append((name, allele))
        elif name == "DS":
            made.append((name, np.floor(exact.sum(axis=2) * scale + 0.5).astype(np.int64).T))
        elif name == "GP":
            made.append((name, _genotype_probs(exact, haploid, scale, both)))
        elif name == "HDS":
            both = np.stack([each[:, :, 0], second], axis=2)
            order = np.argsort(both.reshape(len(both), -1) == _END, axis=1, kind="stable")
            made.append((name, np.take_along_axis(both.reshape(len(both), -1), order, axis=1)))
        elif name == "AP1":
            made.append((name, each[:, :, 0]))
        elif name == "AP2":
            missing = second.copy()
            missing[haploid, 0] = _MISSING
            made.append((name, missing))
        else:
            raise ValueError(f"{name} cannot be written for several ALTs")
    return made


def _genotype_probs(
    exact: np.ndarray, haploid: np.ndarray, scale: int, both: np.ndarray | None
) -> np.ndarray:
    """GP in units of 1 / scale that add up to 1, shape (N, G), of P(ALT) ``exact`` (k, N, 2).

    ``both`` (k, N): P(both haplotypes have an ALT), of which that of REF with it and of REF twice
    take account, too; None: haplotypes are independent.
    """
    of = np.concatenate([np.maximum(1 - exact.sum(axis=0), 0)[None], exact])  # (k + 1, N, 2)
    num = len(of)
    columns = []
    for j in range(num):
        for i in range(j + 1):
            other = of[j, :, 0] * of[i, :, 1] if i < j else 0
            columns.append(of[i, :, 0] * of[j, :, 1] + other)
    prob = np.stack(columns, axis=1)
    if both is not None:
        more = both - exact[:, :, 0] * exact[:, :, 1]  # (k, N)
        for j in range(1, num):
            first = j * (j + 1) // 2  # of the genotypes 0/j ... j/j
            prob[:, 0] += more[j - 1]
            prob[:, first] -= 2 * more[j - 1]
            prob[:, first + j] += more[j - 1]
        np.maximum(prob, 0, out=prob)
    prob[haploid] = 0
    prob[haploid, :num] = of[:, haploid, 0].T
    prob *= scale / np.maximum(prob.sum(axis=1), 1e-9)[:, None]
    whole = np.floor(prob + 1e-6).astype(np.int64)
    rank = np.argsort(np.argsort(whole - prob, axis=1, kind="stable"), axis=1)
    whole += rank < (scale - whole.sum(axis=1))[:, None]
    whole[haploid, num:] = _END
    return whole


def best_genotype(prob: np.ndarray, digits: int, both: np.ndarray | None = None) -> np.ndarray:
    """The largest GP of each sample as it is written, in units of the last decimal.

    Parameters
    ----------
    prob
        Shape (k, N, 2), P(ALT) of the k ALTs of a record; NaN in [..., 1] where haploid.
    digits
        Decimals of GP.
    both
        Shape (k, N), as in ``ImputedBlock``, or None.

    Returns
    -------
    Shape (N,), int64.
    """
    haploid = np.isnan(prob[0, :, 1])
    exact = prob.astype(np.float64)
    exact[:, haploid, 1] = 0
    out: np.ndarray = _genotype_probs(exact, haploid, 10**digits, both).max(axis=1)
    return out


def text_of(values: Sequence[Values], digits: int) -> bytes:
    """The cells of all samples, each with a tab before it."""
    number = number_texts(digits)
    if not values:
        return b""
    every = np.concatenate([column for _, column in values], axis=1)
    unique, which = np.unique(every, axis=0, return_inverse=True)
    cells = []
    for row in unique.tolist():
        fields, at = [], 0
        for name, column in values:
            shown = [x for x in row[at : at + column.shape[1]] if x != _END]
            at += column.shape[1]
            if name == "GT":
                missing = _MISSING in shown
                texts = ["." if missing else str(x) for x in shown]
                fields.append(("/" if missing else "|").join(texts))
            else:
                fields.append(",".join("." if x == _MISSING else number[x] for x in shown))
        cells.append("\t" + ":".join(fields))
    return "".join([cells[i] for i in which.reshape(-1).tolist()]).encode()


def bcf_values(values: Sequence[Values], digits: int) -> list[tuple[str, np.ndarray]]:
    """The values as ``BcfEncoder.encode_values`` takes them, of one record."""
    made: list[tuple[str, np.ndarray]] = []
    for name, column in values:
        if name == "GT":
            coded = ((column + 1) << 1).astype(np.uint8)
            coded[:, 1:] |= 1  # phased
            coded[column == _MISSING] = 0
            coded[column == _END] = INT8_END
        else:
            words = (np.maximum(column, 0) / 10**digits).astype("<f4").view("<u4")
            words[column == _END] = FLOAT_END
            words[column == _MISSING] = FLOAT_MISSING
            coded = words.view("<f4")
        made.append((name, coded[None]))
    return made
