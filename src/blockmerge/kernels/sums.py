"""Sums of any number of tensors, through an accumulator of float32 or float64 numbers.

Products and additions are separate operations of the accumulator's type, in the order of the calls, so sums have the
same bits on every processor. Accumulators are flat arrays of numbers, everything else holds encoded elements;
``operands`` are all of a tile, (operands, elements).
"""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.bits import encode, finite, number
from blockmerge.kernels.cache import inner, kernel

__all__ = [
    "SOME",
    "add",
    "add_columns",
    "add_numbers",
    "add_rows",
    "changed",
    "difference",
    "differences",
    "numbers",
    "store",
    "weighted",
]

SOME = 2048
"""Elements that loops inside kernels go through at a time: they stay in the nearest cache, and vectorise."""


@kernel
def add(total, x, share):
    """``total += share * x``."""
    for i in range(total.size):
        total[i] += share * number(x[i], total[i])


@kernel
def weighted(operands, shares, out):
    """``out`` = the sum of ``shares * operands``, rounded once. Says whether a value is not finite."""
    bad, room = False, np.empty(SOME, shares.dtype)
    for start in range(0, out.size, SOME):
        some = out[start : start + SOME]
        total = room[: some.size]
        total[:] = shares.dtype.type(0)
        for k in range(shares.size):
            add(total, operands[k, start : start + SOME], shares[k])
        bad |= store(total, some)
    return bad


@kernel
def changed(operands, shares, out):
    """``out`` = operand 0 + the sum of ``shares`` times the other operands less it, rounded once; as above."""
    bad, room = False, np.empty(SOME, shares.dtype)
    for start in range(0, out.size, SOME):
        some, base = out[start : start + SOME], operands[0, start : start + SOME]
        total = room[: some.size]
        total[:] = shares.dtype.type(0)
        for k in range(shares.size):
            _add_difference(total, operands[k + 1, start : start + SOME], base, shares[k])
        add(total, base, shares.dtype.type(1))
        bad |= store(total, some)
    return bad


@inner
def _add_difference(total, x, base, share):
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
def differences(operands, start, out):
    """``out`` (models, elements) = the operands behind the first less the first, from element ``start`` on."""
    stop = start + out.shape[1]
    for k in range(len(out)):
        difference(operands[k + 1, start:stop], operands[0, start:stop], out[k])


@kernel
def store(total, out):
    """``out = total``, rounded once."""
    bad = False
    for i in range(out.size):
        element = encode(total[i], out[i])
        bad |= not finite(element)
        out[i] = element
    return bad
