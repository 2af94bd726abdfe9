"""What a method's parameters are for each tensor of a run."""

from __future__ import annotations

from collections.abc import Sequence

from blockmerge.errors import RecipeError, listed
from blockmerge.methods import Call, Method, Parameter
from blockmerge.planning.gradients import by_tensor, interpolated, selects
from blockmerge.planning.stack import Run
from blockmerge.recipes import Curve, Reading, Recipe, Setting

__all__ = ["Settings"]

Values = list[float | None]
"""A value for each tensor of a run, where there is one."""


class Settings:
    """The settings of one run of a recipe. Those of a model are looked up by its own names of the tensors.

    ``matched`` collects for each curve whether it selects a tensor at all.
    """

    def __init__(self, recipe: Recipe, method: Method, run: Run, matched: dict[Curve, bool]) -> None:
        self._recipe, self._method, self._run, self._matched = recipe, method, run, matched
        own_names = run.inputs if run.slice.base is None else run.inputs[1:]
        self._shared: dict[str, Values] = {}
        self._own: list[dict[str, Values]] = [{} for _ in run.slice.parts]
        self._origins: dict[str, dict[str, None]] = {}
        for parameter in (parameter for parameter in method.parameters if parameter.kind != "choice"):
            name, shared = parameter.name, run.slice.settings.get(parameter.name, ())
            if not parameter.per_model:
                self._shared[name] = self._laid(parameter, shared, run.outputs)
                continue
            for own, part, names in zip(self._own, run.slice.parts, own_names, strict=True):
                own[name] = self._laid(parameter, (*part.settings.get(name, ()), *shared), names)

    def _laid(self, parameter: Parameter, setting: Setting, names: Sequence[str]) -> Values:
        """The value of each covered tensor: of the first curve that selects it, over what that curve covers."""
        laid: Values = [None] * len(names)
        for curve in setting:
            selected = [k for k, name in enumerate(names) if selects(curve.selection, name)]
            self._matched[curve] = self._matched.get(curve, False) or bool(selected)
            self._origins.setdefault(parameter.name, {})[curve.origin] = None
            covered = [k for k in selected if laid[k] is None]
            for k, value in zip(covered, self._values(parameter, curve, covered), strict=True):
                laid[k] = value
        return laid

    def _values(self, parameter: Parameter, curve: Curve, covered: Sequence[int]) -> list[float]:
        if parameter.kind == "flag":  # between two flags there is nothing
            last = len(curve.values) - 1
            return [curve.values[int(self._run.places[k] * last)] for k in covered]
        if self._recipe.by is Reading.TENSOR:
            return by_tensor(curve.values, len(covered))
        return [interpolated(curve.values, self._run.places[k]) for k in covered]

    def call(self, position: int, *, key: int, shape: tuple[int, ...]) -> Call:
        """The settings of tensor number ``position`` of the run: of the model, else of the slice, else the default.

        Raises :class:`RecipeError` if a parameter has none of these, or a value outside its bounds.
        """
        values: dict[str, float | str | bool] = {}
        per_model: dict[str, tuple[float, ...]] = {}
        for parameter in self._method.parameters:
            name = parameter.name
            if parameter.kind == "choice":
                values[name] = self._recipe.choices.get(name, str(_default(parameter)))
            elif parameter.per_model:
                per_model[name] = tuple(self._number(parameter, own[name][position]) for own in self._own)
            else:
                number = self._number(parameter, self._shared[name][position])
                values[name] = bool(number) if parameter.kind == "flag" else number
        has_base = self._run.slice.base is not None
        return Call(has_base=has_base, values=values, per_model=per_model, key=key, shape=shape)

    def located(self, problem: str) -> str:
        """``problem``, which begins with the name of a parameter, behind the places where that is given."""
        origins = self._origins.get(problem.partition(":")[0])
        return f"{listed(list(origins))}: {problem}" if origins else problem

    def _number(self, parameter: Parameter, value: float | None) -> float:
        if value is None:
            if parameter.default is None:
                raise RecipeError(f"{parameter.name}: {self._method.name} needs it, for each model or for all")
            value = float(parameter.default)
        if not parameter.low <= value <= parameter.high:
            bounds = f"{parameter.low:g} to {parameter.high:g}"
            raise RecipeError(f"{parameter.name}: is {value:g}; {self._method.name} takes {bounds}")
        return value


def _default(parameter: Parameter) -> float | str | bool:
    if parameter.default is None:
        raise RecipeError(f"{parameter.name}: is missing")
    return parameter.default
