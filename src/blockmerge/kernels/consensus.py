"""Joining task vectors: a weighted sum, or the sum of those that agree in sign."""

from __future__ import annotations

from blockmerge.kernels.cache import kernel

__all__ = ["agreeing_sum", "mask_by"]


@kernel
def agreeing_sum(deltas, weights, normalize, out):
    """``out[i]`` += sum of the weighted ``deltas[:, i]`` whose sign is that of their sum; over their weights, if asked.

    deltas: (models, elements), weights: (models,), out: (elements,) of zeros, all of one float type.
    """
    count = deltas.shape[0]
    for i in range(out.size):
        total = out[i]
        for k in range(count):
            total += weights[k] * deltas[k, i]
        agreed = weight = out[i]
        for k in range(count):
            value = weights[k] * deltas[k, i]
            if (value > 0 and total > 0) or (value < 0 and total < 0):
                agreed += value
                weight += weights[k]
        if normalize and abs(weight) > 1e-8:
            agreed /= weight
        out[i] = agreed


@kernel
def mask_by(values, kept):
    """Zero ``values`` where ``kept`` is zero."""
    for i in range(values.size):
        if kept[i] == 0:
            values[i] = values[i] * 0
