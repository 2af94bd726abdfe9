"""How much task vectors differ, their sizes, and the weighted mean of those that agree."""

from __future__ import annotations

import numba
import numpy as np

from blockmerge.kernels.cache import kernel
from blockmerge.kernels.sums import differences

__all__ = ["agreeing_mean", "drop", "variances"]

_STEP = 2048
_SCALE, _LEAST, _MOST = 2.0**90, 2.0**-126, 2.0**127


@kernel
def variances(operands, out):
    """``out`` = variance of the operands behind the first over the models, times 2**90; float32, steps in float64.

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
        differences(operands, start, few)
        total[:] = 0.0
        square[:] = 0.0
        for k in range(1, count):
            _add_moments(total, square, few[k], few[0])
        for i in range(found.size):
            value = (square[i] - total[i] * total[i] * part) * part * _SCALE
            value = _LEAST if value < _LEAST else value
            value = _MOST if value > _MOST else value
            found[i] = np.float32(0.0 if square[i] == 0.0 else value)


@numba.njit
def _add_moments(total, square, values, origin):
    for i in range(values.size):
        apart = np.float64(values[i]) - np.float64(origin[i])
        total[i] += apart
        square[i] += apart * apart


@numba.njit
def _add(total, values):
    for i in range(values.size):
        total[i] += values[i]


@kernel
def drop(values, kept):
    """Zero ``values`` where ``kept`` is zero; what is not finite stays so, or becomes NaN."""
    for i in range(values.size):
        value = values[i]
        values[i] = value * 0 if kept[i] == 0 else value


@kernel
def agreeing_mean(deltas, weights, balanced, least, out):
    """``out`` = weighted mean of the ``deltas`` (models, elements) whose sign is that of their plain sum, else zero.

    Where the sum is zero, none agree, or the positive ones if ``balanced``. The weights of those that agree count as
    ``least`` if their sum is smaller. All numbers are of one float type.
    """
    count, size = deltas.shape
    zero, one = out.dtype.type(0), out.dtype.type(1)
    total = np.empty(_STEP, out.dtype)
    weight = np.empty(_STEP, out.dtype)
    for start in range(0, size, _STEP):
        found = out[start : start + _STEP]
        total[:] = zero
        weight[:] = zero
        found[:] = zero
        for k in range(count):
            _add(total, deltas[k, start : start + _STEP])
        for i in range(found.size):
            down = -one if total[i] < zero else zero
            total[i] = one if (total[i] > zero) | (balanced & (total[i] == zero)) else down
        for k in range(count):
            _add_agreeing(found, weight, total, deltas[k, start : start + _STEP], weights[k])
        for i in range(found.size):
            share = max(weight[i], least)
            found[i] /= share if share > zero else one


@numba.njit
def _add_agreeing(found, weight, sign, values, share):
    zero = found.dtype.type(0)
    for i in range(values.size):
        agrees = values[i] * sign[i] > zero
        found[i] += share * (values[i] if agrees else values[i] * zero)  # what is not a number reaches the result
        weight[i] += share if agrees else zero
