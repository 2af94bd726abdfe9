"""The family of weighted sums whose shares follow from the scalar products of the models: means on a sphere and kin.

Everything that these methods do stays in the span of their inputs. So one pass gathers the Gram matrix of the tensors
(of their differences from the base, if there is one), a small computation turns it into shares, and one more pass sums.
Products, sums and shares are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.operations import Array, Measure, Observe, Operation, Run
from blockmerge.methods.scratch import chunks, scratch

__all__ = ["Gram", "Shares", "SpanSum", "decoded", "shares_of"]

Floats = NDArray[np.float64]
Shares = Callable[[Floats], Floats]
"""From a Gram matrix (models, models) to the shares of the models, both float64; some take many matrices at once."""
_SUMMED = 1 << 12
"""Elements that are summed without a stop: sums of sums keep more digits."""


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

        del statistics

        def observe(operands: Sequence[Array], _first: int) -> Floats:
            count = len(operands) - self.base
            total = np.zeros((count, count))
            for part in chunks(operands[0].size):
                products = np.empty((-(-(part.stop - part.start) // _SUMMED), count, count))
                dots.grams(decoded(operands, part, base=self.base), _SUMMED, products)
                for product in products:
                    total += product
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
        from blockmerge.kernels import sums

        del dtypes, out
        total_gram = np.zeros(statistics[0].shape[1:])
        for partial in statistics[0]:  # in the order of blocks, whoever computed them
            total_gram += partial
        shares = shares_of(self.solve, total_gram)

        def run(operands: Sequence[Array], result: Array, _first: int) -> bool:
            bad = False
            for part in chunks(result.size):
                total = scratch("total", (part.stop - part.start,), np.float64)
                total[:] = 0.0
                for operand, share in zip(operands[self.base :], shares, strict=True):
                    if self.base:
                        sums.add_difference(total, operand[part], operands[0][part], share)
                    else:
                        sums.add(total, operand[part], share)
                if self.base:
                    sums.add(total, operands[0][part], 1.0)
                bad |= sums.store(total, result[part])
            return bad

        return run
