"""Impute the windows of a run from genotype likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np

from ragimpute.copying.window import TypedSites, pack_typed
from ragimpute.evidence.expected_r2 import WindowSays
from ragimpute.kernels.bits import WORD
from ragimpute.likelihoods.fit import FitOptions, FittedPanel, PanelFit, fit_panel, fit_stretch
from ragimpute.likelihoods.inbred import LEAST_CM, Inbreeding
from ragimpute.likelihoods.model import informative, normalise
from ragimpute.likelihoods.patterns import (
    MOST_WORDS,
    PATTERNS_FROM,
    PatternedSites,
    Sites,
)
from ragimpute.panel.inbred import second_haplotypes
from ragimpute.panel.reader import Panel
from ragimpute.runtime.stages import Stage
from ragimpute.runtime.timing import Stopwatch
from ragimpute.target.match import Match
from ragimpute.target.ploidy import TargetPloidy
from ragimpute.target.window import TargetWindow

# A sample's likelihoods, and what is computed of them, take so many times the memory that the
# probabilities of one haplotype are planned to take.
_PER_SAMPLE = 8
# Samples and sites whose reads are looked at together to find inbred lines.
_AT_ONCE, _ROWS = 256, 4096
# Bytes of the panel that are read at once where it is kept as patterns, and the length of blocks on
# which it is fitted.
_READ_BYTES = 2**26
_FIT_WORDS = 32
# Sites on which is measured how much memory patterns take.
_MEASURED_SITES = 4096
# Differences of the probabilities of two haplotypes are kept as whole numbers of this scale.
_SCALE = 100


class LikelihoodImputer:
    """Imputes from the likelihoods of a target's genotypes.

    It is an :class:`ragimpute.imputation.imputer.Imputer`, but gives one more row for each sample:
    after the n haplotypes come N rows with P(both haplotypes have ALT), 0 for haploid samples.

    Parameters
    ----------
    panel
        What is copied from.
    match
        The target at the panel's sites.
    ploidy
        Where samples are haploid.
    sites
        The panel sites [start, stop) that are imputed. The panel is fitted once, in their middle.
    options
        How they are copied.
    """

    uses_torch = False
    leaves_out = False
    expects_r2 = False
    is_wide = False

    def __init__(
        self,
        panel: Panel,
        match: Match,
        ploidy: TargetPloidy,
        sites: tuple[int, int],
        options: FitOptions,
    ) -> None:
        self.panel, self.options = panel, options
        self._sites = sites
        self._match, self._ploidy = match, ploidy
        self.settings: dict[str, object] = {
            "model": "likelihoods",
            "correction": "none" if options.network is None else "network for likelihoods",
            "states": "groups of panel haplotypes, in pairs",
        }
        self.inbred = self._inbred()
        if self.inbred.any():
            said = f"{int(self.inbred.sum()):,} of {len(self.inbred):,}"
            self.settings["inbred samples"] = f"{said}, imputed as one haplotype each"
        self.seconds: dict[str, float] = {}
        # Of the window before: the end of its right buffer, and differences of haplotypes there.
        self._end, self._before = 0, np.zeros((0, 0), np.int8)

    def prepare(self, target: TargetWindow) -> PreparedLikelihoods:
        """See :meth:`ragimpute.imputation.imputer.Imputer.prepare`."""
        left, right = target.left, target.right
        watch = Stopwatch(self.seconds)
        with Stage("read panel", right - left):
            typed = self._read(left, right)
        watch.lap("read")
        fitted = FittedPanel(typed, self.panel.haplotype_sample, self.options, fit=self.fit)
        watch.lap("fit")
        return PreparedLikelihoods(self, target, fitted)

    @cached_property
    def panel_bytes(self) -> float | None:
        """About the bytes that a site of the panel takes as patterns; None: it is kept as it is.

        It is measured in the middle of what is imputed.
        """
        start, stop = self._sites
        if start == stop or self.panel.num_haplotypes < PATTERNS_FROM:
            return None
        low = max(start, (start + stop - _MEASURED_SITES) // 2)
        high = min(low + _MEASURED_SITES, stop)
        typed = self._read(low, high)
        return typed.num_bytes / typed.num_typed if isinstance(typed, PatternedSites) else None

    @cached_property
    def fit(self) -> PanelFit:
        """How the panel is copied, found in the middle of the sites that are imputed.

        It does not depend on windows, so that a run that was interrupted goes on with the same.
        """
        start, stop = self._sites
        middle = fit_stretch(self.panel.position_cm[start:stop], self.panel.num_haplotypes)
        # A pass keeps what it finds at each site of a block: short blocks take less memory.
        typed = self._read(start + middle.start, start + middle.stop, most_words=_FIT_WORDS)
        with Stage("fit", 1):
            return fit_panel(typed, self.panel.haplotype_sample, self.options)

    def _read(self, left: int, right: int, *, most_words: int = MOST_WORDS) -> Sites:
        """The panel's sites [left, right), packed; those of a large panel as patterns.

        ``most_words``: length of the longest blocks of patterns.
        """
        panel, position_cm = self.panel, self.panel.position_cm[left:right]
        if panel.num_haplotypes < PATTERNS_FROM:
            words = pack_typed(panel.haplotypes(left, right), np.arange(right - left))
            return TypedSites(words, position_cm)
        held = panel.bytes_per_site() + panel.num_haplotypes / 8
        step = max(WORD, int(_READ_BYTES / held) // WORD * WORD)

        def parts() -> Iterator[np.ndarray]:
            for first in range(left, right, step):
                stop = min(first + step, right)
                yield pack_typed(panel.haplotypes(first, stop), np.arange(stop - first))

        return PatternedSites.pack(parts(), position_cm, most_words=most_words)

    def likelihoods(self, samples: slice, left: int, right: int) -> np.ndarray:
        """Those of some samples at the panel sites [left, right), shape (m, b, 3), float32."""
        match = self._match
        some = replace(
            match, alleles=match.alleles[:, samples], phased=match.phased[:, samples],
            likelihoods=None if match.likelihoods is None else match.likelihoods[:, samples],
        )  # fmt: skip
        return some.likelihoods_on(left, right)

    def _inbred(self) -> np.ndarray:
        """Which samples are inbred lines, shape (N,), bool, by all sites that are imputed."""
        start, stop = self._sites
        num_samples = self._match.alleles.shape[1]
        out = np.zeros(num_samples, bool)
        of_lines = bool(second_haplotypes(self.panel, start, min(stop, start + _ROWS)).any())
        if not of_lines and np.ptp(self.panel.position_cm[[start, stop - 1]]) < LEAST_CM:
            return out
        for i in range(0, num_samples, _AT_ONCE):
            some = slice(i, min(i + _AT_ONCE, num_samples))
            found = Inbreeding(some.stop - some.start)
            for left in range(start, stop, _ROWS):
                right = min(left + _ROWS, stop)
                given = normalise(self.likelihoods(some, left, right))
                given[self.haploid(left, right)[:, some]] = 1
                found.add(given, self.panel.af[left:right])
            out[some] = found.inbred(as_panel=of_lines)
        return out

    def haploid(self, left: int, right: int) -> np.ndarray:
        """Which samples are haploid at the panel sites [left, right), shape (m, N), bool."""
        return self._ploidy.haploid(left, right)

    def before(self, left: int) -> np.ndarray:
        """Differences of haplotypes that the window before left at sites from ``left`` on.

        Shape (k, N), int8; k is 0 if no window lies before, or it does not reach so far.
        """
        first = self._end - len(self._before)
        return self._before[left - first :] if first <= left < self._end else self._before[:0]

    def keep(self, end: int, differences: np.ndarray) -> None:
        """Keep, for the next window, the differences (k, N) of haplotypes at the k sites to end."""
        self._end, self._before = end, differences


class PreparedLikelihoods:
    """A window of the panel, fitted, whose samples can be imputed."""

    def __init__(
        self, imputer: LikelihoodImputer, target: TargetWindow, fitted: FittedPanel
    ) -> None:
        self._imputer, self._target, self._fitted = imputer, target, fitted

    def impute(self, *, batch: int, put: Callable[[int, int, np.ndarray], None]) -> WindowSays:
        """See :meth:`ragimpute.imputation.imputer.PreparedWindow.impute`.

        Haplotypes are exchanged where this makes them agree with those of the window before.
        """
        imputer, target = self._imputer, self._target
        watch = Stopwatch(imputer.seconds)
        left, right, (start, stop) = target.left, target.right, target.core
        core = slice(start - left, stop - left)
        haploid = imputer.haploid(left, right)
        num_samples = haploid.shape[1]
        at_once = max(imputer.options.threads, batch // _PER_SAMPLE)
        # The next window's left buffer begins about as far from the core's end as the right ends.
        tail = slice(max(0, 2 * stop - right - left), right - left)
        kept = np.zeros((tail.stop - tail.start, num_samples), np.int8)
        before = imputer.before(left)
        num_columns = len(target.sample)
        for first in range(0, num_samples, at_once):
            some = slice(first, min(first + at_once, num_samples))
            found = self._samples(some, haploid[:, some])
            for i, (prob, both) in enumerate(found, first):
                difference = np.rint(_SCALE * (prob[:, 0] - prob[:, -1])).astype(np.int8)
                overlap = min(len(before), len(difference))
                if overlap and before[:overlap, i].astype(np.int64) @ difference[:overlap] < 0:
                    prob, difference = prob[:, ::-1], -difference
                kept[:, i] = difference[tail]
                column, end = np.searchsorted(target.sample, [i, i + 1]).tolist()
                rows = np.ascontiguousarray(prob[core, : end - column].T)
                put(column, 0, rows)
                put(num_columns + i, 0, both[None, core])
        imputer.keep(right, kept)
        watch.lap("copy")
        return WindowSays(phase=kept)

    def _samples(self, samples: slice, haploid: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """P(ALT) of each haplotype (L, 1 or 2) and of both (L,), of some samples.

        ``haploid`` (L, b): where they are. Samples that are so in a part of the window are imputed
        as diploid ones; where they are haploid, their haplotype has the mean of both. Inbred lines
        are imputed as haploid ones.
        """
        target = self._target
        likelihoods = self._imputer.likelihoods(samples, target.left, target.right)
        out: list[tuple[np.ndarray, np.ndarray]] = [None] * haploid.shape[1]  # type: ignore[list-item]
        lines = self._imputer.inbred[samples]
        whole = np.asarray(haploid.all(axis=0)) | lines
        silent = np.zeros(len(whole), bool)
        for i in range(len(whole)):
            given = likelihoods[:, i][:, [0, 2]] if whole[i] else likelihoods[:, i]
            silent[i] = not informative(normalise(given)).any()
        af = self._imputer.panel.af[target.left : target.right].astype(np.float32)
        for i in np.flatnonzero(silent).tolist():
            out[i] = np.stack([af, af], axis=1), af * af
        for is_haploid in (False, True):
            of = np.flatnonzero((whole == is_haploid) & ~silent)
            if not len(of):
                continue
            given = likelihoods[:, of]
            if is_haploid:
                given = given[:, :, [0, 2]]
            for i, found in zip(of.tolist(), self._fitted.impute(given), strict=True):
                prob, both = found.allele_prob, found.both
                if lines[i]:  # both haplotypes are that one
                    prob, both = np.repeat(prob, 2, axis=1), prob[:, 0]
                out[i] = prob, both
        for i in np.flatnonzero(haploid.any(axis=0)).tolist():
            prob, both = out[i]
            rows = haploid[:, i]
            prob = prob.copy()
            prob[rows] = prob[rows].mean(axis=1, keepdims=True)
            out[i] = prob, np.where(rows, np.float32(0), both)
        return out
