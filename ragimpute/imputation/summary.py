"""What an imputation run did: counts, accuracy estimates, times; and what a user is warned of."""

from __future__ import annotations

import logging
import math
import platform
import resource
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ragimpute import __version__
from ragimpute.accuracy.dr2 import few_samples_warning
from ragimpute.imputation.imputer import Imputer
from ragimpute.imputation.listed_sites import ListedSites
from ragimpute.imputation.options import ImputeOptions
from ragimpute.imputation.outputs import Outputs
from ragimpute.imputation.windows import Window, WindowResult
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.panel.reader import Panel
from ragimpute.sites import some_names
from ragimpute.target.inputs import Inputs
from ragimpute.target.ploidy import inbred_samples
from ragimpute.target.qc import NOT_RECORDS, TargetReport

log = logging.getLogger("ragimpute")

# If a common site is left out and its dosages correlate so negatively with what was observed there,
# its alleles are taken to be wrong.
_REVERSED, _COMMON = -0.3, 0.05
# ... and so many standard deviations below 0, as that of one sample is -1 as often as 1.
_DEVIATIONS = 3.3


@dataclass
class ImputeSummary(TargetReport):
    """What a run did, for its report: what was found of the target, and what came of it.

    Attributes
    ----------
    out, panel, target, model
        The files, and the model's name.
    num_sites, num_typed
        Sites written, and those of them that the target types.
    position_bp, maf, dr2, typed
        One entry for each site written: int32; float32 (panel's); float32; bool.
    seconds
        Wall time by stage.
    peak_mb
        Highest resident memory of the process up to the end of each stage, MiB.
    wall_seconds
        Wall time of the whole run.
    peak_rss_mb
        Peak resident memory of the process, MiB.
    settings, versions
        What the run used: ne, err, windows, seed ...; package versions.
    started, command
        Local time of the start, ISO 8601 with its distance from UTC; the command as it was given,
        "" if the run was started from Python.
    contig
        As the output spells it.
    genetic_map, span_cm
        The map's name as the panel has it ("" if unknown), and what the sites written span on it.
    panel_checksum
        Of the panel's content.
    """

    out: str
    panel: str
    target: str
    model: str
    num_sites: int = 0
    num_typed: int = 0
    position_bp: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    maf: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    dr2: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    typed: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    seconds: dict[str, float] = field(default_factory=dict)
    peak_mb: dict[str, float] = field(default_factory=dict)
    wall_seconds: float = 0.0
    peak_rss_mb: float = 0.0
    settings: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    started: str = ""
    command: str = ""
    contig: str = ""
    genetic_map: str = ""
    span_cm: float = 0.0
    panel_checksum: str = ""

    def warn(self, *lines: str) -> None:
        """Take up warnings, one line each, and log them."""
        for line in lines:
            self.warnings.append(line)
            log.warning(line)

    def add_options(self, options: ImputeOptions) -> None:
        """Take up those options that a report shows."""
        self.settings.update(
            fields=",".join(options.fields), digits=options.output_options.digits,
            window_cm=options.window_cm, buffer_cm=options.buffer_cm, threads=options.threads,
            seed=options.seed,
            region=str(options.region) if options.region else "all",
        )  # fmt: skip

    def add_index(self, used: str, unused: str) -> None:
        """Take up what is used of an index, and warn of what is not; "": nothing to be said."""
        if used:
            self.settings["index"] = used
            log.info("index: %s", used)
        if unused:
            self.warn(unused)

    def add_inbred(self, inputs: Inputs) -> None:
        """Take up, and log, how many target samples are inbred, if there are any."""
        panel, match = inputs.panel, inputs.match
        num = int(inbred_samples(match.alleles, panel.af[match.panel_index]).sum())
        if num:
            said = f"{num:,} of {match.alleles.shape[1]:,}, imputed as one haplotype each"
            self.settings["inbred samples"] = said
            log.info("inbred samples: %s", said)

    def add_result(self, inputs: Inputs, results: Sequence[WindowResult]) -> None:
        """Take up what became of the panel's sites; ``results`` of all windows, in order."""
        sites = slice(inputs.start, inputs.stop)
        self.num_sites = inputs.stop - inputs.start
        self.position_bp = inputs.panel.sites.position_bp[sites]
        self.contig = inputs.contig
        self.panel_checksum = inputs.panel.checksum
        self.genetic_map = inputs.panel.provenance["genetic_map"]
        self.span_cm = float(np.ptp(inputs.panel.position_cm[sites]))
        af = inputs.panel.af[sites]
        self.maf = np.minimum(af, 1 - af)
        self.dr2 = np.concatenate([result.dr2 for result in results])
        self.typed = np.concatenate([result.typed for result in results])
        self.num_typed = int(self.typed.sum())

    def add_outputs(self, outputs: Outputs, *, min_r2: float, expects_r2: bool) -> None:
        """Take up how the sites that were written differ from the panel's, and warn of it.

        ``expects_r2``: whether the model says what r2 to expect.
        """
        num_low = len(outputs.low_r2)
        if num_low:
            self.counts["below_min_r2"] = num_low
        if outputs.num_no_calls:
            self.counts["below_min_gp"] = outputs.num_no_calls
        few = few_samples_warning(self.num_samples, expects_r2=expects_r2)
        if min_r2 > 0 and few is not None:
            self.warn(few)
        typed_only = outputs.typed_only
        if typed_only is None:
            return
        self.counts["typed_only"] = len(typed_only.sites)
        if typed_only.num_unphased:
            self.warn(
                f"{typed_only.num_unphased} unphased genotypes of records that the panel lacks are "
                "written in the order of the file: there is nothing to phase them by"
            )

    def add_listed(self, listed: ListedSites, outputs: Outputs, table: str | Path | None) -> None:
        """Take up which of a list's sites were written, and write the table of these if asked.

        To be called after :meth:`add_result`.
        """
        statuses = listed.statuses(self.typed, listed.start + outputs.low_r2)
        name = "--sites-file"
        self.settings[name] = f"{listed.wanted.path}: {listed.told(statuses)}"
        log.info("%s: %s", name, self.settings[name])
        self.counts["not_listed"] = outputs.num_not_listed
        self.warn(*listed.warnings())
        if table is not None:
            listed.write(table, statuses, self.dr2, self.typed)

    def add_costs(
        self,
        imputers: Sequence[Imputer],
        of_rows: Mapping[str, float],
        writer: Mapping[str, float],
    ) -> None:
        """Take up what imputers used, and the time of each stage.

        ``of_rows``: the time in which rows were made ("dosages") and written ("write"); ``writer``:
        what the latter is made of.
        """
        self.wall_seconds = sum(self.seconds.values())
        for imputer in imputers:
            self.settings = imputer.settings | self.settings
        _divide(self.seconds, [*(imputer.seconds for imputer in imputers), of_rows], writer)
        self.peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.versions = {
            "ragimpute": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        }

    def _left_out_and_added(self) -> list[tuple[str, str]]:
        """What makes the sites that are written differ from the panel's."""
        low, more, other = (
            self.counts.get(key, 0) for key in ("below_min_r2", "typed_only", "not_listed")
        )
        if not low and not more and not other:
            return []
        changes = [f"{other:,} left out that are not listed"] if other else []
        changes += [f"{low:,} of low DR2 left out"] if low else []
        changes += [f"{more:,} that the panel lacks added"] if more else []
        return [("written", f"{self.num_sites - other - low + more:,}: {', '.join(changes)}")]

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a summary."""
        untyped = ~self.typed
        mean = "no untyped site"
        if untyped.any():
            mean = f"{self.dr2[untyped].mean():.4f}, over all {untyped.sum():,} sites"
        chosen = (
            "--sites-file",
            "phasing",
            "inbred samples",
            "ne",
            "err",
            "states",
            "copying",
            "correction",
        )
        return [
            ("output", self.out),
            ("samples", f"{self.num_samples:,}"),
            ("panel", f"{self.panel}: {self.num_haplotypes:,} haplotypes"),
            ("sites", f"{self.num_sites:,}, of which {self.num_typed:,} typed"),
            *self._left_out_and_added(),
            *self.record_rows(),
            *(
                (NOT_RECORDS[key], f"{self.counts[key]:,}")
                for key in ("discordant_calls", "contradicting_calls", "below_min_gp")
                if self.counts.get(key)
            ),
            ("mean DR2, untyped", mean),
            *((name, str(self.settings[name])) for name in chosen if name in self.settings),
            ("time", f"{self.wall_seconds:.1f} s"),
            ("peak memory", f"{self.peak_rss_mb:,.0f} MiB"),
        ]


def name_of(target: str | Path | Target) -> str:
    """What a report calls a target: its file, or what it is if it was given from Python."""
    if not isinstance(target, Target):
        return str(target)
    if target.file is not None:
        return str(target.file.path)
    return f"genotypes of {len(target.samples):,} samples, given from Python"


def result_warnings(
    panel: Panel, windows: Sequence[tuple[Window, WindowResult]], num_samples: int
) -> list[str]:
    """The warnings for what the finished windows of a run, in order, show of its input."""
    lines = []
    position, contig = panel.sites.position_bp, panel.contig
    bare = [window for window, result in windows if not result.has_typed]
    if bare and len(bare) < len(windows):
        shown = some_names([f"{contig}:{position[w[1]]}-{position[w[2] - 1]}" for w in bare])
        lines.append(
            f"{len(bare)} windows have no typed site ({shown}): they are given the panel's "
            "frequencies, and DR2 is 0"
        )
    bound = min(_REVERSED, -_DEVIATIONS / math.sqrt(2 * num_samples))
    against = [
        window[1] + int(i)
        for window, result in windows
        for i in np.flatnonzero(result.correlation < bound)
    ]
    against = [i for i in against if _COMMON < panel.af[i] < 1 - _COMMON]
    if against:
        shown = some_names([f"{contig}:{position[i]}" for i in against])
        lines.append(
            f"{len(against)} typed sites run against the sites around them ({shown}): their strand "
            "or allele order is probably wrong"
        )
    return lines


def _divide(
    seconds: dict[str, float], imputers: Sequence[Mapping[str, float]], writer: Mapping[str, float]
) -> None:
    """Replace "impute" and "write" by the stages of imputers and writer, and what is left.

    Stages of several windows may have been at work at the same time: the wall time is then divided
    among the stages in proportion to the time that each took.
    """
    parts: dict[str, float] = {}
    for one in imputers:
        for name, time in one.items():
            parts[name] = parts.get(name, 0.0) + time
    left = max(0.0, parts.pop("write", 0.0) - sum(writer.values()))
    parts |= writer
    parts["format"] += left
    whole = seconds.pop("impute", 0.0) + seconds.pop("write", 0.0)
    total = sum(parts.values())
    shrink = min(1.0, whole / total) if total else 1.0
    for name, time in (*parts.items(), ("dosages", max(0.0, whole - total))):
        seconds[name] = seconds.get(name, 0.0) + time * shrink
