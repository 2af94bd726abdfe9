"""dare_linear and dare_ties: drop changes at random and rescale the rest."""

from __future__ import annotations

from functools import partial
from typing import Literal

from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.selection import Share
from blockmerge.methods.task_arithmetic import LAMBDA, NORMALIZE, WEIGHT
from blockmerge.methods.task_vectors import TaskVectors
from blockmerge.methods.ties import DENSITY

__all__ = ["METHODS"]


def _build(call: Call, *, join: Literal["sum", "sign"]) -> Operation:
    shares = [Share(density) for density in call.each("density")]
    return TaskVectors.of(call, shares, thin="chance", join=join, rescale=call.flag("rescale"))


_PARAMETERS = (
    WEIGHT,
    DENSITY,
    LAMBDA,
    NORMALIZE,
    Parameter("rescale", "Divide what is kept by the density.", default=True, kind="flag"),
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
