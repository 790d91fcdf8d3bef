"""Phase a target that was matched to a panel: what to copy from, and with which parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ragimpute.copying.parameters import CopyingParameters
from ragimpute.copying.states import COPY_ALL_UP_TO
from ragimpute.copying.window import TypedSites, pack_words
from ragimpute.kernels.bits import WORD
from ragimpute.panel.reader import Panel
from ragimpute.phasing.choose_parameters import RATES, FitChoice, ParametersToFit
from ragimpute.runtime.timing import Progress
from ragimpute.target.inputs import Inputs
from ragimpute.target.joint_calls import exclude_filled
from ragimpute.target.match import Match

# Where the search for the best parameters begins; what is used where they cannot be fitted. With
# this ne, panels of 600 and of 4,508 haplotypes of 1000 Genomes data are both phased well.
USUAL_NE = 1.5e5
USUAL_ERR = 1e-3


@dataclass(frozen=True)
class PhaseOptions:
    """How a target is phased.

    Attributes
    ----------
    phased_only
        Refuse unphased genotypes.
    with_targets
        Use the other target samples as extra haplotypes to copy from. None: only if there are any
        and the panel has at most ``copying.states.COPY_ALL_UP_TO`` haplotypes, so that they help:
        for a panel of 600 haplotypes and 202 samples, 1.46 % switch errors instead of 1.80 %.
    """

    phased_only: bool = False
    with_targets: bool | None = None


def phase_match(
    inputs: Inputs,
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
    inputs
        The panel, and the target with its match.
    options
        What to copy from.
    ne, err
        Effective population size and mismatch probability, > 0; None: fitted to the panel, and to
        the targets if they are copied, see :mod:`ragimpute.phasing.choose_parameters`.
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
    from ragimpute.phasing.sampler import Genotypes, PhasingSettings, phase_haplotypes

    target, match, sets = inputs.target, inputs.match, inputs.phase_sets
    typed = read_typed(inputs.panel, match.panel_index)
    num_haplotypes, num_samples = inputs.panel.num_haplotypes, len(target.samples)
    with_targets = options.with_targets
    if with_targets is None:
        with_targets = num_samples > 1 and num_haplotypes <= COPY_ALL_UP_TO
    parameters = _parameters(inputs.panel, ne, err)
    settings = PhasingSettings.for_panel(num_haplotypes, 2 * num_samples if with_targets else 0)
    alleles = phase_haplotypes(
        typed, Genotypes(match.alleles, match.phased, sets, match.ties), parameters,
        with_targets=with_targets, fill_missing=fill_missing, settings=settings, seed=seed,
        threads=threads, progress=progress,
    )  # fmt: skip
    source = "the panel and the other samples" if with_targets else "the panel"
    said: dict[str, object] = {
        "phasing": f"{match.num_unphased:,} genotypes against {source}",
        "phasing_passes": settings.passes,
        "phasing_states": 2 * settings.num_states,
        "phasing_ne": f"{parameters.parameters.ne(num_haplotypes):.3g}",
        "phasing_err": f"{parameters.parameters.mismatch_prob:.2g}",
    }
    if sets is not None:
        said["phase_sets"] = (
            f"{int((sets >= 0).sum()):,} genotypes are in one; "
            f"{int(inputs.in_pieces.sum()):,} samples have several"
        )
    if fill_missing and len(match.loci):
        count = inputs.panel.alt_count[match.panel_index]
        exclude_filled(alleles, match.alleles != -1, match.loci, count)
    return replace(match, alleles=alleles, phased=np.ones_like(match.phased)).settled(), said


def _parameters(panel: Panel, ne: float | None, err: float | None) -> ParametersToFit:
    """The parameters that are given, and where the search for the others begins."""
    start = CopyingParameters.from_ne(ne or USUAL_NE, err or USUAL_ERR, panel.num_haplotypes)
    if ne is None:
        start = replace(start, switch_rate=float(np.clip(start.switch_rate, *RATES)))
    choice = FitChoice(rate=ne is None, mismatch=err is None)
    return ParametersToFit(start, panel.haplotype_sample, choice)


def read_typed(
    panel: Panel, typed_index: np.ndarray, *, sites_at_once: int = 32 * WORD
) -> TypedSites:
    """The panel at typed sites, one bit for each allele, so that a whole contig fits in memory.

    Parameters
    ----------
    panel
        The panel.
    typed_index
        Shape (T,), int64, ascending: the panel's sites that are typed.
    sites_at_once
        How many typed sites are read at a time, a multiple of ``WORD``.
    """
    words = [np.zeros((0, panel.num_haplotypes), np.uint32)]
    for first in range(0, len(typed_index), sites_at_once):
        here = typed_index[first : first + sites_at_once]
        block = panel.haplotypes(int(here[0]), int(here[-1]) + 1)
        words.append(pack_words(block.alleles(here - here[0]))[0].T)
    return TypedSites(np.concatenate(words), panel.position_cm[typed_index])
