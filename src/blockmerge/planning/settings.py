"""What a method's parameters are for each tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blockmerge.errors import RecipeError
from blockmerge.methods import Call, Method, Parameter
from blockmerge.planning.gradients import ratios, selected
from blockmerge.recipes import Recipe, Setting

__all__ = ["Settings"]


class Settings:
    """The settings of a recipe, laid along the tensors ``names``, which stand in order."""

    def __init__(self, recipe: Recipe, method: Method, names: Sequence[str]) -> None:
        self._recipe, self._method, self._names = recipe, method, names
        self.empty: list[str] = []
        """Where a selection covers no tensor."""
        self._shared = {name: self._laid(setting) for name, setting in recipe.settings.items()}
        self._own = [{name: self._laid(setting) for name, setting in own.items()} for own in recipe.model_settings]

    def _laid(self, setting: Setting) -> dict[str, float]:
        """The value of each covered tensor: the first curve that selects it, over what that curve covers."""
        free: Sequence[str] = self._names
        laid: dict[str, float] = {}
        for curve in setting:
            covered = selected(curve.selection, free)
            if not covered:
                self.empty.append(f"{curve.origin}: selects none of the tensors that are left")
            laid |= zip(covered, ratios(curve.values, covered, self._recipe.by, self._names), strict=True)
            free = [name for name in free if name not in laid]
        return laid

    def call(self, name: str, *, key: int, shape: tuple[int, ...]) -> Call:
        """The settings of tensor ``name``: of the model, else of the recipe, else the default.

        Raises :class:`RecipeError` if a parameter has none of these, or a value outside its bounds.
        """
        recipe, method = self._recipe, self._method
        values: dict[str, float | str | bool] = {}
        per_model: dict[str, tuple[float, ...]] = {}
        for parameter in method.parameters:
            if parameter.kind != "number":
                values[parameter.name] = recipe.options.get(parameter.name, _default(parameter))
            elif parameter.per_model:
                per_model[parameter.name] = tuple(
                    self._number(parameter, name, (own, self._shared)) for own in self._own
                )
            else:
                values[parameter.name] = self._number(parameter, name, (self._shared,))
        return Call(
            has_base=recipe.base is not None,
            values=values,
            per_model=per_model,
            key=key,
            shape=shape,
        )

    def _number(self, parameter: Parameter, name: str, levels: Sequence[Mapping[str, Mapping[str, float]]]) -> float:
        for level in levels:
            value = level.get(parameter.name, {}).get(name)
            if value is not None:
                break
        else:
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
