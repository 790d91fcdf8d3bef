"""Chain files, which say where the bases of one genome build are in another, by pyliftover."""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragimpute.errors import InputError

_COPY = "copy the file again, or download it once more"


@dataclass(frozen=True)
class Lifted:
    """Where positions of one contig are in the other build.

    Attributes
    ----------
    contig
        Shape (m,), int64: which of ``contigs`` each position is on; -1 where it is on none.
    contigs
        Names, as the chain file spells them.
    position_bp
        Shape (m,), int64, 1-based; 0 where there is none.
    minus
        Shape (m,), bool: whether the other build has the other strand there.
    num_places
        Shape (m,), int64: at how many places of the other build the base is. Only for 1 the other
        fields say where.
    """

    contig: np.ndarray
    contigs: list[str]
    position_bp: np.ndarray
    minus: np.ndarray
    num_places: np.ndarray


class ChainFile:
    """A chain file (UCSC's .over.chain), plain or gzipped.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    path
        The file.
    source_sizes, other_sizes
        Lengths in bp of the contigs of the build that it lifts from, and of the other, by name.

    References
    ----------
    https://genome.ucsc.edu/goldenPath/help/chain.html
    """

    def __init__(self, path: str | Path) -> None:
        """Read the file.

        Raises
        ------
        InputError
            If it cannot be read, is damaged, or is no chain file.
        """
        self.path = Path(path)
        data = _content(self.path)
        first = next(
            (line for line in data.split(b"\n", 1000) if line.strip() and line[:1] != b"#"), b""
        )
        if not first.startswith(b"chain "):
            raise InputError(
                f"{self.path} is no chain file: its first line is {first[:40].decode('latin-1')!r}",
                hint="a chain file has lines such as chain 4900 chr20 63025520 + 60000 ...; UCSC "
                "offers those of most genome builds",
            )
        # Imported here, as it imports what opens pages of the web.
        from pyliftover.chainfile import LiftOverChainFile

        try:
            self._chains = LiftOverChainFile(io.BytesIO(data))
        except Exception as error:  # pyliftover has no exceptions of its own
            text = str(error).strip().replace("\n", " ")
            raise InputError(f"{self.path} is damaged or truncated: {text}", hint=_COPY) from error
        chains = self._chains.chains
        self.source_sizes = {chain.source_name: chain.source_size for chain in chains}
        self.other_sizes = {chain.target_name: chain.target_size for chain in chains}

    def lift(self, contig: str, position_bp: np.ndarray) -> Lifted:
        """Find where bases are in the other build.

        Parameters
        ----------
        contig
            One of ``source_sizes``.
        position_bp
            Shape (m,), 1-based.
        """
        names = list(self.other_sizes)
        number = {name: i for i, name in enumerate(names)}
        size = self.source_sizes[contig]
        num = len(position_bp)
        on = np.full(num, -1, np.int64)
        position = np.zeros(num, np.int64)
        minus = np.zeros(num, bool)
        places = np.zeros(num, np.int64)
        for i, bp in enumerate(position_bp.tolist()):
            hits = self._chains.query(contig, bp - 1) if 1 <= bp <= size else []
            places[i] = len(hits)
            if len(hits) != 1:
                continue
            begin, _, (start, chain) = hits[0]
            place = start + bp - 1 - begin  # on the strand of the other build
            minus[i] = chain.target_strand == "-"
            position[i] = chain.target_size - place if minus[i] else place + 1
            on[i] = number[chain.target_name]
        return Lifted(on, names, position, minus, places)


def _content(path: Path) -> bytes:
    """The bytes of a file, decompressed if gzip compressed them."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except EOFError as error:
        raise InputError(f"{path} is truncated", hint=_COPY) from error
    except (OSError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"chain file {path} cannot be read: {reason}", hint=_COPY) from error
