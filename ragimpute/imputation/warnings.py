"""What a user should know before the result of an imputation is used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ragimpute.imputation.outputs import Outputs
from ragimpute.imputation.summary import ImputeSummary
from ragimpute.imputation.window_run import WindowResult
from ragimpute.imputation.windows import Window
from ragimpute.panel.reader import Panel
from ragimpute.runtime.outputs import check_space

log = logging.getLogger("ragimpute")

# Left-out dosages of a common site that run against what was observed: its alleles are wrong.
_REVERSED, _COMMON = -0.3, 0.05


def warn_of_device(summary: ImputeSummary, device: str, *, uses_torch: bool) -> None:
    """Say so where a GPU was asked for and the model has nothing that could run there."""
    if device.startswith("cuda") and not uses_torch:
        line = (
            f"--device {device} does nothing with model {summary.model}, which numpy computes on "
            "the CPU"
        )
        summary.warnings.append(line)
        log.warning(line)


def warn_of_space(summary: ImputeSummary, folder: Path, *, output: int, temporary: int) -> None:
    """Say where the disk may fill up, or refuse what cannot fit; see ``check_space``."""
    line = check_space(folder, output=output, temporary=temporary)
    if line is not None:
        summary.warnings.append(line)
        log.warning(line)


def warn_of_result(
    summary: ImputeSummary,
    panel: Panel,
    windows: Sequence[tuple[Window, WindowResult]],
    outputs: Outputs,
) -> None:
    """Collect what the result shows of the input."""
    already = len(summary.warnings)
    position, contig = panel.sites.position_bp, panel.contig
    bare = [window for window, result in windows if not result.has_typed]
    if bare and len(bare) < len(windows):
        shown = ", ".join(f"{contig}:{position[w[1]]}-{position[w[2] - 1]}" for w in bare[:3])
        summary.warnings.append(
            f"{len(bare)} windows have no typed site ({shown}{', ...' if len(bare) > 3 else ''}): "
            "they are given the panel's frequencies, and DR2 is 0"
        )
    against = [
        window[1] + int(i)
        for window, result in windows
        for i in np.flatnonzero(result.correlation < _REVERSED)
    ]
    against = [i for i in against if _COMMON < panel.af[i] < 1 - _COMMON]
    if against:
        shown = ", ".join(f"{contig}:{position[i]}" for i in against[:3])
        summary.warnings.append(
            f"{len(against)} typed sites run against the sites around them ({shown}"
            f"{', ...' if len(against) > 3 else ''}): their strand or allele order is probably "
            "wrong"
        )
    if outputs.num_low_r2:
        summary.counts["below_min_r2"] = outputs.num_low_r2
    typed_only = outputs.typed_only
    if typed_only is not None:
        summary.counts["typed_only"] = len(typed_only.sites)
        if typed_only.num_unphased:
            summary.warnings.append(
                f"{typed_only.num_unphased} unphased genotypes of records that the panel lacks are "
                "written in the order of the file: there is nothing to phase them by"
            )
    for line in summary.warnings[already:]:
        log.warning(line)
