"""A low-rank product added to encoded weights, for exactly the elements that somebody asked for.

An element's sum runs over the rank in the order of its index, in the type of the factors, whatever run of elements it
is computed with; so its bits do not depend on where that run begins or ends.
"""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.bits import decode_wide, encode
from blockmerge.kernels.cache import kernel

__all__ = ["add_product", "add_squares_by_column", "squares_by_row"]

_ONE = np.float64(1.0)


@kernel
def add_product(base, left, right, scaling, row_factors, column_factors, first, sums, out):
    """``out = f (base + scaling (left @ right))``, the elements from ``first`` on of a matrix in row order.

    ``base`` (encoded) and ``out`` (float32) hold those elements; ``left`` (rows, rank) and ``right`` (rank, columns)
    are float32 or float64, ``sums`` is room of the same type for a stretch of a row. The factor ``f`` is one of
    ``row_factors``, or one of ``column_factors`` (float64); both empty, it is 1. What follows the sum is done in
    float64 and rounded once.
    """
    columns = right.shape[1]
    row, column = divmod(first, columns)
    done = 0
    while done < out.size:
        count = min(columns - column, out.size - done, sums.size)
        _product(left[row], right, column, sums[:count])
        at = slice(done, done + count)
        if column_factors.size:
            _finish_columns(base[at], sums[:count], scaling, column_factors[column : column + count], out[at])
        else:
            factor = row_factors[row] if row_factors.size else _ONE
            _finish(base[at], sums[:count], scaling, factor, out[at])
        done += count
        column += count
        if column == columns:
            row, column = row + 1, 0


@kernel
def _product(weights, right, column, sums):
    """``sums = weights @ right[:, column:]`` as far as ``sums`` goes; four at a time, in the same order."""
    count, rank = sums.size, weights.size
    for j in range(count):
        sums[j] = 0
    k = 0
    while k + 4 <= rank:
        a, b, c, d = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        w, x = right[k, column : column + count], right[k + 1, column : column + count]
        y, z = right[k + 2, column : column + count], right[k + 3, column : column + count]
        for j in range(count):
            sums[j] = (((sums[j] + a * w[j]) + b * x[j]) + c * y[j]) + d * z[j]
        k += 4
    while k < rank:
        a, w = weights[k], right[k, column : column + count]
        for j in range(count):
            sums[j] += a * w[j]
        k += 1


@kernel
def _finish(base, sums, scaling, factor, out):
    for j in range(out.size):
        out[j] = encode(factor * (decode_wide(base[j]) + scaling * decode_wide(sums[j])), out[j])


@kernel
def _finish_columns(base, sums, scaling, factors, out):
    for j in range(out.size):
        out[j] = encode(factors[j] * (decode_wide(base[j]) + scaling * decode_wide(sums[j])), out[j])


@kernel
def squares_by_row(values, totals):
    """``totals`` (float64) of the squares in each row of ``values``, summed four columns apart and then together."""
    rows, columns = values.shape
    for i in range(rows):
        a = b = c = d = np.float64(0.0)
        j = 0
        while j + 4 <= columns:
            w, x = np.float64(values[i, j]), np.float64(values[i, j + 1])
            y, z = np.float64(values[i, j + 2]), np.float64(values[i, j + 3])
            a, b, c, d = a + w * w, b + x * x, c + y * y, d + z * z
            j += 4
        while j < columns:
            w = np.float64(values[i, j])
            a += w * w
            j += 1
        totals[i] = (a + b) + (c + d)


@kernel
def add_squares_by_column(values, totals):
    """Add the squares in each column of ``values`` to ``totals`` (float64), row after row."""
    rows, columns = values.shape
    for i in range(rows):
        for j in range(columns):
            value = np.float64(values[i, j])
            totals[j] += value * value
