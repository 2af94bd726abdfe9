"""How far apart the softmax distributions of rows are, from sums that parts of a row give and that can be added.

exp and expm1 are computed here, by additions and multiplications alone: loops over them vectorise, and their bits do
not depend on a library.
"""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.bits import bits_float64, encode, finite, float64_bits, number
from blockmerge.kernels.cache import inner, kernel

__all__ = ["copy_important", "importance", "row_sums"]

_STEP = 512
_LIMIT = 300.0  # so that products of two stay finite
_PER_LN2, _SMALL = 1.4426950408889634, 0.34
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # as fdlibm splits it
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it leaves a whole number in the lowest bits
_ONE = np.uint64(1023)
_EXPONENT = np.uint64(52)


@inner
def _expm1(x):
    """exp(x) - 1 to some units of float64, for sizes up to 300; beyond, that of 300."""
    x = min(max(x, -_LIMIT), _LIMIT)
    shifted = x * _PER_LN2 + _ROUND
    times = shifted - _ROUND
    scale = bits_float64((float64_bits(shifted) + _ONE) << _EXPONENT)
    return scale * _series((x - times * _LN2_HIGH) - times * _LN2_LOW) + (scale - 1.0)


@inner
def _series(r):
    """exp(r) - 1 for sizes up to half of log(2), where :func:`_expm1` gives the same bits."""
    r2 = r * r
    even, odd = 1.0 / 479001600.0, 1.0 / 6227020800.0  # Taylor's series, even and odd powers apart: two short chains
    even, odd = even * r2 + 1.0 / 3628800.0, odd * r2 + 1.0 / 39916800.0
    even, odd = even * r2 + 1.0 / 40320.0, odd * r2 + 1.0 / 362880.0
    even, odd = even * r2 + 1.0 / 720.0, odd * r2 + 1.0 / 5040.0
    even, odd = even * r2 + 1.0 / 24.0, odd * r2 + 1.0 / 120.0
    even, odd = even * r2 + 0.5, odd * r2 + 1.0 / 6.0
    return (even + odd * r) * r2 + r


@kernel
def row_sums(base, model, first, width, out):
    """For each row that these elements, from ``first`` on, belong to: the sums over them of e, e d and e expm1(-d).

    e = exp(model), d = model - base, in float64. Rows have ``width`` elements; ``out`` is (rows, 3).
    """
    e, x, y = np.empty(_STEP), np.empty(_STEP), np.empty(_STEP)
    at = 0
    while at < base.size:
        row = (first + at) // width
        end = min((row + 1) * width - first, base.size, at + _STEP)
        size = end - at
        _terms(base[at:end], model[at:end], e, x, y)
        sums = out[row - first // width]
        sums[0] += _total(e[:size])
        sums[1] += _total(x[:size])
        sums[2] += _total(y[:size])
        at = end


@inner
def _terms(base, model, e, x, y):
    """Fill ``e``, ``x`` and ``y`` with e, e d and e expm1(-d)."""
    large = 0
    for i in range(base.size):
        value = number(model[i], e[i])
        e[i], x[i] = value, value - number(base[i], e[i])
        large += np.int64(abs(e[i]) > _SMALL) + np.int64(abs(x[i]) > _SMALL)
    if large == 0:  # as weights are, mostly
        for i in range(base.size):
            e[i], y[i] = 1.0 + _series(e[i]), _series(-x[i])
    else:
        for i in range(base.size):
            e[i], y[i] = 1.0 + _expm1(e[i]), _expm1(-x[i])
    for i in range(base.size):
        x[i] *= e[i]
        y[i] *= e[i]


@inner
def _total(values):
    a = b = c = d = e = f = g = h = 0.0
    whole = values.size // 8 * 8
    for k in range(0, whole, 8):
        a += values[k]
        b += values[k + 1]
        c += values[k + 2]
        d += values[k + 3]
        e += values[k + 4]
        f += values[k + 5]
        g += values[k + 6]
        h += values[k + 7]
    rest = 0.0
    for k in range(whole, values.size):
        rest += values[k]
    return ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest


@kernel
def importance(base, model, first, width, divergences, out):
    """``out`` = size of the difference times the divergence of the row, float32; elements start at ``first``."""
    at = 0
    while at < out.size:
        row = (first + at) // width
        end = min((row + 1) * width - first, out.size)
        _importance(base[at:end], model[at:end], divergences[row], out[at:end])
        at = end


@inner
def _importance(base, model, divergence, out):
    for i in range(out.size):
        out[i] = abs(number(model[i], divergence) - number(base[i], divergence)) * divergence


@kernel
def copy_important(base, model, first, width, divergences, threshold, out):
    """``out`` = ``model`` where :func:`importance` reaches ``threshold`` (float64), else ``base``, rounded once.

    An element that is not finite is always copied.
    """
    bad, room = False, np.empty(_STEP, np.float32)
    for start in range(0, out.size, _STEP):
        stop = min(start + _STEP, out.size)
        scores = room[: stop - start]
        importance(base[start:stop], model[start:stop], first + start, width, divergences, scores)
        bad |= _copy(base[start:stop], model[start:stop], scores, threshold, out[start:stop])
    return bad


@inner
def _copy(base, model, scores, threshold, out):
    bad = False
    for i in range(out.size):
        kept = (scores[i] < threshold) & finite(model[i])
        taken = encode(number(model[i], threshold), out[i])
        left = encode(number(base[i], threshold), out[i])
        element = left if kept | (not finite(base[i])) else taken
        bad |= not finite(element)
        out[i] = element
    return bad
