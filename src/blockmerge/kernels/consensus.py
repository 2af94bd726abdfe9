"""Joining task vectors: a weighted sum, or the sum of those that agree in sign."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.scan import nonfinite
from blockmerge.kernels.sums import add_numbers, difference, numbers, store
from blockmerge.kernels.thin import left, span, thin

__all__ = ["agreeing_sum", "join", "mask_by", "plain_sum"]


@kernel
def agreeing_sum(deltas, weights, normalize, out):
    """``out`` = sum of the weighted ``deltas`` whose sign is that of the whole sum, over their weights if asked.

    deltas: (models, elements), weights: (models,), out: (elements,), all of one float type.
    """
    room = np.empty((2, _STEP), out.dtype)
    for start in range(0, out.size, _STEP):
        _agreeing(deltas, start, weights, normalize, room, out[start : start + _STEP])


@kernel
def plain_sum(deltas, weights, out):
    """``out`` = sum of the weighted ``deltas``; as above."""
    for start in range(0, out.size, _STEP):
        _sum(deltas, start, weights, out[start : start + _STEP])


@kernel
def join(operands, way, first, scales, weights, by_sign, normalize, scale, out):
    """``out`` = base + ``scale`` times :func:`agreeing_sum` or :func:`plain_sum` of task vectors, rounded once.

    Operand 0 is the base. Task vectors, float32, are thinned in ``way``, which may know that they start at element
    ``first`` of the tensor; what is left is multiplied by ``scales`` (models,). It is summed in the type of
    ``weights``: for float64 differences are taken anew. ``out`` holds encoded elements. Says whether a value of it, or
    of an operand, is not finite.
    """
    bad, step, models = False, span(way), weights.size
    narrow, factors = np.empty(step, np.float32), np.empty(step, weights.dtype)
    vectors = np.empty((models, step), weights.dtype)
    for start in range(0, out.size, step):
        stop = min(start + step, out.size)
        base, some, own = operands[0, start:stop], narrow[: stop - start], factors[: stop - start]
        bad |= nonfinite(base)
        for k in range(models):
            x = operands[k + 1, start:stop]
            bad |= nonfinite(x)
            difference(x, base, some)
            own[:] = scales[k]
            thin(way, k, some, start, first + start, own)
            _change(way, x, base, some, own, vectors[k])
        bad |= _add(vectors, weights, by_sign, normalize, scale, base, out[start:stop])
    return bad


@inner
def _change(way, x, base, narrow, factors, out):
    """``out`` = difference of what is left in ``narrow``, times ``factors``."""
    for i in range(narrow.size):
        out[i] = left(way, narrow[i], x[i], base[i], out[i]) * factors[i]


@inner
def _add(vectors, weights, by_sign, normalize, scale, base, out):
    """``out`` = base + ``scale`` times the sum of ``vectors``."""
    bad, room, sums = False, np.empty((2, _STEP), weights.dtype), np.empty((2, _STEP), weights.dtype)
    for start in range(0, out.size, _STEP):
        some = out[start : start + _STEP]
        found, total = sums[0, : some.size], sums[1, : some.size]
        if by_sign:
            _agreeing(vectors, start, weights, normalize, room, found)
        else:
            _sum(vectors, start, weights, found)
        numbers(base[start : start + _STEP], total)
        add_numbers(total, found, scale)
        bad |= store(total, some)
    return bad


@inner
def _sum(deltas, start, weights, out):
    out[:] = out.dtype.type(0)
    for k in range(len(deltas)):
        add_numbers(out, deltas[k, start : start + out.size], weights[k])


@inner
def _agreeing(deltas, start, weights, normalize, room, out):
    zero, one, small = out.dtype.type(0), out.dtype.type(1), out.dtype.type(1e-8)
    sign, weight = room[0, : out.size], room[1, : out.size]
    _sum(deltas, start, weights, sign)
    for i in range(out.size):
        sign[i] = one if sign[i] > zero else (-one if sign[i] < zero else zero)
    out[:] = zero
    weight[:] = zero
    for k in range(len(deltas)):
        _add_agreeing(out, weight, sign, deltas[k, start : start + out.size], weights[k], zero)
    if normalize:
        for i in range(out.size):
            out[i] /= weight[i] if abs(weight[i]) > small else one


@inner
def _add_agreeing(found, weight, sign, values, share, zero):
    for i in range(values.size):
        value = share * values[i]
        agrees = value * sign[i] > zero
        found[i] += value if agrees else zero
        weight[i] += share if agrees else zero


_STEP = 2048
"""Elements of the loops: they stay in the nearest cache, and vectorise."""


@kernel
def mask_by(values, kept):
    """Zero ``values`` where ``kept`` is zero."""
    for i in range(values.size):
        if kept[i] == 0:
            values[i] = values[i] * 0
