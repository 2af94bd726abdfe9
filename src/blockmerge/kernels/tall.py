"""Which elements of a joined task vector are of use to several models."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.cache import inner, kernel
from blockmerge.kernels.sums import SOME

__all__ = ["keep_used"]


@kernel
def keep_used(deltas, factors, least, joined):
    """Zero ``joined`` (elements,) where less than ``least`` models use it.

    A model k uses an element if |deltas[k]| >= factors[k] |joined - deltas[k]|. deltas: (models, elements), factors:
    (models,); all of one float type. What is not a number, here or there, is not a number in ``joined``.
    """
    count, size = deltas.shape
    users = np.empty(SOME, np.int32)
    damage = np.empty(SOME, joined.dtype)
    for start in range(0, size, SOME):  # short loops over what the nearest cache holds, which vectorise
        part = joined[start : start + SOME]
        users[:] = 0
        damage[:] = 0
        for k in range(count):
            _count_users(deltas[k, start : start + SOME], factors[k], part, users, damage)
        for i in range(part.size):
            value = part[i]
            part[i] = (value if users[i] >= least else value * 0) + damage[i]


@inner
def _count_users(deltas, factor, joined, users, damage):
    for i in range(deltas.size):
        users[i] += np.int32(abs(deltas[i]) >= factor * abs(joined[i] - deltas[i]))
        damage[i] += deltas[i] * 0
