"""sce: select what the models differ in most, calculate their weights from it, erase minority signs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Array, Measure, Observe, Operation, Run, precision_of
from blockmerge.methods.ranking import STEP, Counts, Lower, Score, Upper, at_ranks, scored
from blockmerge.methods.scratch import chunks, scratch
from blockmerge.methods.selection import Bounds, deltas, quotas
from blockmerge.methods.vectors import vectors

__all__ = ["METHOD", "SelectCalculateErase"]

_ALL = 0x7FFFFFFF
"""Above the bits of every magnitude."""
Choose = Callable[[Sequence[Array], int], NDArray[np.float32] | None]
"""Takes the operands of a granule and its first element; gives what is not zero where an element is selected, or None
for all."""


class Variances:
    """Scores an element by the variance of its task vectors."""

    def bind(self, statistics: Sequence[Array]) -> Score:
        """The function that scores a chunk."""
        from blockmerge.kernels import variance

        del statistics
        return lambda operands, _first, out: variance.variances(deltas(operands), out)


@dataclass(frozen=True, slots=True)
class Selection:
    """The ``topk`` part of the elements, by variance; ties are chosen by chance, seeded by ``key``."""

    topk: float
    key: int

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Three passes: two find the bound, the third where the ties with it are."""
        return (Upper(Variances()), Lower(Variances(), self.ranks), Equals(self)) if self.topk < 1 else ()

    def wanted(self, upper: Counts) -> int:
        """How many elements are selected: ``topk`` of those in which the models differ at all."""
        return int(self.topk * int(upper[1:].sum()))  # bucket zero holds zeros alone

    def ranks(self, upper: Counts) -> list[int]:
        """The rank from which on elements are selected; the last, if none are."""
        return [int(upper.sum()) - max(self.wanted(upper), 1)]

    def bound(self, statistics: Sequence[Array]) -> Bounds:
        """The smallest variance that is selected, and how many of those equal to it are."""
        upper, lower = statistics[0][0], statistics[1][0]
        wanted = self.wanted(upper)
        if wanted == 0:
            return Bounds(_ALL, _ALL, 0, 0)
        (found,) = at_ranks(upper, lower, self.ranks)
        above = int(upper.sum()) - found.below - found.equal
        return Bounds(found.bits, _ALL, wanted - above, 0)

    def bind(self, statistics: Sequence[Array]) -> Choose:
        """The function that chooses in a granule: not zero where an element is selected."""
        from blockmerge.kernels import select

        if not self.measures:
            return lambda operands, first: None
        score, bound = Variances().bind(()), self.bound(statistics)
        kept, key = quotas(statistics[2], [bound]), np.uint64(self.key)

        def choose(operands: Sequence[Array], first: int) -> NDArray[np.float32]:
            found = scored(score, operands, first)
            ties = int(kept[first][0, 0])
            select.keep_between(found, np.uint32(bound.low), ties, np.uint32(_ALL), found.size, first, key)
            return found

        return choose


@dataclass(frozen=True, slots=True)
class Equals:
    """The pass that counts the ties with the bound of a selection, granule by granule."""

    selection: Selection
    stacked: ClassVar[bool] = True

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """The ties of one granule and its first element, as :func:`quotas` takes them."""
        from blockmerge.kernels import select

        score, bits = Variances().bind(()), np.uint32(self.selection.bound(statistics).low)

        def observe(operands: Sequence[Array], first: int) -> Counts:
            ties = select.count_equal(scored(score, operands, first), bits)
            return np.array([[ties, 0], [first, first]], np.int64)

        return observe


@dataclass(frozen=True, slots=True)
class Squares:
    """The pass that sums the squares of what is selected, for each model."""

    selection: Selection
    stacked: ClassVar[bool] = True

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Sums of one granule in float64, (models + 1,); the last is the number of elements."""
        from blockmerge.kernels import variance

        choose = self.selection.bind(statistics)

        def observe(operands: Sequence[Array], first: int) -> NDArray[np.float64]:
            chosen = choose(operands, first)
            sums = np.zeros(len(operands))
            for part in chunks(operands[0].size, STEP):
                for k, delta in enumerate(deltas([operand[part] for operand in operands])):
                    if chosen is not None:
                        variance.drop(delta, chosen[part])
                    sums[k] += variance.squares(delta)
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
        return (*self.selection.measures, Squares(self.selection))

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "select, calculate, erase",
            "topk": self.selection.topk,
            "uniform_below": self.uniform_below,
            "key": self.selection.key,
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Chunk by chunk, in float32 where that holds everything, else in float64."""
        from blockmerge.kernels import sums, variance

        precision, choose = precision_of(dtypes, out), self.selection.bind(statistics)
        weights = self._weights(statistics[-1]).astype(precision)
        balanced, least = self.uniform_below > 0, precision(1e-6 if self.uniform_below > 0 else 0.0)

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            chosen, bad = choose(operands, first), False
            for part in chunks(result.size, STEP):
                parts = [operand[part] for operand in operands]
                changes = vectors(parts, deltas(parts), precision)
                if chosen is not None:
                    for change in changes:
                        variance.drop(change, chosen[part])
                total = scratch("total", parts[0].shape, precision)
                variance.agreeing_mean(changes, weights, balanced, least, total)
                sums.add(total, parts[0], precision(1.0))
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
    return SelectCalculateErase(Selection(call.number("select_topk"), call.key), below)


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
