"""Statistical phasing of unphased genotypes against a panel, and against the other targets.

A sample's two haplotypes are mosaics of other haplotypes, as in ``copying``. Given the alleles to
the left and to the right of a heterozygous site, Li-Stephens masses say how likely each order of
its two alleles is, and how likely it is that the haplotypes change places behind it. A pass along
the chromosome draws these choices one after the other, which is a Gibbs sampler of the pair of
haplotypes; passes begin at either end in turn. Each pass gives, for every two neighbouring
heterozygous sites, the probability that their ALT alleles are on the same haplotype. The averages
of these over the passes decide the phase. On 1000 Genomes data (600 + 404 haplotypes, 3 Mb) that
has 1.46 % switch errors; the likeliest pair of haplotypes has 1.6 %, a single draw 2.2 %.

References
----------
Li & Stephens 2003 (the model); Stephens & Scheet 2005, and Delaneau et al. 2013 (drawing pairs of
haplotypes given those of the others); Browning et al. 2021 (choosing between two orders by the
masses on both sides of a site).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ragimpute.copying.parameters import CopyingParameters, switch_probs
from ragimpute.copying.states import all_states
from ragimpute.copying.window import TypedSites, pack_words
from ragimpute.kernels.bits import WORD
from ragimpute.panel.loci import Loci
from ragimpute.phasing.choose_parameters import ParametersToFit
from ragimpute.phasing.constraints import FreePhase, Tied, free_phase, join_phase, tie_alleles
from ragimpute.phasing.duplicates import find_duplicates, own_and_doubles
from ragimpute.phasing.kernel import DRAWN, MISSING, Found, Pass, Sample, Scratch, scan_sample
from ragimpute.retrieval.retriever import Retriever
from ragimpute.runtime.stages import Stage, reporting
from ragimpute.runtime.threads import run_parts
from ragimpute.runtime.timing import Progress

# The largest number of samples that are phased together.
_MAX_SAMPLES = 1024


class Genotypes(NamedTuple):
    """Samples to phase, at T typed sites.

    Attributes
    ----------
    alleles
        Shape (T, N, 2), int8: 0, 1, -1 missing, -2 haploid fill. If only one allele of a genotype
        is missing, the other keeps its place.
    phased
        Shape (T, N), bool: genotypes whose order is known, see ``constraints``.
    phase_set
        Shape (T, N), int: phase set of each genotype, -1 where it has none; or None.
    ties
        The sites that exclude each other, or None: where a sample is heterozygous at two of them,
        it has one ALT on each haplotype.
    """

    alleles: np.ndarray
    phased: np.ndarray
    phase_set: np.ndarray | None = None
    ties: Loci | None = None

    def of_samples(self, part: slice) -> Genotypes:
        """Some of the samples."""
        sets = None if self.phase_set is None else self.phase_set[:, part]
        return Genotypes(self.alleles[:, part], self.phased[:, part], sets, self.ties)


@dataclass(frozen=True)
class PhasingSettings:
    """How thoroughly the phase is searched for.

    Attributes
    ----------
    passes
        Passes over each sample, after a first one that starts from nothing.
    fresh
        One in so many passes draws the phase without regard to the pass before, and is left out of
        the averages: 1.46 % switch errors instead of 1.50 % with the same number of passes.
    burn_in
        After each of the first so many passes, all averages so far lose half of their weight.
    refresh
        States are retrieved anew once in so many passes.
    num_states, num_background
        States of a word for each of the two haplotypes, and those of them that are the same
        everywhere. If there are at most twice ``num_states`` haplotypes, all of them are used.
    batch_bytes
        Memory for the states of the samples that are phased together, in bytes; there are at least
        16 samples, whatever they take.
    """

    passes: int = 24
    fresh: int = 3
    burn_in: int = 6
    refresh: int = 6
    num_states: int = 320
    num_background: int = 64
    batch_bytes: int = 2**28

    @classmethod
    def for_panel(cls, num_panel: int, num_targets: int = 0) -> PhasingSettings:
        """The settings for so many haplotypes of the panel, and of targets that are copied too.

        In a panel of 4,508 haplotypes, 640 states make 15 errors and 320 states 17 (0.14 and
        0.16 % of the pairs of heterozygous sites, means of 8 seeds). With 1,000 haplotypes, 640
        states are no better than 320.

        Where most of what is copied has to be phased itself, early passes are poor: in families of
        five beside 14 panel haplotypes, errors are 2.5 % with 6 passes of burn-in out of 24, and
        less than half of that with 24 out of 36.
        """
        num_states = int(np.clip((num_panel + num_targets) // 8, 320, 640))
        if num_targets > num_panel:
            return cls(num_states=num_states, passes=36, burn_in=24)
        return cls(num_states=num_states)


def phase_haplotypes(
    typed: TypedSites,
    genotypes: Genotypes,
    parameters: CopyingParameters | ParametersToFit,
    *,
    with_targets: bool = False,
    fill_missing: bool = False,
    settings: PhasingSettings = PhasingSettings(),
    seed: int = 1,
    threads: int = 1,
    progress: Progress | None = None,
) -> np.ndarray:
    """Phase samples, and fill in their missing alleles if that is asked for.

    Samples are phased in batches of as many as the memory for their states allows, so that memory
    does not grow with their number.

    Parameters
    ----------
    typed
        The panel at T typed sites.
    genotypes
        The samples at these sites.
    parameters
        For a panel of this size. Parameters to fit are fitted to the panel at first, and with
        ``with_targets`` again each time that states are retrieved; they are left as they were
        at last.
    with_targets
        Use the other samples of the batch as extra haplotypes to copy from, but no sample's
        duplicates.
    fill_missing
        Replace missing alleles by the likelier one.
    settings
        How thoroughly the phase is searched for.
    seed, threads
        The result does not depend on ``threads``.
    progress
        Called as ``progress("phase", done, total)``; it counts passes over a sample. None: as
        :func:`ragimpute.runtime.stages.reporting` says.

    Returns
    -------
    Shape (T, N, 2), int8: the alleles, with an order chosen for each heterozygous genotype. A
    sample's first heterozygous genotype keeps its order, or has REF first if that was not known.

    Raises
    ------
    ValueError
        If the arrays' shapes do not agree.
    """
    alleles, phased = genotypes.alleles, genotypes.phased
    num_typed, num_samples, _ = alleles.shape
    if num_typed != typed.num_typed or phased.shape != (num_typed, num_samples):
        raise ValueError(
            f"the panel has {typed.num_typed} typed sites, alleles {alleles.shape}, phased "
            f"{phased.shape}"
        )
    out = alleles.copy()
    if isinstance(parameters, ParametersToFit):
        parameters.fit(typed.words, typed.position_cm, np.zeros(0, np.int64), seed=seed)
    # A retrieved state of each word, and 13 bytes a site: alleles, flags and sums.
    per_sample = len(typed.words) * (2 * settings.num_states * 4 + 13 * WORD)
    size = int(np.clip(settings.batch_bytes // per_sample, 16, _MAX_SAMPLES))
    total = num_samples * (settings.passes + 1 + fill_missing)
    with reporting(progress), Stage("phase", total) as stage:
        for first in range(0, num_samples, size):
            part = slice(first, first + size)
            batch = _Batch(
                typed, genotypes.of_samples(part), parameters, with_targets=with_targets,
                settings=settings, seed=(seed, first), threads=threads,
            )  # fmt: skip
            batch.advance = stage.advance
            for _ in batch.passes():
                pass
            out[:, part] = batch.result(fill_missing)
    return out


class _Batch:
    """Samples that are phased together: their phase now, and the sums over the passes so far."""

    def __init__(
        self,
        typed: TypedSites,
        genotypes: Genotypes,
        parameters: CopyingParameters | ParametersToFit,
        *,
        with_targets: bool,
        settings: PhasingSettings,
        seed: tuple[int, int],
        threads: int,
    ) -> None:
        alleles, phased, phase_set, ties = genotypes
        # Genotypes of unknown phase start with REF first, so that the order in which the file has
        # their alleles changes nothing.
        loose = (~phased & (alleles >= 0).all(axis=2))[:, :, None]
        alleles = np.where(loose, np.sort(alleles, axis=2), alleles)
        self._typed, self._alleles = typed, alleles
        self._settings, self._seed, self._threads = settings, seed, threads
        num_typed, self.num_samples, _ = alleles.shape
        self._with_targets = with_targets and self.num_samples > 1
        self._own: np.ndarray | None = None  # haplotypes that each sample must not copy
        self._group = np.zeros(0, np.int64)  # for each sample the first of its duplicates
        self._tied: list[Tied] = []
        self._free: list[FreePhase] = []
        shown = alleles.copy()
        for i in range(self.num_samples):
            sets = None if phase_set is None else phase_set[:, i]
            tied = tie_alleles(alleles[:, i], phased[:, i], sets, ties or Loci.none())
            alleles[:, i] = shown[:, i] = tied.alleles
            shown[tied.hidden, i] = -1
            self._tied.append(tied)
            self._free.append(free_phase(shown[:, i], tied.phased, tied.phase_set))
        # Haplotype-major and in whole words: sites that fill up the last word are unobserved.
        length = WORD * len(typed.words)
        self._pair = np.full((self.num_samples, 2, length), -1, np.int8)
        self._pair[:, :, :num_typed] = np.maximum(shown, -1).transpose(1, 2, 0)
        self._missing = np.zeros((self.num_samples, length), bool)
        self._missing[:, :num_typed] = (alleles == -1).any(axis=2).T
        # What other samples copy from this one: its phase so far, with missing alleles filled in.
        self._known = self._pair.copy()
        common = np.zeros(length, np.int8)
        common[:num_typed] = (2 * _alt_counts(typed) > typed.num_haplotypes).astype(np.int8)
        np.copyto(self._known, common, where=self._known < 0)
        haploid = np.zeros((self.num_samples, length), bool)
        haploid[:, :num_typed] = (alleles[:, :, 1] == -2).T
        np.copyto(self._known[:, 1], self._known[:, 0], where=haploid)
        self._wanted = np.where(self._missing, MISSING, 0).astype(np.uint8)
        for i, free in enumerate(self._free):
            self._wanted[i, free.het[free.moves > 0]] = DRAWN
        self._same = np.zeros((self.num_samples, 2, length), np.float32)
        self._parameters = parameters
        if self._with_targets:
            duplicates = find_duplicates(alleles)
            self._own = own_and_doubles(duplicates, typed.num_haplotypes)
            self._group = duplicates.argmax(axis=1)
        self._retriever: Retriever | None = None
        #: Called with 1 for each pass over a sample.
        self.advance: Callable[[int], None] = lambda amount: None

    def passes(self) -> Iterator[int]:
        """Pass over all samples again and again; yields the number of each pass when it is done."""
        settings = self._settings
        panel = self._typed.words
        rng = np.random.default_rng(self._seed)
        drawn = rng.permutation(panel.shape[1])[: 2 * settings.num_states]
        some = np.sort(drawn).astype(np.int32)[None]
        self._pass(0, panel, lambda i: some, fresh=True)
        for i, free in enumerate(self._free):
            self._known[i][:, free.het] = self._pair[i][:, free.het]
            self._tied[i].copy_phase(self._known[i])
        yield 0
        for number in range(1, settings.passes + 1):
            if (number - 1) % settings.refresh == 0:
                self._fit_parameters()
                states = self._find_states(panel)
            words = self._words_with_targets() if self._with_targets else panel
            fresh = number > 1 and (number - 1) % settings.fresh == 0
            self._pass(number, words, states, fresh=fresh)
            if not fresh:
                self._update_known()
                if number <= settings.burn_in:
                    self._same *= np.float32(0.5)
            yield number

    def result(self, fill_missing: bool) -> np.ndarray:
        """The alleles, phased: shape (T, n, 2), int8."""
        num_typed = len(self._alleles)
        out = self._alleles.copy()
        for i, free in enumerate(self._free):
            out[free.het, i] = self._known[i][:, free.het].T
            self._tied[i].copy_phase(out[:, i].T)
        if not fill_missing or not self._missing.any():
            return out
        self._pair[:, :, :num_typed] = np.maximum(out, -1).transpose(1, 2, 0)
        self._wanted[self._wanted == DRAWN] = 0
        panel = self._typed.words
        states = self._find_states(panel)
        words = self._words_with_targets() if self._with_targets else panel
        self._pass(self._settings.passes + 1, words, states, fresh=False)
        self._update_known()
        return np.where(out == -1, self._known[:, :, :num_typed].transpose(2, 0, 1), out)

    def _pass(
        self,
        number: int,
        words: np.ndarray,
        states: Callable[[int], np.ndarray],
        *,
        fresh: bool,
    ) -> None:
        """Go along every sample once; ``fresh``: without regard to the phase of the pass before."""
        backwards = number > 0 and number % 2 == 0
        way = slice(None, None, -1) if backwards else slice(None)
        rho = self._switch_probs(words.shape[1], backwards)
        err = np.float32(self._copying.mismatch_prob)
        shared = Pass(words, backwards, rho, err, fresh, number > 0)
        length = self._wanted.shape[1]
        self._alt = np.zeros((self.num_samples, 2, length), np.float32)

        def run(part: range) -> None:
            scratch: Scratch | None = None
            for i in part:
                self.advance(1)
                if not self._wanted[i].any():
                    continue
                state = states(i)
                if scratch is None or scratch.forward.shape[1] != state.shape[1]:
                    scratch = Scratch.empty(len(words), state.shape[1])
                free = self._free[i]
                moves = np.zeros(length, np.uint8)
                moves[free.het] = free.moves_back() if backwards else free.moves
                moves[self._wanted[i] != DRAWN] = 0
                pair = np.ascontiguousarray(self._pair[i][:, way])
                # A fresh pass knows the phase on one side only, so the averages leave it out.
                same = np.zeros((2, length), np.float32)
                if not fresh:
                    same[:] = self._same[i][:, way]
                alt = np.zeros((2, length), np.float32)
                uniform = np.random.default_rng((*self._seed, number, i)).random((length,))
                sample = Sample(
                    state, pair, np.ascontiguousarray(self._wanted[i, way]),
                    np.ascontiguousarray(moves[way]), uniform,
                )  # fmt: skip
                scan_sample(shared, sample, Found(same, alt), scratch)
                self._pair[i] = pair[:, way]
                if not fresh:
                    self._same[i] = same[:, way]
                self._alt[i] = alt[:, way]

        run_parts(run, self.num_samples, self._threads)

    def _update_known(self) -> None:
        """Set the phase by the averages over passes, and missing alleles by the last pass."""
        for i, free in enumerate(self._free):
            het = free.het
            given = self._alleles[het, i, 0]
            total, count = self._same[i][:, het]
            with np.errstate(invalid="ignore"):
                first = join_phase(free, given, total / count)
            self._known[i, 0, het] = first
            self._known[i, 1, het] = 1 - first
            self._tied[i].copy_phase(self._known[i])
            missing = np.nonzero(self._missing[i])[0]
            if not len(missing):
                continue
            # The last pass may have the two haplotypes in the other order than the averages have:
            # compare them at the last heterozygous site before each missing allele.
            turned = np.append(first != self._pair[i, 0, het], False)
            turn = turned[np.searchsorted(het, missing) - 1]
            alt = self._alt[i][:, missing]
            called = np.where(turn, alt[::-1], alt) > 0.5
            given_here = np.maximum(self._alleles[missing, i].T, -1)
            self._known[i][:, missing] = np.where(given_here < 0, called, given_here)

    def _words_with_targets(self) -> np.ndarray:
        """Panel and targets, shape (W, H + 2 n), uint32: samples' haplotypes side by side."""
        columns = self._known.reshape(2 * self.num_samples, -1)
        packed = pack_words(np.ascontiguousarray(columns.T))[0]
        return np.ascontiguousarray(np.concatenate([self._typed.words, packed.T], axis=1))

    @property
    def _copying(self) -> CopyingParameters:
        """The parameters of now."""
        given = self._parameters
        return given.parameters if isinstance(given, ParametersToFit) else given

    def _fit_parameters(self) -> None:
        """Fit the parameters anew to all that is copied, the targets as they are phased now."""
        given = self._parameters
        if self._with_targets and isinstance(given, ParametersToFit):
            words = self._words_with_targets()
            given.fit(words, self._typed.position_cm, self._group, seed=self._seed[0])

    def _find_states(self, panel: np.ndarray) -> Callable[[int], np.ndarray]:
        """Which haplotypes each sample may copy now."""
        settings = self._settings
        own = self._own
        words = self._words_with_targets() if self._with_targets else panel
        if words.shape[1] <= 2 * settings.num_states:
            return lambda i: all_states(words.shape[1], None if own is None else own[i])
        retriever = self._retriever
        if retriever is None or self._with_targets:
            retriever = self._retriever = Retriever(
                words, num_slots=settings.num_states, num_background=settings.num_background,
                seed=self._seed[0],
            )  # fmt: skip
        columns = self._known.reshape(2 * self.num_samples, -1)
        packed = pack_words(np.ascontiguousarray(columns.T))[0].reshape(self.num_samples, 2, -1)
        found: list[np.ndarray] = [np.zeros(0, np.int32)] * self.num_samples

        def run(part: range) -> None:
            # One search for all of a thread's samples, each of its haplotypes apart: haplotypes
            # that both retrieve have two slots, and twice the weight.
            mine = list(part)
            pair = [
                retriever.states(packed[mine, x], None if own is None else own[mine])
                for x in range(2)
            ]
            for i, one, other in zip(mine, *pair, strict=True):
                found[i] = np.concatenate([one, other], axis=1)

        run_parts(run, self.num_samples, self._threads)
        return lambda i: found[i]

    def _switch_probs(self, num_haplotypes: int, backwards: bool) -> np.ndarray:
        """Switch probability before each site on the way, shape (32 W + 1,), float32."""
        cm = self._typed.position_cm
        rate = self._copying.switch_rate * self._typed.num_haplotypes / num_haplotypes
        length = self._wanted.shape[1]
        rho = np.zeros(length + 1, np.float32)
        rho[: len(cm)] = switch_probs(cm, switch_rate=rate)
        if backwards:
            rho[1:length] = rho[1:length][::-1].copy()
        return rho


def _alt_counts(typed: TypedSites) -> np.ndarray:
    """How many panel haplotypes have ALT at each typed site, shape (T,), int64."""
    bits = np.arange(WORD, dtype=np.uint32)
    counts = [np.count_nonzero(word[None] >> bits[:, None] & 1, axis=1) for word in typed.words]
    return np.concatenate(counts)[: typed.num_typed]
