"""What a merge method is: a declaration from which recipes, help, tables and tests follow, and one function."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from blockmerge.errors import RecipeError
from blockmerge.methods.operations import Operation

__all__ = ["REQUIRED", "Call", "Kind", "Method", "Parameter"]

Kind = Literal["number", "flag", "choice"]
REQUIRED: Final = None
_LONGEST_ROW = 1 << 22


@dataclass(frozen=True, slots=True)
class Parameter:
    """One setting. A number may also be a gradient; ``per_model`` ones have a value for each model but the base.

    ``default`` None means that a recipe must give it. ``low`` and ``high`` bound numbers; ``choices`` lists texts.
    """

    name: str
    help: str
    default: float | str | bool | None = REQUIRED
    kind: Kind = "number"
    per_model: bool = False
    low: float = float("-inf")
    high: float = float("inf")
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A method's settings for one tensor: ``values`` are the global ones, ``per_model`` those of all but the base.

    ``key`` seeds random choices: it follows from the recipe's seed and the tensor's name. ``shape`` is that of what is
    merged, in elements: the tensor's, or that of its leading rows that all models have.
    """

    has_base: bool
    values: Mapping[str, float | str | bool]
    per_model: Mapping[str, tuple[float, ...]]
    key: int = 0
    shape: tuple[int, ...] = ()

    def number(self, name: str) -> float:
        """A global number."""
        return float(self.values[name])

    def flag(self, name: str) -> bool:
        """A global flag."""
        return bool(self.values[name])

    def row(self, *, first: bool = False) -> int:
        """How many elements a row has: those along the last dimension, or with ``first`` all behind the first.

        Raises :class:`RecipeError` if a row is too long to be held in memory at once.
        """
        length = math.prod(self.shape[1:]) if first else math.prod(self.shape[-1:])
        if length > _LONGEST_ROW:
            raise RecipeError(f"rows of {length} elements are too long to be seen whole ({_LONGEST_ROW} at most)")
        return max(length, 1)

    def total(self, name: str) -> float:
        """The sum of a number over the models, for dividing by. Raises :class:`RecipeError` if that is zero."""
        found = sum(self.per_model[name])
        if abs(found) < 1e-9:
            raise RecipeError(f"{name}: the values of the models sum to zero, and cannot be normalised")
        return found

    def weights(self, *, normalize: bool) -> tuple[float, ...]:
        """The weight of each model, divided by their sum if that is asked."""
        weights = self.each("weight")
        return tuple(weight / self.total("weight") for weight in weights) if normalize else weights

    def each(self, name: str) -> tuple[float, ...]:
        """A number for each model."""
        return self.per_model[name]


@dataclass(frozen=True)
class Method:
    """One way to merge.

    ``equation`` is plain text; ``paper`` an arXiv number or another source. ``base`` says whether a base model is
    ``none``, ``optional`` or ``required``; ``models`` how many others there may be, from and to (None: any number).
    ``build`` turns the settings for one tensor into the operation that computes it.

    Promises that the tests hold it to: ``symmetric`` (the order of models does not matter), ``idempotent`` (models that
    are all equal give that model).
    """

    name: str
    summary: str
    equation: str
    paper: str
    build: Callable[[Call], Operation]
    parameters: Sequence[Parameter] = field(default=())
    base: Literal["none", "optional", "required"] = "none"
    models: tuple[int, int | None] = (1, None)
    symmetric: bool = False
    idempotent: bool = True

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of that name."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)
