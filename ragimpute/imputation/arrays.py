"""Imputation to numpy arrays: what a notebook calls instead of writing and reading a VCF."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from ragimpute.arguments import checked
from ragimpute.copying_model.imputer import require_packages
from ragimpute.errors import InputError
from ragimpute.imputation.array_choice import fitted_parts, other_windows
from ragimpute.imputation.imputer import Stretch, dr2_of
from ragimpute.imputation.options import ImputeOptions
from ragimpute.imputation.summary import result_warnings
from ragimpute.imputation.windows import Window, WindowResult, WindowRun, plan_run
from ragimpute.io.vcf.read.genotypes import Target
from ragimpute.likelihoods.joint import genotype_probs
from ragimpute.model.folder import open_folder
from ragimpute.panel.reader import Panel
from ragimpute.phasing.phase_target import phase_match
from ragimpute.preparation.open_panel import open_panel, sites_in
from ragimpute.runtime.memory import ENOUGH_BYTES, MemoryPlan, free_bytes, plan_memory
from ragimpute.runtime.memory import resident_bytes as held_bytes
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import no_progress
from ragimpute.sites import Region, Sites
from ragimpute.target.inputs import Inputs, take_target
from ragimpute.target.ploidy import ploidy_of
from ragimpute.target.qc import TargetReport, warn_of_target
from ragimpute.token_model.learned_panel import require_contig

log = logging.getLogger("ragimpute")

# What imputation is given at least, beside what the process holds: torch and a small window.
_LEAST_BYTES = 320 * 2**20
# Bytes for each site and sample of a result: P(ALT) of both haplotypes, dosage, probabilities.
_BYTES_PER_GENOTYPE = 24


@dataclass(frozen=True)
class ImputedArrays:
    """Imputed genotypes at consecutive panel sites.

    Attributes
    ----------
    samples
        Names of the N target samples.
    sites
        The m sites: ``sites.position_bp``, ``ref``, ``alt`` and ``id``, each of shape (m,); the
        contig is spelled as in the target.
    allele_probs
        Shape (m, N, 2), float32, in [0, 1]: P(ALT) of each haplotype; NaN in [..., 1] where the
        sample is haploid. FORMAT/HDS holds these, rounded to thousandths.
    dr2
        Shape (m,), float32, in [0, 1]: squared correlation of dosage and truth, estimated without
        truth. INFO/DR2 holds these, rounded to four decimals.
    af
        Shape (m,), float32, in [0, 1]: ALT frequency in the target (INFO/AF).
    typed
        Shape (m,), bool: whether the target's array observed the site. Observed alleles are left
        as they are; missing ones are imputed.
    warnings
        What a user should know of the target and the result: the lines that ``ragimpute impute``
        warns of. All pieces of one :meth:`Imputer.windows` share one list. What only the whole
        result shows is added to it after the last piece.
    both
        Shape (m, N), float32, in [0, 1]: P(both haplotypes have ALT), 0 where the sample is
        haploid; None, unless the target has likelihoods: the product of the two.
    """

    samples: list[str]
    sites: Sites
    allele_probs: np.ndarray
    dr2: np.ndarray
    af: np.ndarray
    typed: np.ndarray
    warnings: list[str] = field(default_factory=list)
    both: np.ndarray | None = None

    @cached_property
    def dosages(self) -> np.ndarray:
        """ALT dosage (FORMAT/DS), shape (m, N), float32, in [0, ploidy]."""
        dosages: np.ndarray = self.allele_probs[:, :, 0] + np.nan_to_num(self.allele_probs[:, :, 1])
        return dosages

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probability of 0, 1 and 2 ALT alleles (FORMAT/GP), shape (m, N, 3), float32.

        Each adds up to 1. Where the sample is haploid, those of 0 and 1 do, and that of 2 is NaN.
        """
        first, second = self.allele_probs[:, :, 0], self.allele_probs[:, :, 1]
        haploid = np.isnan(second)
        known = np.nan_to_num(second)
        out = np.empty((*first.shape, 3), np.float32)
        if self.both is None:
            out[..., 0] = (1 - first) * (1 - known)
            out[..., 1] = first * (1 - known) + known * (1 - first)
            out[..., 2] = first * known
        else:
            out[:] = genotype_probs(self.allele_probs, self.both)
        out[..., 2][haploid] = np.nan
        return out


@dataclass(frozen=True)
class _Work:
    """A target that is matched and phased, and the windows that are to be imputed.

    Attributes
    ----------
    inputs
        The panel and the target.
    runs
        Each window with what imputes it.
    warnings
        The warnings so far.
    """

    inputs: Inputs
    runs: list[tuple[WindowRun, Window]]
    warnings: list[str]

    def pieces(self) -> Iterator[tuple[slice, ImputedArrays]]:
        """Which of the sites come next, and what is imputed there; in the end, more warnings."""
        results: list[tuple[Window, WindowResult]] = []
        for run, window in self.runs:
            result = run.empty_result(window)
            at = window[1] - self.inputs.start
            copied = run.copy(run.prepare(window))
            with copied.spool:
                for tile in run.tiles(copied):
                    result.take(tile)
                    block = tile.block
                    yield (
                        slice(at + tile.sites.start, at + tile.sites.stop),
                        ImputedArrays(
                            self.inputs.target.samples, block.sites, block.allele_prob,
                            block.info["DR2"], block.info["AF"], block.typed, self.warnings,
                            block.both,
                        ),
                    )  # fmt: skip
            results.append((window, result))
        for line in result_warnings(self.inputs.panel, results, len(self.inputs.target.samples)):
            self.warnings.append(line)
            log.warning(line)


class Imputer:
    """Imputes targets from a panel, to numpy arrays; the numbers are those of ``ragimpute impute``.

    It may be used for one target after another; the panel is opened, or prepared, once. Close it,
    or use it in a ``with`` statement, which closes what it opened itself.

    Parameters
    ----------
    panel
        panel.h5, an open :class:`ragimpute.panel.reader.Panel`, or a phased VCF/BCF, which is
        prepared for this object alone.
    model
        A shipped model's name, or a folder that ``train`` made.
    index
        A folder that ``index`` made, for token models; None: retrieve without one.
    genetic_map
        For a panel VCF only: its map.
    threads, seed
        Numbers do not depend on ``threads``, >= 1.
    device
        "auto", "cpu" or "cuda": where a network runs. With "cuda" copying models copy there, too.
    max_memory
        Bytes that the process may use while it imputes; None: what is free, and no more than pays.
        The arrays that :meth:`impute` returns are not counted.

    Raises
    ------
    InputError, PanelError, ModelError
        If the panel or the model cannot be used.
    MissingPackageError
        If the model needs a package that is not installed.
    TypeError
        If an argument is of a wrong type.
    """

    @checked
    def __init__(
        self,
        panel: str | Path | Panel,
        model: str | Path = "default",
        *,
        index: str | Path | None = None,
        genetic_map: str | Path | None = None,
        threads: int = 1,
        seed: int = 1,
        device: str = "auto",
        max_memory: int | None = None,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, found {threads}")
        self._model = open_folder(model)
        self._options = ImputeOptions(
            model=model, index=index, genetic_map=genetic_map, threads=threads, seed=seed,
            device=device, max_memory=max_memory,
        )  # fmt: skip
        require_packages(self._model, device)  # before a panel is prepared, which may take an hour
        self._warnings: list[str] = []  # of the panel
        with ExitStack() as stack:
            if isinstance(panel, Panel):
                self._panel = panel
            else:
                self._panel, _, _ = open_panel(
                    panel, stack, self._warnings.append, genetic_map=genetic_map, cm_per_mb=None,
                    region=None, par=None, threads=threads, progress=no_progress,
                )  # fmt: skip
            path = self._panel.path if isinstance(panel, Panel) else panel
            other = require_contig(self._model, self._panel, path)
            if other is not None:
                self._warnings.append(other)
            self._opened = stack.pop_all()
        for line in self._warnings:
            log.warning(line)

    def close(self) -> None:
        """Close what was opened; arrays that were made stay usable."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @checked
    def impute(
        self, target: str | Path | Target, *, region: Region | str | None = None
    ) -> ImputedArrays:
        """Impute a target, whole.

        Parameters
        ----------
        target
            VCF/BCF, or the Target that ``read_target`` made of one; unphased genotypes are phased
            first, and phase sets are put in order. A Target holds no records without ALT unless it
            was read with ``keep_monomorphic=True``; so where the file has such, the file gives more
            than the Target. A Target is not changed.
        region
            Sites to impute, as a Region or a text such as "20:1-1000" (1-based, closed); None: all
            of the panel.

        Returns
        -------
        All panel sites of the region, and what a user is warned of, which is logged too. With
        dosages and probabilities, a site of a sample takes 24 bytes.

        Raises
        ------
        InputError
            If the target cannot be used, does not belong to the panel, or there is no memory for
            the arrays.
        TypeError
            If an argument is of a wrong type.
        """
        work = self._begin(target, region)
        inputs = work.inputs
        shape = (inputs.stop - inputs.start, len(inputs.target.samples))
        _require_memory(*shape)
        sites = inputs.panel.sites.take(slice(inputs.start, inputs.stop))
        whole = ImputedArrays(
            inputs.target.samples, replace(sites, contig=inputs.contig),
            np.empty((*shape, 2), np.float32), np.empty(shape[0], np.float32),
            np.empty(shape[0], np.float32), np.empty(shape[0], bool), work.warnings,
            np.empty(shape, np.float32) if inputs.has_likelihoods else None,
        )  # fmt: skip
        for rows, piece in work.pieces():
            whole.allele_probs[rows] = piece.allele_probs
            whole.dr2[rows], whole.af[rows] = piece.dr2, piece.af
            whole.typed[rows] = piece.typed
            if whole.both is not None and piece.both is not None:
                whole.both[rows] = piece.both
        return whole

    @checked
    def windows(
        self, target: str | Path | Target, *, region: Region | str | None = None
    ) -> Iterator[ImputedArrays]:
        """Impute a target window by window: memory does not grow with the number of sites.

        A window whose P(ALT) takes more than 16 MiB comes in several pieces. Put together in order,
        they are what :meth:`impute` gives.

        Parameters
        ----------
        target, region
            As for :meth:`impute`; the target is read and phased before the iterator is returned.

        Returns
        -------
        An iterator over the panel sites of the region, some at a time, in order.

        Raises
        ------
        InputError, TypeError
            As for :meth:`impute`.
        """
        work = self._begin(target, region)
        return (piece for _, piece in work.pieces())

    def _begin(self, target: str | Path | Target, region: Region | str | None) -> _Work:
        """Read, match and phase a target, and plan its windows."""
        panel, options = self._panel, replace(self._options, region=Region.of(region))
        files = options.input_files(target, panel.path)
        report = TargetReport()
        start, stop = sites_in(panel, files.region, panel.path)
        given, match = take_target(
            target, panel, files.region, files.options, report, buffer_cm=files.buffer_cm,
            threads=options.threads,
        )  # fmt: skip
        warn_of_target(report, given, panel, match, start, stop, files.options.par)
        inputs = Inputs(files, panel, start, stop, given, match)
        ploidy = ploidy_of(given, panel, match, files.options.par)
        choice, parts, unused = fitted_parts(inputs, ploidy, self._model, options)
        uses_torch = parts[0].imputer.uses_torch
        warnings = [*self._warnings, *report.warnings]
        for line in unused:
            warnings.append(line)
            log.warning(line)
        if inputs.needs_phasing and not inputs.has_likelihoods:
            match, _ = phase_match(
                inputs, options.phase_options, ne=options.ne, err=options.err, seed=options.seed,
                threads=options.threads,
            )  # fmt: skip
            inputs = replace(inputs, match=match)
        memory = self._memory(uses_torch=uses_torch)
        dr2, stage = dr2_of(inputs, self._model), Stage("impute", stop - start)
        runs = [
            WindowRun(part, inputs, ploidy, dr2, memory, None, {}, stage, options.threads)
            for part in parts
        ]
        planned = plan_run(parts, Stretch.of(inputs), options, memory)
        for line in filter(None, (choice.unused, other_windows(choice, parts, planned))):
            warnings.append(line)
            log.warning(line)
        return _Work(inputs, [(runs[number], window) for number, window in planned], warnings)

    def _memory(self, *, uses_torch: bool) -> MemoryPlan:
        """Bounds of what is held at once, beside what the notebook holds already."""
        allowed = self._options.max_memory
        if allowed is None:
            allowed = held_bytes() + max(_LEAST_BYTES, min(ENOUGH_BYTES, free_bytes()))
        return plan_memory(allowed, uses_torch=uses_torch)


def _require_memory(num_sites: int, num_samples: int) -> None:
    """Refuse arrays that the memory has no room for.

    Raises
    ------
    InputError
        If they take more than what is free.
    """
    need, free = _BYTES_PER_GENOTYPE * num_sites * num_samples, free_bytes()
    if need > free:
        raise InputError(
            f"the arrays of {num_samples:,} samples at {num_sites:,} sites take "
            f"{need / 2**30:.1f} GiB of memory, but {free / 2**30:.1f} GiB are free",
            hint="go through windows(target) instead of impute(target), or give a region",
        )
