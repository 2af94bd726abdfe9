"""Joining task vectors: a weighted sum, or the sum of those that agree in sign."""

from __future__ import annotations

import numba
import numpy as np

from blockmerge.kernels.cache import kernel
from blockmerge.kernels.sums import add_numbers

__all__ = ["agreeing_sum", "mask_by"]


@kernel
def agreeing_sum(deltas, weights, normalize, out):
    """``out[i]`` += sum of the weighted ``deltas[:, i]`` whose sign is that of their sum; over their weights, if asked.

    deltas: (models, elements), weights: (models,), out: (elements,) of zeros, all of one float type.
    """
    count, size = deltas.shape
    zero, one, small = out.dtype.type(0), out.dtype.type(1), out.dtype.type(1e-8)
    total = np.empty(_STEP, out.dtype)
    weight = np.empty(_STEP, out.dtype)
    for start in range(0, size, _STEP):  # short loops over what the nearest cache holds, which vectorise
        found = out[start : start + _STEP]
        total[:] = zero
        weight[:] = zero
        for k in range(count):
            add_numbers(total[: found.size], deltas[k, start : start + _STEP], weights[k])
        for i in range(found.size):
            total[i] = one if total[i] > zero else (-one if total[i] < zero else zero)
        for k in range(count):
            _add_agreeing(found, weight, total, deltas[k, start : start + _STEP], weights[k], zero)
        if normalize:
            for i in range(found.size):
                found[i] /= weight[i] if abs(weight[i]) > small else one


@numba.njit
def _add_agreeing(found, weight, sign, values, share, zero):
    for i in range(values.size):
        value = share * values[i]
        agrees = value * sign[i] > zero
        found[i] += value if agrees else zero
        weight[i] += share if agrees else zero


_STEP = 2048


@kernel
def mask_by(values, kept):
    """Zero ``values`` where ``kept`` is zero."""
    for i in range(values.size):
        if kept[i] == 0:
            values[i] = values[i] * 0
