"""Choosing elements of a task vector by magnitude or by chance, without sorting it.

Magnitudes are ordered by the bits of their float32: as integers, those of non-negative floats ascend. Histograms find
the k-th largest exactly: of the upper 16 bits, then of a window of them, then of a few neighbouring floats.
"""

from __future__ import annotations

import numba
import numpy as np

from blockmerge.kernels.bits import float32_bits
from blockmerge.kernels.cache import kernel

__all__ = [
    "COARSE",
    "FINE",
    "LOW_BITS",
    "VALUES",
    "WINDOW",
    "coarse_histogram",
    "count_equal",
    "count_values",
    "count_window",
    "keep_between",
    "keep_by_chance",
    "keep_by_rank",
    "magnitudes_with_places",
]

LOW_BITS = 15
COARSE, FINE = 1 << 16, 1 << LOW_BITS
_VALUE_BITS = 6
WINDOW, VALUES = 1 << 20, 1 << _VALUE_BITS
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_SHIFT = np.uint32(LOW_BITS)
_SOME = 2048


@kernel
def coarse_histogram(values, counts):
    """Add to ``counts`` (COARSE int64) how many of ``values`` have each upper half."""
    for i in range(values.size):
        counts[(float32_bits(values[i]) & _MAGNITUDE) >> _SHIFT] += 1


@kernel
def count_window(values, low, counts):
    """Add to ``counts`` (3 + WINDOW // VALUES int64) how many of ``values`` are below ``low``, are zero, are there.

    Behind these stand those in each bin of VALUES neighbouring magnitudes, WINDOW of them from ``low`` on.
    """
    places = np.empty(_SOME, np.uint32)
    counts[2] += values.size
    for start in range(0, values.size, _SOME):
        some = values[start : start + _SOME]
        below, zeros, found = np.uint32(0), np.uint32(0), 0
        for i in range(some.size):
            bits = float32_bits(some[i]) & _MAGNITUDE
            below += np.uint32(bits < low)
            zeros += np.uint32(bits == np.uint32(0))
        for i in range(some.size):
            place = np.uint32((float32_bits(some[i]) & _MAGNITUDE) - low)
            places[found] = place
            found += place < np.uint32(WINDOW)  # no branch, which would be mispredicted
        for i in range(found):
            counts[3 + (places[i] >> np.uint32(_VALUE_BITS))] += 1
        counts[0] += below
        counts[1] += zeros


@kernel
def count_values(values, first, counts):
    """Add to ``counts`` (VALUES) how many of ``values`` have each of the magnitudes from ``first`` on."""
    places = np.empty(_SOME, np.int64)
    for start in range(0, values.size, _SOME):
        some = values[start : start + _SOME]
        for at in places[: _places(some, first, np.uint32(VALUES), places)]:
            counts[np.uint32((float32_bits(some[at]) & _MAGNITUDE) - first)] += 1


@numba.njit
def _places(values, first, count, places):
    """How many of ``values``, _SOME at most, are among ``count`` magnitudes from ``first`` on; ``places`` is where."""
    marks = np.zeros(_SOME, np.uint8)
    for i in range(values.size):
        marks[i] = np.uint32((float32_bits(values[i]) & _MAGNITUDE) - first) < count
    found = 0
    eights = marks.view(np.uint64)
    for eight in range(eights.size):  # most of them have none
        if eights[eight]:
            for i in range(8 * eight, 8 * eight + 8):
                if marks[i]:
                    places[found] = i
                    found += 1
    return found


@kernel
def count_equal(values, bits):
    """How many of ``values`` have exactly the magnitude ``bits``."""
    count = 0
    for i in range(values.size):
        count += (float32_bits(values[i]) & _MAGNITUDE) == bits
    return count


@kernel
def keep_between(values, low, low_ties, high, high_ties, first, key):
    """Zero all ``values`` but those with magnitudes from ``low`` to ``high``, bits compared; of those equal keep some.

    ``low_ties``, ``high_ties``: how many of ``values`` equal the bound, and how many of these stay, each with the same
    chance. ``values`` start at index ``first`` of the tensor.
    """
    for i in range(values.size):
        values[i] = values[i] if low <= float32_bits(values[i]) & _MAGNITUDE <= high else np.float32(0.0)
    if low_ties[1] < low_ties[0]:
        _keep_ties(values, low, low_ties[0], low_ties[1], first, key)
    if high_ties[1] < high_ties[0] and high != low:
        _keep_ties(values, high, high_ties[0], high_ties[1], first, key)


@numba.njit
def _keep_ties(values, bound, left, wanted, first, key):
    """Of the ``left`` ones of ``values`` that equal ``bound`` keep ``wanted``: each with what chance is left for it.

    Knuth, The art of computer programming, volume 2, 3.4.2, algorithm S.
    """
    places = np.empty(_SOME, np.int64)
    for start in range(0, values.size, _SOME):
        some = values[start : start + _SOME]
        for at in places[: _places(some, bound, np.uint32(1), places)]:
            chance = np.int64(mixed(np.uint64(first + start + at), key) >> np.uint64(33))
            kept = chance * left < wanted << 31
            some[at] = some[at] if kept else np.float32(0.0)
            wanted -= kept
            left -= 1


@kernel
def mixed(index, key):
    """The SplitMix64 stream of ``key`` at ``index``: a bijection of the index that looks like chance.

    Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    z = key + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def keep_by_chance(values, limit, first, key, scale):
    """Keep each of ``values`` with chance ``limit / 2**32`` and multiply it by ``scale``; zero the others."""
    for i in range(values.size):
        kept = (mixed(np.uint64(first + i), key) >> np.uint64(32)) < limit
        values[i] = values[i] * scale if kept else np.float32(0.0)


@kernel
def magnitudes_with_places(values, row, out):
    """``out`` (uint64) = the magnitude of each of ``values`` as bits, above its place in its row of that length."""
    for start in range(0, values.size, row):
        found, packed = values[start : start + row], out[start : start + row]
        for i in range(row):
            packed[i] = np.uint64(float32_bits(found[i]) & _MAGNITUDE) << np.uint64(32) | np.uint64(i)


@kernel
def keep_by_rank(values, ranked, row, low, high, first, key, factors):
    """Keep each of ``values`` with a chance from ``low`` to ``high``, linear in its rank in its row; zero the others.

    ``ranked`` are the values' magnitudes with places, sorted within each row; equal ones share the mean of their ranks,
    and the only element of a row has the mean chance. ``factors`` is filled with one over the chances (0 for none).
    """
    half_step = (high - low) / (2 * row - 2) if row > 1 else 0.0
    smallest = low if row > 1 else (low + high) / 2
    begins, ranks = np.empty(row, np.int32), np.empty(row, np.int32)
    for start in range(0, values.size, row):
        end = start + row
        _double_ranks(ranked[start:end], begins, ranks)
        kept, inverse = values[start:end], factors[start:end]
        for i in range(row):
            chance = smallest + half_step * ranks[i]
            chosen = mixed(np.uint64(first + start + i), key) >> np.uint64(32)
            kept[i] = kept[i] if chosen < np.uint64(chance * 4294967296.0 + 0.5) else np.float32(0.0)
            inverse[i] = 1.0 / chance if chance > 0 else 0.0


@numba.njit
def _double_ranks(ranked, begins, ranks):
    """``ranks`` = twice the rank of each place; those with equal magnitudes share the mean. Overwrites ``begins``."""
    begin = 0
    for at in range(ranked.size):
        changes = at > 0 and ranked[at] >> np.uint64(32) != ranked[at - 1] >> np.uint64(32)
        begin = at if changes else begin
        begins[at] = begin
    last = ranked.size - 1
    for at in range(ranked.size - 1, -1, -1):
        ranks[ranked[at] & np.uint64(0xFFFFFFFF)] = begins[at] + last
        last = at - 1 if begins[at] == at else last
