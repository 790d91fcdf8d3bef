"""``ragimpute index``: build the index of a panel's windows and save it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ragimpute.errors import PanelError
from ragimpute.panel.reader import Panel
from ragimpute.retrieval.faiss_device import choose_searcher
from ragimpute.retrieval.index import WindowIndex
from ragimpute.retrieval.index_manifest import MANIFEST
from ragimpute.runtime.timing import Progress
from ragimpute.target.match import marker_mask


@dataclass(frozen=True)
class IndexSummary:
    """What ``ragimpute index`` made: the folder, its windows, their kind, recall and size.

    ``device`` is "cpu", or "cuda:" and a number if a GPU made exhaustive searches.
    """

    path: Path
    num_windows: int
    num_haplotypes: int
    num_sites: int
    kind: str
    recall: float
    num_bytes: int
    device: str = "cpu"


def build_index(
    panel_path: str | Path,
    out: str | Path,
    *,
    kind: str = "auto",
    sites: str | Path | None = None,
    progress: Progress | None = None,
    force: bool = False,
    device: str = "cpu",
) -> IndexSummary:
    """Build and save the index of a panel, as ``ragimpute index`` does.

    Parameters
    ----------
    panel_path, out
        panel.h5; the folder to write.
    kind
        See :meth:`WindowIndex.build`.
    sites
        A VCF/BCF of the array: only its sites are searched by; None: all of the panel's.
    progress
        See :meth:`WindowIndex.build`.
    force
        Replace ``out`` if it is an index already.
    device
        Where exhaustive indexes are made and searched: "auto", "cpu" or "cuda". The index is the
        same, byte for byte.

    Raises
    ------
    PanelError, InputError
        If an input cannot be used, ``out`` exists and is not to be replaced, or FAISS cannot use
        the device.
    """
    out = Path(out)
    if out.exists() and not (force and (out / MANIFEST).is_file()):
        raise PanelError(
            f"{out} exists already",
            hint="choose another -o, or --force to replace an index"
            if (out / MANIFEST).is_file()
            else "choose another -o; --force replaces only an index",
        )
    searcher = choose_searcher(device, missing="fail")
    with Panel.open(panel_path) as panel:
        markers = None if sites is None else marker_mask(sites, panel)
        index = WindowIndex.build(
            panel, kind=kind, markers=markers, progress=progress, searcher=searcher
        )
        num_bytes = index.save(out)
    return IndexSummary(
        path=out,
        num_windows=len(index.windows),
        num_haplotypes=index.num_haplotypes,
        num_sites=int(index.markers.sum()),
        kind=index.description.kind,
        recall=index.description.recall,
        num_bytes=num_bytes,
        device="cpu" if searcher is None else f"cuda:{searcher.number}",
    )
