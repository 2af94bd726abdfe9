"""linear: a weighted average of weights."""

from __future__ import annotations

from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.sums import WeightedSum

__all__ = ["METHOD"]


def _build(call: Call) -> Operation:
    return WeightedSum(call.weights(normalize=call.flag("normalize")))


METHOD = Method(
    name="linear",
    summary="Weighted average: a model soup.",
    equation="sum(w_i W_i) / sum(w_i)",
    paper="arXiv:2203.05482",
    build=_build,
    parameters=(
        Parameter("weight", "Share of a model.", per_model=True),
        Parameter("normalize", "Divide by the sum of the weights.", default=True, kind="flag"),
    ),
)
