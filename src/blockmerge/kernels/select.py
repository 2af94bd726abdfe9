"""Choosing elements of a task vector by magnitude or by chance, without sorting it.

Magnitudes are ordered by the bits of their float32: as integers, those of non-negative floats ascend. Two histograms
find the k-th largest exactly: one over the upper 16 bits of all elements, one over the lower 15 bits of those in the
bucket where the k-th falls.
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
    "coarse_histogram",
    "count_equal",
    "fine_histogram",
    "keep_between",
    "keep_by_chance",
    "keep_by_rank",
    "magnitudes_with_places",
]

LOW_BITS = 15
COARSE, FINE = 1 << 16, 1 << LOW_BITS
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_LOW = np.uint32(FINE - 1)
_SHIFT = np.uint32(LOW_BITS)


@kernel
def coarse_histogram(values, counts):
    """Add to ``counts`` (COARSE int64) how many of ``values`` have each upper half."""
    for i in range(values.size):
        counts[(float32_bits(values[i]) & _MAGNITUDE) >> _SHIFT] += 1


@kernel
def fine_histogram(values, bucket, counts):
    """Add to ``counts`` (FINE int64) how many of the ``values`` in ``bucket`` have each lower half."""
    for i in range(values.size):
        bits = float32_bits(values[i]) & _MAGNITUDE
        if bits >> _SHIFT == bucket:
            counts[bits & _LOW] += 1


@kernel
def count_equal(values, bits):
    """How many of ``values`` have exactly the magnitude ``bits``."""
    count = 0
    for i in range(values.size):
        count += (float32_bits(values[i]) & _MAGNITUDE) == bits
    return count


@kernel
def keep_between(values, low, low_ties, high, high_ties, first, key):
    """Zero all ``values`` but those with magnitudes in (low, high), bits compared; of those equal to a bound keep some.

    Of the ties with ``low`` the ``low_ties`` with the smallest hash of their index stay, of those with ``high``
    ``high_ties``; both are numbers for these very values, which start at index ``first`` of the tensor.
    """
    lows, highs = np.uint32(0), np.uint32(0)
    for i in range(values.size):
        bits = float32_bits(values[i]) & _MAGNITUDE
        lows += np.uint32(bits == low)
        highs += np.uint32(bits == high)
    if low_ties < lows:
        _keep_ties(values, low, np.int64(lows), low_ties, first, key)
    if high_ties < highs and high != low:
        _keep_ties(values, high, np.int64(highs), high_ties, first, key)
    for i in range(values.size):
        values[i] = values[i] if low <= float32_bits(values[i]) & _MAGNITUDE <= high else np.float32(0.0)


@kernel
def _keep_ties(values, bound, ties, wanted, first, key):
    """Of the ``ties`` of ``values`` that equal ``bound`` keep the ``wanted`` whose hashes are smallest (all differ)."""
    places, hashes, found = np.empty(ties, np.int64), np.empty(ties, np.uint64), 0
    for start in range(0, values.size, _FEW):
        few = values[start : start + _FEW]
        if count_equal(few, bound) == 0:
            continue
        for i in range(few.size):
            if (float32_bits(few[i]) & _MAGNITUDE) == bound:
                places[found], hashes[found] = start + i, mixed(np.uint64(first + start + i), key)
                found += 1
    limit = np.partition(hashes, wanted)[wanted]
    for i in range(ties):
        if hashes[i] >= limit:
            values[places[i]] = np.float32(0.0)


_FEW = 64


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
