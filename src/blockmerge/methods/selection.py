"""Which elements are kept by the size of their scores: exact counts, found without sorting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import Array, Measure
from blockmerge.methods.ranking import Equals, Ranked, Score, Scores, Search, Target

__all__ = ["Deltas", "Keep", "Selection", "Share", "keys"]

_ALL = 0x7FFFFFFF
"""The bits of the largest magnitude."""
_ALL_OF_NONE = (0, 0)
Keep = Callable[[NDArray[np.float32], int, int], None]
"""Zeroes what is dropped of a chunk: takes one score of its elements, the number of the score, the first element."""


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
    seeds. In tensors that are measured as one, ``joined``, all that equal a bound are kept.
    """

    scores: Scores
    shares: tuple[Share, ...]
    key: int = 0
    joined: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is dropped."""
        return all(share.density >= 1 and share.gamma <= 0 for share in self.shares)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The passes that find the bounds."""
        return self._search.measures

    @property
    def _search(self) -> Search:
        targets = tuple(Target(k, rank) for k, share in enumerate(self.shares) for rank in share.targets)
        return Search(self.scores, targets, spread=not self.joined)

    def bind(self, statistics: Sequence[Array]) -> Keep:
        """The function that keeps in a chunk of :data:`~blockmerge.methods.ranking.STEP` elements."""
        from blockmerge.kernels import select

        ranked = self._search.ranked(statistics)
        starts = np.cumsum([0, *(len(share.targets) for share in self.shares)]).tolist()
        bounds = [_bounds(share, ranked[start:]) for share, start in zip(self.shares, starts, strict=False)]
        wanted = [ties for bound, share in zip(bounds, self.shares, strict=True) for ties in _wanted(bound, share)]
        quotas = {} if self.joined else _quotas(self._search.equals(statistics, ranked), wanted)
        seeds = keys(len(self.shares), self.key)

        def keep(values: NDArray[np.float32], k: int, first: int) -> None:
            ties = [*([] if self.joined else quotas[first][starts[k] : starts[k + 1]]), _ALL_OF_NONE, _ALL_OF_NONE]
            low, high = bounds[k][:2]
            select.keep_between(values, np.uint32(low), ties[0], np.uint32(high), ties[1], first, seeds[k])

        return keep


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


def _quotas(equals: Equals, wanted: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    """For the first element of each chunk: ties with each target there, and how many of these are kept.

    They are spread in proportion to the ties there, by cumulative rounding, and add up exactly.
    """
    passed = np.cumsum(equals.counts, axis=0)
    total = np.maximum(passed[-1], 1)
    whole: Any = passed if int(total.max()) * max(wanted) < 1 << 62 else passed.astype(object)
    given = whole * np.array(wanted) // total
    each = np.diff(given, axis=0, prepend=np.zeros_like(given[:1])).astype(np.int64)
    pairs = np.stack([equals.counts, each], axis=-1).tolist()
    return {first: [(ties, kept) for ties, kept in found] for first, found in zip(equals.firsts, pairs, strict=True)}


class Deltas:
    """The scores of task vectors: the operands less the first."""

    def bind(self, statistics: Sequence[Array]) -> Score:
        """One vector after the other."""
        from blockmerge.kernels import sums

        del statistics
        return lambda operands, _first, k, out: sums.difference(operands[k + 1], operands[0], out)


def keys(count: int, key: int) -> list[np.uint64]:
    """A key for each of ``count`` vectors."""
    from blockmerge.kernels import select

    return [np.uint64(select.mixed(np.uint64(number), np.uint64(key))) for number in range(count)]
