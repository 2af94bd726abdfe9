"""della and della_linear: drop changes at random, small ones more often than large ones, and rescale the rest."""

from __future__ import annotations

from functools import partial
from typing import Literal

from blockmerge.errors import RecipeError
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import Operation
from blockmerge.methods.task_arithmetic import LAMBDA, WEIGHT
from blockmerge.methods.task_vectors import TaskVectors
from blockmerge.methods.thinning import ByChance, ByRank, rescaled
from blockmerge.methods.ties import DENSITY

__all__ = ["METHODS"]


def _chances(density: float, epsilon: float) -> tuple[float, float]:
    """The chances of the smallest and of the largest element; a density of 0 or 1 leaves no choice."""
    if density in (0.0, 1.0):
        return density, density
    if density - epsilon <= 0 or density + epsilon >= 1:
        raise RecipeError(
            f"epsilon: density {density:g} -/+ {epsilon:g} must lie between 0 and 1; choose a smaller one"
        )
    return density - epsilon, density + epsilon


def _build(call: Call, *, join: Literal["sum", "sign"]) -> Operation:
    chances = tuple(map(_chances, call.each("density"), call.each("epsilon")))
    if call.row() > 1:
        make = partial(ByRank, chances, call.row(), call.key)
    else:  # an element alone in its row has the mean chance
        make = partial(ByChance, call.each("density"), call.key)
    return TaskVectors.of(call, rescaled(call, make), join=join)


def _parameters(*, normalize: bool) -> tuple[Parameter, ...]:
    return (
        WEIGHT,
        DENSITY,
        Parameter(
            "epsilon",
            "How far the chance to be kept goes below the density and above it.",
            default=0.15,
            per_model=True,
            low=0,
            high=0.5,
        ),
        LAMBDA,
        Parameter("normalize", "Divide by the weights that take part.", default=normalize, kind="flag"),
        Parameter("rescale", "Make up for what is dropped, as the variant says.", default=True, kind="flag"),
        Parameter(
            "variant",
            "paper: divide each element by its chance; mergekit: scale to the L1 norm that the task vector had.",
            default="paper",
            kind="choice",
            choices=("paper", "mergekit"),
        ),
    )


_DROPPED = (
    "d_i = (W_i - B) / p where chance p keeps it, else 0, p from density - epsilon to density + epsilon by the rank of "
    "|W_i - B| in its row"
)

METHODS = (
    Method(
        name="della",
        summary="Drop changes at random, small ones more often, rescale, elect a sign, average what agrees.",
        equation=f"B + lambda sum(w_i d_i [sign agrees]) / sum(w_i [sign agrees]), {_DROPPED}",
        paper="arXiv:2406.11617",
        build=partial(_build, join="sign"),
        parameters=_parameters(normalize=True),
        base="required",
    ),
    Method(
        name="della_linear",
        summary="Drop changes at random, small ones more often, rescale the rest, add them to the base.",
        equation=f"B + lambda sum(w_i d_i) [/ sum(w_i)], {_DROPPED}",
        paper="arXiv:2406.11617",
        build=partial(_build, join="sum"),
        parameters=_parameters(normalize=False),
        base="required",
    ),
)
