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
    "where",
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
def count_window(scoring, operands, first, scores, lows, sizes, counts):
    """Add to ``counts`` (targets, 3 + WINDOW // VALUES), int64: elements below ``lows[target]``, zeros, all of them.

    Behind these stand those in each bin of VALUES neighbouring magnitudes, ``sizes[target]`` of them (WINDOW at most)
    from ``lows[target]`` on.
    """
    room, size = np.empty(SOME, np.float32), operands.shape[1]
    marks, places = marks_and_places()
    for start in range(0, size, SOME):
        some = room[: min(SOME, size - start)]
        for target in range(scores.size):
            _score_target(scoring, scores, target, operands, start, first, some)
            _count_window(some, lows[target], sizes[target], counts[target], marks, places)


@inner
def _score_target(scoring, scores, target, operands, start, first, out):
    """Fill ``out`` with the score of a target, which may be there from the target before."""
    if target == 0 or scores[target] != scores[target - 1]:
        score(scoring, scores[target], operands, start, first + start, out)


@inner
def _count_window(some, low, size, counts, marks, places):
    below, zeros = np.uint32(0), np.uint32(0)
    for i in range(some.size):
        bits = magnitude(some[i])
        below = np.uint32(below + np.uint32(bits < low))  # else numba counts in 64 bits
        zeros = np.uint32(zeros + np.uint32(bits == np.uint32(0)))
    counts[0] += below
    counts[1] += zeros
    counts[2] += some.size
    for at in places[0, : where(some, low, size, marks, places)]:
        counts[3 + (np.uint32(magnitude(some[at]) - low) >> np.uint32(_VALUE_BITS))] += 1


@kernel
def count_values(scoring, operands, first, scores, firsts, step, counts):
    """Add to ``counts`` (targets, chunks, VALUES) how many have each of the magnitudes from ``firsts[target]`` on.

    A chunk has ``step`` elements, a multiple of SOME, or the rest.
    """
    room, size = np.empty(SOME, np.float32), operands.shape[1]
    marks, places = marks_and_places()
    for start in range(0, size, SOME):
        some = room[: min(SOME, size - start)]
        for target in range(scores.size):
            _score_target(scoring, scores, target, operands, start, first, some)
            low, count = firsts[target], counts[target, start // step]
            for at in places[0, : where(some, low, np.uint32(VALUES), marks, places)]:
                count[np.uint32(magnitude(some[at]) - low)] += 1


@kernel
def marks_and_places():
    """Room for :func:`where`."""
    return np.empty(SOME + 8, np.uint8), np.empty((2, SOME + 8), np.uint64)


@inner
def where(values, first, count, marks, places):
    """How many of ``values``, SOME at most, are among ``count`` magnitudes from ``first`` on; ``places`` tell which.

    Few are, which a processor cannot foresee; so this has no branches, and looks only into eights that have one.
    """
    for i in range(values.size):
        marks[i] = np.uint8(np.uint32(magnitude(values[i]) - first) < count)
    return marked(marks, values.size, places)


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
