"""The family of weighted sums whose shares are known from the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blockmerge.dtypes import DType
from blockmerge.methods.operations import Array, Operation, Run, precision_of
from blockmerge.methods.scratch import chunks, scratch

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
        """Accumulate operand by operand, chunk by chunk."""
        del statistics
        precision = precision_of(dtypes, out)
        shares = [precision(share) for share in self.shares]
        return _with_base(shares, precision) if self.base else _plain(shares, precision)


def _plain(shares: Sequence[Any], precision: type) -> Run:
    from blockmerge.kernels import sums

    def run(operands: Sequence[Array], result: Array, _first: int) -> bool:
        bad = False
        for part in chunks(result.size):
            total = scratch("total", (part.stop - part.start,), precision)
            total[:] = 0.0
            for operand, share in zip(operands, shares, strict=True):
                sums.add(total, operand[part], share)
            bad |= sums.store(total, result[part])
        return bad

    return run


def _with_base(shares: Sequence[Any], precision: type) -> Run:
    from blockmerge.kernels import sums

    def run(operands: Sequence[Array], result: Array, _first: int) -> bool:
        bad = False
        for part in chunks(result.size):
            base = operands[0][part]
            change = scratch("total", (part.stop - part.start,), precision)
            change[:] = 0.0
            for operand, share in zip(operands[1:], shares, strict=True):
                sums.add_difference(change, operand[part], base, share)
            sums.add(change, base, precision(1.0))
            bad |= sums.store(change, result[part])
        return bad

    return run
