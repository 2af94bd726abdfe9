"""The family of methods that thin out task vectors, let them agree on signs, and add them to the base.

Selection looks at differences from the base in float32. What is selected is summed in float32, or in float64 for
float32 results and float64 inputs, and rounded once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call
from blockmerge.methods.operations import Array, Measure, Operation, Run, precision_of
from blockmerge.methods.thinning import Nothing, Thinning
from blockmerge.methods.vectors import uniform

__all__ = ["TaskVectors"]


@dataclass(frozen=True)
class TaskVectors(Operation):
    """``base + scale * join(weight * thinned(x - base))``; operand 0 is the base.

    ``join``: ``sum``, or ``sign`` for the sum of those elements that agree with the sign
    of the whole sum. ``normalize`` divides by the weights that took part.
    """

    weights: tuple[float, ...]
    thinning: Thinning = field(default_factory=Nothing)
    join: Literal["sum", "sign"] = "sum"
    normalize: bool = False
    scale: float = 1.0

    @classmethod
    def of(cls, call: Call, thinning: Thinning, *, join: Literal["sum", "sign"]) -> TaskVectors:
        """The operation of a method with the usual parameters; where all of a vector is kept, nothing is thinned."""
        if join == "sum" and call.flag("normalize"):
            call.total("weight")
        return cls(
            weights=call.each("weight"),
            thinning=Nothing() if thinning.whole else thinning,
            join=join,
            normalize=call.flag("normalize"),
            scale=call.number("lambda"),
        )

    @property
    def measures(self) -> Sequence[Measure]:
        """Those of the thinning."""
        return self.thinning.measures

    @property
    def row(self) -> int:
        """That of the thinning."""
        return self.thinning.row

    @property
    def joined(self) -> Hashable | None:
        """That of the thinning."""
        return self.thinning.joined

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "task vectors",
            "weights": list(self.weights),
            "thinning": self.thinning.numbers() or None,
            "join": self.join,
            "normalize": self.normalize,
            "scale": self.scale,
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Thin and join."""
        from blockmerge.kernels import consensus

        precision, thinning = precision_of(dtypes, out), self.thinning
        way, weights = thinning.bind(statistics), np.array(self.weights, precision)
        scales = np.array(thinning.scales(statistics, len(self.weights)), precision)
        divisor = sum(self.weights) if self.normalize and self.join == "sum" else 1.0
        settings = (weights, self.join == "sign", self.normalize, precision(self.scale / divisor))

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            bad = False
            for start, some in uniform(operands, thinning.step):
                part = result[start : start + some.shape[1]]
                at = first + start
                bad |= consensus.join(some, way(at, part.size), at, scales, *settings, part)
            return bad

        return run
