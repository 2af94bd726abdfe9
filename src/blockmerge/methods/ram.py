"""ram and ramplus_tl: reinforced agent merging, which does not water down what one model alone has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import STEP, Array, Measure, Observe, Operation, Run, precision_of
from blockmerge.methods.scratch import chunks, scratch
from blockmerge.methods.vectors import deltas, vectors

__all__ = ["METHODS", "Changes", "Reinforced"]


@dataclass(frozen=True, slots=True)
class Changes(Measure):
    """The pass that counts, for each model, the elements that it alone changed and those that others did too."""

    epsilon: float

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """Counts of one granule, (models, 2)."""
        from blockmerge.kernels import reinforce

        del statistics
        epsilon = np.float32(self.epsilon)

        def observe(operands: Sequence[Array], _first: int) -> NDArray[np.int64]:
            counts = np.zeros((len(operands) - 1, 2), np.int64)
            for part in chunks(operands[0].size, STEP):
                reinforce.count_changes(deltas(operands, part), epsilon, counts)
            return counts

        return observe


@dataclass(frozen=True)
class Reinforced(Operation):
    """``base + sum`` of what one model alone changed, and of the means of what several did; operand 0 is the base.

    An element is changed if it differs from the base's by more than ``epsilon``, in float32. What a model alone
    changed is multiplied by ``1 + r min(shared / alone, alpha)``, its counts of elements in the tensor.
    """

    epsilon: float
    r: float = 0.0
    alpha: float = 0.0

    @property
    def measures(self) -> tuple[Changes, ...]:
        """One pass to count, where the counts matter."""
        return (Changes(self.epsilon),) if self.r * self.alpha else ()

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {"kind": "reinforced", "epsilon": self.epsilon, "r": self.r, "alpha": self.alpha}

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Chunk by chunk, in float32 where that holds everything, else in float64."""
        from blockmerge.kernels import reinforce, sums

        precision, epsilon = precision_of(dtypes, out), np.float32(self.epsilon)
        factors = np.ones(len(dtypes) - 1, precision)
        if statistics:
            alone, shared = statistics[0][0].T
            factors[:] = 1.0 + self.r * np.minimum(shared / np.maximum(alone, 1), self.alpha)

        def run(operands: Sequence[Array], result: Array, _first: int) -> bool:
            bad = False
            for part in chunks(result.size, STEP):
                narrow, base = deltas(operands, part), operands[0][part]
                total, wide = scratch("total", base.shape, precision), vectors(operands, part, narrow, precision)
                reinforce.reinforced_sum(narrow, wide, epsilon, factors, total)
                sums.add(total, base, precision(1.0))
                bad |= sums.store(total, result[part])
            return bad

        return run


def _build(call: Call) -> Operation:
    return Reinforced(call.number("epsilon"))


def _build_plus(call: Call) -> Operation:
    return Reinforced(call.number("epsilon"), call.number("r"), call.number("alpha"))


_EPSILON = Parameter("epsilon", "Up to this difference from the base an element is unchanged.", default=1e-5, low=0)

METHODS = (
    Method(
        name="ram",
        summary="Add what one model alone changed in full, and average what several changed.",
        equation="B + (W_i - B where i alone changed the element, mean(W_i - B) over the models that did elsewhere)",
        paper="arXiv:2601.13572",
        build=_build,
        parameters=(_EPSILON,),
        base="required",
        symmetric=True,
    ),
    Method(
        name="ramplus_tl",
        summary="ram, with what one model alone changed made stronger the more it shares; counted tensor by tensor.",
        equation="as ram, (W_i - B) times 1 + r min(shared_i / alone_i, alpha) where i alone changed the element",
        paper="arXiv:2601.13572",
        build=_build_plus,
        parameters=(
            Parameter("r", "How much stronger at most, as a multiple of the clipped ratio.", default=0.1, low=0),
            Parameter("alpha", "Where the ratio of shared to unshared elements is clipped.", default=0.2, low=0),
            _EPSILON,
        ),
        base="required",
        symmetric=True,
    ),
)
