"""Scalar products in float64, in an order that is fixed: eight running sums, joined pairwise.

The eight sums keep the processor's pipeline full; without them a product would wait for the one before it.
"""

from __future__ import annotations

import numba

from blockmerge.kernels.cache import kernel

__all__ = ["add_products", "grams", "l1"]


@kernel
def grams(vectors, length, out):
    """``out[r, i, j]`` = scalar product of ``vectors`` i and j over their part r of ``length`` elements, all float64.

    vectors: (models, elements); the last part may be shorter.
    """
    for r in range(len(out)):
        start, stop = r * length, (r + 1) * length
        for i in range(len(vectors)):
            for j in range(i, len(vectors)):
                out[r, i, j] = out[r, j, i] = _product(vectors[i][start:stop], vectors[j][start:stop])


@kernel
def add_products(vectors, columns, out):
    """``out[i, j]`` += elementwise products of ``vectors`` i and j, summed over rows of so many ``columns``; j >= i."""
    for i in range(len(vectors)):
        for j in range(i, len(vectors)):
            x, y, total = vectors[i], vectors[j], out[i, j]
            for start in range(0, x.size, columns):
                for c in range(columns):
                    total[c] += x[start + c] * y[start + c]


@numba.njit
def _product(x, y):
    whole = x.size // 8 * 8
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
    for k in range(whole, x.size):
        rest += x[k] * y[k]
    return ((a + b) + (c + d)) + ((e + f) + (g + h)) + rest


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
