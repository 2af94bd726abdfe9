"""task_arithmetic: add what each finetune learned to the base."""

from __future__ import annotations

from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.sums import WeightedSum

__all__ = ["LAMBDA", "METHOD", "NORMALIZE", "WEIGHT"]

WEIGHT = Parameter("weight", "Share of a model's task vector.", per_model=True)
LAMBDA = Parameter("lambda", "Scale of the combined task vector.", default=1.0)
NORMALIZE = Parameter("normalize", "Divide by the sum of the weights.", default=False, kind="flag")


def _build(call: Call) -> Operation:
    weights = call.each("weight")
    scale = call.number("lambda") / (call.total("weight") if call.flag("normalize") else 1.0)
    return WeightedSum(tuple(scale * weight for weight in weights), base=True)


METHOD = Method(
    name="task_arithmetic",
    summary="Add the weighted task vectors to the base.",
    equation="B + lambda sum(w_i (W_i - B)) [/ sum(w_i)]",
    paper="arXiv:2212.04089",
    build=_build,
    parameters=(WEIGHT, LAMBDA, NORMALIZE),
    base="required",
)
