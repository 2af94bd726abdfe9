"""The sums of sce: of what the models differ in most, the elements whose sign is that of the most."""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from blockmerge.kernels.bits import magnitude, number, only
from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.dots import LANES, joined, lanes
from blockmerge.kernels.select import VALUES, marks_and_places, near
from blockmerge.kernels.sums import SOME, add, store
from blockmerge.kernels.thin import Everything, thin
from blockmerge.kernels.variance import variances

__all__ = ["add_agreeing_mean", "count_values_and_squares"]


@kernel
def count_values_and_squares(operands, low, step, counts, squares, like):
    """Add to ``counts`` (chunks, VALUES) how many variances have each of the magnitudes from ``low`` on, as bits.

    ``low`` is a multiple of VALUES. Add to ``squares`` (VALUES + 1, models), float64, the squares of the task vectors
    of these elements; and in the last row those of elements with larger variances. Operand 0 is taken off the others,
    (models + 1, elements). A chunk has ``step`` elements, a multiple of SOME, or the rest. Task vectors have the type
    of ``like``.
    """
    size, sums, scores = operands.shape[1], lanes(squares.shape[1]), np.empty(SOME, np.float32)
    lows = np.full(1, low)
    marks, places = marks_and_places()
    for start in range(0, size, SOME):
        stop = min(start + SOME, size)
        some, count, base = scores[: stop - start], counts[start // step], operands[0, start:stop]
        variances(operands, start, some)
        found = places[0, : near(some, lows, marks, places)]
        for at in found:
            count[magnitude(some[at]) - low] += 1
        for k in range(squares.shape[1]):
            x = operands[k + 1, start:stop]
            for at in found:
                delta = np.float64(number(x[at], like) - number(base[at], like))
                squares[magnitude(some[at]) - low, k] += delta * delta
            _add_squares(x, base, some, low + np.uint32(VALUES), like, sums[k])
    for k in range(squares.shape[1]):
        squares[VALUES, k] += joined(sums[k])


@inner
def _add_squares(x, base, scores, limit, like, sums):
    """Add the squares of ``x - base`` where scores reach ``limit`` to the running ``sums``."""
    for start in range(0, x.size, LANES):
        some, other, own = x[start : start + LANES], base[start : start + LANES], scores[start : start + LANES]
        for lane in range(some.size):
            delta = np.float64(
                only(number(some[lane], like) - number(other[lane], like), magnitude(own[lane]) >= limit)
            )
            sums[lane] += delta * delta


@kernel
def add_agreeing_mean(operands, way, first, weights, balanced, least, out):
    """``out`` = base + weighted mean of those task vectors whose sign is that of their plain sum, rounded once.

    It is zero for elements that :func:`_choose` does not choose. Where the sum is zero, none agree, or the positive
    ones if ``balanced``. The weights of those that agree count as ``least`` if their sum is smaller. Summed in the type
    of ``weights``; ``operands`` as above, operand 0 is the base. Says whether a value is not finite.
    """
    bad, chosen = False, np.empty(SOME, np.float32)
    vectors, room = np.empty((weights.size, SOME), weights.dtype), np.empty((3, SOME), weights.dtype)
    for start in range(0, out.size, SOME):
        stop = min(start + SOME, out.size)
        size = stop - start
        base, found, sign = operands[0, start:stop], room[0, :size], room[1, :size]
        _choose(operands, way, start, first, chosen[:size])
        sign[:] = weights.dtype.type(0)
        for k in range(weights.size):
            _add_chosen(operands[k + 1, start:stop], base, chosen[:size], vectors[k, :size], sign)
        _elect(sign, balanced)
        _mean_of_agreeing(vectors, weights, sign, least, room[2, :size], found)
        add(found, base, weights.dtype.type(1))
        bad |= store(found, out[start:stop])
    return bad


def _choose(operands, way, start, first, out):
    """Fill ``out`` with what is not zero where an element is chosen: by its variance, or everywhere."""
    raise NotImplementedError


@overload(_choose)
def _choose_by(operands, way, start, first, out):
    del operands, start, first, out
    return _everywhere if way.instance_class is Everything else _by_variance


def _everywhere(operands, way, start, first, out):
    out[:] = np.float32(1)


def _by_variance(operands, way, start, first, out):
    variances(operands, start, out)
    thin(way, 0, out, start, first + start, out)


@inner
def _add_chosen(x, base, chosen, out, total):
    """``out`` = ``x - base``, zero where ``chosen`` is zero, or NaN if not finite; it is added to ``total``."""
    zero, one = out.dtype.type(0), out.dtype.type(1)
    for i in range(out.size):
        value = (number(x[i], zero) - number(base[i], zero)) * (zero if chosen[i] == 0 else one)
        out[i] = value
        total[i] += value


@inner
def _elect(total, balanced):
    """Put the sign of ``total`` in its place, 1, -1 or 0; the last counts as positive if ``balanced``."""
    zero, one = total.dtype.type(0), total.dtype.type(1)
    for i in range(total.size):
        down = -one if total[i] < zero else zero
        total[i] = one if (total[i] > zero) | (balanced & (total[i] == zero)) else down


@inner
def _mean_of_agreeing(vectors, weights, sign, least, weight, out):
    zero, one = out.dtype.type(0), out.dtype.type(1)
    weight[:] = zero
    out[:] = zero
    for k in range(weights.size):
        _add_agreeing(out, weight, sign, vectors[k], weights[k])
    for i in range(out.size):
        share = max(weight[i], least)
        out[i] /= share if share > zero else one


@inner
def _add_agreeing(found, weight, sign, values, share):
    zero = found.dtype.type(0)
    for i in range(found.size):
        agrees = values[i] * sign[i] > zero
        found[i] += share * (values[i] if agrees else values[i] * zero)  # what is not a number reaches the result
        weight[i] += share if agrees else zero
