"""The family of weighted sums whose shares are known from the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blockmerge.dtypes import DType
from blockmerge.methods.operations import Array, Operation, Run, precision_of
from blockmerge.methods.vectors import stacked

__all__ = ["WeightedSum"]


@dataclass(frozen=True)
class WeightedSum(Operation):
    """``sum(share * x)``, or with a base, which is operand 0, ``base + sum(share * (x - base))``.

    Float32 multiplications and additions in the order of the operands, rounded once; float64 for float32 results and
    float64 inputs.
    """

    shares: tuple[float, ...]
    base: bool = False

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {"kind": "sum", "shares": list(self.shares), "base": self.base}

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Add up operand by operand."""
        from blockmerge.kernels import sums

        del statistics
        shares = np.array(self.shares, precision_of(dtypes, out))
        add = sums.changed if self.base else sums.weighted
        return lambda operands, result, _first: add(stacked(operands), shares, result)
