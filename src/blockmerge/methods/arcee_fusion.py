"""arcee_fusion: copy the model's elements that changed most, where the softmax of their row changed most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.between import Target
from blockmerge.methods.declaration import Call, Method
from blockmerge.methods.operations import GRANULE, Array, Measure, Observe, Operation, Run
from blockmerge.methods.ranking import Search

if TYPE_CHECKING:
    from blockmerge.kernels import scores

__all__ = ["METHOD", "Fusion"]

Floats = NDArray[np.float64]
_ROUNDING = 1e-14
"""Of the sizes that it is the difference of, a divergence below this may be all rounding."""


@dataclass(frozen=True, slots=True)
class Rows:
    """``count`` rows of ``width`` elements, on which softmax is taken."""

    count: int
    width: int

    @property
    def touched(self) -> int:
        """Rows that a granule reaches into at most."""
        return min(self.count, (GRANULE + self.width - 2) // self.width + 1)


@dataclass(frozen=True, slots=True)
class RowSums(Measure):
    """The pass that gathers the sums from which the divergence of each row follows."""

    rows: Rows

    @property
    def stacked(self) -> bool:
        """Granules are told apart: sums are in their order."""
        return True

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Sums of one granule in float64, (rows it reaches into, 3)."""
        from blockmerge.kernels import softmax

        del statistics

        def observe(operands: Sequence[Array], first: int) -> Floats:
            sums = np.zeros((self.rows.touched, 3))
            softmax.row_sums(operands[0], operands[1], first, self.rows.width, sums)
            return sums

        return observe


def divergences(parts: Floats, rows: Rows) -> NDArray[np.float32]:
    """Of each row, the Kullback-Leibler divergence of the model's softmax from the base's, as a share of the largest.

    With e = exp(model) and d = model - base it is mean(d) + log(1 + mean(exp(-d) - 1)), means weighted by e. Only
    ratios of divergences matter; as shares they are far from where float32 underflows.
    """
    sums = np.zeros((rows.count, 3))
    for granule, part in enumerate(parts):  # in their order, whoever computed them
        at = granule * GRANULE // rows.width
        end = min(at + len(part), rows.count)
        sums[at:end] += part[: end - at]
    with np.errstate(all="ignore"):
        mean, change = sums[:, 1] / sums[:, 0], np.maximum(sums[:, 2] / sums[:, 0], -1.0 + 2.0**-53)
        found = mean + np.fromiter(map(math.log1p, change), np.float64, rows.count)
        found = np.where(found < _ROUNDING * np.abs(mean), 0.0, found)
        largest = float(np.nanmax(found, initial=0.0))
    return (found / largest if 0 < largest < math.inf else found).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Importance:
    """Scores an element by its difference from the base times the divergence of its row."""

    rows: Rows

    def bind(self, statistics: Sequence[Array]) -> scores.Importance:
        """How kernels score."""
        from blockmerge.kernels import scores

        return scores.Importance(divergences(statistics[0], self.rows), self.rows.width)


def _quartile(count: int, _zeros: int, *, number: int) -> int:
    """The rank of a quartile, rounded down."""
    return number * (count - 1) // 4


_QUARTILES = tuple(Target(0, partial(_quartile, number=number)) for number in (1, 2, 3))


@dataclass(frozen=True)
class Fusion(Operation):
    """Operand 1 where its importance reaches the median + 1.5 times the range of the quartiles, else operand 0."""

    rows: Rows

    @property
    def _search(self) -> Search:
        return Search(Importance(self.rows), _QUARTILES, before=1)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """One pass for the rows, the others for the quartiles."""
        return (RowSums(self.rows), *self._search.measures)

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {"kind": "fusion", "rows": self.rows.count, "width": self.rows.width}

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Score again, and copy what is important enough."""
        from blockmerge.kernels import softmax

        del dtypes, out
        scoring, ranked = Importance(self.rows).bind(statistics), self._search.found(statistics).ranked
        first_quartile, median, third_quartile = (float(np.uint32(each.bits).view(np.float32)) for each in ranked)
        threshold = np.float64(median + 1.5 * (third_quartile - first_quartile))

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            base, model = operands
            return softmax.copy_important(base, model, first, scoring.width, scoring.divergences, threshold, result)

        return run


def _build(call: Call) -> Operation:
    width = call.shape[-1] if call.shape else 1
    return Fusion(Rows(math.prod(call.shape) // max(width, 1), width))


METHOD = Method(
    name="arcee_fusion",
    summary="The base, and the model where it changed most: by the element, and by the softmax of its row.",
    equation="W where s >= median(s) + 1.5 (q3(s) - q1(s)), else B; "
    "s = |W - B| KL(softmax(row of W), softmax(row of B))",
    paper="Arcee AI, Arcee Fusion, in mergekit (2025); quartiles of all elements, not of a sample",
    build=_build,
    base="required",
    models=(1, 1),
)
