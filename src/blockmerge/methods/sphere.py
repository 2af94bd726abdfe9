"""The family of weighted sums whose shares follow from the scalar products of the models: means on a sphere and kin.

Everything that these methods do stays in the span of their inputs. So one pass gathers the Gram matrix of the tensors
(of their differences from the base, if there is one), a small computation turns it into shares, and one more pass sums.
Scalar products and shares are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.operations import Array, Measure, Observe, Operation, Run
from blockmerge.methods.scratch import scratch
from blockmerge.methods.sums import WeightedSum
from blockmerge.methods.vectors import exact, stacked

__all__ = ["Gram", "Shares", "SpanSum", "decoded", "shares_of"]

Floats = NDArray[np.float64]
Shares = Callable[[Floats], Floats]
"""From a Gram matrix (models, models) to the shares of the models, both float64; some take many matrices at once."""


@dataclass(frozen=True, slots=True)
class Gram(Measure):
    """The pass that gathers scalar products; its statistic is the Gram matrix of the whole tensor."""

    base: bool

    @property
    def stacked(self) -> bool:
        """Granules are told apart: sums are in their order."""
        return True

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """The Gram matrix of one granule."""
        from blockmerge.kernels import dots
        from blockmerge.kernels.sums import SOME

        del statistics

        def observe(operands: Sequence[Array], _first: int) -> Floats:
            whole, count = stacked(operands), len(operands) - self.base
            total = np.zeros((count, count))
            dots.gram(whole, self.base, np.empty((count, SOME), exact(whole)), total)
            return total

        return observe


def decoded(operands: Sequence[Array], part: slice, *, base: bool) -> Floats:
    """The chunk of each model as float64, less the base's, which is operand 0: (models, elements)."""
    from blockmerge.kernels import sums

    models = operands[1:] if base else operands
    vectors = scratch("vectors", (len(models), part.stop - part.start), np.float64)
    for vector, operand in zip(vectors, models, strict=True):
        if base:
            sums.difference(operand[part], operands[0][part], vector)
        else:
            sums.numbers(operand[part], vector)
    return vectors


def shares_of(solve: Shares, gram: Floats) -> Floats:
    """What ``solve`` finds; quietly where the products are not finite, which shows in the sums."""
    with np.errstate(all="ignore"):
        return solve(gram)


@dataclass(frozen=True)
class SpanSum(Operation):
    """A sum whose shares ``solve`` finds from the Gram matrix; operand 0 is the base, if there is one.

    ``settings`` are the plain numbers that ``solve`` was made from, for the plan and its digest.
    """

    method: str
    settings: tuple[float, ...]
    solve: Shares
    base: bool = False

    @property
    def measures(self) -> tuple[Gram, ...]:
        """One pass for the scalar products."""
        return (Gram(self.base),)

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {"kind": "span", "method": self.method, "settings": list(self.settings), "base": self.base}

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Sum with the shares that follow from the scalar products."""
        total_gram = np.zeros(statistics[0].shape[1:])
        for partial in statistics[0]:  # in the order of blocks, whoever computed them
            total_gram += partial
        shares = tuple(map(float, shares_of(self.solve, total_gram)))
        return WeightedSum(shares, self.base).bind(dtypes, out)
