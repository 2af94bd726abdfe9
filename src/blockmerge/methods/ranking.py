"""The k-th smallest of one number per element of a tensor: exact, found without sorting.

The numbers, *scores*, are float32 and not negative; what is not a number ranks last. As in :mod:`.selection`, one
histogram is over the upper bits of all scores, a second one over the lower bits of those in the buckets that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import Array, Observe
from blockmerge.methods.scratch import chunks, scratch

__all__ = ["STEP", "Lower", "Ranked", "Ranks", "Score", "Scores", "Upper", "at_ranks", "scored"]

STEP = 1 << 15
"""Elements that are scored at once: as float32, a few task vectors of so many are what an L2 cache holds."""
_LOW_BITS = 15
Counts = NDArray[np.int64]
Ranks = Callable[[Counts], Sequence[int]]
"""From the counts of the upper histogram to the ranks that are looked for, counted from 0."""
Score = Callable[[Sequence[Array], int, NDArray[np.float32]], Any]
"""Fills in the scores of a chunk: takes its operands, its first element and the array to fill."""


class Scores(Protocol):
    """What gives each element its score."""

    def bind(self, statistics: Sequence[Array]) -> Score:
        """The function that scores, given what earlier passes measured."""
        ...


@dataclass(frozen=True, slots=True)
class Ranked:
    """The score at a rank, as bits of float32, how many scores are below it, and how many equal to it."""

    bits: int
    below: int
    equal: int


def scored(score: Score, operands: Sequence[Array], first: int) -> NDArray[np.float32]:
    """The scores of a granule, in this thread's scratch."""
    found = scratch("scores", operands[0].shape, np.float32)
    for part in chunks(found.size, STEP):
        score([operand[part] for operand in operands], first + part.start, found[part])
    return found


@dataclass(frozen=True, slots=True)
class Upper:
    """A pass that counts the scores in each bucket of upper bits."""

    scores: Scores
    stacked: ClassVar[bool] = False

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Counts of one granule, (buckets,)."""
        from blockmerge.kernels import select

        score = self.scores.bind(statistics)

        def observe(operands: Sequence[Array], first: int) -> Counts:
            counts = np.zeros(select.COARSE, np.int64)
            select.coarse_histogram(scored(score, operands, first), counts)
            return counts

        return observe


def _buckets(upper: Counts, ranks: Sequence[int]) -> list[tuple[int, int]]:
    """For each rank, the bucket where it falls, and how many scores are in those below."""
    ends = np.cumsum(upper)
    buckets = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    return [(bucket, int(ends[bucket] - upper[bucket])) for bucket in buckets]


@dataclass(frozen=True, slots=True)
class Lower:
    """The pass after :class:`Upper`: the same by lower bits, in the bucket of each rank."""

    scores: Scores
    ranks: Ranks
    stacked: ClassVar[bool] = False

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Counts of one granule, (ranks, scores in the bucket)."""
        from blockmerge.kernels import select

        score, upper = self.scores.bind(statistics[:-1]), statistics[-1][0]
        buckets = [bucket for bucket, _ in _buckets(upper, self.ranks(upper))]

        def observe(operands: Sequence[Array], first: int) -> Counts:
            found = scored(score, operands, first)
            counts = np.zeros((len(buckets), select.FINE), np.int64)
            for bucket, count in zip(buckets, counts, strict=True):
                select.fine_histogram(found, np.uint32(bucket), count)
            return counts

        return observe


def at_ranks(upper: Counts, lower: Counts, ranks: Ranks) -> list[Ranked]:
    """What stands at each rank, from the histograms of both passes."""
    found: list[Ranked] = []
    wanted = ranks(upper)
    for counts, rank, (bucket, below) in zip(lower, wanted, _buckets(upper, wanted), strict=True):
        ends = below + np.cumsum(counts)
        at = int(np.searchsorted(ends, rank, side="right"))
        found.append(Ranked((bucket << _LOW_BITS) + at, int(ends[at] - counts[at]), int(counts[at])))
    return found
