"""Which elements are kept by the size of their scores: exact counts, found without sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.between import Counts, Found, Ranked, Sums, Target, nothing
from blockmerge.methods.operations import STEP, Array, Measure
from blockmerge.methods.ranking import Scores, Search

if TYPE_CHECKING:
    from blockmerge.kernels.scores import Difference
    from blockmerge.kernels.thin import Between, Everything

__all__ = ["Deltas", "Keep", "Selection", "Share", "keys"]

_ALL = 0x7FFFFFFF
"""The bits of the largest magnitude."""
Keep = Callable[[int, int], "Between | Everything"]
"""Tells what is kept of some chunks: takes the first element and how many there are."""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of scores that stays, by ascending size: ``density`` of them, below the ``gamma`` largest.

    Where both are more than there is, fewer are kept, or with ``density_first`` fewer dropped as too large. With
    ``nonzero``, ``density`` is that of scores that are not zero.
    """

    density: float
    gamma: float = 0.0
    density_first: bool = False
    nonzero: bool = False

    def ranks(self, count: int, zeros: int) -> tuple[int, int]:
        """First rank that is kept, and how many are; at least one, unless the density is zero or one of ``nonzero``."""
        largest = min(int(self.gamma * count), count - 1)
        if self.density_first:
            kept = min(int(self.density * count), count)
            return max(count - largest - kept, 0), kept
        if self.nonzero:
            kept = int(self.density * (count - zeros))
        else:
            kept = 0 if self.density <= 0 else min(max(int(self.density * count), 1), count - largest)
        return count - largest - kept, kept

    def low(self, count: int, zeros: int) -> int:
        """The first rank that is kept; the last one there is, if none are."""
        return min(self.ranks(count, zeros)[0], count - 1)

    def high(self, count: int, zeros: int) -> int:
        """The last rank that is kept, or the first if none are."""
        start, kept = self.ranks(count, zeros)
        return min(start + max(kept, 1), count) - 1

    @property
    def bounded(self) -> bool:
        """Whether large ones may be dropped."""
        return self.gamma > 0 or self.density_first

    @property
    def targets(self) -> tuple[Callable[[int, int], int], ...]:
        """The ranks of the smallest that is kept and, if ``bounded``, of the largest."""
        return (self.low, self.high) if self.bounded else (self.low,)


class _Bounds(NamedTuple):
    """Smallest and largest size kept, as bits of float32, and how many of the elements equal to each are."""

    low: int
    high: int
    low_ties: int
    high_ties: int


@dataclass(frozen=True)
class Selection:
    """Keeps ``shares`` of ``scores``, one share each.

    Of equal ones as many as needed are kept, spread over the tensor in proportion and chosen by chance, which ``key``
    seeds. In tensors that are measured as one, ``joined``, all that equal a bound are kept. ``summing``, for one share,
    tells what is summed of the elements kept.
    """

    scores: Scores
    shares: tuple[Share, ...]
    key: int = 0
    joined: bool = False
    summing: Sums = nothing

    @property
    def whole(self) -> bool:
        """Whether nothing is dropped."""
        return all(share.density >= 1 and share.gamma <= 0 for share in self.shares)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The passes that find the bounds, unless all is kept."""
        return () if self.whole else self._search.measures

    @property
    def _search(self) -> Search:
        targets = tuple(Target(k, rank) for k, share in enumerate(self.shares) for rank in share.targets)
        return Search(self.scores, targets, joined=self.joined, summing=self.summing)

    def bind(self, statistics: Sequence[Array]) -> Keep:
        """What tells kernels which elements are kept, for any whole number of chunks."""
        from blockmerge.kernels import select, thin

        if self.whole:
            return lambda _first, _count: thin.Everything()
        found = self._search.found(statistics)
        bounds = self._bounds(found)
        lows, highs = (np.array(column, np.uint32) for column in list(zip(*bounds, strict=True))[:2])
        firsts, ties = found.firsts, None if self.joined else self._ties(found, bounds)
        seeds = keys(len(self.shares), self.key)

        def keep(first: int, count: int) -> Between:
            at, chunks = int(np.searchsorted(firsts, first)), -(-count // STEP)
            own = np.zeros((chunks, len(seeds), 2, 2), np.int64) if ties is None else ties[at : at + chunks].copy()
            return thin.Between(lows, highs, own, STEP, seeds, *select.marks_and_places())

        return keep

    def sums(self, statistics: Sequence[Array]) -> Array:
        """What was summed of the elements kept; of those that equal the bound, the part that is kept of them."""
        found = self._search.found(statistics)
        (bound,), (ranked,) = self._bounds(found), found.ranked
        equal, above = found.sums
        return above + equal * (bound.low_ties / ranked.equal) if bound.low_ties else above

    def _bounds(self, found: Found) -> list[_Bounds]:
        return [_bounds(share, found.ranked[start:]) for share, start in zip(self.shares, self._starts, strict=True)]

    @property
    def _starts(self) -> list[int]:
        """The number of the first target of each share."""
        return np.cumsum([0, *(len(share.targets) for share in self.shares)]).tolist()[:-1]

    def _ties(self, found: Found, bounds: Sequence[_Bounds]) -> NDArray[np.int64]:
        """For each chunk (chunks, shares, low and high, 2): ties there, how many of these stay."""
        wanted = [ties for bound, share in zip(bounds, self.shares, strict=True) for ties in _wanted(bound, share)]
        quotas = _quotas(found.ties, wanted)
        ties = np.zeros((len(quotas), len(self.shares), 2, 2), np.int64)
        for k, (share, start) in enumerate(zip(self.shares, self._starts, strict=True)):
            ties[:, k, : len(share.targets)] = quotas[:, start : start + len(share.targets)]
        return ties


def _bounds(share: Share, found: Sequence[Ranked]) -> _Bounds:
    """The bounds of a share, from what stands at its targets."""
    low, high = found[0], found[len(share.targets) - 1]
    start, kept = share.ranks(low.total, low.zeros)
    if kept == 0:
        return _Bounds(_ALL + 1, _ALL, 0, 0)
    if share.bounded and low.bits == high.bits:
        return _Bounds(low.bits, low.bits, kept, 0)
    return _Bounds(
        low.bits,
        high.bits if share.bounded else _ALL,
        low.below + low.equal - start,
        start + kept - high.below,
    )


def _wanted(bound: _Bounds, share: Share) -> tuple[int, ...]:
    return (bound.low_ties, bound.high_ties)[: len(share.targets)]


def _quotas(counts: Counts, wanted: Sequence[int]) -> NDArray[np.int64]:
    """For each chunk and target (chunks, targets, 2): ties there, how many of these are kept.

    They are spread in proportion to the ties there, by cumulative rounding, and add up exactly.
    """
    passed = np.cumsum(counts, axis=0)
    total = np.maximum(passed[-1], 1)
    whole: Any = passed if int(total.max()) * max(wanted) < 1 << 62 else passed.astype(object)
    given = whole * np.array(wanted) // total
    each = np.diff(given, axis=0, prepend=np.zeros_like(given[:1])).astype(np.int64)
    return np.stack([counts, each], axis=-1)


class Deltas:
    """The scores of task vectors: the operands less the first."""

    def bind(self, statistics: Sequence[Array]) -> Difference:
        """One vector after the other."""
        from blockmerge.kernels import scores

        del statistics
        return scores.Difference()


def keys(count: int, key: int) -> NDArray[np.uint64]:
    """A seed for each of ``count`` vectors."""
    from blockmerge.kernels import chance

    return np.array([chance.mixed(np.uint64(number), np.uint64(key)) for number in range(count)], np.uint64)
