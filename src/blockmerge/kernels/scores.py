"""Scores of elements, one float32 each, by whose size they are ranked: task vectors, variances, importance.

Kernels that rank score some elements at a time, as many as the nearest cache holds, whatever the score.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from blockmerge.kernels.softmax import importance
from blockmerge.kernels.sums import difference
from blockmerge.kernels.variance import variances

__all__ = ["DIFFERENCE", "IMPORTANCE", "VARIANCE", "Scoring", "score"]

DIFFERENCE, VARIANCE, IMPORTANCE = range(3)


class Scoring(NamedTuple):
    """What is scored: one of the ways above; for importance with the divergences of rows of ``width`` elements."""

    way: int
    divergences: NDArray[Any] = np.empty(0, np.float32)
    width: int = 1


@numba.njit
def score(scoring, number, operands, start, first, out):
    """Fill ``out`` with score ``number`` of elements of the ``operands`` from ``start`` on.

    That one is number ``first`` of the tensor. Only differences have several scores, one for each operand behind the
    first.
    """
    stop = start + out.size
    if scoring.way == DIFFERENCE:
        difference(operands[number + 1, start:stop], operands[0, start:stop], out)
    elif scoring.way == VARIANCE:
        variances(operands, start, out)
    else:
        base, model = operands[0, start:stop], operands[1, start:stop]
        importance(base, model, first, scoring.width, scoring.divergences, out)
