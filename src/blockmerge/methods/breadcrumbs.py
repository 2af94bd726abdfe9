"""breadcrumbs and breadcrumbs_ties: drop the smallest changes and the largest."""

from __future__ import annotations

from functools import partial
from typing import Literal

from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.selection import Share
from blockmerge.methods.task_arithmetic import LAMBDA, NORMALIZE, WEIGHT
from blockmerge.methods.task_vectors import TaskVectors
from blockmerge.methods.thinning import ByMagnitude, matched
from blockmerge.methods.ties import DENSITY, RESCALE

__all__ = ["METHODS"]

_GAMMA = Parameter(
    "gamma",
    "Part of a task vector that is dropped as too large.",
    default=0.01,
    per_model=True,
    low=0,
    high=1,
)


def _build(call: Call, *, join: Literal["sum", "sign"]) -> Operation:
    density_first = call.values["variant"] == "mergekit"
    shares = [Share(d, g, density_first) for d, g in zip(call.each("density"), call.each("gamma"), strict=True)]
    return TaskVectors.of(call, matched(call, ByMagnitude(tuple(shares), call.key)), join=join)


_PARAMETERS = (
    WEIGHT,
    DENSITY,
    _GAMMA,
    LAMBDA,
    NORMALIZE,
    RESCALE,
    Parameter(
        "variant",
        "What gives way where density and gamma are more than there is: paper: density; mergekit: gamma.",
        default="paper",
        kind="choice",
        choices=("paper", "mergekit"),
    ),
)
_KEPT = "d_i = W_i - B without its gamma largest and its smallest elements, density of it kept"

METHODS = (
    Method(
        name="breadcrumbs",
        summary="Drop the smallest and the largest changes, add the rest to the base.",
        equation=f"B + lambda sum(w_i d_i) [/ sum(w_i)], {_KEPT}",
        paper="arXiv:2312.06795",
        build=partial(_build, join="sum"),
        parameters=_PARAMETERS,
        base="required",
    ),
    Method(
        name="breadcrumbs_ties",
        summary="Drop the smallest and the largest changes, elect a sign, sum what agrees.",
        equation=f"B + lambda sum(w_i d_i [sign agrees]) [/ sum(w_i [sign agrees])], {_KEPT}",
        paper="arXiv:2312.06795 and arXiv:2306.01708",
        build=partial(_build, join="sign"),
        parameters=_PARAMETERS,
        base="required",
    ),
)
