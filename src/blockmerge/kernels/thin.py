"""Thinning out task vectors: what lies between two magnitudes stays, or what chance keeps, by rank or not.

A way to thin is a tuple of plain arrays with an entry for each model; :func:`thin` is chosen by its type while
compiling. It works in place on elements of one task vector: one whole ``row``, or any where that is 0, SOME of them at
most.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from blockmerge.kernels.bits import magnitude, number
from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.chance import hashes, limit_of, mixed
from blockmerge.kernels.dots import add_sizes, joined, lanes
from blockmerge.kernels.ranks import (
    BUCKET,
    KNOWN_BITS,
    UNKNOWN,
    Ranking,
    double_rank,
    double_ranks,
    ranking,
    ranks_by_bucket,
)
from blockmerge.kernels.select import SOME, marked, marks_and_places, where
from blockmerge.kernels.sums import difference

__all__ = [
    "Between",
    "ByChance",
    "ByRank",
    "ByRankRescaled",
    "Everything",
    "left",
    "norms",
    "ranking",
    "span",
    "thin",
    "thin_all",
]

Array = NDArray[Any]


class Everything(NamedTuple):
    """Nothing is dropped."""

    row: int = 0


class Between(NamedTuple):
    """Magnitudes from ``lows`` to ``highs`` stay, bits of float32; of those equal to a bound only some.

    ``ties`` (chunks of ``chunk`` elements, models, low and high, 2): how many equal the bound, and how many of these
    stay, each with the same chance. They count down. ``seeds`` are uint64.
    """

    lows: Array
    highs: Array
    ties: Array
    chunk: int
    seeds: Array
    row: int = 0


class ByChance(NamedTuple):
    """Each element stays with the chance ``limits / 2**31``, uint32."""

    limits: Array
    seeds: Array
    row: int = 0


class ByRank(NamedTuple):
    """Each stays with a chance from ``chances[k, 0]`` to ``chances[k, 1]``, linear in the rank of its size in its row.

    Equal sizes share the mean of their ranks, and the only element of a row has the mean chance.
    """

    chances: Array
    seeds: Array
    room: Ranking
    row: int


class ByRankRescaled(NamedTuple):
    """The same; factors are multiplied by one over the chances (0 for none)."""

    chances: Array
    seeds: Array
    room: Ranking
    row: int


@inner
def span(way):
    """How many elements are thinned at a time."""
    return SOME if way.row == 0 else way.row


def thin(way, k, values, start, first, factors):
    """Zero what is dropped of ``values``: of task vector ``k``, element ``start`` and more of those at hand.

    That one is element ``first`` of the tensor. ``factors``: what is left will be multiplied by them; some ways change
    them.
    """
    raise NotImplementedError


@overload(thin, jit_options={"error_model": "numpy"})
def _thin(way, k, values, start, first, factors):
    del k, values, start, first, factors
    return _WAYS[way.instance_class]


def left(way, narrow, x, base, like):
    """``x - base`` in the type of ``like``, zero where ``narrow``, its thinned float32, is zero."""
    raise NotImplementedError


@overload(left)
def _left(way, narrow, x, base, like):
    del x, base
    if narrow == like:
        return lambda way, narrow, x, base, like: narrow
    if way.instance_class is Everything:  # float32 may be zero where float64 is not
        return lambda way, narrow, x, base, like: number(x, like) - number(base, like)
    return lambda way, narrow, x, base, like: number(x, like) - number(base, like) if narrow != 0 else 0.0


@kernel
def thin_all(vectors, way, first):
    """Thin all ``vectors`` (models, elements), float32, in place."""
    step, factors = span(way), np.empty(span(way), np.float32)
    for start in range(0, vectors.shape[1], step):
        for k in range(len(vectors)):
            some = vectors[k, start : start + step]
            thin(way, k, some, start, first + start, factors[: some.size])


@kernel
def norms(operands, way, first, out):
    """``out`` (models, 2), float64 = L1 norms of the task vectors and of what is left of them when thinned.

    ``operands``: (models + 1, elements), the first of which is taken off the others.
    """
    step, size = span(way), operands.shape[1]
    room, factors, sums = np.empty(step, np.float32), np.empty(step, np.float32), lanes(2 * len(out))
    for start in range(0, size, step):
        stop = min(start + step, size)
        some = room[: stop - start]
        for k in range(len(out)):
            difference(operands[k + 1, start:stop], operands[0, start:stop], some)
            add_sizes(some, sums[2 * k])
            thin(way, k, some, start, first + start, factors[: some.size])
            add_sizes(some, sums[2 * k + 1])
    for k in range(len(out)):
        out[k, 0], out[k, 1] = joined(sums[2 * k]), joined(sums[2 * k + 1])


def _everything(way, k, values, start, first, factors):
    pass


def _between(way, k, values, start, first, factors):
    low, high, ties = way.lows[k], way.highs[k], way.ties[start // way.chunk, k]
    for i in range(values.size):
        values[i] = values[i] if low <= magnitude(values[i]) <= high else np.float32(0.0)
    if ties[0, 1] < ties[0, 0]:
        _keep_ties(values, low, ties[0], first, way.seeds[k])
    if ties[1, 1] < ties[1, 0] and high != low:
        _keep_ties(values, high, ties[1], first, way.seeds[k])


@inner
def _keep_ties(values, bound, ties, first, seed):
    """Of the ``ties[0]`` elements left that equal ``bound`` keep ``ties[1]``: each with what chance is left for it.

    Knuth, The art of computer programming, volume 2, 3.4.2, algorithm S.
    """
    marks, places = marks_and_places()
    for at in places[0, : where(values, bound, np.uint32(1), marks, places)]:
        chance = np.int64(mixed(np.uint64(first) + at, seed) >> np.uint64(33))
        kept = chance * ties[0] < ties[1] << 31
        values[at] = values[at] if kept else np.float32(0.0)
        ties[1] -= kept
        ties[0] -= 1


def _by_chance(way, k, values, start, first, factors):
    limit, chosen = way.limits[k], hashes(first, values.size, way.seeds[k])
    for i in range(values.size):
        values[i] = values[i] if chosen[i] < limit else np.float32(0.0)


@inner
def _chances(way, k, size):
    """The chance of the smallest of a row of ``size``, and how much more it is for half a rank."""
    low, high = way.chances[k, 0], way.chances[k, 1]
    if size == 1:
        return (low + high) / 2, 0.0
    return low, (high - low) / (2 * size - 2)


def _by_rank_rescaled(way, k, values, start, first, factors):
    room, chosen = way.room, hashes(first, values.size, way.seeds[k])
    smallest, half_step = _chances(way, k, values.size)
    double_ranks(values, room)
    for i in range(values.size):
        chance = smallest + half_step * room.ranks[i]
        values[i] = values[i] if chosen[i] < limit_of(chance) else np.float32(0.0)
        factors[i] *= 1.0 / chance if chance > 0 else 0.0


def _by_rank(way, k, values, start, first, factors):
    """Without sorting: between the chances of the lowest and the highest rank of a bucket lies next to nothing.

    So hashes decide for nearly all elements whatever their rank in it; for the rest the rank is counted.
    """
    room, size, half = way.room, values.size, np.uint64(32)
    chosen = hashes(first, size, way.seeds[k])
    smallest, half_step = _chances(way, k, size)
    bits, own, stays, marks = room.bits[:size], room.own[:size], room.stays[:size], room.marks
    first, last = ranks_by_bucket(values, room)
    limits, begins = room.limits[first : last + 1], room.begins[first : last + 2]
    for bucket in range(limits.size):
        limits[bucket] = _limits(smallest, half_step, begins[bucket], begins[bucket + 1])
    room.limits[0] = _limits(smallest, half_step, 0, begins[0])  # zeros
    for i in range(np.uint64(size)):
        own[i] = room.limits[bits[i] >> BUCKET]
    for i in range(np.uint64(size)):
        certain = np.uint8(chosen[i] < np.uint32(own[i]))
        stays[i] = certain
        marks[i] = np.uint8(chosen[i] < np.uint32(own[i] >> half)) ^ certain
    unsure = room.places[0, : marked(marks, size, room.places)]
    _decide(room, bits, smallest, half_step, chosen, unsure)
    for i in range(size):
        values[i] = values[i] if stays[i] else np.float32(0.0)


@inner
def _limits(smallest, half_step, begin, end):
    """The limits of the lowest rank among those from ``begin`` up to ``end``, and above it that of the highest."""
    lowest = smallest + half_step * np.float64(2 * begin)
    highest = smallest + half_step * np.float64(2 * end - 2)  # where there are none this is less, and of no use
    return np.uint64(limit_of(highest)) << np.uint64(32) | np.uint64(limit_of(lowest))


@inner
def _decide(room, bits, smallest, half_step, chosen, unsure):
    """``stays`` of those elements whose rank has to be known."""
    known, limits = room.known, room.known_limits
    for i in unsure:
        slot = np.uint32(bits[i] * _SCATTER) >> _SLOTS
        if known[slot] != bits[i]:  # where many are equal, they are counted once
            known[slot] = bits[i]
            limits[slot] = limit_of(smallest + half_step * double_rank(bits, bits[i]))
        room.stays[i] = chosen[i] < limits[slot]
    for i in unsure:
        known[np.uint32(bits[i] * _SCATTER) >> _SLOTS] = UNKNOWN


_SLOTS, _SCATTER = np.uint32(32 - KNOWN_BITS), np.uint32(2654435761)


_WAYS = {
    Everything: _everything,
    Between: _between,
    ByChance: _by_chance,
    ByRank: _by_rank,
    ByRankRescaled: _by_rank_rescaled,
}
