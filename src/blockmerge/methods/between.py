"""What one reading of a tensor tells about ranks of its scores, if about where they are is known.

For each rank there are two scores; it counts those that are smaller, equal to one of them, between them and so on, and
keeps the few between. If the rank turns out to be at one of the two or among those few, all is known; otherwise it is
known how many scores are in which region, and where in it the rank is. Models whose task vectors hold few different
values, as bfloat16 finetunes do, have most of their elements *at* the two scores.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import STEP, Array, Whole
from blockmerge.methods.sampling import HIGHEST, LOWEST, Bits, Region
from blockmerge.methods.scratch import scratch
from blockmerge.methods.vectors import uniform

__all__ = ["MOST", "Between", "Counts", "Found", "Intervals", "Missed", "Ranked", "Sums", "Target", "nothing"]

MOST = 1 << 25
"""Bytes of a tensor that are kept at most."""
_ROOM = 1 << 22
"""Scores that a thread has room for."""
Counts = NDArray[np.int64]
Sums = Callable[[NDArray[Any], int, int], Array]
"""What is summed of operands (operands, elements): of those whose score equals the first bits, of those whose score
equals the second, which are larger or the same, and of those above both; (3, sums) in float64."""


def nothing(operands: NDArray[Any], low: int, high: int) -> Array:
    """Sum nothing."""
    del operands, low, high
    return np.zeros((3, 0))


class Target(NamedTuple):
    """A rank to look for among all of one score: ``rank`` takes how many there are and how many are zero."""

    score: int
    rank: Callable[[int, int], int]


class Ranked(NamedTuple):
    """What stands at a rank, as bits of float32: how many scores are below it, equal to it, there at all, zero."""

    bits: int
    below: int
    equal: int
    total: int
    zeros: int


@dataclass(frozen=True)
class Found:
    """What stands at each target, and in which chunks (by their ``firsts``) how many equal it: (chunks, targets).

    Of tensors that are measured as one there are no chunks. ``sums`` (2, sums) are those of the elements that equal the
    first target, and of those above.
    """

    ranked: list[Ranked]
    firsts: NDArray[np.int64]
    ties: Counts
    sums: Array


_NONE: Array = np.empty((1, 0))
_UNKNOWN: Counts = np.empty(0, np.int64)


@dataclass(frozen=True)
class Missed:
    """Not all was found: for each target what stands there, or in which region that is."""

    places: list[Ranked | Region]


class Intervals(NamedTuple):
    """For each target the number of its score, and two bits, ``lows < highs``; all int64."""

    numbers: Counts
    lows: Counts
    highs: Counts


class _Part(NamedTuple):
    """Of a granule, or a part: ``counts`` (chunks, targets, columns) as ``kernels.select.count_between`` gives them.

    Besides, what was summed; and as far as there is room, for each target the bits between, and their operands if these
    have to be summed as well.
    """

    counts: Counts
    sums: Array
    between: list[Bits]
    operands: Array

    @property
    def kept(self) -> int:
        """Bytes of what there may be no room for."""
        return self.operands.nbytes + sum(bits.nbytes for bits in self.between)


class Between(Whole):
    """Looks where the scores are, and tells :class:`Found` or :class:`Missed`.

    ``summing``, for one target, tells what else has to be known.
    """

    def __init__(self, scoring: Any, targets: Sequence[Target], intervals: Intervals, summing: Sums = nothing) -> None:
        self._scoring, self._targets, self._intervals, self._summing = scoring, targets, intervals, summing
        self._parts = dict[int, _Part]()
        self._left, self._guard = MOST, threading.Lock()

    def __call__(self, operands: Sequence[Array], first: int) -> None:
        """Look at one granule."""
        for start, some in uniform(operands, STEP):
            part = self._look(some, first + start)
            with self._guard:
                self._left -= part.kept if part.between else MOST
                self._parts[first + start] = part._replace(between=[], operands=_NONE) if self._full else part

    @property
    def _full(self) -> bool:
        """Whether more than there is room for was to be kept."""
        return self._left <= 0

    def _look(self, operands: NDArray[Any], first: int) -> _Part:
        """Without what is between, if there is too much of it."""
        from blockmerge.kernels import select

        (numbers, lows, highs), size = self._intervals, operands.shape[1]
        counts = np.zeros((-(-size // STEP), numbers.size, select.COLUMNS), np.int64)
        bits, places = scratch("between", (2, numbers.size, min(size, _ROOM // numbers.size)), np.uint32)
        select.count_between(self._scoring, operands, first, numbers, lows, highs, STEP, counts, bits, places)
        taken, sums = counts[:, :, 2].sum(axis=0), self._summing(operands, int(lows[0]), int(highs[0]))
        if taken.max() > bits.shape[1]:
            return _Part(counts, sums, [], _NONE)
        inside = operands[:, places[0, : taken[0]]] if self._summing is not nothing else _NONE
        return _Part(counts, sums, [row[:count].copy() for row, count in zip(bits, taken, strict=True)], inside)

    def total(self) -> Found | Missed:
        """All that is sought, if no target is elsewhere, or among more than could be kept."""
        parts = [self._parts[first] for first in sorted(self._parts)]
        counts = np.concatenate([part.counts for part in parts])
        places, ties = zip(*(self._find(k, counts[:, k], parts) for k in range(len(self._targets))), strict=True)
        ranked = [place for place in places if isinstance(place, Ranked)]
        if len(ranked) < len(places) or (self._full and self._summing is not nothing):
            return Missed(list(places))
        firsts = [first + STEP * np.arange(len(self._parts[first].counts)) for first in sorted(self._parts)]
        sums = self._sums(ranked[0].bits, parts)
        return Found(ranked, np.concatenate(firsts), np.stack(ties, axis=1), sums)

    def _find(self, k: int, counts: Counts, parts: Sequence[_Part]) -> tuple[Ranked | Region, Counts]:
        """Where target ``k`` is, from counts (chunks, columns), and how many equal it in each chunk, if known."""
        low, high = int(self._intervals.lows[k]), int(self._intervals.highs[k])
        below, lowest, inside, highest, zeros, total = counts.sum(axis=0).tolist()
        begin, above = below + lowest, below + lowest + inside
        rank = min(max(self._targets[k].rank(total, zeros), 0), total - 1)
        if rank < below:
            return Region(LOWEST, low, rank, below), _UNKNOWN
        if rank < begin:
            return Ranked(low, below, lowest, total, zeros), counts[:, 1]
        if rank >= above + highest:
            return Region(high, HIGHEST, rank - above - highest, total - above - highest), _UNKNOWN
        if rank >= above:
            return Ranked(high, above, highest, total, zeros), counts[:, 3]
        if self._full:
            return Region(low, high, rank - begin, inside), _UNKNOWN
        between = np.concatenate([part.between[k] for part in parts])
        bits = int(np.partition(between, rank - begin)[rank - begin])
        chunks = np.searchsorted(np.cumsum(counts[:, 2]), np.flatnonzero(between == bits), side="right")
        smaller = begin + int(np.count_nonzero(between < bits))
        return Ranked(bits, smaller, chunks.size, total, zeros), np.bincount(chunks, minlength=len(counts))

    def _sums(self, bits: int, parts: Sequence[_Part]) -> Array:
        """Those of elements that equal ``bits``, and of those above."""
        lowest, highest, above = np.sum([part.sums for part in parts], axis=0)
        equal, _, larger = self._summing(np.concatenate([part.operands for part in parts], axis=1), bits, bits)
        if bits == self._intervals.highs[0]:
            return np.stack([highest, above])
        return np.stack([lowest if bits == self._intervals.lows[0] else equal, larger + highest + above])
