"""sce: select what the models differ in most, calculate their weights from it, erase minority signs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import STEP, Array, Measure, Operation, Run, precision_of
from blockmerge.methods.selection import Selection, Share
from blockmerge.methods.sphere import Gram
from blockmerge.methods.vectors import exact, uniform

if TYPE_CHECKING:
    from blockmerge.kernels.scores import Variance

__all__ = ["METHOD", "SelectCalculateErase"]


class Variances:
    """Scores an element by the variance of its task vectors."""

    def bind(self, statistics: Sequence[Array]) -> Variance:
        """How kernels score."""
        from blockmerge.kernels import scores

        del statistics
        return scores.Variance()


def squares(operands: NDArray[Any], low: int, high: int) -> NDArray[np.float64]:
    """Those of each task vector where the variance has the bits ``low``, or ``high``, or is larger: (3, models)."""
    from blockmerge.kernels import erase

    found = np.zeros((3, len(operands) - 1))
    erase.add_squares(operands, low, high, found, exact(operands)(0))
    return found


@dataclass(frozen=True)
class SelectCalculateErase(Operation):
    """``base`` + the weighted mean of the selected task vectors that agree in sign; operand 0 is the base.

    With ``uniform_below``, weights are equal if the mean squares of the models sum to less than it, elements that
    balance count as positive, and weights that agree are taken for 1e-6 at least: what mergekit does. ``elements`` are
    those of the tensor.
    """

    selection: Selection
    elements: int
    uniform_below: float = 0.0

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The passes of the selection; where all is selected, one for the squares."""
        return (Gram(base=True),) if self.selection.whole else self.selection.measures

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "select, calculate, erase",
            "topk": self.selection.shares[0].density,
            "uniform_below": self.uniform_below,
            "key": self.selection.key,
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Chunk by chunk, in float32 where that holds everything, else in float64."""
        from blockmerge.kernels import erase

        precision, way = precision_of(dtypes, out), self.selection.bind(statistics)
        weights = self._weights(statistics).astype(precision)
        balanced, least = self.uniform_below > 0, precision(1e-6 if self.uniform_below > 0 else 0.0)

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            bad = False
            for start, some in uniform(operands, STEP):
                part, at = result[start : start + some.shape[1]], first + start
                bad |= erase.add_agreeing_mean(some, way(at, part.size), at, weights, balanced, least, part)
            return bad

        return run

    def _weights(self, statistics: Sequence[Array]) -> NDArray[np.float64]:
        """The share of each model in the squares of all; equal shares where these are zero, or not finite.

        Where elements with equal variance are kept in part, that part of their squares counts, whichever were chosen.
        """
        if self.selection.whole:
            total = np.diagonal(statistics[0].sum(axis=0))
        else:
            total = self.selection.sums(statistics)
        whole = float(total.sum())
        if not 0 < whole < np.inf or whole / self.elements < self.uniform_below:
            return np.full(total.size, 1.0 / total.size)
        return total / whole


def _build(call: Call) -> Operation:
    below = 1e-6 if call.values["variant"] == "mergekit" else 0.0
    share = Share(call.number("select_topk"), nonzero=True)
    selection = Selection(Variances(), (share,), call.key, summing=squares)
    return SelectCalculateErase(selection, math.prod(call.shape), below)


METHOD = Method(
    name="sce",
    summary="Keep what the models differ in most, weight each by the squares of its changes, drop minority signs.",
    equation="B + sum(w_i d_i [sign agrees]) / sum(w_i [sign agrees]), w_i = |d_i|^2 / sum(|d_j|^2), "
    "d_i = W_i - B where its variance over i is among the largest",
    paper="arXiv:2408.07990",
    build=_build,
    parameters=(
        Parameter(
            "select_topk", "Part that is kept of the elements in which models differ.", default=1.0, low=0, high=1
        ),
        Parameter(
            "variant",
            "paper, or mergekit: equal weights where mean squares sum to less than 1e-6, as of most finetunes.",
            default="paper",
            kind="choice",
            choices=("paper", "mergekit"),
        ),
    ),
    base="required",
    symmetric=True,
)
