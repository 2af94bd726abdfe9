"""sce: select what the models differ in most, calculate their weights from it, erase minority signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Array, Measure, Observe, Operation, Run, precision_of
from blockmerge.methods.ranking import STEP, Score
from blockmerge.methods.scratch import chunks, scratch
from blockmerge.methods.selection import Selection, Share
from blockmerge.methods.vectors import deltas, stacked, vectors

__all__ = ["METHOD", "SelectCalculateErase"]

Choose = Callable[[Sequence[Array], int], NDArray[np.float32] | None]
"""Takes the operands of a granule and its first element; gives what is not zero where an element is selected, or None
where all are."""


class Variances:
    """Scores an element by the variance of its task vectors."""

    def bind(self, statistics: Sequence[Array]) -> Score:
        """The function that scores a chunk."""
        from blockmerge.kernels import variance

        del statistics
        return lambda operands, _first, _number, out: variance.variances(stacked(operands), out)


def chooser(selection: Selection, statistics: Sequence[Array]) -> Choose:
    """The function that tells which elements of a granule ``selection`` keeps."""
    if selection.whole:
        return lambda operands, first: None
    score, keep = selection.scores.bind(()), selection.bind(statistics)

    def choose(operands: Sequence[Array], first: int) -> NDArray[np.float32]:
        found = scratch("scores", operands[0].shape, np.float32)
        score(operands, first, 0, found)
        for part in chunks(found.size, STEP):
            keep(found[part], 0, first + part.start)
        return found

    return choose


@dataclass(frozen=True, slots=True)
class Squares(Measure):
    """The pass that sums the squares of what is selected, for each model."""

    selection: Selection

    @property
    def stacked(self) -> bool:
        """Granules are told apart: sums are in their order."""
        return True

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Sums of one granule in float64, (models + 1,); the last is the number of elements."""
        from blockmerge.kernels import dots, variance

        choose = chooser(self.selection, statistics)

        def observe(operands: Sequence[Array], first: int) -> NDArray[np.float64]:
            sums, chosen = np.zeros(len(operands)), choose(operands, first)
            for part in chunks(operands[0].size, STEP):
                for k, delta in enumerate(deltas(operands, part)):
                    if chosen is not None:
                        variance.drop(delta, chosen[part])
                    sums[k] += dots.squares(delta)
            sums[-1] = operands[0].size
            return sums

        return observe


@dataclass(frozen=True)
class SelectCalculateErase(Operation):
    """``base`` + the weighted mean of the selected task vectors that agree in sign; operand 0 is the base.

    With ``uniform_below``, weights are equal if the mean squares of the models sum to less than it, elements that
    balance count as positive, and weights that agree are taken for 1e-6 at least: what mergekit does.
    """

    selection: Selection
    uniform_below: float = 0.0

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The passes of the selection, if there is one, and one for the weights."""
        found = () if self.selection.whole else self.selection.measures
        return (*found, Squares(self.selection))

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
        from blockmerge.kernels import sums, variance

        precision, choose = precision_of(dtypes, out), chooser(self.selection, statistics)
        weights = self._weights(statistics[-1]).astype(precision)
        balanced, least = self.uniform_below > 0, precision(1e-6 if self.uniform_below > 0 else 0.0)

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            chosen, bad = choose(operands, first), False
            for part in chunks(result.size, STEP):
                base = operands[0][part]
                changes = vectors(operands, part, deltas(operands, part), precision)
                if chosen is not None:
                    for change in changes:
                        variance.drop(change, chosen[part])
                total = scratch("total", base.shape, precision)
                variance.agreeing_mean(changes, weights, balanced, least, total)
                sums.add(total, base, precision(1.0))
                bad |= sums.store(total, result[part])
            return bad

        return run

    def _weights(self, squares: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of each model in the squares of all; equal shares where these are zero, or not finite."""
        total = np.zeros(squares.shape[1])
        for partial_sums in squares:  # in the order of granules, whoever computed them
            total += partial_sums
        means = total[:-1] / total[-1]
        whole = float(means.sum())
        if not 0 < whole < np.inf or whole < self.uniform_below:
            return np.full(len(means), 1.0 / len(means))
        return means / whole


def _build(call: Call) -> Operation:
    below = 1e-6 if call.values["variant"] == "mergekit" else 0.0
    share = Share(call.number("select_topk"), nonzero=True)
    return SelectCalculateErase(Selection(Variances(), (share,), call.key), below)


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
