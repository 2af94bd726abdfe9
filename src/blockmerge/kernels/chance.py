"""Chance that depends on nothing but the place of an element and a seed."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.cache import kernel

__all__ = ["hashes", "limit_of", "mixed"]


@kernel
def mixed(index, seed):
    """The SplitMix64 stream of ``seed`` at ``index``, all uint64: a bijection of the index that looks like chance.

    Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    z = seed + (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def hashes(first, count, seed):
    """31 bits for each of ``count`` elements from ``first`` on, uint32.

    Two elements share a number of the stream at half their index: the even one has its lower half, the odd one its
    upper half, each without the lowest bit.
    """
    pairs, begin = np.empty(count // 2 + 1, np.uint64), np.uint64(first >> 1)
    for i in range(pairs.size):
        pairs[i] = mixed(begin + np.uint64(i), seed)
    odd = first & 1
    found = pairs.view(np.uint32)[odd : odd + count]  # little-endian, as weights are
    for i in range(count):
        found[i] >>= np.uint32(1)
    return found


@kernel
def limit_of(chance):
    """What :func:`hashes` are below with this chance, uint32."""
    return np.uint32(chance * 2147483648.0 + 0.5)
