"""Li-Stephens copying in torch, for a GPU: many targets at once, float32, word by word.

It computes what ``shared_kernel`` and ``sliding_kernel`` compute. Notation: n targets, K states, T
typed sites in W words of 32, M sites of a window. The walk over typed sites is sequential, but a
step is the same for all targets and states: three operations on (n, K) numbers. What belongs to
other words than the one at hand is kept on the host, or computed again. The *intervals* of a word
are those that follow its typed sites, from the first to the last; in the first word, the interval
before the first typed site comes before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from ragimpute.copying.window import Steps, Window
from ragimpute.kernels.bits import WORD
from ragimpute.runtime.device_memory import work_bytes

# Numbers of (n, K) that the walk over a word holds: mismatches, factors and what is added, forward
# and backward, for 32 typed sites each; three masses for 33 intervals; a few of one site.
_PER_STATE = 8 * WORD + 3 * (WORD + 1) + 8
# The part of the memory that sums over carriers may take beside the walk.
_SUMS_SHARE = 0.25
# Sums over carriers are added up as whole numbers of this unit: their order does not matter then,
# which differs from run to run on a GPU.
_UNIT = 2.0**44
# Bytes that an allele that is listed by haplotype takes while it is added up.
_ENTRY_BYTES = 96
# The rows of masses of an interval.
BOTH, LEFT, RIGHT = range(3)


class Doubtful(NamedTuple):
    """The pairs in doubt of a word, and the masses of their intervals, on the host.

    Attributes
    ----------
    pairs
        Shape (P, 2), int64: target and site, counted from the word's first, sorted.
    interval
        Shape (P,), int64: the typed site that each pair's interval follows, or -1.
    row
        Shape (P,), int64: the row of ``left`` and ``right`` that has the masses of the pair.
    left, right
        Shape (G, K), float32: forward and backward masses, in the scale of the kernels.
    left_total, right_total
        Shape (G,), float32: their sums, where for backward masses those states count too that are
        no longer there in this word.
    """

    pairs: np.ndarray
    interval: np.ndarray
    row: np.ndarray
    left: np.ndarray
    right: np.ndarray
    left_total: np.ndarray
    right_total: np.ndarray


@dataclass(frozen=True)
class CopiedWord:
    """What copying n targets gives for a word's S sites, on the device.

    Attributes
    ----------
    first_site, first_interval
        The first site; the typed site that the first interval follows, or -1.
    interval
        Shape (S,), int64: the interval of each site, counted from the first.
    prob
        Shape (n, S), float32, in [0, 1]: P(ALT).
    masses
        Shape (R, 3, n, K), float32: for each interval the products of forward and backward masses,
        forward masses, and backward masses. They are not scaled.
    totals
        Shape (R, 3, n), float32: what the masses of LEFT and RIGHT are to be divided by, and for
        BOTH the product of the two.
    sums
        Shape (S, 4, n), float32: the sums of the three masses over the carriers of each site's
        minor allele, and the number of carriers; None where targets have states of their own.
    known
        Shape (n, S), bool: what was observed.
    """

    first_site: int
    first_interval: int
    interval: torch.Tensor
    prob: torch.Tensor
    masses: torch.Tensor
    totals: torch.Tensor
    sums: torch.Tensor | None
    known: torch.Tensor

    def sums_by_target(self) -> np.ndarray:
        """``sums`` on the host, shape (n, S, 4, 1), or (0, 0, 4, 1) if there are none."""
        if self.sums is None:
            return np.empty((0, 0, 4, 1), np.float32)
        out: np.ndarray = self.sums.permute(2, 0, 1).contiguous().cpu().numpy()[..., None]
        return out

    def doubtful(self, low: float, high: float) -> Doubtful | None:
        """The pairs whose probability is strictly between limits; None if there are none."""
        open_ = (self.prob > low) & (self.prob < high) & ~self.known
        pairs = open_.nonzero()
        if len(pairs) == 0:
            return None
        num_intervals = len(self.masses)
        interval = self.interval[pairs[:, 1]]
        group, row = torch.unique_consecutive(
            pairs[:, 0] * num_intervals + interval, return_inverse=True
        )
        target, at = group // num_intervals, group % num_intervals
        masses, totals = (
            [of[at, side, target].cpu().numpy() for side in (LEFT, RIGHT)]
            for of in (self.masses, self.totals)
        )
        return Doubtful(
            pairs.cpu().numpy(), interval.cpu().numpy() + self.first_interval, row.cpu().numpy(),
            *masses, *totals,
        )  # fmt: skip


class _Words(NamedTuple):
    """The words of a window: where its core sites and typed sites are cut."""

    edges: np.ndarray  # (W + 1,): the core sites of word w are [edges[w], edges[w + 1])
    bounds: np.ndarray  # (T + 2,), see Window.bounds

    @classmethod
    def of(cls, window: Window) -> _Words:
        bounds = window.bounds()
        edges = np.append(bounds[1:-1:WORD], bounds[-1])
        edges[0] = bounds[0]
        return cls(edges, bounds)

    def intervals(self, w: int) -> tuple[int, np.ndarray]:
        """The first interval of word w, and the interval of each of its sites, counted from it."""
        first = w * WORD if w else -1
        last = min(len(self.bounds) - 2, (w + 1) * WORD)
        counts = np.diff(self.bounds[first + 1 : last + 2])
        return first, np.repeat(np.arange(len(counts)), counts)


def word_edges(window: Window) -> np.ndarray:
    """Shape (W + 1,), int64: the core sites of word w are [edges[w], edges[w + 1])."""
    return _Words.of(window).edges


def targets_at_once(
    num_words: int, num_states: int, device: str, *, own_states: bool, walks: int = 1
) -> int:
    """How many targets fit into a device's memory, >= 1.

    Parameters
    ----------
    num_words, num_states
        W and K.
    device
        Where they are copied, as torch calls it.
    own_states
        Whether each target has states of its own.
    walks
        Blocks of targets that are copied at the same time.
    """
    numbers = num_states * (_PER_STATE + num_words * (2 if own_states else 1))
    room = int(work_bytes(torch.device(device)) * (1 - _SUMS_SHARE))
    return max(1, room // (4 * numbers * walks))


class TorchCopying:
    """Copies one block of targets over a window: first forward, then back, word by word.

    Parameters
    ----------
    window
        The panel; its words and carriers are sent to the device word by word.
    steps
        Its switch and mismatch probabilities.
    states
        Shape (n, W, K), int32: the states of each target at each word. None: all targets copy all
        haplotypes of the panel.
    target, observed
        Shape (n, W), uint32: the targets' alleles, and which of them were observed.
    device
        Where all is computed, as torch calls it.
    walks
        Blocks that are copied at the same time, which share the memory.

    Notes
    -----
    :meth:`forward` comes first, then :meth:`back` once for each word, the last word first.
    """

    def __init__(
        self,
        window: Window,
        steps: Steps,
        states: np.ndarray | None,
        target: np.ndarray,
        observed: np.ndarray,
        device: str,
        *,
        walks: int = 1,
    ) -> None:
        # Training may have allowed matrix products of 10 bits, and sets this itself when it starts.
        torch.backends.cuda.matmul.allow_tf32 = False
        self._window, self._steps, self._device = window, steps, torch.device(device)
        self._words = _Words.of(window)
        self._states = None if states is None else self._sent(states)
        self._minor = None if states is None else window.minor_alleles
        self._target = self._sent(target.view(np.int32))
        self._observed = self._sent(observed.view(np.int32))
        self._shape = (len(target), window.typed.num_haplotypes if states is None
                       else states.shape[2])  # fmt: skip
        self._num_words = len(window.typed.words)
        self._bytes = int(work_bytes(self._device) * _SUMS_SHARE / walks)
        self._starts = torch.empty((self._num_words, *self._shape), device=device)
        self._product = torch.empty(self._shape, device=device)

    def _sent(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _column(self, values: np.ndarray) -> torch.Tensor:
        """Numbers for the typed sites of a word, or for sites: shape (S, 1, 1), float32."""
        return self._sent(values.astype(np.float32))[:, None, None]

    def _mismatches(self, w: int) -> torch.Tensor:
        """At which typed sites of a word each state differs from each target: (32, n, K), bool."""
        word = self._sent(self._window.typed.words[w].view(np.int32))
        if self._states is None:
            alleles = word.expand(self._shape)
        else:
            alleles = word.index_select(0, self._states[:, w].reshape(-1)).reshape(self._shape)
        differs = (alleles ^ self._target[:, w, None]) & self._observed[:, w, None]
        num = min(WORD, self._window.typed.num_typed - w * WORD)
        bit = torch.arange(num, dtype=torch.int32, device=self._device)[:, None, None]
        return ((differs >> bit) & 1).bool()

    def _factors(
        self, w: int, differs: torch.Tensor, keep: np.ndarray, enter: np.ndarray
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Times the emission at each typed site: what stays of a mass, and what is added to it."""
        err = self._steps.err[w * WORD : w * WORD + len(keep)]
        hit = np.float32(1.0) - err
        made = [
            torch.where(differs, self._column(x * err), self._column(x * hit))
            for x in (keep, enter)
        ]
        return made[0], made[1]

    def _same(self, w: int, other: int) -> torch.Tensor | None:
        """Which slots have the same state in two words, (n, K); None: all have."""
        if self._states is None:
            return None
        return self._states[:, w] == self._states[:, other]

    def _walk_right(
        self, w: int, differs: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fill the forward masses at a word's typed sites (L, n, K); returns them and their sums.

        They are not scaled: each step divides by the sum of the step before.
        """
        rho = self._steps.rho[w * WORD : w * WORD + len(differs)]
        num_states = np.float32(self._shape[1])
        keep, enter = self._factors(w, differs, np.float32(1.0) - rho, rho / num_states)
        sums = torch.empty((len(rows), self._shape[0], 1), device=self._device)
        before, total = self._starts[w], torch.ones_like(sums[0])
        for j in range(len(rows)):
            torch.mul(before, keep[j], out=self._product)
            before = torch.addcdiv(enter[j], self._product, total, out=rows[j])
            total = torch.sum(before, 1, keepdim=True, out=sums[j])
        return rows, sums

    @torch.inference_mode()
    def forward(self) -> None:
        """Walk to the last typed site; the masses before each word are kept."""
        rows = torch.empty((WORD, *self._shape), device=self._device)
        self._starts[0] = 1.0 / self._shape[1]
        for w in range(self._num_words):
            differs = self._mismatches(w)
            made, sums = self._walk_right(w, differs, rows[: len(differs)])
            if w + 1 < self._num_words:
                torch.div(made[-1], sums[-1], out=self._starts[w + 1])
                same = self._same(w, w + 1)
                if same is not None:
                    self._starts[w + 1] *= same
        self._backward = torch.ones(self._shape, device=self._device)
        self._total = torch.full((self._shape[0], 1), float(self._shape[1]), device=self._device)

    @torch.inference_mode()
    def back(self, w: int) -> CopiedWord:
        """Walk back over word ``w``, and copy its sites."""
        first_interval, of_site = self._words.intervals(w)
        differs = self._mismatches(w)
        if w + 1 < self._num_words:
            same = self._same(w, w + 1)
            if same is not None:
                self._backward *= same
        masses, totals = self._walk_left(w, differs, before=int(first_interval < 0))
        skip = len(masses) - len(differs)  # the interval before the first typed site
        interval = self._sent(of_site)
        first, stop = int(self._words.edges[w]), int(self._words.edges[w + 1])
        if len(of_site):
            _, totals[skip:, LEFT] = self._walk_right(w, differs, masses[skip:, LEFT])
            masses[:skip, LEFT] = 1.0 / self._shape[1]
            totals[:skip, LEFT] = 1.0
            torch.mul(masses[:, LEFT], masses[:, RIGHT], out=masses[:, BOTH])
            torch.mul(totals[:, LEFT], totals[:, RIGHT], out=totals[:, BOTH])
            totals = totals.squeeze(-1)
            prob, kept = self._probabilities(w, masses, totals, of_site, interval)
            flip = self._sent(~self._window.haplotypes.alt_is_minor[first:stop])
            prob = torch.where(flip, 1 - prob, prob)
        else:
            prob, kept = torch.empty((self._shape[0], 0), device=self._device), None
        return CopiedWord(
            first, first_interval, interval, prob, masses, totals, kept,
            self._known(w, first, stop),
        )  # fmt: skip

    def _walk_left(
        self, w: int, differs: torch.Tensor, *, before: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Walk back over a word's typed sites; returns masses (R, 3, n, K), of which RIGHT is set.

        Also returns totals (R, 3, n, 1), of which RIGHT is set. ``before``: whether there is an
        interval before the first typed site, 0 or 1.
        """
        num = len(differs)
        rho = np.append(self._steps.rho, np.float32(0.0))[w * WORD + 1 : w * WORD + 1 + num]
        num_states = np.float32(self._shape[1])
        keep, enter = self._factors(w, differs, (np.float32(1.0) - rho) * num_states, rho)
        masses = torch.empty((num + before, 3, *self._shape), device=self._device)
        totals = torch.empty((num + before, 3, self._shape[0], 1), device=self._device)
        masses[-1, RIGHT] = self._backward
        totals[-1, RIGHT] = self._total
        b, total = masses[-1, RIGHT], totals[-1, RIGHT]
        for j in range(num - 1, -1, -1):
            torch.mul(b, keep[j], out=self._product)
            at = j - 1 + before
            out, sums = masses[at, RIGHT], totals[at, RIGHT]
            if at < 0:
                out, sums = self._backward, self._total
            b = torch.addcdiv(enter[j], self._product, total, out=out)
            total = torch.sum(b, 1, keepdim=True, out=sums)
        return masses, totals

    def _known(self, w: int, first: int, stop: int) -> torch.Tensor:
        """Which sites of a word were observed in each target: (n, S), bool."""
        out = torch.zeros((self._shape[0], stop - first), dtype=torch.bool, device=self._device)
        site = self._window.typed_index[w * WORD : (w + 1) * WORD] - first
        bit = np.flatnonzero((site >= 0) & (site < stop - first))
        if len(bit):
            shift = self._sent(bit.astype(np.int32))
            out[:, self._sent(site[bit])] = ((self._observed[:, w, None] >> shift) & 1).bool()
        return out

    def _probabilities(
        self, w: int, masses: torch.Tensor, totals: torch.Tensor, of_site: np.ndarray,
        interval: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
        """P(minor allele) (n, S) at a word's sites, and the sums that tell it (see CopiedWord).

        The weights of f b, f, b and a constant are those of the four cases of a switch on neither
        side of the site, on the right side only, on the left side only, and on both sides.
        """
        first, stop = self._words.edges[w : w + 2]
        n, num_states = self._shape
        l, r = (self._sent(x[first:stop]) for x in self._steps.near)  # noqa: E741
        both = (1 - l) * (1 - r)
        alone = (1 - l) * r, l * (1 - r)
        total_both, total_right = (
            masses[:, side].sum(-1) / totals[:, side] for side in (BOTH, RIGHT)
        )  # (R, n)
        scales = 1 / totals
        weights = torch.stack([both * num_states, *alone, l * r / num_states])  # (4, S)
        whole = (
            weights[0, :, None] * total_both[interval] + alone[0][:, None]
            + alone[1][:, None] * total_right[interval] + (l * r)[:, None]
        )  # fmt: skip
        kept = None
        if self._states is None:
            kept = self._shared_sums(int(first), masses, of_site)
            weighed = kept * weights.T[..., None]
            part = ((weighed[:, :3] * scales[interval]).sum(1) + weighed[:, 3]).T
        else:
            part = torch.zeros((n, len(l)), device=self._device)
            self._add_rare(w, masses, scales, interval, weights, part)
            self._add_common(w, masses, scales, interval, weights, part)
        return (part / whole.T).clamp(0, 1), kept

    def _shared_sums(self, first: int, masses: torch.Tensor, of_site: np.ndarray) -> torch.Tensor:
        """Sums of the masses over the carriers of sites, and numbers of carriers: (S, 4, n)."""
        n, num_states = self._shape
        out = torch.empty((len(of_site), 4, n), device=self._device)
        for low, high in _pieces(len(of_site), self._bytes // (16 * num_states + 12 * n)):
            minor = self._minor_by_site(first + low, first + high)
            out[low:high, 3] = minor.sum(1, keepdim=True)
            cuts = np.flatnonzero(np.diff(of_site[low:high], prepend=-1, append=-1))
            for a, b in pairwise(cuts.tolist()):
                found = masses[of_site[low + a]].reshape(3 * n, num_states) @ minor[a:b].T
                out[low + a : low + b, :3] = found.T.reshape(-1, 3, n)
        return out

    def _minor_by_site(self, first: int, stop: int) -> torch.Tensor:
        """Which haplotypes have the minor allele of sites [first, stop): (S, H), 0.0 or 1.0."""
        h = self._window.haplotypes
        out = torch.zeros((stop - first, h.num_haplotypes), device=self._device)
        site = np.repeat(np.arange(stop - first), np.diff(h.offsets[first : stop + 1]))
        carriers = h.carriers[h.offsets[first] : h.offsets[stop]]
        out[self._sent(site), self._sent(carriers.astype(np.int64))] = 1.0
        common = np.flatnonzero(h.row[first:stop] >= 0)
        if len(common):
            bits = self._sent(h.bits[h.row[first:stop][common]].view(np.int64))
            bit = torch.arange(64, device=self._device)
            alleles = ((bits[:, :, None] >> bit) & 1).to(out.dtype).reshape(len(common), -1)
            out[self._sent(common)] = alleles[:, : h.num_haplotypes]
        return out

    def _add_rare(
        self, w: int, masses: torch.Tensor, scales: torch.Tensor, interval: torch.Tensor,
        weights: torch.Tensor, out: torch.Tensor,
    ) -> None:  # fmt: skip
        """Add to ``out`` (n, S) what carriers of rare sites have: alleles listed by haplotype."""
        minor, states = self._minor, self._states
        assert minor is not None
        assert states is not None
        num_states = self._shape[1]
        num_haplotypes, first = self._window.typed.num_haplotypes, int(minor.edges[w])
        offsets = minor.offsets[w * num_haplotypes : (w + 1) * num_haplotypes + 1]
        begin = int(offsets[0])
        listed = self._sent(minor.sites[begin : offsets[-1]] - first).long()
        starts = self._sent(offsets - begin).long()
        low = starts[states[:, w].long()]  # (n, K)
        length = starts[states[:, w].long() + 1] - low
        ends = length.sum(1).cumsum(0).cpu().numpy()
        for one, last in _runs(ends, self._bytes // _ENTRY_BYTES):
            part = length[one:last].reshape(-1)
            slot = torch.repeat_interleave(part)  # the slot of each listed allele, among all
            place = torch.arange(len(slot), device=self._device)
            place += (low[one:last].reshape(-1) - (part.cumsum(0) - part))[slot]
            site = listed[place]
            target, slot = slot // num_states + one, slot % num_states
            at = interval[site]
            mass = weights[3, site]
            for side in (BOTH, LEFT, RIGHT):
                weight = weights[side, site] * scales[at, side, target]
                mass = mass + weight * masses[at, side, target, slot]
            whole = torch.zeros((last - one) * out.shape[1], dtype=torch.int64, device=out.device)
            number = (mass.double() * _UNIT).round().long()
            whole.index_add_(0, (target - one) * out.shape[1] + site, number)
            out[one:last] += (whole.double() / _UNIT).to(out.dtype).reshape(last - one, -1)

    def _add_common(
        self, w: int, masses: torch.Tensor, scales: torch.Tensor, interval: torch.Tensor,
        weights: torch.Tensor, out: torch.Tensor,
    ) -> None:  # fmt: skip
        """Add to ``out`` (n, S) what carriers of common sites have: bits by haplotype."""
        minor, states = self._minor, self._states
        assert minor is not None
        assert states is not None
        n, num_states = self._shape
        begin, end = minor.common_edges[w : w + 2].tolist()
        for low, high in _pieces(end - begin, self._bytes // (32 * n * num_states)):
            number = np.arange(begin + low, begin + high)
            first_row = number[0] // 64
            rows = self._sent(minor.bits[first_row : number[-1] // 64 + 1].view(np.int64))
            bits = rows[:, states[:, w].long()]  # (rows, n, K)
            row = self._sent(number // 64 - first_row)
            shift = self._sent(number % 64)[:, None, None]
            carries = (bits[row] >> shift) & 1  # (sites, n, K)
            site = self._sent(minor.common[number] - self._words.edges[w])
            at = interval[site]
            mass = weights[3, site, None, None].expand(len(number), n, num_states).clone()
            for side in (BOTH, LEFT, RIGHT):
                weight = weights[side, site, None] * scales[at, side]  # (sites, n)
                mass.addcmul_(weight[..., None], masses[at, side])
            out[:, site] = (mass * carries).sum(-1).T


def _pieces(num: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut [0, num) into pieces of at most ``most`` numbers, but at least one."""
    step = max(1, int(most))
    yield from ((low, min(low + step, num)) for low in range(0, num, step))


def _runs(ends: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """Cut items into runs with a size of at most ``most``, but at least one item.

    ``ends`` (n,), ascending: the summed sizes of the items up to each.
    """
    first = 0
    while first < len(ends):
        before = ends[first - 1] if first else 0
        stop = max(first + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield first, stop
        first = stop
