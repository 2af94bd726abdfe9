"""Choosing elements of a task vector by magnitude or by chance, without sorting it.

Magnitudes are ordered by the bits of their float32: as integers, those of non-negative floats ascend. Histograms find
the k-th largest exactly: of the upper bits, then of a window of them, then of a few neighbouring floats.
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
    "count_values",
    "count_window",
    "keep_between",
    "keep_by_bucket",
    "keep_by_chance",
    "keep_by_rank",
    "magnitudes_with_places",
]

LOW_BITS = 17
COARSE, FINE = 1 << (31 - LOW_BITS), 1 << LOW_BITS
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
    marks, places = _room()
    counts[2] += values.size
    for start in range(0, values.size, _SOME):
        some = values[start : start + _SOME]
        below, zeros = np.uint32(0), np.uint32(0)
        for i in range(some.size):
            bits = float32_bits(some[i]) & _MAGNITUDE
            below += np.uint32(bits < low)
            zeros += np.uint32(bits == np.uint32(0))
        counts[0] += below
        counts[1] += zeros
        for at in places[: _where(some, low, np.uint32(WINDOW), marks, places)]:
            counts[3 + (np.uint32((float32_bits(some[at]) & _MAGNITUDE) - low) >> np.uint32(_VALUE_BITS))] += 1


@kernel
def count_values(values, first, step, counts):
    """Add to ``counts`` (chunks, VALUES) how many of ``values`` have each of the magnitudes from ``first`` on.

    A chunk has ``step`` elements, or the rest.
    """
    marks, places = _room()
    for start in range(0, values.size, _SOME):
        some, count = values[start : start + _SOME], counts[start // step]
        for at in places[: _where(some, first, np.uint32(VALUES), marks, places)]:
            count[np.uint32((float32_bits(some[at]) & _MAGNITUDE) - first)] += 1


@numba.njit
def _room():
    """``marks`` and ``places`` for :func:`_where`."""
    return np.zeros(_SOME, np.uint8), np.empty(_SOME + 8, np.int64)


@numba.njit
def _where(values, first, count, marks, places):
    """How many of ``values``, _SOME at most, are among ``count`` magnitudes from ``first`` on; ``places`` tells which.

    Few are, which a processor cannot foresee; so this has no branches, and looks only into eights that have one.
    """
    for i in range(values.size):
        marks[i] = np.uint8(np.uint32((float32_bits(values[i]) & _MAGNITUDE) - first) < count)
    marks[values.size :] = 0
    eights, some, found = marks.view(np.uint64), 0, 0
    for eight in range(eights.size):
        places[some] = 8 * eight
        some += eights[eight] != 0
    begins = places[:some].copy()
    for begin in begins:
        for i in range(begin, begin + 8):
            places[found] = i
            found += marks[i]
    return found


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
    marks, places = _room()
    for start in range(0, values.size, _SOME):
        some = values[start : start + _SOME]
        for at in places[: _where(some, bound, np.uint32(1), marks, places)]:
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
            chosen = np.int64(mixed(np.uint64(first + start + i), key) >> np.uint64(32))
            kept[i] = kept[i] if chosen < _limit(chance) else np.float32(0.0)
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


@kernel
def keep_by_bucket(values, row, low, high, first, key):
    """The same as :func:`keep_by_rank` without factors, and without sorting.

    Magnitudes are counted in 32 buckets an octave. Between the chances of the lowest and the highest rank of a bucket
    lies next to nothing, so hashes decide for nearly all elements whatever their rank; for the rest it is counted.
    """
    half_step = (high - low) / (2 * row - 2) if row > 1 else 0.0
    smallest = low if row > 1 else (low + high) / 2
    bits, chosen, stays = np.empty(row, np.uint32), np.empty(row, np.int64), np.empty(row, np.uint8)
    unsure, counts, begins = np.empty(row, np.int64), np.zeros(_BUCKETS, np.int64), np.zeros(_BUCKETS + 1, np.int64)
    certain, possible = np.empty(_BUCKETS, np.int64), np.empty(_BUCKETS, np.int64)
    known, limits = np.empty(_KNOWN, np.uint32), np.empty(_KNOWN, np.int64)
    for start in range(0, values.size, row):
        some = values[start : start + row]
        lowest, highest = _bucketed(some, bits, counts)
        begins[lowest] = counts[0]
        for bucket in range(lowest, highest + 1):
            begins[bucket + 1] = begins[bucket] + counts[bucket]
        for bucket in range(lowest, highest + 1):
            certain[bucket] = _limit(smallest + half_step * (2 * begins[bucket]))
            possible[bucket] = _limit(smallest + half_step * (2 * begins[bucket + 1] - 2))
        certain[0], possible[0] = _limit(smallest), _limit(smallest + half_step * (2 * counts[0] - 2))
        counts[0] = 0
        counts[lowest : highest + 1] = 0
        for i in range(row):
            chosen[i] = np.int64(mixed(np.uint64(first + start + i), key) >> np.uint64(32))
        count = 0
        for i in range(row):
            bucket = bits[i] >> _BUCKET
            stays[i] = np.uint8(chosen[i] < certain[bucket])
            unsure[count] = i
            count += (chosen[i] >= certain[bucket]) & (chosen[i] < possible[bucket])
        known[:] = _UNKNOWN
        for i in unsure[:count]:
            slot = np.uint32(bits[i] * _SCATTER) >> _SLOTS
            if known[slot] != bits[i]:  # where many are equal, they are counted once
                known[slot] = bits[i]
                limits[slot] = _limit(smallest + half_step * _double_rank(bits, bits[i]))
            stays[i] = np.uint8(chosen[i] < limits[slot])
        for i in range(row):
            some[i] = some[i] if stays[i] else np.float32(0.0)


_BUCKET = np.uint32(18)
_BUCKETS = 1 << 13
_KNOWN, _SLOTS, _SCATTER, _UNKNOWN = 1 << 9, np.uint32(23), np.uint32(2654435761), np.uint32(0xFFFFFFFF)


@numba.njit
def _bucketed(values, bits, counts):
    """Fill ``bits`` with magnitudes, count them by bucket, and give the first bucket that has some, and the last.

    The first is one behind that of zeros, which may have some as well.
    """
    lowest, highest = np.uint32(0xFFFFFFFF), np.uint32(0)
    for i in range(values.size):
        bits[i] = float32_bits(values[i]) & _MAGNITUDE
    for i in range(values.size):
        lowest = min(lowest, bits[i] if bits[i] > np.uint32(0) else lowest)
        highest = max(highest, bits[i])
    for i in range(values.size):
        counts[bits[i] >> _BUCKET] += 1
    last = np.int64(highest >> _BUCKET)
    return min(max(np.int64(lowest >> _BUCKET), 1), last + 1), last


@numba.njit
def _limit(chance):
    """What the upper half of a hash is below with this chance."""
    return np.int64(chance * 4294967296.0 + 0.5)


@numba.njit
def _double_rank(bits, own):
    """Twice the rank of ``own`` among ``bits``, equal ones sharing the mean of theirs."""
    below, equal = np.uint32(0), np.uint32(0)
    for i in range(bits.size):
        below += np.uint32(bits[i] < own)
        equal += np.uint32(bits[i] == own)
    return 2 * np.int64(below) + np.int64(equal) - 1
