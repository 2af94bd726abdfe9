"""A sample of scores, and two scores of it between which a rank of all of them is."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import GRANULE, STEP, Array, Whole
from blockmerge.methods.vectors import uniform

__all__ = ["HIGHEST", "LOWEST", "PART", "Bits", "Region", "Sampling", "around"]

PART = 64
"""One over the part of a tensor that is in a sample."""
LOWEST, HIGHEST = -1, 1 << 31
"""Below and above the bits of every size."""
Bits = NDArray[np.uint32]
"""Sizes of float32 as whole numbers, which ascend with them; what is not a number comes last."""
_MOST, _CLUSTER, _DEVIATIONS = 1 << 19, 1 << 11, 4


class Region(NamedTuple):
    """``total`` scores are between two bits, and not equal to these; the one at ``rank`` of them is sought."""

    low: int
    high: int
    rank: int
    total: int


class Sampling(Whole):
    """Keeps the bits of all that is scored, for each of ``scores`` numbers: (scores, elements).

    Where that takes more than half a MB for each, it keeps every third element of each granule, or ninth, and so on: as
    many rows as before, which may differ, and each of their columns in one row or another. One of each granule is kept.
    """

    def __init__(self, scoring: Any, scores: int) -> None:
        self._scoring, self._scores = scoring, scores
        self._kept, self._stride = 0, 1
        self._found = dict[int, Bits]()
        self._guard = threading.Lock()

    def __call__(self, operands: Sequence[Array], first: int) -> None:
        """Score the first part of a granule."""
        from blockmerge.kernels import select

        found = np.empty((self._scores, operands[0].size), np.uint32)
        for start, some in uniform(operands, STEP):
            for number, bits in enumerate(found):
                select.sizes(self._scoring, number, some, first + start, bits[start : start + some.shape[1]])
        with self._guard:
            self._found[first] = found[:, :: self._stride].copy()
            self._kept += self._found[first].nbytes
            while self._kept > _MOST * self._scores and self._stride < GRANULE // PART:
                self._thin()

    def _thin(self) -> None:
        """Which elements stay in the end does not depend on the order in which granules come."""
        self._stride *= 3
        self._found = {first: bits[:, ::3].copy() for first, bits in self._found.items()}
        self._kept = sum(bits.nbytes for bits in self._found.values())

    def total(self) -> Bits:
        """All that is kept."""
        return np.concatenate([self._found[first] for first in sorted(self._found)], axis=1)


def around(sample: Bits, region: Region) -> tuple[int, int]:
    """Two bits, the first of which is smaller: what is wanted of a region is likely to be one of them, or between.

    ``sample`` (elements,) stands in the order of the tensor: how much its parts differ tells how far it may mislead.
    """
    own = sample[(sample > region.low) & (sample < region.high)]
    if own.size == 0:
        return region.low, region.high
    at = region.rank * own.size // region.total
    ordered = np.partition(own, at)
    slack = _slack(own, ordered[at], at)
    low = region.low if at < slack else int(np.partition(ordered[: at + 1], at - slack)[at - slack])
    high = region.high if at + slack >= own.size else int(np.partition(ordered[at:], slack)[slack])
    return low, max(high, low + 1)


def _slack(sample: Bits, bits: np.uint32, at: int) -> int:
    """How far from ``at``, where a sample has ``bits``, it may have what is wanted."""
    clusters = sample[: sample.size - sample.size % _CLUSTER].reshape(-1, _CLUSTER)
    smaller = np.count_nonzero(clusters < bits, axis=1)
    by_chance = math.sqrt(at * (sample.size - at) / sample.size)
    by_clusters = math.sqrt(smaller.size) * float(np.std(smaller)) if smaller.size else 0.0
    return math.ceil(_DEVIATIONS * (max(by_chance, by_clusters) + 1))
