"""nearswap: take the model's elements where they are near the base's, and go a step towards them elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Array, Operation, Run, precision_of

__all__ = ["METHOD", "Approach"]


@dataclass(frozen=True)
class Approach(Operation):
    """Operand 0 moved towards operand 1 by ``most``, but never past it."""

    most: float

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {"kind": "approach", "most": self.most}

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """In float32 where that holds everything, else in float64."""
        from blockmerge.kernels.approach import approach

        del statistics
        most = precision_of(dtypes, out)(self.most)
        return lambda operands, result, _: approach(operands[0], operands[1], result, most)


def _build(call: Call) -> Operation:
    return Approach(call.number("t"))


METHOD = Method(
    name="nearswap",
    summary="The model where it is near the base, and a step towards it elsewhere.",
    equation="(1 - w) B + w W, w = min(t / |W - B|, 1); that is, B moved towards W by t at most",
    paper="alchemonaut, QuartetAnemoi-70B-t0.0001, Hugging Face (2024)",
    build=_build,
    parameters=(Parameter("t", "How near is near, in units of the weights.", low=0),),
    base="required",
    models=(1, 1),
)
