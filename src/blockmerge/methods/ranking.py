"""What stands at a rank of one number per element of a tensor: exact, found without sorting, in one reading.

The numbers, *scores*, are float32 and ranked by size, whatever their sign; what is not a number ranks last. A sample
tells between which two scores a rank is likely to be; one reading counts on which side of them all others are, and
keeps those between (:mod:`blockmerge.methods.between`). Where the sample misled, there is a second such reading, in the
region that is left. For what even that does not find two histograms follow, of the upper half of the bits and of the
lower half, and the same reading once more.

Tensors that are measured as one have the histograms only: their counts can be added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from blockmerge.methods.between import MOST, Between, Counts, Found, Intervals, Missed, Ranked, Sums, Target, nothing
from blockmerge.methods.operations import STEP, Array, Measure, Observe, Tally
from blockmerge.methods.sampling import HIGHEST, LOWEST, PART, Bits, Region, Sampling, around
from blockmerge.methods.vectors import uniform

__all__ = ["Scores", "Search"]


class Scores(Protocol):
    """What gives each element its scores, one or several."""

    def bind(self, statistics: Sequence[Any]) -> Any:
        """How kernels score (:mod:`blockmerge.kernels.scores`), given what earlier passes measured."""
        ...


@dataclass(frozen=True)
class Search:
    """The passes that find ``targets`` in ``scores``, after ``before`` other passes of the operation.

    ``joined``: for tensors that are measured as one. ``summing``, for one target, tells what else is summed.
    """

    scores: Scores
    targets: tuple[Target, ...]
    before: int = 0
    joined: bool = False
    summing: Sums = nothing

    @property
    def measures(self) -> tuple[Measure, ...]:
        """A sample, and the reading that finds; four that are there for when the sample misled."""
        histograms = _Upper(self), _Lower(self)
        if self.joined:
            return histograms
        return _Sample(self), _Between(self), _Between(self, again=True), *histograms, _Between(self, again=True)

    def found(self, statistics: Sequence[Any]) -> Found:
        """What was found."""
        if self.joined:
            none = np.empty((0, len(self.targets)), np.int64)
            return Found(self.ranked(statistics), none[:, 0], none, np.empty((2, 0)))
        return next(each for each in statistics if isinstance(each, Found))

    def buckets(self, statistics: Sequence[Any]) -> list[_Bucket]:
        """Where the targets are in the first histogram."""
        (upper,) = statistics[self._histograms]
        return [_bucket(target, upper[target.score]) for target in self.targets]

    def ranked(self, statistics: Sequence[Any]) -> list[Ranked]:
        """What stands at the targets, from the histograms."""
        from blockmerge.kernels import select

        (lower,), found = statistics[self._histograms + 1], list[Ranked]()
        for bucket, counts in zip(self.buckets(statistics), lower, strict=True):
            ends = bucket.below + np.cumsum(counts)
            at = int(np.searchsorted(ends, bucket.rank, side="right"))
            bits, equal = bucket.number * select.LOWER + at, int(counts[at])
            found.append(Ranked(bits, int(ends[at]) - equal, equal, bucket.total, bucket.zeros))
        return found

    @property
    def _histograms(self) -> int:
        """The pass that makes the first of them."""
        return self.before + (0 if self.joined else 3)

    @property
    def numbers(self) -> Counts:
        """The number of the score that each target is looked for in."""
        return np.array([target.score for target in self.targets])


class _Bucket(NamedTuple):
    """Sizes with the same upper bits, one of which is at ``rank``; ``below`` counts smaller scores."""

    number: int
    below: int
    rank: int
    total: int
    zeros: int


def _bucket(target: Target, counts: Counts) -> _Bucket:
    """That of a target, in a histogram of one score."""
    ends, zeros = np.cumsum(counts[:-1]), int(counts[-1])
    total = int(ends[-1])
    rank = min(max(target.rank(total, zeros), 0), total - 1)
    number = int(np.searchsorted(ends, rank, side="right"))
    return _Bucket(number, int(ends[number] - counts[number]), rank, total, zeros)


@dataclass(frozen=True)
class _Pass(Measure):
    """A pass of a ``search``; ``spare`` ones look at nothing if all is found."""

    search: Search

    def bind(self, statistics: Sequence[Any]) -> Observe | None:
        """What looks."""
        found = any(isinstance(each, Found) for each in statistics)
        return None if found else self.looking(statistics)

    def looking(self, statistics: Sequence[Any]) -> Observe:
        """The same, if it is needed."""
        raise NotImplementedError

    def scoring(self, statistics: Sequence[Any]) -> Any:
        """How kernels score."""
        return self.search.scores.bind(statistics)


class _Sample(_Pass):
    """The bits of a sample of all scores, (scores, elements)."""

    @property
    def part(self) -> int:
        """The first part of each granule."""
        return PART

    def looking(self, statistics: Sequence[Any]) -> Observe:
        """Keep them."""
        return Sampling(self.scoring(statistics), int(self.search.numbers.max()) + 1)


@dataclass(frozen=True)
class _Between(_Pass):
    """What :class:`~blockmerge.methods.between.Between` finds; ``again``, if it has not been found before."""

    again: bool = False

    @property
    def spare(self) -> bool:
        """Unless it is the first."""
        return self.again

    def memory(self, size: int) -> int:
        """That of what is kept: in large tensors one element in a hundred is between."""
        return 0 if self.again else min(size * len(self.search.targets) // 100, MOST)

    def looking(self, statistics: Sequence[Any]) -> Observe:
        """Look between two scores for each target."""
        search, sample = self.search, statistics[self.search.before]
        ends = [
            (place.bits, place.bits + 1) if isinstance(place, Ranked) else around(sample[target.score], place)
            for place, target in zip(self._places(statistics), search.targets, strict=True)
        ]
        intervals = Intervals(search.numbers, *np.array(ends, np.int64).T.copy())
        return Between(self.scoring(statistics), search.targets, intervals, search.summing)

    def _places(self, statistics: Sequence[Any]) -> Sequence[Ranked | Region]:
        """What is known so far of where the targets are."""
        search, missed = self.search, [each for each in statistics if isinstance(each, Missed)]
        if len(missed) == 2:
            return search.ranked(statistics)
        if missed:
            return missed[0].places
        return [_whole(statistics[search.before][target.score], target) for target in search.targets]


def _whole(sample: Bits, target: Target) -> Region:
    """All of a sample as the region of a target."""
    size = sample.size
    rank = target.rank(size, size - int(np.count_nonzero(sample)))
    return Region(LOWEST, HIGHEST, min(max(rank, 0), size - 1), size)


class _Histogram(_Pass):
    """What is there for when the sample misleads, or there can be none."""

    @property
    def spare(self) -> bool:
        """Unless tensors are measured as one."""
        return not self.search.joined

    def memory(self, size: int) -> int:
        """That of the counts, if they are made."""
        del size
        return 0 if self.spare else len(self.search.targets) << 20


class _Upper(_Histogram):
    """Counts (1, scores, buckets + 1) of the upper bits of all scores; last, of zeros."""

    def looking(self, statistics: Sequence[Any]) -> Observe:
        """By the upper bits."""
        from blockmerge.kernels import select

        scoring, scores = self.scoring(statistics), int(self.search.numbers.max()) + 1

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for start, some in uniform(operands, STEP):
                select.upper_histogram(scoring, some, first + start, counts)

        return Tally((scores, select.UPPER + 1), count)


class _Lower(_Histogram):
    """Counts (1, targets, sizes) of those scores whose upper bits are a target's."""

    def looking(self, statistics: Sequence[Any]) -> Observe:
        """By the lower bits."""
        from blockmerge.kernels import select

        scoring, numbers = self.scoring(statistics), self.search.numbers
        buckets = np.array([bucket.number for bucket in self.search.buckets(statistics)])

        def count(operands: Sequence[Array], first: int, counts: Counts) -> None:
            for start, some in uniform(operands, STEP):
                select.lower_histogram(scoring, some, first + start, numbers, buckets, counts)

        return Tally((numbers.size, select.LOWER), count)
