"""Which magnitudes of a task vector are kept: exact counts, found without sorting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import Array, Observe
from blockmerge.methods.scratch import scratch

__all__ = ["Bounds", "Coarse", "Fine", "Share", "Ties", "bounds_of", "deltas", "quotas"]

_LOW_BITS = 15
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a task vector that stays, by ascending magnitude: ``density`` of it, below the ``gamma`` largest.

    Where both are more than there is, fewer are kept, or with ``density_first`` fewer dropped as too large.
    """

    density: float
    gamma: float = 0.0
    density_first: bool = False

    def ranks(self, elements: int) -> tuple[int, int]:
        """First rank that is kept, and how many are; at least one, unless the density is zero."""
        largest = min(int(self.gamma * elements), elements - 1)
        if self.density_first:
            kept = min(int(self.density * elements), elements)
            return max(elements - largest - kept, 0), kept
        kept = 0 if self.density <= 0 else min(max(int(self.density * elements), 1), elements - largest)
        return elements - largest - kept, kept


@dataclass(frozen=True, slots=True)
class Bounds:
    """Smallest and largest magnitude kept, as bits of float32, and how many of the elements equal to each are."""

    low: int
    high: int
    low_ties: int
    high_ties: int


def deltas(operands: Sequence[Array]) -> NDArray[np.float32]:
    """All operands less the first as float32, (models, elements), in this thread's scratch."""
    from blockmerge.kernels import sums

    found = scratch("deltas", (len(operands) - 1, operands[0].size), np.float32)
    for delta, operand in zip(found, operands[1:], strict=True):
        sums.difference(operand, operands[0], delta)
    return found


@dataclass(frozen=True, slots=True)
class Coarse:
    """Pass one: how many elements of each task vector fall into each bucket of magnitudes."""

    stacked: ClassVar[bool] = False

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Counts of one granule, (models, buckets)."""
        from blockmerge.kernels import select

        del statistics

        def observe(operands: Sequence[Array], _first: int) -> Counts:
            found = deltas(operands)
            counts = np.zeros((len(found), select.COARSE), np.int64)
            for delta, count in zip(found, counts, strict=True):
                select.coarse_histogram(delta, count)
            return counts

        return observe


def _boundaries(coarse: Counts, shares: Sequence[Share]) -> list[list[tuple[int, int, int]]]:
    """For each task vector, for its first and last kept rank: bucket, elements below the bucket, rank."""
    found: list[list[tuple[int, int, int]]] = []
    for counts, share in zip(coarse, shares, strict=True):
        ends = np.cumsum(counts)
        start, kept = share.ranks(int(ends[-1]))
        ranks = (start, start + max(kept, 1) - 1)
        buckets = [int(np.searchsorted(ends, min(rank, int(ends[-1]) - 1), side="right")) for rank in ranks]
        found.append([(b, int(ends[b] - counts[b]), rank) for b, rank in zip(buckets, ranks, strict=True)])
    return found


@dataclass(frozen=True, slots=True)
class Fine:
    """Pass two: the same within the two buckets where the kept part begins and ends."""

    shares: tuple[Share, ...]
    stacked: ClassVar[bool] = False

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Counts of one granule, (models, 2, magnitudes in the bucket)."""
        from blockmerge.kernels import select

        boundaries = _boundaries(statistics[0][0], self.shares)
        last = int(statistics[0][0, 0].sum()) - 1

        def observe(operands: Sequence[Array], _first: int) -> Counts:
            found = deltas(operands)
            counts = np.zeros((len(found), 2, select.FINE), np.int64)
            for delta, count, ends in zip(found, counts, boundaries, strict=True):
                for side, (bucket, _, rank) in enumerate(ends):
                    if side == 0 or rank < last:  # else all up to the end of the bucket are kept
                        select.fine_histogram(delta, np.uint32(bucket), count[side])
            return counts

        return observe


def bounds_of(coarse: Counts, fine: Counts, shares: Sequence[Share]) -> list[Bounds]:
    """The bounds of each task vector from the histograms of both passes."""
    found: list[Bounds] = []
    for counts, ends, share in zip(fine, _boundaries(coarse, shares), shares, strict=True):
        (start, below_start, kept_from), (stop, below_stop, kept_to) = ends
        low, below_low, equal_low = _within(counts[0], below_start, kept_from)
        high, below_high, _ = _within(counts[1], below_stop, kept_to)
        low, high = (start << _LOW_BITS) + low, (stop << _LOW_BITS) + high
        kept = share.ranks(int(coarse[0].sum()))[1]
        if low == high or kept == 0:
            found.append(Bounds(low, high, kept, 0))
        else:
            found.append(Bounds(low, high, below_low + equal_low - kept_from, kept_to + 1 - below_high))
    return found


def _within(counts: Counts, below: int, rank: int) -> tuple[int, int, int]:
    """The magnitude inside a bucket at ``rank``, how many elements are smaller, and how many equal to it."""
    ends = below + np.cumsum(counts)
    at = min(int(np.searchsorted(ends, rank, side="right")), len(counts) - 1)
    return at, int(ends[at] - counts[at]), int(counts[at])


@dataclass(frozen=True, slots=True)
class Ties:
    """Pass three: where the elements are that equal a bound, granule by granule."""

    shares: tuple[Share, ...]
    stacked: ClassVar[bool] = True

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Counts of one granule, (models, 2), behind them its first element."""
        from blockmerge.kernels import select

        all_bounds = bounds_of(statistics[0][0], statistics[1][0], self.shares)

        def observe(operands: Sequence[Array], first: int) -> Counts:
            found = deltas(operands)
            counts = np.zeros((len(found) + 1, 2), np.int64)
            counts[-1] = first
            for delta, count, bounds in zip(found, counts[:-1], all_bounds, strict=True):
                count[:] = [select.count_equal(delta, np.uint32(bits)) for bits in (bounds.low, bounds.high)]
            return counts

        return observe


def quotas(ties: Counts, bounds: Sequence[Bounds]) -> dict[int, Counts]:
    """For each granule's first element: how many ties with each bound are kept there, (models, 2).

    They are spread over granules in proportion to the ties there, by cumulative rounding, and add up exactly.
    """
    wanted = np.array([[b.low_ties, b.high_ties] for b in bounds], np.int64)
    passed = np.cumsum(ties[:, :-1], axis=0)
    total = np.maximum(passed[-1], 1)
    given: Any = passed.astype(object) * wanted // total  # whole numbers of any size
    each = np.diff(np.concatenate([np.zeros_like(given[:1]), given]), axis=0).astype(np.int64)
    return {int(first): quota for first, quota in zip(ties[:, -1, 0], each, strict=True)}
