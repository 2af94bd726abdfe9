"""How much task vectors differ."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.sums import differences

__all__ = ["variances"]

_STEP = 2048
_SCALE, _LEAST, _MOST = 2.0**90, 2.0**-126, 2.0**127


@kernel
def variances(operands, begin, out):
    """``out`` = variance of the operands behind the first over the models, times 2**90; float32, steps in float64.

    From element ``begin`` of the operands on.

    So scaled, float32 holds the variances of all weights there may be; the few beyond are kept within its range. It is
    zero where all models have the same difference from the first, in float32, and nowhere else.
    """
    count = len(operands) - 1
    part = 1.0 / count
    room, deltas = np.empty((2, _STEP)), np.empty(count * _STEP, np.float32)
    for start in range(0, out.size, _STEP):  # short loops over what the nearest cache holds, which vectorise
        found = out[start : start + _STEP]
        total, square = room[0, : found.size], room[1, : found.size]
        few = deltas[: count * found.size].reshape(count, found.size)
        differences(operands, begin + start, few)
        total[:] = 0.0
        square[:] = 0.0
        for k in range(1, count):
            _add_moments(total, square, few[k], few[0])
        for i in range(found.size):
            value = (square[i] - total[i] * total[i] * part) * part * _SCALE
            value = _LEAST if value < _LEAST else value
            value = _MOST if value > _MOST else value
            found[i] = np.float32(0.0 if square[i] == 0.0 else value)


@inner
def _add_moments(total, square, values, origin):
    for i in range(values.size):
        apart = np.float64(values[i]) - np.float64(origin[i])
        total[i] += apart
        square[i] += apart * apart
