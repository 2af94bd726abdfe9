"""Joining task vectors: a weighted sum, or the sum of those that agree in sign."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.scan import nonfinite
from blockmerge.kernels.sums import SOME, add_numbers, difference, numbers, store
from blockmerge.kernels.thin import complete, narrow_of, room_of, span, thin

__all__ = ["add_agreeing", "agreeing_sum", "join", "mask_by", "plain_sum"]


@kernel
def agreeing_sum(deltas, weights, normalize, out):
    """``out`` = sum of the weighted ``deltas`` whose sign is that of the whole sum, over their weights if asked.

    deltas: (models, elements), weights: (models,), out: (elements,), all of one float type.
    """
    room = np.empty((2, SOME), out.dtype)
    for start in range(0, out.size, SOME):
        _agreeing(deltas, start, weights, weights, normalize, room, out[start : start + SOME])


@kernel
def plain_sum(deltas, weights, out):
    """``out`` = sum of the weighted ``deltas``; as above."""
    for start in range(0, out.size, SOME):
        _sum(deltas, start, weights, out[start : start + SOME])


@kernel
def join(operands, way, first, scales, weights, by_sign, normalize, scale, out):
    """``out`` = base + ``scale`` times :func:`agreeing_sum` or :func:`plain_sum` of task vectors, rounded once.

    Operand 0 is the base. Task vectors, float32, are thinned in ``way``, which may know that they start at element
    ``first`` of the tensor; what is left is multiplied by ``scales`` (models,). It is summed in the type of
    ``weights``: for float64 differences are taken anew. ``out`` holds encoded elements. Says whether a value of it, or
    of an operand, is not finite.
    """
    bad, step, models = False, span(way), weights.size
    narrow, vectors = np.empty(step, np.float32), np.empty((models, step), weights.dtype)
    shares, room, sums = weights * scales, room_of(way, weights), np.empty((4, SOME), weights.dtype)
    for start in range(0, out.size, step):
        bad |= _thin_vectors(operands, way, start, first, min(step, out.size - start), narrow, room, vectors)
        bad |= _add(vectors, shares, weights, by_sign, normalize, scale, operands, start, sums, out)
    return bad


@inner
def _thin_vectors(operands, way, start, first, size, narrow, room, vectors):
    """``vectors`` = ``size`` elements from ``start`` on of thinned task vectors."""
    stop = start + size
    base = operands[0, start:stop]
    bad = nonfinite(base)
    for k in range(len(vectors)):
        x, vector = operands[k + 1, start:stop], vectors[k, :size]
        some = narrow_of(vector, narrow[:size])
        bad |= nonfinite(x)
        difference(x, base, some)
        thin(way, k, some, start, first + start, room)
        complete(way, x, base, some, room, vector)
    return bad


@inner
def _add(vectors, shares, weights, by_sign, normalize, scale, operands, first, sums, out):
    """``out`` = base + ``scale`` times the sum of ``vectors``, from element ``first`` on."""
    bad, stop = False, min(first + vectors.shape[1], out.size)
    for start in range(first, stop, SOME):
        end = min(start + SOME, stop)
        size, some = end - start, out[start:end]
        found, total = sums[0, :size], sums[1, :size]
        if by_sign:
            _agreeing(vectors, start - first, shares, weights, normalize, sums[2:], found)
        else:
            _sum(vectors, start - first, shares, found)
        numbers(operands[0, start:end], total)
        add_numbers(total, found, scale)
        bad |= store(total, some)
    return bad


@inner
def _sum(deltas, start, weights, out):
    out[:] = out.dtype.type(0)
    for k in range(len(deltas)):
        add_numbers(out, deltas[k, start : start + out.size], weights[k])


@inner
def _agreeing(deltas, start, shares, weights, normalize, room, out):
    """A model's elements count ``shares`` times, and for their weight ``weights``."""
    zero, one, small = out.dtype.type(0), out.dtype.type(1), out.dtype.type(1e-8)
    sign, weight = room[0, : out.size], room[1, : out.size]
    _sum(deltas, start, shares, sign)
    for i in range(out.size):
        sign[i] = one if sign[i] > zero else (-one if sign[i] < zero else zero)
    out[:] = zero
    weight[:] = zero
    for k in range(len(deltas)):
        add_agreeing(out, weight, sign, deltas[k, start : start + out.size], shares[k], weights[k])
    if normalize:
        for i in range(out.size):
            out[i] /= weight[i] if abs(weight[i]) > small else one


@inner
def add_agreeing(found, weight, sign, values, share, own):
    """Add ``share * values`` to ``found``, and ``own`` to ``weight``, where the product has this ``sign``.

    What is not finite reaches what is found, whatever its sign: as itself, or as NaN.
    """
    zero = found.dtype.type(0)
    for i in range(found.size):
        value = share * values[i]
        agrees = value * sign[i] > zero
        found[i] += value if agrees else value * zero
        weight[i] += own if agrees else zero


@kernel
def mask_by(values, kept):
    """Zero ``values`` where ``kept`` is zero."""
    for i in range(values.size):
        if kept[i] == 0:
            values[i] = values[i] * 0
