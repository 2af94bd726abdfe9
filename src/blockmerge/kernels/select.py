"""Ranking scores without sorting them: how many are on which side of two of them, and histograms.

Scores are ranked by the bits of their size as float32: as integers, those of non-negative floats ascend.

``scoring`` says what is looked at (:mod:`blockmerge.kernels.scores`) of ``operands``, (operands, elements), the first
of which is element ``first`` of the tensor. A target is a rank that is looked for in score number ``numbers[target]``.
Chunks are ``step`` elements, a multiple of SOME.
"""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.bits import magnitude
from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.scores import score
from blockmerge.kernels.sums import SOME

__all__ = [
    "COLUMNS",
    "LOWER",
    "UPPER",
    "count_between",
    "lower_histogram",
    "marked",
    "marks_and_places",
    "sizes",
    "upper_histogram",
]

_LOWER_BITS = 15
UPPER, LOWER = 1 << 16, 1 << _LOWER_BITS
COLUMNS = 6
_SHIFT, _MASK = np.uint32(_LOWER_BITS), np.uint32(LOWER - 1)


@kernel
def sizes(scoring, number, operands, first, out):
    """Fill ``out``, uint32, with the bits of the size of score ``number``."""
    room = np.empty(SOME, np.float32)
    for start in range(0, out.size, SOME):
        found = out[start : start + SOME]
        some = room[: found.size]
        score(scoring, number, operands, start, first + start, some)
        for i in range(some.size):
            found[i] = magnitude(some[i])


@kernel
def count_between(scoring, operands, first, numbers, lows, highs, step, counts, between, places):
    """Add to ``counts`` (chunks, targets, COLUMNS), int64, where scores are, of which ``lows < highs`` are bits.

    These are below the low one, equal to it, between the two, equal to the high one; zero, whatever else; all there
    are. ``between`` and ``places`` (targets, room), uint32, take the bits of those between, one after the other, and
    where they stand; they are not whole if there are more of them than room.
    """
    room, taken = np.empty(SOME, np.float32), np.zeros(numbers.size, np.int64)
    marks, found = marks_and_places()
    for start in range(0, operands.shape[1], SOME):
        some = room[: min(SOME, operands.shape[1] - start)]
        for k in range(numbers.size):
            if k == 0 or numbers[k] != numbers[k - 1]:
                score(scoring, numbers[k], operands, start, first + start, some)
            at = start // step
            taken[k] += _count(some, lows[k], highs[k], start, counts, at, k, between, places, taken[k], marks, found)


@inner
def _count(values, low, high, start, counts, chunk, k, between, places, taken, marks, found):
    """The same for target ``k`` and some values; says how many are between, where ``taken`` were before."""
    own = counts[chunk, k]
    _compare(values, low, high, own, marks)
    inside = found[0, : marked(marks, values.size, found)]
    own[2] += inside.size
    if taken + inside.size <= between.shape[1]:
        _take(values, inside, start, between[k, taken:], places[k, taken:])
    return inside.size


@inner
def _compare(values, low, high, counts, marks):
    """Mark values between two, and count the others. Signed numbers of 32 bits are the quickest to compare.

    A high one of 2**31 is negative then, and no size equals it.
    """
    first, count = np.int32(low + 1), np.uint32(high - low - 1)
    low, high, zero = np.int32(low), np.int32(high), np.int32(0)
    below = lowest = highest = zeros = zero
    for i in range(values.size):
        bits = np.int32(magnitude(values[i]))
        below = np.int32(below + np.int32(bits < low))  # else numba counts in 64 bits
        lowest = np.int32(lowest + np.int32(bits == low))
        highest = np.int32(highest + np.int32(bits == high))
        zeros = np.int32(zeros + np.int32(bits == zero))
        marks[i] = np.uint8(np.uint32(bits - first) < count)
    counts[0] += below
    counts[1] += lowest
    counts[3] += highest
    counts[4] += zeros
    counts[5] += values.size


@inner
def _take(values, inside, start, sizes, places):
    origin = np.uint64(start)  # numba adds numbers with and without a sign as float64
    for i in range(np.uint64(inside.size)):
        sizes[i] = magnitude(values[inside[i]])
        places[i] = origin + inside[i]


@kernel
def upper_histogram(scoring, operands, first, counts):
    """Add to ``counts`` (scores, UPPER + 1), int64, how many have each upper part of the bits; last, those of zero."""
    room, size = np.empty(SOME, np.float32), operands.shape[1]
    for start in range(0, size, SOME):
        some = room[: min(SOME, size - start)]
        for number in range(len(counts)):
            score(scoring, number, operands, start, first + start, some)
            for i in range(some.size):
                counts[number, magnitude(some[i]) >> _SHIFT] += 1
            counts[number, UPPER] += _zeros(some)


@inner
def _zeros(values):
    count = np.int32(0)
    for i in range(values.size):
        count = np.int32(count + np.int32(magnitude(values[i]) == np.uint32(0)))
    return count


@kernel
def lower_histogram(scoring, operands, first, numbers, uppers, counts):
    """Add to ``counts`` (targets, LOWER), int64, how many have each lower part, of bits whose upper is a target's."""
    room, size = np.empty(SOME, np.float32), operands.shape[1]
    marks, places = marks_and_places()
    for start in range(0, size, SOME):
        some = room[: min(SOME, size - start)]
        for k in range(numbers.size):
            if k == 0 or numbers[k] != numbers[k - 1]:
                score(scoring, numbers[k], operands, start, first + start, some)
            _mark_upper(some, np.uint32(uppers[k]), marks)
            for at in places[0, : marked(marks, some.size, places)]:
                counts[k, magnitude(some[at]) & _MASK] += 1


@inner
def _mark_upper(values, upper, marks):
    for i in range(values.size):
        marks[i] = np.uint8(magnitude(values[i]) >> _SHIFT == upper)


@kernel
def marks_and_places():
    """Room for :func:`marked` and what marks."""
    return np.empty(SOME + 8, np.uint8), np.empty((2, SOME + 8), np.uint64)


@inner
def marked(marks, size, places):
    """How many of ``size`` ``marks`` are one, where the others are zero; the first row of ``places`` tells which.

    Both arrays have room for eight more. Unsigned indices cannot be negative, which numba need not look at.
    """
    marks[size : size + 8] = 0
    eights, found, begins = marks[: (size + 7) // 8 * 8].view(np.uint64), places[0], places[1]
    some, count, eight = np.uint64(0), np.uint64(0), np.uint64(8)
    for at in range(np.uint64(eights.size)):
        begins[some] = at * eight
        some += np.uint64(eights[at] != np.uint64(0))
    for begin in begins[:some]:
        for at in range(begin, begin + eight):
            found[count] = at
            count += np.uint64(marks[at])
    return count
