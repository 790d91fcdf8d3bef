"""Names of contigs: which names of two files mean one chromosome, and of which human build.

A name of one file may stand for a name of another file, never for another name of the same file.
PLINK's numbers 23, 24, 25 and 26 stand for X, Y, XY and MT in human files only, as cattle have 29
autosomes and zebrafish 25.

References
----------
Lengths and accession numbers of human chromosomes: NCBI Assembly, GCF_000001405 (NCBI36, GRCh37,
GRCh38) and GCF_009914755 (T2T-CHM13v2.0). Numbers of chromosomes: PLINK 1.9, ``--chr-set``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

_NAMES = (*map(str, range(1, 23)), "X", "Y")
Lengths = Mapping[str, int | None]  # contigs that a file declares, and their lengths in bp

# Lengths of the human chromosomes, bp, which tell builds apart.
HUMAN_LENGTHS = {
    build: dict(zip(_NAMES, lengths, strict=True))
    for build, lengths in {
        "GRCh37": (
            249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022,
            141213431, 135534747, 135006516, 133851895, 115169878, 107349540, 102531392, 90354753,
            81195210, 78077248, 59128983, 63025520, 48129895, 51304566, 155270560, 59373566,
        ),
        "GRCh38": (
            248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636,
            138394717, 133797422, 135086622, 133275309, 114364328, 107043718, 101991189, 90338345,
            83257441, 80373285, 58617616, 64444167, 46709983, 50818468, 156040895, 57227415,
        ),
        "NCBI36": (
            247249719, 242951149, 199501827, 191273063, 180857866, 170899992, 158821424, 146274826,
            140273252, 135374737, 134452384, 132349534, 114142980, 106368585, 100338915, 88827254,
            78774742, 76117153, 63811651, 62435964, 46944323, 49691432, 154913754, 57772954,
        ),
        "T2T-CHM13": (
            248387328, 242696752, 201105948, 193574945, 182045439, 172126628, 160567428, 146259331,
            150617247, 134758134, 135127769, 133324548, 113566686, 101161492, 99753195, 96330374,
            84276897, 80542538, 61707364, 66210255, 45090682, 51324926, 154259566, 62460029,
        ),
    }.items()
}  # fmt: skip
# Version of the RefSeq accession NC_000001 to NC_000024 of each chromosome in GRCh37. In NCBI36 it
# is one less, in GRCh38 one more.
_REFSEQ_GRCH37 = dict(zip(
    _NAMES,
    (10, 11, 11, 11, 9, 11, 13, 10, 11, 10, 9, 11, 10, 8, 9, 9, 10, 9, 9, 10, 8, 10, 10, 9),
    strict=True,
))  # fmt: skip
_MITOCHONDRIA = {"NC_012920", "J01415"}  # accessions of the human MT (rCRS)

_PLINK = {"23": "X", "24": "Y", "25": "XY", "26": "MT"}  # PLINK's numbers of human chromosomes
_LAST_NUMBER = 26
_PAR_NAME = re.compile(r"XY|(X_?)?PAR_?[12]?(_?X)?|X_?NONPAR|X_?PAR[_-]?[XY]?")


def bare_contig(name: str) -> str:
    """A contig's name without "chr", in capitals; MT for M, and 20 for NC_000020.11 and the like.

    PLINK's numbers stay numbers: see :func:`chromosome`.
    """
    bare = (name[3:] if name[:3].lower() == "chr" and len(name) > 3 else name).upper()
    if bare == "M":
        return "MT"
    return _of_accession(bare)[0] or bare


def chromosome(name: str, declared: Lengths | None = None) -> str:
    """A contig's name as :func:`bare_contig` makes it, but X for 23 and so on where that is meant.

    Parameters
    ----------
    name
        The contig, as its file spells it.
    declared
        What its file declares; a number stays one if this is not of a human genome.
    """
    bare = bare_contig(name)
    if bare in _PLINK and is_human({**(declared or {}), name: (declared or {}).get(name)}) is False:
        return bare
    return _PLINK.get(bare, bare)


def _of_accession(name: str) -> tuple[str | None, str | None]:
    """The human chromosome and build that an accession number means, each None if unknown."""
    found = re.fullmatch(r"([A-Z]+_?)(\d+)(?:\.(\d+))?", name)
    if not found:
        return None, None
    prefix, number, version = found[1], int(found[2]), int(found[3] or 0)
    if prefix + found[2] in _MITOCHONDRIA:
        return "MT", None
    if prefix == "NC_" and len(found[2]) == 6 and 1 <= number <= 24:
        chosen = _NAMES[number - 1]
        builds = {-1: "NCBI36", 0: "GRCh37", 1: "GRCh38"}
        return chosen, builds.get(version - _REFSEQ_GRCH37[chosen]) if version else None
    if prefix == "CM" and len(found[2]) == 6 and 663 <= number <= 686:
        return _NAMES[number - 663], {1: "GRCh37", 2: "GRCh38"}.get(version)
    if prefix == "NC_" and 60925 <= number <= 60948:
        return _NAMES[number - 60925], "T2T-CHM13"
    if prefix == "CP" and 68255 <= number <= 68277:
        return _NAMES[68277 - number], "T2T-CHM13"
    if prefix == "CP" and number == 86569:
        return "Y", "T2T-CHM13"
    return None, None


def human_build(contig: str, length: int | None) -> str | None:
    """The human build that a contig's accession number or length tells, such as "GRCh38"; or None.

    Parameters
    ----------
    contig, length
        Name, and length in bp or None.
    """
    name = chromosome(contig)
    found = next(
        (build for build, known in HUMAN_LENGTHS.items() if length and known.get(name) == length),
        None,
    )
    return found or _of_accession(contig.upper())[1]


def human_length(contig: str) -> int | None:
    """The length in bp of the human chromosome that an accession number means, or None."""
    name, build = _of_accession(contig.upper())
    return HUMAN_LENGTHS[build].get(name) if name and build else None


def is_human(declared: Lengths) -> bool | None:
    """Whether contigs are those of a human genome; None if their names and lengths do not say.

    Parameters
    ----------
    declared
        Names of one file, with lengths in bp or None.
    """
    named = {bare_contig(name): length for name, length in declared.items()}
    if any(number in named and letter in named for number, letter in _PLINK.items()):
        return False  # two chromosomes of this file, whatever they are
    return _looks_human(named)


def _looks_human(named: Lengths) -> bool | None:
    """As :func:`is_human`, of bare names, apart from names that PLINK would give one chromosome."""
    if any(name.isdecimal() and int(name) > _LAST_NUMBER for name in named):
        return False
    if "Z" in named or "W" in named:
        return False
    found = []
    for name, length in named.items():
        name = _PLINK.get(name, name)
        if length and name in _NAMES:
            found.append(any(known[name] == length for known in HUMAN_LENGTHS.values()))
    return any(found) if found else None


def same_contig(
    wanted: str,
    names: Iterable[str],
    *,
    declared: Lengths | None = None,
    wanted_of: Lengths | None = None,
) -> str | None:
    """The name in ``names`` that is ``wanted``, spelled alike or else as another file might.

    "20", "chr20", "Chr20" and "NC_000020.11" are one contig. "23" is "X" if neither file says that
    it is not human, and neither has both names.

    Parameters
    ----------
    wanted
        The name that another file, or the user, gives the contig.
    names
        Names of one file.
    declared
        Contigs that this file declares beside ``names``, and their lengths.
    wanted_of
        The same of the file that ``wanted`` is of.

    Returns
    -------
    The name, or None. It does not depend on the order of ``names`` unless several are alike.
    """
    names = list(names)
    if wanted in names:
        return wanted
    bare = wanted.removeprefix("chr")
    alike = [name for name in names if name.removeprefix("chr") == bare]
    alike += [name for name in names if bare_contig(name) == bare_contig(wanted)]
    if alike:
        return alike[0]
    found = _numbered(wanted, names)
    return found if found and _why_not(wanted, names, declared, wanted_of) is None else None


def _numbered(wanted: str, names: Sequence[str]) -> str | None:
    """The name that PLINK's numbers make the same as ``wanted``."""
    key = bare_contig(wanted)
    key = _PLINK.get(key, key)
    return next((name for name in names if _PLINK.get(bare_contig(name)) == key), None) or next(
        (name for name in names if wanted and bare_contig(name) == key), None
    )


def _why_not(
    wanted: str, names: Sequence[str], declared: Lengths | None, wanted_of: Lengths | None
) -> str | None:
    """Why PLINK's numbers do not hold between two files, or None if they do."""
    ours = {**dict.fromkeys(names), **(declared or {})}
    for of in (ours, {**(wanted_of or {}), wanted: (wanted_of or {}).get(wanted)}):
        if is_human(of) is False:
            bare = {bare_contig(name): length for name, length in of.items()}
            both = next((n for n, letter in _PLINK.items() if {n, letter} <= set(bare)), None)
            if both is not None:
                return f"a file has both {both} and {_PLINK[both]}"
            return "its contigs are not those of a human genome"
    return None


def alias_denied(
    wanted: str, names: Iterable[str], declared: Lengths | None, wanted_of: Lengths | None
) -> tuple[str, str] | None:
    """The name that would be ``wanted`` in a human file, and why it is not; None: there is none.

    The arguments are those of :func:`same_contig`.
    """
    names = list(names)
    found = _numbered(wanted, names)
    reason = found and _why_not(wanted, names, declared, wanted_of)
    return (found, reason) if found and reason else None


def par_names(names: Iterable[str], declared: Lengths | None = None) -> list[str]:
    """The names that mean a part of the human X: XY, 25, PAR1, PAR2 and the like."""
    names = list(names)
    human = is_human({**dict.fromkeys(names), **(declared or {})}) is not False
    return [
        name
        for name in names
        if _PAR_NAME.fullmatch(bare_contig(name)) or (human and bare_contig(name) == "25")
    ]


def other_spellings(
    contig: str, names: Iterable[str], declared: Lengths | None = None
) -> list[str]:
    """Other names of one file that may mean the same chromosome, or a part of it.

    Records of these are not read along with ``contig``; the user should know.

    Parameters
    ----------
    contig, names
        The contig that is read, and all that hold records.
    declared
        What the file declares.
    """
    names = [name for name in names if name != contig]
    bare = bare_contig(contig)
    found = [name for name in names if bare_contig(name) == bare]
    every = {bare_contig(name): length for name, length in (declared or {}).items()}
    every = {**dict.fromkeys(map(bare_contig, (*names, contig))), **every}
    if _looks_human(every) is not False:
        key = _PLINK.get(bare, bare)
        found += [name for name in names if name not in found and _lettered(name) == key]
        if key == "X":
            found += [name for name in par_names(names) if name not in found]
    return found


def _lettered(name: str) -> str:
    """A bare name with a letter for PLINK's number."""
    bare = bare_contig(name)
    return _PLINK.get(bare, bare)
