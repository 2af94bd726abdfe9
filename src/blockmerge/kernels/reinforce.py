"""Task vectors by how many models changed an element: what one alone changed is kept apart from what several did."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.sums import SOME

__all__ = ["count_changes", "reinforced_sum"]


@kernel
def count_changes(deltas, epsilon, counts):
    """Add to ``counts`` (models, 2), int64: how many elements a model alone changed, and how many with others.

    deltas: (models, elements) float32. An element is changed if its size is above ``epsilon`` (float32).
    """
    users = np.empty(SOME, np.int32)
    for start in range(0, deltas.shape[1], SOME):  # short loops over what the nearest cache holds, which vectorise
        users[:] = 0
        for k in range(deltas.shape[0]):
            _count_users(deltas[k, start : start + SOME], epsilon, users)
        for k in range(deltas.shape[0]):
            alone = shared = 0
            part = deltas[k, start : start + SOME]
            for i in range(part.size):
                alone += _changed(part[i], epsilon) & (users[i] == 1)
                shared += _changed(part[i], epsilon) & (users[i] > 1)
            counts[k, 0] += alone
            counts[k, 1] += shared


@kernel
def reinforced_sum(deltas, values, epsilon, factors, out):
    """``out`` = what one model alone changed times its factor, and the mean of what several changed.

    deltas: (models, elements) float32, which decide; values: the same in the precision of ``factors`` (models,) and
    ``out`` (elements,).
    """
    count, size = deltas.shape
    zero = out.dtype.type(0)
    users = np.empty(SOME, np.int32)
    alone = np.empty(SOME, out.dtype)
    for start in range(0, size, SOME):
        found = out[start : start + SOME]
        users[:] = 0
        alone[:] = zero
        found[:] = zero
        for k in range(count):
            part = deltas[k, start : start + SOME]
            _count_users(part, epsilon, users)
            _add_changed(part, values[k, start : start + SOME], epsilon, factors[k], found, alone)
        for i in range(found.size):
            found[i] = alone[i] if users[i] == 1 else found[i] / out.dtype.type(max(users[i], 1))


@inner
def _changed(delta, epsilon):
    return not (abs(delta) <= epsilon)  # what is not a number counts as changed, so that it reaches the result


@inner
def _count_users(part, epsilon, users):
    for i in range(part.size):
        users[i] += np.int32(_changed(part[i], epsilon))


@inner
def _add_changed(part, values, epsilon, factor, shared, alone):
    zero = shared.dtype.type(0)
    for i in range(part.size):
        value = values[i] if _changed(part[i], epsilon) else zero
        shared[i] += value
        alone[i] += factor * value
