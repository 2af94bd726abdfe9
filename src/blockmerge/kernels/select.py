"""Finding magnitudes by rank without sorting: histograms of scores.

Magnitudes are ordered by the bits of their float32: as integers, those of non-negative floats ascend. Histograms find
the k-th largest exactly: of the upper bits, then of a window of them, then of a few neighbouring floats.

``scoring`` says what is looked at (:mod:`blockmerge.kernels.scores`) of ``operands``, (operands, elements), the first
of which is element ``first`` of the tensor. A target is a rank that is looked for in score number ``scores[target]``.
"""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.bits import magnitude
from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.scores import score
from blockmerge.kernels.sums import SOME

__all__ = [
    "COARSE",
    "FINE",
    "LOW_BITS",
    "VALUES",
    "WINDOW",
    "coarse_histogram",
    "count_values",
    "count_window",
    "marked",
    "marks_and_places",
    "near",
    "within",
]

LOW_BITS = 17
COARSE, FINE = 1 << (31 - LOW_BITS), 1 << LOW_BITS
_VALUE_BITS = 6
WINDOW, VALUES = 1 << 20, 1 << _VALUE_BITS
_SHIFT = np.uint32(LOW_BITS)


@kernel
def coarse_histogram(scoring, operands, first, counts):
    """Add to ``counts`` (scores, COARSE), int64, how many elements have each upper half of a score."""
    room, size = np.empty(SOME, np.float32), operands.shape[1]
    for start in range(0, size, SOME):
        some = room[: min(SOME, size - start)]
        for number in range(len(counts)):
            score(scoring, number, operands, start, first + start, some)
            for i in range(some.size):
                counts[number, magnitude(some[i]) >> _SHIFT] += 1


@kernel
def count_window(scoring, operands, first, scores, lows, sizes, counts, excerpt, step, ends):
    """Add to ``counts`` (targets, 3 + bins), int64: elements below ``lows[target]``, zeros, all of them.

    Behind these stand those in each bin of VALUES neighbouring magnitudes, ``sizes[target]`` of them (WINDOW at most)
    from ``lows[target]`` on, both multiples of FINE; there are as many bins as the largest window has.

    Copy the elements that are in any window to ``excerpt`` (operands, room), those of chunk k, of ``step`` elements, a
    multiple of SOME, to its columns from ``ends[k]`` to ``ends[k + 1]``; ``ends`` are zero before, and stay so if there
    is no room at all. Otherwise there is room for all elements.
    """
    room, uppers, size = np.empty(SOME, np.float32), np.empty(SOME, np.int16), operands.shape[1]
    (marks, places), seen, taken = marks_and_places(), np.empty(SOME + 8, np.uint8), 0
    for start in range(0, size, SOME):
        some, target = room[: min(SOME, size - start)], 0
        halves = uppers[: some.size]
        seen[: some.size] = 0
        while target < scores.size:
            end = _same_score(scores, target)
            score(scoring, scores[target], operands, start, first + start, some)
            zeros = _split(some, halves)
            marks[: some.size] = 0
            for k in range(target, end):
                counts[k, 0] += _mark_window(halves, lows[k], sizes[k], marks)
                counts[k, 1] += zeros
                counts[k, 2] += some.size
            for at in places[0, : marked(marks, some.size, places)]:
                for k in range(target, end):
                    offset = np.uint32(magnitude(some[at]) - lows[k])
                    if offset < sizes[k]:
                        counts[k, 3 + (offset >> np.uint32(_VALUE_BITS))] += 1
            _add_marks(marks[: some.size], seen)
            target = end
        if excerpt.shape[1]:
            found = places[0, : marked(seen, some.size, places)]
            _take(operands, start, found, excerpt[:, taken:])
            taken += found.size
            ends[1 + start // step] = taken


@inner
def _add_marks(marks, total):
    for i in range(marks.size):
        total[i] |= marks[i]


@inner
def _take(operands, start, places, out):
    """Copy the elements at ``places``, counted from ``start``, to the first columns of ``out``."""
    for k in range(len(operands)):
        x, found = operands[k, start:], out[k]
        for i in range(places.size):
            found[i] = x[places[i]]


@inner
def _same_score(scores, target):
    """The first target behind ``target`` that is looked for in another score."""
    end = target + 1
    while end < scores.size and scores[end] == scores[target]:
        end += 1
    return end


@inner
def _split(values, uppers):
    """Fill ``uppers``, int16, with the upper bits of magnitudes, and say how many are zero."""
    zeros = np.uint32(0)
    for i in range(values.size):
        bits = magnitude(values[i])
        uppers[i] = np.int16(bits >> _SHIFT)
        zeros = np.uint32(zeros + np.uint32(bits == np.uint32(0)))  # else numba counts in 64 bits
    return zeros


@inner
def _mark_window(uppers, low, size, marks):
    """Mark what is in the window besides what is marked, and say how many are below it."""
    first, end, below = np.int16(low >> _SHIFT), np.int16((low + size) >> _SHIFT), np.int16(0)
    for i in range(uppers.size):
        smaller = np.int16(uppers[i] < first)
        below = np.int16(below + smaller)
        marks[i] |= np.uint8(np.int16(uppers[i] < end) - smaller)
    return below


@kernel
def count_values(scoring, operands, first, scores, firsts, ends, counts):
    """Add to ``counts`` (chunks, targets, VALUES) how many have each of the magnitudes from ``firsts[target]`` on.

    These are multiples of VALUES. Chunk k has the elements from ``ends[k]`` to ``ends[k + 1]``.
    """
    room = np.empty(SOME, np.float32)
    marks, places = marks_and_places()
    for chunk in range(ends.size - 1):
        for start in range(ends[chunk], ends[chunk + 1], SOME):
            some, target = room[: min(SOME, ends[chunk + 1] - start)], 0
            while target < scores.size:
                end = _same_score(scores, target)
                score(scoring, scores[target], operands, start, first + start, some)
                for at in places[0, : near(some, firsts[target:end], marks, places)]:
                    for k in range(target, end):
                        offset = np.uint32(magnitude(some[at]) - firsts[k])
                        if offset < np.uint32(VALUES):
                            counts[chunk, k, offset] += 1
                target = end


@kernel
def marks_and_places():
    """Room for :func:`marked` and what marks."""
    return np.empty(SOME + 8, np.uint8), np.empty((2, SOME + 8), np.uint64)


@inner
def within(values, low, size, marks, places):
    """How many of ``values``, SOME at most, are among ``size`` magnitudes from ``low`` on; ``places`` tell which."""
    for i in range(values.size):
        marks[i] = np.uint8(np.uint32(magnitude(values[i]) - low) < size)
    return marked(marks, values.size, places)


@inner
def near(values, firsts, marks, places):
    """How many of ``values``, SOME at most, are among VALUES magnitudes from one of ``firsts`` on, multiples of VALUES.

    ``places`` tell which. Few are, which a processor cannot foresee; so this has no branches, and looks only into
    eights that have one.
    """
    first = firsts[0]
    for i in range(values.size):
        marks[i] = np.uint8(magnitude(values[i]) & _BIN == first)
    for first in firsts[1:]:
        for i in range(values.size):
            marks[i] |= np.uint8(magnitude(values[i]) & _BIN == first)
    return marked(marks, values.size, places)


_BIN = np.uint32(0xFFFFFFFF - VALUES + 1)


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
