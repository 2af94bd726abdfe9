"""The sums of sce: of what the models differ in most, the elements whose sign is that of the most."""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from blockmerge.kernels.bits import magnitude, number, only
from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.consensus import add_agreeing
from blockmerge.kernels.dots import accumulate, joined, lanes
from blockmerge.kernels.sums import SOME, add, store
from blockmerge.kernels.thin import Everything, room_of, thin
from blockmerge.kernels.variance import variances

__all__ = ["add_agreeing_mean", "add_squares"]


@kernel
def add_squares(operands, low, high, squares, like):
    """Add to ``squares`` (3, models), float64, those of the task vectors, by the bits of the variance.

    Where these equal ``low``, where they equal ``high``, which is not smaller, and where they are above both. Operand 0
    is taken off the others, (models + 1, elements). Task vectors have the type of ``like``.
    """
    size, models, sums = operands.shape[1], squares.shape[1], lanes(squares.size)
    scores, vector, marks = np.empty(SOME, np.float32), np.full(SOME, like), np.empty(SOME, np.uint8)
    for start in range(0, size, SOME):
        some = scores[: min(SOME, size - start)]
        variances(operands, start, some)
        for part in range(3):
            if _mark(some, part, low, high, marks):
                _add_marked(operands, start, marks, vector[: some.size], sums[part * models : (part + 1) * models])
    for part in range(3):
        for k in range(models):
            squares[part, k] += joined(sums[part * models + k])


@inner
def _add_marked(operands, start, marks, vector, sums):
    stop = start + vector.size
    for k in range(len(sums)):
        _where(operands[k + 1, start:stop], operands[0, start:stop], marks, vector)
        accumulate(vector, vector, sums[k])


@inner
def _mark(scores, part, low, high, marks):
    """Mark those that equal ``low``, that equal ``high``, or that are above, as ``part`` says; tells how many."""
    first = low if part == 0 else (high if part == 1 else high + 1)
    count = np.uint32(1 if part < 2 else max((1 << 31) - first, 0))
    first, some = np.uint32(first), np.uint32(0)
    for i in range(scores.size):
        inside = np.uint32(magnitude(scores[i]) - first) < count
        marks[i] = np.uint8(inside)
        some = np.uint32(some + np.uint32(inside))
    return some


@inner
def _where(x, base, marks, out):
    """``out`` = ``x - base`` where there is a mark, else zero."""
    zero = out.dtype.type(0)
    for i in range(out.size):
        out[i] = only(number(x[i], zero) - number(base[i], zero), marks[i] != 0)


@kernel
def add_agreeing_mean(operands, way, first, weights, balanced, least, out):
    """``out`` = base + weighted mean of those task vectors whose sign is that of their plain sum, rounded once.

    It is zero for elements that :func:`_choose` does not choose. Where the sum is zero, none agree, or the positive
    ones if ``balanced``. The weights of those that agree count as ``least`` if their sum is smaller. Summed in the type
    of ``weights``; ``operands`` as above, operand 0 is the base. Says whether a value is not finite.
    """
    bad, chosen, room = False, np.empty(SOME, np.float32), room_of(way, weights)
    vectors, sums = np.empty((weights.size, SOME), weights.dtype), np.empty((3, SOME), weights.dtype)
    for start in range(0, out.size, SOME):
        some = chosen[: min(SOME, out.size - start)]
        _choose(operands, way, start, first, room, some)
        bad |= _add_mean(operands, start, weights, balanced, least, some, vectors, sums, out)
    return bad


@inner
def _add_mean(operands, start, weights, balanced, least, chosen, vectors, sums, out):
    """The same for the elements from ``start`` on that are ``chosen``, or not."""
    size, stop = chosen.size, start + chosen.size
    base, found, sign = operands[0, start:stop], sums[0, :size], sums[1, :size]
    sign[:] = weights.dtype.type(0)
    for k in range(weights.size):
        _add_vector(operands[k + 1, start:stop], base, vectors[k, :size], sign)
    _elect(sign, chosen, balanced)
    _mean_of_agreeing(vectors, weights, sign, least, sums[2, :size], found)
    add(found, base, weights.dtype.type(1))
    return store(found, out[start:stop])


def _choose(operands, way, start, first, room, out):
    """Fill ``out`` with what is not zero where an element is chosen: by its variance, or everywhere."""
    raise NotImplementedError


@overload(_choose)
def _choose_by(operands, way, start, first, room, out):
    del operands, start, first, room, out
    return _everywhere if way.instance_class is Everything else _by_variance


def _everywhere(operands, way, start, first, room, out):
    out[:] = np.float32(1)


def _by_variance(operands, way, start, first, room, out):
    variances(operands, start, out)
    thin(way, 0, out, start, first + start, room)


@inner
def _add_vector(x, base, out, total):
    """``out`` = ``x - base``, which is added to ``total``."""
    zero = out.dtype.type(0)
    for i in range(out.size):
        value = number(x[i], zero) - number(base[i], zero)
        out[i] = value
        total[i] += value


@inner
def _elect(total, chosen, balanced):
    """Put the sign of ``total`` in its place, 1 or -1; a zero counts as positive if ``balanced``.

    It is 0 otherwise, and where ``chosen`` is zero: no vector agrees with that.
    """
    zero, one = total.dtype.type(0), total.dtype.type(1)
    for i in range(total.size):
        down = -one if total[i] < zero else zero
        sign = one if (total[i] > zero) | (balanced & (total[i] == zero)) else down
        total[i] = zero if chosen[i] == 0 else sign


@inner
def _mean_of_agreeing(vectors, weights, sign, least, weight, out):
    zero, one = out.dtype.type(0), out.dtype.type(1)
    weight[:] = zero
    out[:] = zero
    for k in range(weights.size):
        add_agreeing(out, weight, sign, vectors[k], weights[k], weights[k])
    for i in range(out.size):
        share = max(weight[i], least)
        out[i] /= share if share > zero else one
