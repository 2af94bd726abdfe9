"""Sums of any number of tensors, through an accumulator of float32 or float64 numbers.

Products and additions are separate operations of the accumulator's type, in the order of the calls, so sums have the
same bits on every processor. Accumulators are flat arrays of numbers, everything else holds encoded elements.
"""

from __future__ import annotations

from blockmerge.kernels.bits import encode, finite, number
from blockmerge.kernels.cache import kernel

__all__ = ["add", "add_columns", "add_difference", "add_numbers", "add_rows", "difference", "numbers", "store"]


@kernel
def add(total, x, share):
    """``total += share * x``."""
    for i in range(total.size):
        total[i] += share * number(x[i], total[i])


@kernel
def add_difference(total, x, base, share):
    """``total += share * (x - base)``."""
    for i in range(total.size):
        total[i] += share * (number(x[i], total[i]) - number(base[i], total[i]))


@kernel
def add_numbers(total, values, share):
    """``total += share * values``, for values that are decoded already."""
    for i in range(total.size):
        total[i] += share * values[i]


@kernel
def add_rows(total, values, shares, length):
    """``total += share * values``, with a share for each ``length`` elements."""
    for r in range(shares.size):
        for i in range(r * length, (r + 1) * length):
            total[i] += shares[r] * values[i]


@kernel
def add_columns(total, values, shares, first):
    """``total += share * values``, with a share for each element of a row; ``total`` starts at the one at ``first``."""
    start = 0
    while start < total.size:
        stop = min(start + shares.size - first, total.size)
        for i in range(start, stop):
            total[i] += shares[first + i - start] * values[i]
        start, first = stop, 0


@kernel
def numbers(x, out):
    """``out = x``, decoded."""
    for i in range(out.size):
        out[i] = number(x[i], out[i])


@kernel
def difference(x, base, out):
    """``out = x - base``, a task vector."""
    for i in range(out.size):
        out[i] = number(x[i], out[i]) - number(base[i], out[i])


@kernel
def store(total, out):
    """``out = total``, rounded once."""
    bad = False
    for i in range(out.size):
        element = encode(total[i], out[i])
        bad |= not finite(element)
        out[i] = element
    return bad
