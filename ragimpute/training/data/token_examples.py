"""Which windows of which samples an epoch of a token model reads, and in what order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# So many samples are copied together, which fills the lanes of a processor.
COPIED_TOGETHER = 8


class Examples(NamedTuple):
    """The examples of an epoch in the order of its batches: (n,), int, each.

    ``window``: the model's window; ``sample``: the panel sample; ``unit``: examples that share
    theirs are under one mask.
    """

    window: np.ndarray
    sample: np.ndarray
    unit: np.ndarray


def draw_alone(
    num_windows: int, samples: np.ndarray, num: int, rng: np.random.Generator
) -> Examples:
    """Draw ``num`` pairs of a window and a sample, none twice; each is a unit of its own.

    Parameters
    ----------
    num_windows
        How many windows the model has.
    samples
        Shape (k,), int: the samples to train on.
    num
        At most ``num_windows`` times k.
    rng
        Source of every draw.
    """
    chosen = rng.choice(num_windows * len(samples), num, replace=False)
    window, place = np.divmod(chosen, len(samples))
    return Examples(window, samples[place], np.arange(num))


def draw_in_units(
    search_window: np.ndarray, samples: np.ndarray, num: int, group: int, rng: np.random.Generator
) -> Examples:
    """Draw examples that are copied in units: some samples in all windows of an index window.

    They share a mask, and are copied together, for all windows of the model in the index window:
    that takes much less time. The examples of a group, which are those of many units, are mixed, as
    a batch of few sites would be a noisy sample of all.

    Parameters
    ----------
    search_window
        Shape (w,), int: the index window of each window of the model.
    samples
        Shape (k,), int: the samples to train on.
    num
        How many examples, at most w times k.
    group
        How many examples are mixed, >= 1.
    rng
        Source of every draw.
    """
    parts = []
    for search in range(int(search_window.max()) + 1):
        windows = np.flatnonzero(search_window == search)
        shuffled = rng.permutation(len(samples))
        for first in range(0, len(shuffled), COPIED_TOGETHER):
            here = shuffled[first : first + COPIED_TOGETHER]
            pairs = [np.repeat(windows, len(here)), np.tile(here, len(windows))]
            parts.append(np.stack(pairs))
    order = rng.permutation(len(parts))
    unit = np.repeat(np.arange(len(parts)), [parts[i].shape[1] for i in order])
    window, place = np.concatenate([parts[i] for i in order], axis=1)
    mixed = np.arange(num)
    for first in range(0, num, group):
        rng.shuffle(mixed[first : first + group])
    return Examples(window[mixed], samples[place[mixed]], unit[mixed])
