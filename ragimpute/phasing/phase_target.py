"""Phase a target that was matched to a panel: what to copy from, and with which parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import COPY_ALL_UP_TO
from ragimpute.copying.window import TypedSites, pack_words
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.io.vcf.read.phase_sets import read_phase_sets
from ragimpute.kernels.bits import WORD
from ragimpute.panel.reader import Panel
from ragimpute.runtime.timing import Progress
from ragimpute.target.match import Match

# Phasing wants fewer changes of the copied haplotype in a large panel than imputation does. With
# this one ne, 600 and 4,508 haplotypes of 1000 Genomes data are both within noise of the best.
PHASING_NE = 1.5e5
PHASING_ERR = 1e-3


@dataclass(frozen=True)
class PhaseOptions:
    """How a target is phased.

    Attributes
    ----------
    phased_only
        Refuse unphased genotypes.
    with_targets
        Copy from the other samples too; None: where there are some, and the panel is so small
        (``copying.COPY_ALL_UP_TO``) that they help. 600 haplotypes, 202 samples: 1.46 % switch
        errors instead of 1.80 %.
    """

    phased_only: bool = False
    with_targets: bool | None = None


def num_unphased(match: Match) -> int:
    """Genotypes whose phase is to be found."""
    return int((~match.phased).sum())


def phase_match(
    path: str | Path | Target,
    target: Target,
    match: Match,
    panel: Panel,
    options: PhaseOptions,
    *,
    ne: float | None = None,
    err: float | None = None,
    fill_missing: bool = False,
    seed: int = 1,
    threads: int = 1,
    progress: Progress | None = None,
) -> tuple[Match, dict[str, object]]:
    """Phase a target's genotypes at panel sites.

    Parameters
    ----------
    path, target, match, panel
        The file, what was read of it, and how it matches the panel. Phase sets are read from the
        file: there are none where a Target was given in its place.
    options
        What to copy from.
    ne, err
        Effective population size and mismatch probability; None: ``PHASING_NE`` and
        ``PHASING_ERR``.
    fill_missing
        Replace missing alleles by the likelier one.
    seed, threads
        The result does not depend on ``threads``.
    progress
        Called as ``progress("phase", done, total)``.

    Returns
    -------
    The match with its alleles phased, and what was done, by name, for a report.
    """
    from ragimpute.phasing.sampler import PhasingSettings, phase_haplotypes

    typed = read_typed(panel, match.panel_index)
    found = None
    if not isinstance(path, Target):
        found = read_phase_sets(path, target.sites, target.samples, threads=threads)
    sets = None if found is None else found[match.row]
    num_haplotypes, num_samples = panel.num_haplotypes, len(target.samples)
    with_targets = options.with_targets
    if with_targets is None:
        with_targets = num_samples > 1 and num_haplotypes <= COPY_ALL_UP_TO
    parameters = CopyingParameters.from_ne(ne or PHASING_NE, err or PHASING_ERR, num_haplotypes)
    settings = PhasingSettings.for_panel(num_haplotypes + (2 * num_samples if with_targets else 0))
    alleles = phase_haplotypes(
        typed, match.alleles, match.phased, parameters, phase_set=sets, with_targets=with_targets,
        fill_missing=fill_missing, settings=settings, seed=seed, threads=threads,
        progress=progress,
    )  # fmt: skip
    source = "the panel and the other samples" if with_targets else "the panel"
    said: dict[str, object] = {
        "phasing": f"{num_unphased(match):,} genotypes against {source}",
        "phasing_passes": settings.passes,
        "phasing_states": 2 * settings.num_states,
        "phasing_ne": f"{ne or PHASING_NE:.3g}",
        "phasing_err": f"{err or PHASING_ERR:.2g}",
    }
    if sets is not None:
        said["phase_sets"] = f"{int((sets >= 0).sum()):,} genotypes are in one"
    return replace(match, alleles=alleles, phased=np.ones_like(match.phased)), said


def read_typed(
    panel: Panel, typed_index: np.ndarray, *, sites_at_once: int = 32 * WORD
) -> TypedSites:
    """The panel at typed sites, read piece by piece: all of a contig takes a bit an allele.

    Pieces have ``sites_at_once`` typed sites, a multiple of ``WORD``.
    """
    words = [np.zeros((0, panel.num_haplotypes), np.uint32)]
    for first in range(0, len(typed_index), sites_at_once):
        here = typed_index[first : first + sites_at_once]
        block = panel.haplotypes(int(here[0]), int(here[-1]) + 1)
        words.append(pack_words(block.alleles(here - here[0]))[0].T)
    return TypedSites(np.concatenate(words), panel.position_cm[typed_index])
