"""Sums and scalar products in float64, in an order that is fixed: running sums of every so many elements, side by side.

So the loops over them vectorise, and no addition waits for the one before it.
"""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.sums import SOME, difference, numbers

__all__ = ["accumulate", "add_products", "add_sizes", "gram", "grams", "joined", "lanes"]

_LANES, _SUMMED = 128, 1 << 15


@kernel
def grams(vectors, length, out):
    """``out[r, i, j]`` = scalar product of ``vectors`` i and j over their part r of ``length`` elements, all float64.

    vectors: (models, elements); the last part may be shorter.
    """
    sums = np.empty(_LANES)
    for r in range(len(out)):
        start, stop = r * length, (r + 1) * length
        for i in range(len(vectors)):
            for j in range(i, len(vectors)):
                out[r, i, j] = out[r, j, i] = _product(vectors[i, start:stop], vectors[j, start:stop], sums)


@kernel
def gram(operands, base, room, out):
    """Add to ``out`` (models, models) the scalar products of the operands, (models, elements).

    With ``base`` the first of these is not a model, but taken off the others. ``room`` (models, SOME) has the type of
    the vectors, float32 or float64. Sums of sums of some elements keep more digits than one long sum.
    """
    size, count = operands.shape[1], len(out)
    for begin in range(0, size, _SUMMED):
        sums = lanes(count * count)
        for start in range(begin, min(begin + _SUMMED, size), SOME):
            stop = min(start + SOME, size)
            vectors = room.reshape(-1)[: count * (stop - start)].reshape(count, stop - start)  # whole rows vectorise
            _decode(operands, base, start, vectors)
            _add_products(vectors, sums)
        for i in range(count):
            for j in range(i, count):
                out[i, j] += joined(sums[i * count + j])
                out[j, i] = out[i, j]


@inner
def _add_products(vectors, sums):
    count = len(vectors)
    for i in range(count):
        for j in range(i, count):
            accumulate(vectors[i], vectors[j], sums[i * count + j])


@inner
def _decode(operands, base, start, out):
    stop = start + out.shape[1]
    for k in range(len(out)):
        if base:
            difference(operands[k + 1, start:stop], operands[0, start:stop], out[k])
        else:
            numbers(operands[k, start:stop], out[k])


@kernel
def add_products(vectors, columns, out):
    """``out[i, j]`` += elementwise products of ``vectors`` i and j, summed over rows of so many ``columns``; j >= i."""
    for i in range(len(vectors)):
        for j in range(i, len(vectors)):
            x, y, total = vectors[i], vectors[j], out[i, j]
            for start in range(0, x.size, columns):
                for c in range(columns):
                    total[c] += x[start + c] * y[start + c]


@inner
def _product(x, y, sums):
    sums[:] = 0.0
    accumulate(x, y, sums)
    return joined(sums)


@kernel
def lanes(count):
    """Running sums for ``count`` sums, (count, lanes), all zero."""
    return np.zeros((count, _LANES))


@inner
def add_sizes(values, sums):
    """Add the magnitudes of ``values`` to the running ``sums``."""
    for start in range(0, values.size, _LANES):
        some = values[start : start + _LANES]
        for lane in range(some.size):
            sums[lane] += abs(np.float64(some[lane]))


@inner
def accumulate(x, y, sums):
    """Add the products of ``x`` and ``y`` to the running ``sums``."""
    for start in range(0, x.size, _LANES):
        one, other = x[start : start + _LANES], y[start : start + _LANES]
        for lane in range(one.size):
            sums[lane] += np.float64(one[lane]) * np.float64(other[lane])


@inner
def joined(sums):
    """The sum of running sums, pairwise."""
    count = sums.size
    while count > 1:
        count //= 2
        for lane in range(count):
            sums[lane] += sums[lane + count]
    return sums[0]
