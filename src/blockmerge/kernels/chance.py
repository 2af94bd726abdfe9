"""Chance that depends on nothing but the place of an element and a seed."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.cache import inner, kernel

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
def hashes(first, seed, out):
    """Fill ``out``, uint32, with 31 bits for each element from ``first`` on."""
    start = 0
    while start < out.size:
        low, key, other = _keys(first + start, seed)
        some = out[start : start + _LOWER - low + 1]
        for i in range(np.uint32(some.size)):
            some[i] = _hash(np.uint32(low + np.uint32(i)), key, other)
        start += some.size


@inner
def hashed(index, seed):
    """The same for one element."""
    return _hash(*_keys(index, seed))


@inner
def _keys(index, seed):
    """The lower half of an index, and what keys its hash: a number of the stream of ``seed``, by the upper half."""
    key = mixed(np.uint64(index) >> np.uint64(32), seed)
    return np.uint32(index), np.uint32(key), np.uint32(key >> np.uint64(32))


_LOWER = 0xFFFFFFFF


@inner
def _hash(index, key, other):
    """triple32 of Wellons, Prospecting for hash functions, 2018, with a key; 32 bits, of which 31 are kept.

    Multiplications of 32 bits are those that every processor can do many of at once.
    """
    x = np.uint32(index ^ key)
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(17))) * np.uint32(0xED5AD4BB))
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(11))) + other)
    x = np.uint32(x * np.uint32(0xAC4C1B51))
    x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x31848BAB))
    return np.uint32(np.uint32(x ^ (x >> np.uint32(14))) >> np.uint32(1))


@kernel
def limit_of(chance):
    """What :func:`hashes` are below with this chance, uint32."""
    return np.uint32(chance * 2147483648.0 + 0.5)
