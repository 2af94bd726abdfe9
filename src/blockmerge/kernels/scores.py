"""Scores of elements, one float32 each, by whose size they are ranked: differences, variances, importance.

What is scored is a tuple; :func:`score` is chosen by its type while compiling. Kernels that rank score some elements at
a time, as many as the nearest cache holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba.extending import overload
from numpy.typing import NDArray

from blockmerge.kernels.softmax import importance
from blockmerge.kernels.sums import difference
from blockmerge.kernels.variance import variances

__all__ = ["Difference", "Importance", "Variance", "score"]


class Difference(NamedTuple):
    """Score k is operand k + 1 less operand ``base``, the first."""

    base: int = 0


class Variance(NamedTuple):
    """The variance of the operands behind operand ``base``, the first."""

    base: int = 0


class Importance(NamedTuple):
    """The size of the difference of two operands, times the divergence of its row of ``width`` elements."""

    divergences: NDArray[Any]
    width: int


def score(scoring, number, operands, start, first, out):
    """Fill ``out`` with score ``number`` of elements of the ``operands`` from ``start`` on.

    That one is number ``first`` of the tensor.
    """
    raise NotImplementedError


@overload(score)
def _score(scoring, number, operands, start, first, out):
    del number, operands, start, first, out
    return _WAYS[scoring.instance_class]


def _difference(scoring, number, operands, start, first, out):
    stop = start + out.size
    difference(operands[number + 1, start:stop], operands[scoring.base, start:stop], out)


def _variance(scoring, number, operands, start, first, out):
    variances(operands, start, out)


def _importance(scoring, number, operands, start, first, out):
    stop = start + out.size
    importance(operands[0, start:stop], operands[1, start:stop], first, scoring.width, scoring.divergences, out)


_WAYS = {Difference: _difference, Variance: _variance, Importance: _importance}
