"""How much models differ."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.bits import apart
from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.sums import SOME

__all__ = ["variances"]

_SCALE = np.float32(2.0**45)
_PAIRED = 5
"""Models of which all pairs are compared."""


@kernel
def variances(operands, begin, out):
    """``out`` = the sum of the squared differences of all pairs of models, times 2**90; float32.

    That is the variance over the models times the square of their number. The models are the operands behind the
    first, from element ``begin`` on. So scaled, float32 holds the differences of all weights there may be; it is
    infinite where they are larger, from 2**19 over their number on, and zero where no two are 2**-120 apart.

    Of weights of 16 bits neither the differences of a few models nor, nearly always, their squares and the sum of these
    have to be rounded, so the order of models does not matter. For many it is worked out in float64.
    """
    totals, squares, few = np.empty(SOME), np.empty(SOME), len(operands) <= _PAIRED + 1
    for start in range(0, out.size, SOME):  # short loops over what the nearest cache holds, which vectorise
        found = out[start : start + SOME]
        if few:
            _by_pairs(operands, begin + start, found)
        else:
            _by_moments(operands, begin + start, totals[: found.size], squares[: found.size], found)


@inner
def _by_pairs(operands, start, out):
    stop = start + out.size
    if len(operands) == 4:  # the same in one loop
        _of_three(operands[1, start:stop], operands[2, start:stop], operands[3, start:stop], out)
        return
    out[:] = np.float32(0)
    for k in range(1, len(operands)):
        for other in range(k + 1, len(operands)):
            _add_square(operands[k, start:stop], operands[other, start:stop], out)


@inner
def _of_three(x, y, z, out):
    for i in range(out.size):
        one, other, last = apart(x[i], y[i]) * _SCALE, apart(x[i], z[i]) * _SCALE, apart(y[i], z[i]) * _SCALE
        out[i] = one * one + other * other + last * last


@inner
def _add_square(x, y, out):
    for i in range(out.size):
        difference = apart(x[i], y[i]) * _SCALE
        out[i] += difference * difference


@inner
def _by_moments(operands, start, total, square, out):
    stop, count = start + out.size, len(operands) - 1
    total[:] = 0.0
    square[:] = 0.0
    for k in range(2, count + 1):
        _add_moments(operands[k, start:stop], operands[1, start:stop], total, square)
    for i in range(out.size):
        out[i] = np.float32(count * square[i] - total[i] * total[i])


@inner
def _add_moments(x, origin, total, square):
    for i in range(total.size):
        difference = np.float64(apart(x[i], origin[i]) * _SCALE)
        total[i] += difference
        square[i] += difference * difference
