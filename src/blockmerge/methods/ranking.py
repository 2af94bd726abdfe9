"""What stands at a rank of one number per element of a tensor: exact, found without sorting, in two readings.

The numbers, *scores*, are float32 and ranked by size, whatever their sign; what is not a number ranks last. The bits of
non-negative floats ascend as integers, so a rank is looked for among bits:

1. a histogram of the upper bits of a sample tells about where it is;
2. a histogram of a window around that, an eighth of an octave, tells in which 64 neighbouring floats it is;
3. counts of these 64 tell which one it is, and where in the tensor the elements are that equal it.

Where the sample misleads, a histogram of all scores puts the window right, and step 2 is done again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import GRANULE, Array, Measure, Observe, Tally
from blockmerge.methods.scratch import scratch

__all__ = ["STEP", "Counts", "Equals", "Ranked", "Score", "Scores", "Search", "Target"]

STEP = 1 << 16
"""Elements of a chunk: as float32, a few task vectors of so many are what an L2 cache holds."""
_SAMPLED = 32
_PARTS = GRANULE // STEP
Counts = NDArray[np.int64]
Score = Callable[[Sequence[Array], int, int, NDArray[np.float32]], Any]
"""Fills in one score of some elements: takes their operands, the first, the number of the score, the array to fill."""


class Scores(Protocol):
    """What gives each element its scores, one or several."""

    def bind(self, statistics: Sequence[Array]) -> Score:
        """The function that scores, given what earlier passes measured."""
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
    cannot say.
    """

    scores: Scores
    targets: tuple[Target, ...]
    before: int = 0
    spread: bool = True

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Two passes over all elements, one over a sample, two that are there for when it misleads."""
        return (_Upper(self), _Window(self), _Upper(self, again=True), _Window(self, again=True), _Values(self))

    def ranked(self, statistics: Sequence[Array]) -> list[Ranked]:
        """What stands at each target."""
        own = statistics[self.before :]
        counts = _unpacked(own[4], len(self.targets))[1] if self.spread else own[4]
        counts = counts.sum(axis=(0, 2), dtype=np.int64)
        return [_ranked(place, values) for place, values in zip(self.bins(own), counts, strict=True)]

    def equals(self, statistics: Sequence[Array], found: Sequence[Ranked]) -> Equals:
        """Where the elements are that equal what :meth:`ranked` ``found``."""
        own = statistics[self.before :]
        firsts, counts = _unpacked(own[4], len(self.targets))
        values = [each.bits - place.first for each, place in zip(found, self.bins(own), strict=True)]
        spread = np.stack([counts[:, number, :, value].reshape(-1) for number, value in enumerate(values)], axis=1)
        return Equals([first + STEP * part for first in firsts for part in range(_PARTS)], spread.astype(np.int64))

    def lows(self, own: Sequence[Array]) -> list[int]:
        """The bits at which the windows around the targets begin, from the last histogram of upper bits."""
        from blockmerge.kernels import select

        upper, found = own[2 if len(own) > 2 else 0][0], list[int]()
        for number, target in enumerate(self.targets):
            ends = np.cumsum(upper[target.score])
            zeros = own[1][0, number, 1] if len(own) > 2 else upper[target.score, 0]
            rank = min(max(target.rank(int(ends[-1]), int(zeros)), 0), int(ends[-1]) - 1)
            middle = int(np.searchsorted(ends, rank, side="right")) << select.LOW_BITS
            found.append(max(middle + (select.FINE - select.WINDOW) // 2, 0))
        return found

    def bins(self, own: Sequence[Array]) -> list[_Bin]:
        """The floats among which each target is; nothing if a window missed its target."""
        from blockmerge.kernels import select

        again = len(own) > 3 and own[3].size > 0
        windows, found = own[3 if again else 1][0], list[_Bin]()
        for low, counts, target in zip(self.lows(own[: 3 if again else 1]), windows, self.targets, strict=True):
            below, zeros, total = map(int, counts[:3])
            rank, ends = target.rank(total, zeros), below + np.cumsum(counts[3:])
            if not below <= rank < ends[-1]:
                return []
            at = int(np.searchsorted(ends, rank, side="right"))
            found.append(_Bin(low + at * select.VALUES, int(ends[at] - counts[3 + at]), rank, total, zeros))
        return found

    def scored(self, score: Score, operands: Sequence[Array], first: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """For each target its number, and the scores of a granule in this thread's scratch."""
        found, last = scratch("scores", operands[0].shape, np.float32), -1
        for number, target in enumerate(self.targets):
            if target.score != last:
                score(operands, first, target.score, found)
                last = target.score
            yield number, found


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
        score, search = self.search.scores.bind(statistics), self.search
        numbers = {target.score: number for number, target in enumerate(search.targets)}

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for number, found in search.scored(score, operands, first):
                which = search.targets[number].score
                if numbers[which] == number:  # once for each score
                    select.coarse_histogram(found, counts[which])

        return Tally((len(numbers), select.COARSE), count)


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
        score, search = self.search.scores.bind(statistics), self.search
        lows = list(map(np.uint32, search.lows(own)))

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for number, found in search.scored(score, operands, first):
                select.count_window(found, lows[number], counts[number])

        return Tally((len(lows), 3 + select.WINDOW // select.VALUES), count)


@dataclass(frozen=True)
class _Values(Measure):
    """Counts of each float in the bins: of all, (targets, floats), or of each chunk of each granule, packed."""

    search: Search

    @property
    def stacked(self) -> bool:
        """Whether granules are told apart."""
        return self.search.spread

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Count."""
        from blockmerge.kernels import select

        score, search = self.search.scores.bind(statistics), self.search
        firsts = [np.uint32(each.first) for each in search.bins(statistics[search.before :])]

        def spread(operands: Sequence[Array], first: int) -> Array:
            counts = np.zeros((len(firsts), _PARTS, select.VALUES), np.uint32)
            for number, found in search.scored(score, operands, first):
                select.count_values(found, firsts[number], STEP, counts[number])
            return _packed(first, counts)

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for number, found in search.scored(score, operands, first):
                select.count_values(found, firsts[number], found.size, counts[number])

        return spread if search.spread else Tally((len(firsts), 1, select.VALUES), count)


def _packed(first: int, counts: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Counts of a granule, (targets, chunks, floats), behind its first element."""
    return np.concatenate([np.array([first]).view(np.uint32), counts.reshape(-1)])


def _unpacked(packed: NDArray[np.uint32], targets: int) -> tuple[list[int], NDArray[np.uint32]]:
    """The first elements of granules, and their counts (granules, targets, chunks, floats)."""
    firsts = np.ascontiguousarray(packed[:, :2]).view(np.int64)[:, 0]
    return firsts.tolist(), packed[:, 2:].reshape(len(packed), targets, _PARTS, -1)
