"""What stands at a rank of one number per element of a tensor: exact, found without sorting, in one reading.

The numbers, *scores*, are float32 and ranked by size, whatever their sign; what is not a number ranks last. The bits of
non-negative floats ascend as integers, so a rank is looked for among bits:

1. a histogram of the upper bits of a sample tells about where it is;
2. a histogram of a window around that, an eighth of an octave at most, tells in which 64 neighbouring floats it is;
3. counts of these 64 tell which one it is, and where in the tensor the elements are that equal it.

Step 2 keeps an excerpt of the tensor, the few elements that are in a window, from which step 3 counts; only where it is
too large to be kept the tensor is read again. Where the sample misleads, a histogram of all scores puts the window
right, and step 2 is done again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import GRANULE, STEP, Array, Known, Measure, Observe, Tally
from blockmerge.methods.vectors import uniform
from blockmerge.methods.windows import MOST, Part, Seen, Watch, Windows, parts

__all__ = ["PARTS", "Counts", "Equals", "Look", "Ranked", "Scores", "Search", "Target", "Values", "packed", "unpacked"]

_SAMPLED = 32
_DEVIATIONS = 6
"""Standard deviations that a rank in the sample may be off."""
PARTS = GRANULE // STEP
"""Chunks in a granule."""
Counts = NDArray[np.int64]
Look = Callable[[int, Iterable[Part]], Array]
"""Looks at a granule: takes its first element, and its parts; elements may be missing that are in no window."""


class Scores(Protocol):
    """What gives each element its scores, one or several."""

    def bind(self, statistics: Sequence[Any]) -> Any:
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
    cannot say. ``local``: whether a score depends on its element's operands alone, and not on where that stands.
    ``values`` is the last of the passes.
    """

    scores: Scores
    targets: tuple[Target, ...]
    before: int = 0
    spread: bool = True
    local: bool = True
    values: type[Values] | None = None

    @property
    def excerpting(self) -> bool:
        """Whether excerpts serve: they tell scores and chunks, but no places."""
        return self.spread and self.local

    @property
    def last(self) -> Values:
        """The last pass."""
        return (self.values or Values)(self)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """A pass over a sample and one over all elements; two that are there for when it misleads, one for values."""
        return (
            _Upper(self),
            _Window(self),
            _Upper(self, again=True),
            _Window(self, again=True),
            self.last,
        )

    def ranked(self, statistics: Sequence[Any]) -> list[Ranked]:
        """What stands at each target."""
        found = statistics[self.before + 4]
        counts = unpacked(found, len(self.targets))[1] if self.spread else found
        counts = counts.sum(axis=(0, 1), dtype=np.int64)
        return [_ranked(place, values) for place, values in zip(self.bins(statistics), counts, strict=True)]

    def equals(self, statistics: Sequence[Any], found: Sequence[Ranked]) -> Equals:
        """Where the elements are that equal what :meth:`ranked` ``found``."""
        firsts, counts, _ = unpacked(statistics[self.before + 4], len(self.targets))
        values = [each.bits - place.first for each, place in zip(found, self.bins(statistics), strict=True)]
        spread = np.stack([counts[:, :, number, value].reshape(-1) for number, value in enumerate(values)], axis=1)
        return Equals([first + STEP * part for first in firsts for part in range(PARTS)], spread.astype(np.int64))

    def windows(self, own: Sequence[Any]) -> Windows:
        """The windows around the targets, from the last histogram of upper bits.

        One is as wide as the sample asks for, and not wider than a window may be.
        """
        from blockmerge.kernels import select

        again, upper, found = len(own) > 2, own[-1][0], list[tuple[int, int]]()
        for number, target in enumerate(self.targets):
            ends = np.cumsum(upper[target.score])
            zeros = own[1].counts[number, 1] if again else upper[target.score, 0]
            rank = min(max(target.rank(int(ends[-1]), int(zeros)), 0), int(ends[-1]) - 1)
            slack = 0 if again else _DEVIATIONS * math.sqrt(int(ends[-1])) / 2
            first, middle, last = np.searchsorted(ends, (rank - slack, rank, rank + slack), side="right").tolist()
            most = select.WINDOW // select.FINE // 2
            first, last = max(first, middle - most, 0), min(last + 1, middle + most)
            found.append((first << select.LOW_BITS, (last - first) << select.LOW_BITS))
        lows, sizes = np.array(found, np.uint32).T.copy()
        return Windows(lows, sizes, self.numbers)

    def seen(self, statistics: Sequence[Any]) -> Seen:
        """What the last pass over windows saw."""
        first, again = statistics[self.before + 1], statistics[self.before + 3 : self.before + 4]
        return again[0] if again and isinstance(again[0], Seen) else first

    def bins(self, statistics: Sequence[Any]) -> list[_Bin]:
        """The floats among which each target is; nothing if a window missed its target."""
        from blockmerge.kernels import select

        seen, found = self.seen(statistics), list[_Bin]()
        for low, counts, target in zip(seen.windows.lows.tolist(), seen.counts, self.targets, strict=True):
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

    def spare(self, size: int) -> bool:
        """The second time."""
        del size
        return self.again

    def bind(self, statistics: Sequence[Any]) -> Observe | None:
        """Count."""
        from blockmerge.kernels import select

        if self.again:
            if self.search.bins(statistics):
                return None
            self.search.seen(statistics).excerpts = None  # of windows that missed
        scoring, scores = self.search.scores.bind(statistics), int(self.search.numbers.max()) + 1

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for start, some in uniform(operands, STEP):
                select.coarse_histogram(scoring, some, first + start, counts)

        return Tally((scores, select.COARSE), count)


@dataclass(frozen=True)
class _Window(Measure):
    """Counts (targets, 3 + bins): scores below the window, zeros, all, and those in each bin of it; and an excerpt."""

    search: Search
    again: bool = False

    def spare(self, size: int) -> bool:
        """The second time."""
        del size
        return self.again

    def memory(self, size: int) -> int:
        """The excerpt's, if there is any."""
        return min(_excerpt_bytes(self.search, size), MOST) if self.search.excerpting and not self.again else 0

    def bind(self, statistics: Sequence[Any]) -> Observe | None:
        """Count."""
        search, own = self.search, statistics[self.search.before :]
        if self.again and not own[2].size:
            return None
        windows, scoring = search.windows(own), search.scores.bind(statistics)
        return Watch(scoring, windows, search.last.above, excerpting=search.excerpting)


def _excerpt_bytes(search: Search, size: int) -> int:
    """Bytes of an excerpt of ``size`` bytes, about: one element in fifty is in a window."""
    return size * len(search.targets) // 50


@dataclass(frozen=True)
class Values(Measure):
    """Counts of each float in the bins: of all, (1, targets, floats), or of each chunk of each granule, packed."""

    search: Search

    @property
    def stacked(self) -> bool:
        """Whether granules are told apart."""
        return self.search.spread

    def spare(self, size: int) -> bool:
        """Where an excerpt is likely to be kept."""
        return self.search.excerpting and _excerpt_bytes(self.search, size) < MOST

    def firsts(self, statistics: Sequence[Any]) -> NDArray[np.uint32]:
        """The bits of the first float of each bin."""
        return np.array([place.first for place in self.search.bins(statistics)], np.uint32)

    def above(self, operands: NDArray[Any], limit: np.uint32) -> Array:
        """What has to be known of the elements above the first window, whose scores have bits from ``limit`` on."""
        del operands, limit
        return _NOTHING

    def bind(self, statistics: Sequence[Any]) -> Observe | Known:
        """Count, in excerpts at once."""
        if not self.search.spread:
            return self._counting(statistics)
        look, seen = self.looking(statistics), self.search.seen(statistics)
        if seen.excerpts is None:
            return lambda operands, first: look(first, parts(operands))
        found = Known(np.stack([look(first, seen.excerpts[first]) for first in sorted(seen.excerpts)]))
        seen.excerpts = None
        return found

    def looking(self, statistics: Sequence[Any]) -> Look:
        """What counts in a granule."""
        from blockmerge.kernels import select

        numbers, firsts, scoring = self.search.numbers, self.firsts(statistics), self.search.scores.bind(statistics)

        def look(first: int, granule: Iterable[Part]) -> Array:
            counts = np.zeros((PARTS, len(firsts), select.VALUES), np.uint32)
            for start, some, ends in granule:
                select.count_values(scoring, some, first + start, numbers, firsts, ends, counts[start // STEP :])
            return packed(first, counts)

        return look

    def _counting(self, statistics: Sequence[Any]) -> Tally:
        from blockmerge.kernels import select

        numbers, firsts, scoring = self.search.numbers, self.firsts(statistics), self.search.scores.bind(statistics)

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for start, some in uniform(operands, STEP):
                ends = np.array([0, some.shape[1]])
                select.count_values(scoring, some, first + start, numbers, firsts, ends, counts)

        return Tally((1, len(firsts), select.VALUES), count)


_NOTHING: Array = np.empty(0)


def packed(first: int, counts: NDArray[np.uint32], *more: Array) -> NDArray[np.uint32]:
    """Counts of a granule, (chunks, targets, floats), behind its first element; and what else was found."""
    return np.concatenate([part.reshape(-1).view(np.uint32) for part in (np.array([first]), counts, *more)])


def unpacked(found: NDArray[np.uint32], targets: int) -> tuple[list[int], NDArray[np.uint32], NDArray[np.uint32]]:
    """The first elements of granules, their counts (granules, chunks, targets, floats), and the rest."""
    from blockmerge.kernels import select

    firsts = np.ascontiguousarray(found[:, :2]).view(np.int64)[:, 0]
    end = 2 + targets * PARTS * select.VALUES
    return firsts.tolist(), found[:, 2:end].reshape(len(found), PARTS, targets, -1), found[:, end:]
