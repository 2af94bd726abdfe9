"""Ranks of magnitudes within a row."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.kernels.bits import magnitude
from blockmerge.kernels.cache import inner

__all__ = ["BUCKET", "KNOWN_BITS", "UNKNOWN", "Ranking", "double_rank", "double_ranks", "ranking", "ranks_by_bucket"]

BUCKET = np.uint32(18)
_BUCKETS = 1 << 13
KNOWN_BITS, UNKNOWN = 9, np.uint32(0xFFFFFFFF)
_DIGIT, _DIGITS, _FEW = 11, 1 << 11, 64
Array = NDArray[Any]


class Ranking(NamedTuple):
    """Room for what is found out about a row; see :func:`ranking`."""

    bits: Array
    ranks: Array
    stays: Array
    marks: Array
    places: Array
    counts: Array
    begins: Array
    limits: Array
    own: Array
    known: Array
    known_limits: Array
    keys: Array
    sorted: Array
    digits: Array


def ranking(row: int) -> Ranking:
    """Room for rows of up to ``row`` elements; each thread has its own.

    ``counts`` by bucket are zero between uses: magnitudes fall into 32 buckets an octave. ``known`` magnitudes are
    unknown then.
    """
    return Ranking(
        bits=np.empty(row, np.uint32),
        ranks=np.empty(row, np.int64),
        stays=np.empty(row, np.uint8),
        marks=np.empty(row + 8, np.uint8),
        places=np.empty((2, row + 8), np.uint64),
        counts=np.zeros(_BUCKETS, np.int64),
        begins=np.empty(_BUCKETS + 1, np.int64),
        limits=np.empty(_BUCKETS, np.uint64),
        own=np.empty(row, np.uint64),
        known=np.full(1 << KNOWN_BITS, UNKNOWN),
        known_limits=np.empty(1 << KNOWN_BITS, np.uint32),
        keys=np.empty(row, np.uint64),
        sorted=np.empty(row, np.uint64),
        digits=np.empty(_DIGITS, np.int64),
    )


@inner
def ranks_by_bucket(values, room):
    """Fill ``room.bits`` with magnitudes, and give the first bucket that has some, and the last.

    ``room.begins`` tells for each, and for the one behind, how many are in those before it. The first is one behind
    that of zeros, which may have some as well; these come before it.
    """
    bits, counts, begins, one = room.bits[: values.size], room.counts, room.begins, np.uint32(1)
    lowest, highest = np.uint32(0xFFFFFFFF), np.uint32(0)
    for i in range(values.size):
        own = magnitude(values[i])
        bits[i] = own
        lowest = min(lowest, np.uint32(own - one))  # no zero
        highest = max(highest, own)
    for i in range(np.uint64(values.size)):
        counts[bits[i] >> BUCKET] += 1
    last = np.int64(highest >> BUCKET)
    first = min(max(np.int64(lowest >> BUCKET), 1), last + 1)  # that of the smallest, or just below it
    total = counts[0]
    for bucket in range(np.uint64(first), np.uint64(last + 1)):
        begins[bucket] = total
        total += counts[bucket]
    begins[last + 1] = total
    counts[0] = 0
    counts[first : last + 1] = 0
    return first, last


@inner
def double_rank(bits, own):
    """Twice the rank of ``own`` among ``bits``, equal ones sharing the mean of theirs."""
    smaller, not_larger, bound = np.int32(0), np.int32(0), np.int32(own)  # signed numbers are quicker to compare
    for i in range(bits.size):
        smaller = np.int32(smaller + np.int32(np.int32(bits[i]) < bound))  # else numba counts in 64 bits
        not_larger = np.int32(not_larger + np.int32(np.int32(bits[i]) <= bound))
    return np.int64(smaller) + np.int64(not_larger) - 1


@inner
def double_ranks(values, room):
    """Fill ``room.ranks`` with twice the rank of the size of each of ``values``, equal ones sharing the mean."""
    keys, ordered, ranks, half = room.keys[: values.size], room.sorted[: values.size], room.ranks, np.uint64(32)
    for i in range(values.size):
        keys[i] = np.uint64(magnitude(values[i])) << half | np.uint64(i)
    if keys.size <= _FEW:
        _insertion_sort(keys, ordered)
    else:
        _radix_sort(keys, ordered, room.digits)
    begin = 0
    while begin < ordered.size:
        end = begin + 1
        while end < ordered.size and ordered[end] >> half == ordered[begin] >> half:
            end += 1
        for at in range(begin, end):
            ranks[ordered[at] & np.uint64(0xFFFFFFFF)] = begin + end - 1
        begin = end


@inner
def _insertion_sort(keys, out):
    """``out`` = ``keys``, sorted."""
    for i in range(keys.size):
        at = i
        while at > 0 and out[at - 1] > keys[i]:
            out[at] = out[at - 1]
            at -= 1
        out[at] = keys[i]


@inner
def _radix_sort(keys, out, counts):
    """``out`` = ``keys``, sorted by the 31 bits of magnitudes; equal ones stay in their order. ``keys`` are lost."""
    _by_digit(keys, out, counts, 0)
    _by_digit(out, keys, counts, 1)
    _by_digit(keys, out, counts, 2)


@inner
def _by_digit(source, target, counts, digit):
    shift, mask = np.uint64(32 + _DIGIT * digit), np.uint64(_DIGITS - 1)
    counts[:] = 0
    for i in range(source.size):
        counts[(source[i] >> shift) & mask] += 1
    total = 0
    for value in range(counts.size):
        own = counts[value]
        counts[value] = total
        total += own
    for i in range(source.size):
        value = (source[i] >> shift) & mask
        target[counts[value]] = source[i]
        counts[value] += 1
