"""Scalar products in float64, in an order that is fixed: eight running sums, joined pairwise.

The eight sums keep the processor's pipeline full; without them a product would wait for the one before it.
"""

from __future__ import annotations

from blockmerge.kernels.cache import kernel

__all__ = ["gram", "l1"]


@kernel
def gram(vectors, out):
    """``out[i, j]`` = scalar product of rows i and j of ``vectors`` (rows, elements), float64."""
    count, size = vectors.shape
    whole = size // 8 * 8
    for i in range(count):
        x = vectors[i]
        for j in range(i, count):
            y = vectors[j]
            a = b = c = d = e = f = g = h = 0.0
            for k in range(0, whole, 8):
                a += x[k] * y[k]
                b += x[k + 1] * y[k + 1]
                c += x[k + 2] * y[k + 2]
                d += x[k + 3] * y[k + 3]
                e += x[k + 4] * y[k + 4]
                f += x[k + 5] * y[k + 5]
                g += x[k + 6] * y[k + 6]
                h += x[k + 7] * y[k + 7]
            rest = 0.0
            for k in range(whole, size):
                rest += x[k] * y[k]
            total = ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest
            out[i, j] = total
            out[j, i] = total


@kernel
def l1(values):
    """The sum of the magnitudes of ``values``."""
    whole = values.size // 8 * 8
    a = b = c = d = e = f = g = h = 0.0
    for k in range(0, whole, 8):
        a += abs(values[k])
        b += abs(values[k + 1])
        c += abs(values[k + 2])
        d += abs(values[k + 3])
        e += abs(values[k + 4])
        f += abs(values[k + 5])
        g += abs(values[k + 6])
        h += abs(values[k + 7])
    rest = 0.0
    for k in range(whole, values.size):
        rest += abs(values[k])
    return ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest
