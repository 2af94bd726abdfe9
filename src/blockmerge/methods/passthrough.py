"""passthrough: one model as it is, or scaled."""

from __future__ import annotations

from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Copy, Operation
from blockmerge.methods.sums import WeightedSum

__all__ = ["METHOD"]


def _build(call: Call) -> Operation:
    scale = call.number("scale")
    return Copy() if scale == 1.0 else WeightedSum((scale,))


METHOD = Method(
    name="passthrough",
    summary="Copy the one model, times a scale.",
    equation="scale W",
    paper="none",
    build=_build,
    parameters=(Parameter("scale", "Factor.", default=1.0),),
    models=(1, 1),
)
