"""ties: trim, elect a sign, merge what agrees."""

from __future__ import annotations

from blockmerge.errors import RecipeError
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.selection import Share
from blockmerge.methods.task_arithmetic import LAMBDA, WEIGHT
from blockmerge.methods.task_vectors import TaskVectors
from blockmerge.methods.thinning import ByMagnitude, matched

__all__ = ["DENSITY", "METHOD", "RESCALE"]

DENSITY = Parameter("density", "Part of a task vector that is kept.", default=1.0, per_model=True, low=0, high=1)
RESCALE = Parameter(
    "rescale", "Scale what is kept of a task vector to the L1 norm that the whole had.", default=False, kind="flag"
)


def _build(call: Call) -> Operation:
    shares = tuple(map(Share, call.each("density")))
    if call.values["scope"] == "tensor":
        return TaskVectors.of(call, matched(call, ByMagnitude(shares, call.key)), join="sign")
    if call.flag("rescale"):
        raise RecipeError("rescale: goes with scope: tensor only")
    return TaskVectors.of(call, ByMagnitude(shares, 0, overall=True), join="sign")


METHOD = Method(
    name="ties",
    summary="Keep the largest changes of each model, elect a sign for each element, average what agrees with it.",
    equation="B + lambda sum(w_i d_i [sign agrees]) / sum(w_i [sign agrees]), d_i = top density of W_i - B",
    paper="arXiv:2306.01708",
    build=_build,
    parameters=(
        WEIGHT,
        DENSITY,
        LAMBDA,
        Parameter("normalize", "Divide by the weights of the models that agree.", default=True, kind="flag"),
        RESCALE,
        Parameter(
            "scope",
            "tensor: density of each tensor is kept; model: of all tensors together, as the paper has it.",
            default="tensor",
            kind="choice",
            choices=("tensor", "model"),
        ),
    ),
    base="required",
)
