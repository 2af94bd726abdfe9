"""Choosing elements of a task vector by magnitude or by chance, without sorting it.

Magnitudes are ordered by the bits of their float32: as integers, those of non-negative floats ascend. Two histograms
find the k-th largest exactly: one over the upper 16 bits of all elements, one over the lower 15 bits of those in the
bucket where the k-th falls.
"""

from __future__ import annotations

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
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


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
    low_limit = _hash_limit(values, low, low_ties, first, key)
    high_limit = _hash_limit(values, high, high_ties, first, key) if high != low else low_limit
    for i in range(values.size):
        bits = float32_bits(values[i]) & _MAGNITUDE
        values[i] = values[i] if low <= bits <= high else np.float32(0.0)
    if low_limit == _ALL and high_limit == _ALL:
        return
    for i in range(values.size):
        bits = float32_bits(values[i]) & _MAGNITUDE
        if bits in (low, high):
            limit = low_limit if bits == low else high_limit
            if mixed(np.uint64(first + i), key) >= limit:
                values[i] = np.float32(0.0)


@kernel
def _hash_limit(values, bound, wanted, first, key):
    """The hash below which exactly ``wanted`` of the ties with ``bound`` lie (hashes of different indices differ)."""
    ties = 0
    for i in range(values.size):
        ties += (float32_bits(values[i]) & _MAGNITUDE) == bound
    if wanted >= ties:
        return _ALL
    if wanted == 0:
        return np.uint64(0)
    hashes = np.empty(ties, np.uint64)
    at = 0
    for i in range(values.size):
        if (float32_bits(values[i]) & _MAGNITUDE) == bound:
            hashes[at] = mixed(np.uint64(first + i), key)
            at += 1
    return np.partition(hashes, wanted)[wanted]


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
        for i in range(row):
            bits = float32_bits(values[start + i]) & _MAGNITUDE
            out[start + i] = np.uint64(bits) << np.uint64(32) | np.uint64(i)


@kernel
def keep_by_rank(values, ranked, row, low, high, first, key, factors):
    """Keep each of ``values`` with a chance from ``low`` to ``high``, linear in its rank in its row; zero the others.

    ``ranked`` are the values' magnitudes with places, sorted within each row; equal ones share the mean of their ranks,
    and the only element of a row has the mean chance. ``factors`` is filled with one over the chances (0 for none).
    """
    step = (high - low) / (row - 1) if row > 1 else 0.0
    smallest = low if row > 1 else (low + high) / 2
    for start in range(0, values.size, row):
        end, begin = start + row, start
        while begin < end:
            bits, stop = ranked[begin] >> np.uint64(32), begin + 1
            while stop < end and ranked[stop] >> np.uint64(32) == bits:
                stop += 1
            chance = smallest + step * ((begin + stop - 1) * 0.5 - start)
            limit = np.uint64(chance * 4294967296.0 + 0.5)
            factor = 1.0 / chance if chance > 0 else 0.0
            for at in range(begin, stop):
                i = start + np.int64(ranked[at] & np.uint64(0xFFFFFFFF))
                kept = (mixed(np.uint64(first + i), key) >> np.uint64(32)) < limit
                values[i] = values[i] if kept else np.float32(0.0)
                factors[i] = factor
            begin = stop
