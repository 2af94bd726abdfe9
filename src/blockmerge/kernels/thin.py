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

from blockmerge.kernels.bits import magnitude, only
from blockmerge.kernels.cache import FRUGAL, inner, kernel
from blockmerge.kernels.chance import hashed, hashes, limit_of
from blockmerge.kernels.dots import add_sizes, joined, lanes
from blockmerge.kernels.masks import pack, restrict
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
from blockmerge.kernels.select import marked
from blockmerge.kernels.sums import SOME, difference

__all__ = [
    "Between",
    "ByChance",
    "ByRank",
    "ByRankRescaled",
    "Everything",
    "Remembered",
    "Room",
    "complete",
    "narrow_of",
    "norms",
    "ranking",
    "room_of",
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
    stay, each with the same chance. They count down. ``seeds`` are uint64. ``marks`` and ``places`` are room of the
    caller's (:func:`blockmerge.kernels.select.marked`).
    """

    lows: Array
    highs: Array
    ties: Array
    chunk: int
    seeds: Array
    marks: Array
    places: Array
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
    """The same; factors are one over the chances (0 for none)."""

    chances: Array
    seeds: Array
    room: Ranking
    row: int


class Remembered(NamedTuple):
    """What another way left stays, by the ``bits`` that :func:`norms` set.

    Those of granule g of ``granule`` elements, the first of which is element ``begin`` of the tensor, stand in row g of
    ``bits``, behind ``skipped`` bytes: (rows of ``row`` elements, ``models``, bytes). ``marks`` is room for eight more
    elements than a row has.
    """

    bits: Array
    skipped: int
    begin: int
    granule: int
    models: int
    marks: Array
    row: int


class Room(NamedTuple):
    """What thinning needs for a span of elements: ``chosen`` by chance, uint32, and ``factors``, all one.

    These are what will make up for what is dropped: some ways set them.
    """

    chosen: Array
    factors: Array


@kernel
def room_of(way, like):
    """Room for one way, with factors of the type of ``like``."""
    return Room(np.empty(span(way), np.uint32), np.full(span(way), like.dtype.type(1)))


@inner
def span(way):
    """How many elements are thinned at a time."""
    return SOME if way.row == 0 else way.row


def thin(way, k, values, start, first, room):
    """Zero what is dropped of ``values``: of task vector ``k``, element ``start`` and more of those at hand.

    That one is element ``first`` of the tensor.
    """
    raise NotImplementedError


@overload(thin, jit_options=FRUGAL)
def _thin(way, k, values, start, first, room):
    del k, values, start, first, room
    return _WAYS[way.instance_class]


def narrow_of(vector, room):
    """Where a task vector is thinned: in ``vector`` itself, if that is float32, else in ``room``, which is."""
    raise NotImplementedError


@overload(narrow_of, jit_options=FRUGAL)
def _narrow_of(vector, room):
    return (lambda vector, room: vector) if vector == room else (lambda vector, room: room)


def complete(way, x, base, narrow, room, out):
    """``out`` = ``x - base`` times factors (``room``) where ``narrow``, its thinned float32, is not zero; else zero.

    Where ``out`` is float32, ``narrow`` is ``out``.
    """
    raise NotImplementedError


@overload(complete, jit_options=FRUGAL)
def _complete(way, x, base, narrow, room, out):
    del x, base, room
    if narrow == out:
        return _scaled if way.instance_class is ByRankRescaled else _as_it_is
    return _difference if way.instance_class is Everything else _taken_anew


def _as_it_is(way, x, base, narrow, room, out):
    pass


def _scaled(way, x, base, narrow, room, out):
    factors = room.factors[: out.size]
    for i in range(out.size):
        out[i] *= factors[i]


def _difference(way, x, base, narrow, room, out):
    difference(x, base, out)  # float32 may be zero where this is not


def _taken_anew(way, x, base, narrow, room, out):
    difference(x, base, out)
    factors = room.factors[: out.size]
    for i in range(out.size):
        out[i] = only(out[i] * factors[i], narrow[i] != 0)


@kernel
def thin_all(vectors, way, first):
    """Thin all ``vectors`` (models, elements), float32, in place."""
    step, room = span(way), room_of(way, vectors)
    for start in range(0, vectors.shape[1], step):
        for k in range(len(vectors)):
            thin(way, k, vectors[k, start : start + step], start, first + start, room)


@kernel
def norms(operands, way, first, out, bits):
    """``out`` (models, 2), float64 = L1 norms of the task vectors and of what is left of them when thinned.

    ``operands``: (models + 1, elements), the first of which is taken off the others. ``bits`` (rows, models, bytes),
    uint8, unless it has no rows, tell what is left, row by row of the way, or SOME elements.
    """
    step, sums = span(way), lanes(2 * len(out))
    vector, marks = np.empty(step, np.float32), np.empty(step + 8, np.uint8)
    room = room_of(way, vector)
    for start in range(0, operands.shape[1], step):
        _add_norms(operands, way, start, first, room, vector, marks, sums, bits)
    for k in range(len(out)):
        out[k, 0], out[k, 1] = joined(sums[2 * k]), joined(sums[2 * k + 1])


@inner
def _add_norms(operands, way, start, first, room, vector, marks, sums, bits):
    """The same for one step from element ``start`` on, added to running sums."""
    stop = min(start + vector.size, operands.shape[1])
    some, row = vector[: stop - start], start // vector.size
    for k in range(len(operands) - 1):
        difference(operands[k + 1, start:stop], operands[0, start:stop], some)
        add_sizes(some, sums[2 * k])
        thin(way, k, some, start, first + start, room)
        add_sizes(some, sums[2 * k + 1])
        if len(bits):
            pack(some, marks, bits[row, k])


def _everything(way, k, values, start, first, room):
    pass


def _between(way, k, values, start, first, room):
    low, high, ties = way.lows[k], way.highs[k], way.ties[start // way.chunk, k]
    for i in range(values.size):
        values[i] = only(values[i], low <= magnitude(values[i]) <= high)
    _keep_ties(values, low, ties[0], first, way.seeds[k], way.marks, way.places, room)
    if high != low:
        _keep_ties(values, high, ties[1], first, way.seeds[k], way.marks, way.places, room)


@inner
def _keep_ties(values, bound, ties, first, seed, marks, places, room):
    """Of the ``ties[0]`` elements left that equal ``bound`` keep ``ties[1]``; of zeros it does not matter which.

    Each stays with what chance is left for it. Knuth, The art of computer programming, volume 2, 3.4.2, algorithm S.
    """
    left, kept = ties
    if left == kept or bound == 0:
        return
    count = _mark_ties(values, bound, marks)
    if count > SOME // 32 and _keep_many(values, count, ties, first, seed, marks, room.chosen[: values.size]):
        return
    for at in places[0, : marked(marks, values.size, places)]:
        stays = np.int64(hashed(np.uint64(first) + at, seed)) * left < kept << 31
        left, kept = left - 1, kept - stays
        values[at] = only(values[at], stays)
    ties[0], ties[1] = left, kept


@inner
def _mark_ties(values, bound, marks):
    count = np.int32(0)
    for i in range(values.size):
        equal = magnitude(values[i]) == bound
        marks[i] = np.uint8(equal)
        count = np.int32(count + np.int32(equal))
    return count


@inner
def _keep_many(values, count, ties, first, seed, marks, chosen):
    """Decide ``count`` ties at once, by the chance of the first of them, and say so.

    It is the chance of each, as in algorithm S, if the others can make up for as many too many or too few as there may
    be: those within six standard deviations. Otherwise nothing is decided.
    """
    left, kept, dropped = ties[0] - count, ties[1], ties[0] - ties[1]
    if 36 * count * dropped >= left * left * kept or 36 * count * kept >= left * left * dropped:
        return False
    hashes(first, seed, chosen)
    limit, many = np.uint32((kept << 31) // ties[0]), np.int32(0)
    for i in range(values.size):
        many = np.int32(many + np.int32(marks[i] & np.uint8(chosen[i] < limit)))
    if not 0 <= kept - many <= left:
        return False
    for i in range(values.size):
        values[i] = only(values[i], (marks[i] == 0) | (chosen[i] < limit))
    ties[0], ties[1] = left, kept - many
    return True


def _by_chance(way, k, values, start, first, room):
    limit, chosen = way.limits[k], room.chosen[: values.size]
    hashes(first, way.seeds[k], chosen)
    for i in range(values.size):
        values[i] = only(values[i], chosen[i] < limit)


def _remembered(way, k, values, start, first, room):
    granule, size = (first - way.begin) // way.granule, (way.row + 7) // 8
    row = (first - way.begin - granule * way.granule) // way.row
    at = way.skipped + (row * way.models + k) * size
    restrict(values, way.marks, way.bits[granule, at : at + size])


@inner
def _chances(way, k, size):
    """The chance of the smallest of a row of ``size``, and how much more it is for half a rank."""
    low, high = way.chances[k, 0], way.chances[k, 1]
    if size == 1:
        return (low + high) / 2, 0.0
    return low, (high - low) / (2 * size - 2)


def _by_rank_rescaled(way, k, values, start, first, room):
    chosen, factors, ranks = room.chosen[: values.size], room.factors[: values.size], way.room.ranks[: values.size]
    hashes(first, way.seeds[k], chosen)
    smallest, half_step = _chances(way, k, values.size)
    double_ranks(values, way.room)
    for i in range(values.size):
        chance = smallest + half_step * ranks[i]
        values[i] = only(values[i], chosen[i] < limit_of(chance))
        factors[i] = 1.0 / chance if chance > 0 else 0.0


def _by_rank(way, k, values, start, first, room):
    """Without sorting: between the chances of the lowest and the highest rank of a bucket lies next to nothing.

    So hashes decide for nearly all elements whatever their rank in it; for the rest the rank is counted.
    """
    ranking, size, half, chosen = way.room, values.size, np.uint64(32), room.chosen[: values.size]
    hashes(first, way.seeds[k], chosen)
    smallest, half_step = _chances(way, k, size)
    bits, own, stays, marks = ranking.bits[:size], ranking.own[:size], ranking.stays[:size], ranking.marks
    first, last = ranks_by_bucket(values, ranking)
    limits, begins = ranking.limits[first : last + 1], ranking.begins[first : last + 2]
    _bound(smallest, half_step, begins, limits)
    ranking.limits[0] = _limit(smallest, half_step, 0) | _limit(smallest, half_step, begins[0]) << half  # zeros
    for i in range(np.uint64(size)):
        own[i] = ranking.limits[bits[i] >> BUCKET]
    for i in range(np.uint64(size)):
        certain = np.uint8(chosen[i] < np.uint32(own[i]))
        stays[i] = certain
        marks[i] = np.uint8(chosen[i] < np.uint32(own[i] >> half)) ^ certain
    unsure = ranking.places[0, : marked(marks, size, ranking.places)]
    _decide(ranking, bits, smallest, half_step, chosen, unsure)
    for i in range(size):
        values[i] = only(values[i], stays[i])


@inner
def _bound(smallest, half_step, begins, limits):
    """``limits`` = that of the lowest rank in each bucket, and above it that of the lowest in the next."""
    lowest = _limit(smallest, half_step, begins[0])
    for bucket in range(limits.size):
        highest = _limit(smallest, half_step, begins[bucket + 1])
        limits[bucket] = lowest | highest << np.uint64(32)
        lowest = highest


@inner
def _limit(smallest, half_step, rank):
    return np.uint64(limit_of(smallest + half_step * np.float64(2 * rank)))


@inner
def _decide(ranking, bits, smallest, half_step, chosen, unsure):
    """``stays`` of those elements whose rank has to be known."""
    known, limits = ranking.known, ranking.known_limits
    for i in unsure:
        slot = np.uint32(bits[i] * _SCATTER) >> _SLOTS
        if known[slot] != bits[i]:  # where many are equal, they are counted once
            known[slot] = bits[i]
            limits[slot] = limit_of(smallest + half_step * double_rank(bits, bits[i]))
        ranking.stays[i] = chosen[i] < limits[slot]
    for i in unsure:
        known[np.uint32(bits[i] * _SCATTER) >> _SLOTS] = UNKNOWN


_SLOTS, _SCATTER = np.uint32(32 - KNOWN_BITS), np.uint32(2654435761)


_WAYS = {
    Everything: _everything,
    Between: _between,
    ByChance: _by_chance,
    ByRank: _by_rank,
    ByRankRescaled: _by_rank_rescaled,
    Remembered: _remembered,
}
