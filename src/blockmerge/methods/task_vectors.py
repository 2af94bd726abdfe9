"""The family of methods that thin out task vectors, let them agree on signs, and add them to the base.

Selection looks at differences from the base in float32. What is selected is summed in float32, or in float64 for
float32 results and float64 inputs, and rounded once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call
from blockmerge.methods.operations import Array, Measure, Operation, Run, precision_of
from blockmerge.methods.ranking import STEP
from blockmerge.methods.scratch import chunks
from blockmerge.methods.thinning import Thinning
from blockmerge.methods.vectors import deltas, vectors

__all__ = ["TaskVectors"]


@dataclass(frozen=True)
class TaskVectors(Operation):
    """``base + scale * join(weight * thinned(x - base))``; operand 0 is the base.

    ``thinning`` None keeps all. ``join``: ``sum``, or ``sign`` for the sum of those elements that agree with the sign
    of the whole sum. ``normalize`` divides by the weights that took part.
    """

    weights: tuple[float, ...]
    thinning: Thinning | None = None
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
            thinning=None if thinning.whole else thinning,
            join=join,
            normalize=call.flag("normalize"),
            scale=call.number("lambda"),
        )

    @property
    def measures(self) -> Sequence[Measure]:
        """Those of the thinning."""
        return () if self.thinning is None else self.thinning.measures

    @property
    def row(self) -> int:
        """That of the thinning."""
        return 1 if self.thinning is None else self.thinning.row

    @property
    def joined(self) -> Hashable | None:
        """That of the thinning."""
        return None if self.thinning is None else self.thinning.joined

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "task vectors",
            "weights": list(self.weights),
            "thinning": None if self.thinning is None else self.thinning.numbers(),
            "join": self.join,
            "normalize": self.normalize,
            "scale": self.scale,
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Thin and join tile by tile."""
        from blockmerge.kernels import consensus, nonfinite

        precision = precision_of(dtypes, out)
        thin = None if self.thinning is None else self.thinning.bind(statistics, precision)
        divisor = sum(self.weights) if self.normalize and self.join == "sum" else 1.0
        scale = precision(self.scale / divisor)
        weights = np.array(self.weights, precision)

        by_sign = self.join == "sign"
        step = STEP if self.thinning is None else self.thinning.step

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            bad = any(map(nonfinite, operands))  # it may be dropped
            for part in chunks(result.size, step):
                kept = deltas(operands, part)
                factors = [1.0 if thin is None else thin(delta, k, first + part.start) for k, delta in enumerate(kept)]
                widened, base = _widened(kept, operands, part, factors, precision), operands[0][part]
                bad |= consensus.join(widened, weights, by_sign, self.normalize, scale, base, result[part])
            return bad

        return run


def _widened(
    kept: NDArray[np.float32], operands: Sequence[Array], part: slice, factors: Sequence[Any], precision: Any
) -> NDArray[Any]:
    """The kept elements in ``precision``, times ``factors``: for float64, the differences are taken anew."""
    from blockmerge.kernels import consensus

    found = vectors(operands, part, kept, precision)
    if found is not kept:
        for vector, mask in zip(found, kept, strict=True):
            consensus.mask_by(vector, mask)
    for vector, factor in zip(found, factors, strict=True):
        if np.ndim(factor) or factor != 1:
            vector *= factor
    return found
