"""dare_linear and dare_ties: drop changes at random and rescale the rest."""

from __future__ import annotations

from functools import partial
from typing import Literal

from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.task_arithmetic import LAMBDA, NORMALIZE, WEIGHT
from blockmerge.methods.task_vectors import TaskVectors
from blockmerge.methods.thinning import ByChance, rescaled
from blockmerge.methods.ties import DENSITY

__all__ = ["METHODS"]


def _build(call: Call, *, join: Literal["sum", "sign"]) -> Operation:
    thinning = rescaled(call, partial(ByChance, call.each("density"), call.key))
    return TaskVectors.of(call, thinning, join=join)


_PARAMETERS = (
    WEIGHT,
    DENSITY,
    LAMBDA,
    NORMALIZE,
    Parameter("rescale", "Make up for what is dropped, as the variant says.", default=True, kind="flag"),
    Parameter(
        "variant",
        "paper: divide by the density; mergekit: scale to the L1 norm that the task vector had.",
        default="paper",
        kind="choice",
        choices=("paper", "mergekit"),
    ),
)
_DROPPED = "d_i = (W_i - B) / density where chance keeps it, else 0"

METHODS = (
    Method(
        name="dare_linear",
        summary="Drop changes at random, rescale the rest, add them to the base.",
        equation=f"B + lambda sum(w_i d_i) [/ sum(w_i)], {_DROPPED}",
        paper="arXiv:2311.03099",
        build=partial(_build, join="sum"),
        parameters=_PARAMETERS,
        base="required",
    ),
    Method(
        name="dare_ties",
        summary="Drop changes at random, rescale the rest, elect a sign, sum what agrees.",
        equation=f"B + lambda sum(w_i d_i [sign agrees]) [/ sum(w_i [sign agrees])], {_DROPPED}",
        paper="arXiv:2311.03099",
        build=partial(_build, join="sign"),
        parameters=_PARAMETERS,
        base="required",
    ),
)
