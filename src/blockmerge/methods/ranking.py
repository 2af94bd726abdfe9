"""What stands at a rank of one number per element of a tensor: exact, found without sorting, in two readings.

The numbers, *scores*, are float32 and ranked by size, whatever their sign; what is not a number ranks last. The bits of
non-negative floats ascend as integers, so a rank is looked for among bits:

1. a histogram of the upper bits of a sample tells about where it is;
2. a histogram of a window around that, an eighth of an octave at most, tells in which 64 neighbouring floats it is;
3. counts of these 64 tell which one it is, and where in the tensor the elements are that equal it.

Where the sample misleads, a histogram of all scores puts the window right, and step 2 is done again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import GRANULE, STEP, Array, Measure, Observe, Tally
from blockmerge.methods.vectors import uniform

__all__ = ["PARTS", "Counts", "Equals", "Ranked", "Scores", "Search", "Target", "Values", "packed", "unpacked"]

_SAMPLED = 32
_DEVIATIONS = 6
"""Standard deviations that a rank in the sample may be off."""
PARTS = GRANULE // STEP
"""Chunks in a granule."""
Counts = NDArray[np.int64]


class Scores(Protocol):
    """What gives each element its scores, one or several."""

    def bind(self, statistics: Sequence[Array]) -> Any:
        """How kernels score (:mod:`blockmerge.kernels.scores`), given what earlier passes measured."""
        ...


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


class Equals(NamedTuple):
    """Where the elements are that equal what was found: ``counts`` (chunks, targets), by the ``firsts`` of chunks."""

    firsts: list[int]
    counts: Counts


class _Bin(NamedTuple):
    """Neighbouring floats, from the bits ``first`` on, one of which is at ``rank``; ``below`` counts smaller scores."""

    first: int
    below: int
    rank: int
    total: int
    zeros: int


@dataclass(frozen=True)
class Search:
    """The passes that find ``targets`` in ``scores``, after ``before`` other passes of the operation.

    ``spread``: whether to tell where the elements are that equal what is found, which tensors that are measured as one
    cannot say. ``values`` is the last of the passes.
    """

    scores: Scores
    targets: tuple[Target, ...]
    before: int = 0
    spread: bool = True
    values: type[Values] | None = None

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Two passes over all elements, one over a sample, two that are there for when it misleads."""
        return (
            _Upper(self),
            _Window(self),
            _Upper(self, again=True),
            _Window(self, again=True),
            (self.values or Values)(self),
        )

    def ranked(self, statistics: Sequence[Array]) -> list[Ranked]:
        """What stands at each target."""
        own = statistics[self.before :]
        counts = unpacked(own[4], len(self.targets))[1] if self.spread else own[4]
        counts = counts.sum(axis=(0, 2), dtype=np.int64)
        return [_ranked(place, values) for place, values in zip(self.bins(own), counts, strict=True)]

    def equals(self, statistics: Sequence[Array], found: Sequence[Ranked]) -> Equals:
        """Where the elements are that equal what :meth:`ranked` ``found``."""
        own = statistics[self.before :]
        firsts, counts, _ = unpacked(own[4], len(self.targets))
        values = [each.bits - place.first for each, place in zip(found, self.bins(own), strict=True)]
        spread = np.stack([counts[:, number, :, value].reshape(-1) for number, value in enumerate(values)], axis=1)
        return Equals([first + STEP * part for first in firsts for part in range(PARTS)], spread.astype(np.int64))

    def windows(self, own: Sequence[Array]) -> list[tuple[int, int]]:
        """Where the windows around the targets begin, in bits, and their sizes, from the last histogram of upper bits.

        One is as wide as the sample asks for, and not wider than a window may be.
        """
        from blockmerge.kernels import select

        upper, found = own[2 if len(own) > 2 else 0][0], list[tuple[int, int]]()
        for number, target in enumerate(self.targets):
            ends = np.cumsum(upper[target.score])
            zeros = own[1][0, number, 1] if len(own) > 2 else upper[target.score, 0]
            rank = min(max(target.rank(int(ends[-1]), int(zeros)), 0), int(ends[-1]) - 1)
            slack = 0 if len(own) > 2 else _DEVIATIONS * math.sqrt(int(ends[-1])) / 2
            first, middle, last = np.searchsorted(ends, (rank - slack, rank, rank + slack), side="right").tolist()
            most = select.WINDOW // select.FINE // 2
            first, last = max(first, middle - most, 0), min(last + 1, middle + most)
            found.append((first << select.LOW_BITS, (last - first) << select.LOW_BITS))
        return found

    def bins(self, own: Sequence[Array]) -> list[_Bin]:
        """The floats among which each target is; nothing if a window missed its target."""
        from blockmerge.kernels import select

        again = len(own) > 3 and own[3].size > 0
        windows, found = own[3 if again else 1][0], list[_Bin]()
        edges = self.windows(own[: 3 if again else 1])
        for (low, _), counts, target in zip(edges, windows, self.targets, strict=True):
            below, zeros, total = map(int, counts[:3])
            rank, ends = target.rank(total, zeros), below + np.cumsum(counts[3:])
            if not below <= rank < ends[-1]:
                return []
            at = int(np.searchsorted(ends, rank, side="right"))
            found.append(_Bin(low + at * select.VALUES, int(ends[at] - counts[3 + at]), rank, total, zeros))
        return found

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The number of the score that each target is looked for in."""
        return np.array([target.score for target in self.targets])


def _ranked(place: _Bin, values: Counts) -> Ranked:
    ends = place.below + np.cumsum(values)
    at = int(np.searchsorted(ends, place.rank, side="right"))
    return Ranked(place.first + at, int(ends[at] - values[at]), int(values[at]), place.total, place.zeros)


@dataclass(frozen=True)
class _Upper(Measure):
    """Counts (scores, buckets) of upper bits: of a sample, or ``again`` of all, if the first window missed."""

    search: Search
    again: bool = False

    @property
    def part(self) -> int:
        """A sample is the first part of each granule."""
        return 1 if self.again else _SAMPLED

    @property
    def spare(self) -> bool:
        """The second time."""
        return self.again

    def bind(self, statistics: Sequence[Array]) -> Observe | None:
        """Count."""
        from blockmerge.kernels import select

        if self.again and self.search.bins(statistics[self.search.before :]):
            return None
        scoring, scores = self.search.scores.bind(statistics), int(self.search.numbers.max()) + 1

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for start, some in uniform(operands, STEP):
                select.coarse_histogram(scoring, some, first + start, counts)

        return Tally((scores, select.COARSE), count)


@dataclass(frozen=True)
class _Window(Measure):
    """Counts (targets, 3 + bins): scores below the window, zeros, all, and those in each bin of the window."""

    search: Search
    again: bool = False

    @property
    def spare(self) -> bool:
        """The second time."""
        return self.again

    def bind(self, statistics: Sequence[Array]) -> Observe | None:
        """Count."""
        from blockmerge.kernels import select

        own = statistics[self.search.before :]
        if self.again and not own[2].size:
            return None
        scoring, numbers = self.search.scores.bind(statistics), self.search.numbers
        lows, sizes = np.array(self.search.windows(own), np.uint32).T.copy()

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for start, some in uniform(operands, STEP):
                select.count_window(scoring, some, first + start, numbers, lows, sizes, counts)

        return Tally((len(lows), 3 + int(sizes.max()) // select.VALUES), count)


@dataclass(frozen=True)
class Values(Measure):
    """Counts of each float in the bins: of all, (targets, floats), or of each chunk of each granule, packed."""

    search: Search

    @property
    def stacked(self) -> bool:
        """Whether granules are told apart."""
        return self.search.spread

    def firsts(self, statistics: Sequence[Array]) -> NDArray[np.uint32]:
        """The bits of the first float of each bin."""
        return np.array([place.first for place in self.search.bins(statistics[self.search.before :])], np.uint32)

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Count."""
        from blockmerge.kernels import select

        search, numbers, firsts = self.search, self.search.numbers, self.firsts(statistics)
        scoring = search.scores.bind(statistics)

        def spread(operands: Sequence[Array], first: int) -> Array:
            counts = np.zeros((len(firsts), PARTS, select.VALUES), np.uint32)
            for start, some in uniform(operands, STEP):
                select.count_values(scoring, some, first + start, numbers, firsts, STEP, counts[:, start // STEP :])
            return packed(first, counts)

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for start, some in uniform(operands, STEP):
                select.count_values(scoring, some, first + start, numbers, firsts, GRANULE, counts)

        return spread if search.spread else Tally((len(firsts), 1, select.VALUES), count)


def packed(first: int, counts: NDArray[np.uint32], *more: Array) -> NDArray[np.uint32]:
    """Counts of a granule, (targets, chunks, floats), behind its first element; and what else was found."""
    return np.concatenate([part.reshape(-1).view(np.uint32) for part in (np.array([first]), counts, *more)])


def unpacked(found: NDArray[np.uint32], targets: int) -> tuple[list[int], NDArray[np.uint32], NDArray[np.uint32]]:
    """The first elements of granules, their counts (granules, targets, chunks, floats), and the rest."""
    from blockmerge.kernels import select

    firsts = np.ascontiguousarray(found[:, :2]).view(np.int64)[:, 0]
    end = 2 + targets * PARTS * select.VALUES
    return firsts.tolist(), found[:, 2:end].reshape(len(found), targets, PARTS, -1), found[:, end:]
