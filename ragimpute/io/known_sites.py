"""Where a few well-known human SNPs are in three genome builds, which tells the build of a file.

These are facts that dbSNP, ClinVar and publications on each SNP state: rsID, chromosome, and the
position in NCBI36, GRCh37 and GRCh38. All are on most arrays. Two SNPs of a chromosome lie beside
each other, so that a wrong number would show as another distance in one build (tests/io has it).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

BUILDS = ("NCBI36", "GRCh37", "GRCh38")
_LEAST = 2  # sites that must agree

#: For each rsID its chromosome and its positions in ``BUILDS``.
KNOWN_SITES: dict[str, tuple[str, tuple[int, int, int]]] = {
    "rs1801133": ("1", (11778965, 11856378, 11796321)),
    "rs1801131": ("1", (11777063, 11854476, 11794419)),
    "rs4988235": ("2", (136325116, 136608646, 135851076)),
    "rs182549": ("2", (136333224, 136616754, 135859184)),
    "rs1801282": ("3", (12368125, 12393125, 12351626)),
    "rs3856806": ("3", (12450557, 12475557, 12434058)),
    "rs1229984": ("4", (100458342, 100239319, 99318162)),
    "rs698": ("4", (100479812, 100260789, 99339632)),
    "rs16891982": ("5", (33987450, 33951693, 33951588)),
    "rs26722": ("5", (33999627, 33963870, 33963765)),
    "rs1799945": ("6", (26199158, 26091179, 26090951)),
    "rs1800562": ("6", (26201120, 26093141, 26092913)),
    "rs713598": ("7", (141319814, 141673345, 141973545)),
    "rs1726866": ("7", (141319174, 141672705, 141972905)),
    "rs1801280": ("8", (18302134, 18257854, 18400344)),
    "rs1799930": ("8", (18302383, 18258103, 18400593)),
    "rs10757278": ("9", (22114477, 22124477, 22124478)),
    "rs1333049": ("9", (22115503, 22125503, 22125504)),
    "rs4244285": ("10", (96531606, 96541616, 94781859)),
    "rs1057910": ("10", (96731043, 96741053, 94981296)),
    "rs1800497": ("11", (112776038, 113270828, 113400106)),
    "rs6277": ("11", (112788669, 113283459, 113412737)),
    "rs671": ("12", (110726149, 112241766, 111803962)),
    "rs4646776": ("12", (110714402, 112230019, 111792215)),
    "rs6311": ("13", (46369479, 47471478, 46897343)),
    "rs6313": ("13", (46367941, 47469940, 46895805)),
    "rs12896399": ("14", (91843416, 92773663, 92307319)),
    "rs2402130": ("14", (91870956, 92801203, 92334859)),
    "rs12913832": ("15", (26039213, 28365618, 28120472)),
    "rs1129038": ("15", (26030454, 28356859, 28111713)),
    "rs1805007": ("16", (88513618, 89986117, 89919709)),
    "rs1805008": ("16", (88513645, 89986144, 89919736)),
    "rs7216389": ("17", (35323475, 38069949, 39913696)),
    "rs2290400": ("17", (35319766, 38066240, 39909987)),
    "rs17782313": ("18", (56002077, 57851097, 60183864)),
    "rs12970134": ("18", (56035730, 57884750, 60217517)),
    "rs429358": ("19", (50103781, 45411941, 44908684)),
    "rs7412": ("19", (50103919, 45412079, 44908822)),
    "rs4911414": ("20", (32193105, 32729444, 34141638)),
    "rs1015362": ("20", (32202273, 32738612, 34150806)),
    "rs1051266": ("21", (45782222, 46957794, 45537880)),
    "rs12659": ("21", (45775984, 46951556, 45531642)),
    "rs4680": ("22", (18331271, 19951271, 19963748)),
    "rs4633": ("22", (18330235, 19950235, 19962712)),
    "rs1050828": ("X", (153417411, 153764217, 154536002)),
    "rs1050829": ("X", (153416686, 153763492, 154535277)),
}


class BuildByPositions(NamedTuple):
    """What positions of known sites tell.

    Attributes
    ----------
    build
        One of ``BUILDS``; None if the sites are too few or contradict each other.
    num_agree, num_known
        How many known sites are where the build has them, and how many there are.
    """

    build: str | None
    num_agree: int
    num_known: int


def build_by_positions(positions: Mapping[str, int]) -> BuildByPositions:
    """The build in which known sites have these positions.

    Parameters
    ----------
    positions
        1-based positions by rsID; other names than those of ``KNOWN_SITES`` are passed over.
    """
    known = {name: bp for name, bp in positions.items() if name in KNOWN_SITES}
    agree = [
        sum(KNOWN_SITES[name][1][i] == bp for name, bp in known.items())
        for i in range(len(BUILDS))
    ]  # fmt: skip
    most = max(agree)
    sure = most >= _LEAST and 2 * sum(agree) < 3 * most and 2 * most > len(known)
    return BuildByPositions(BUILDS[agree.index(most)] if sure else None, most, len(known))


def build_by_shift(chromosome: str, build: str | None, shift_bp: int) -> str | None:
    """The build whose positions, moved by ``shift_bp``, are those of ``build`` somewhere.

    Parameters
    ----------
    chromosome
        As in ``KNOWN_SITES``.
    build
        One of ``BUILDS``, or another or none, of which nothing is known.
    shift_bp
        What is added to a position. Builds differ by one number over stretches of megabases.
    """
    if build not in BUILDS:
        return None
    to = BUILDS.index(build)
    for name, bp in KNOWN_SITES.values():
        for i, other in enumerate(BUILDS):
            if name == chromosome and i != to and bp[to] - bp[i] == shift_bp:
                return other
    return None
