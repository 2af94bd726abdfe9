"""Native recipes of the methods that take any number of models.

method: task_arithmetic
base: org/base
models:
  - {model: org/code, weight: 0.6}
  - {model: org/prose, weight: [0.2, 0.8]}          # a gradient
  - {model: org/chat, weight: {attention: 0.3, all: 0.5}}
lambda: 1.1                                         # settings of the method
by: layer                                           # ... and the keys of every recipe
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from blockmerge import dtypes
from blockmerge.architectures import Block
from blockmerge.methods import Method, Parameter
from blockmerge.recipes.document import Document, Node
from blockmerge.recipes.recipe import SHARD_SIZE, Curve, OnMissing, Reading, Recipe, Selection, Setting
from blockmerge.recipes.values import Choice, one_of, parse_size

__all__ = ["read", "to_dict"]

_COMMON = {
    "method": True,
    "models": True,
    "base": False,
    "by": False,
    "dtype": False,
    "on_missing": False,
    "max_shard_size": False,
    "seed": False,
}
_BLOCKS = ("all", *(block.value for block in Block if block is not Block.OTHER))


def read(document: Document, method: Method) -> Recipe:
    """The recipe that ``document`` holds for ``method``. Raises :class:`RecipeError`, or several at once."""
    own = {parameter.name: False for parameter in method.parameters}
    fields = document.root.fields({**_COMMON, **own, "base": method.base == "required"})
    if "base" in fields and method.base == "none":
        fields["base"].problem(f"{method.name} has no base")
    models: list[str] = []
    model_settings: list[Mapping[str, Setting]] = []
    for node in fields["models"].items() if "models" in fields else ():
        reference, settings = _model(node, method)
        models.append(reference)
        model_settings.append(settings)
    _check_count(fields, method, len(models))
    settings, options = _settings(fields, method)
    recipe = Recipe(
        models=tuple(models),
        method=method.name,
        base=fields["base"].text() if "base" in fields else None,
        settings=settings,
        model_settings=tuple(model_settings),
        options=options,
        seed=_seed(fields),
        by=_choice(fields, "by", Reading, Reading.TENSOR),
        dtype=_dtype(fields),
        on_missing=_choice(fields, "on_missing", OnMissing, OnMissing.ERROR),
        max_shard_size=_size(fields),
    )
    document.check()
    return recipe


def _model(node: Node, method: Method) -> tuple[str, dict[str, Setting]]:
    if not node.is_mapping:
        return node.text(), {}
    own = {parameter.name: False for parameter in method.parameters if parameter.per_model}
    fields = node.fields({"model": True, **own})
    reference = fields["model"].text() if "model" in fields else ""
    return reference, {name: _setting(value) for name, value in fields.items() if name != "model"}


def _check_count(fields: Mapping[str, Node], method: Method, count: int) -> None:
    low, high = method.models
    if "models" in fields and not low <= count <= (high or count):
        wanted = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
        fields["models"].problem(f"{method.name} takes {wanted} models, not {count}")


def _settings(fields: Mapping[str, Node], method: Method) -> tuple[dict[str, Setting], dict[str, str | bool]]:
    settings: dict[str, Setting] = {}
    options: dict[str, str | bool] = {}
    for parameter in method.parameters:
        node = fields.get(parameter.name)
        if node is None:
            continue
        if parameter.kind == "number":
            settings[parameter.name] = _setting(node)
        elif parameter.kind == "flag":
            options[parameter.name] = node.flag()
        else:
            options[parameter.name] = _chosen(node, parameter)
    return settings, options


def _setting(node: Node) -> Setting:
    """A number, a list, or one of these for each block."""
    if not node.is_mapping:
        return (Curve(node.numbers(), Selection(), node.place),)
    found = node.fields(dict.fromkeys(_BLOCKS, False))
    ordered = sorted(found.items(), key=lambda item: item[0] == "all")
    return tuple(
        Curve(value.numbers(), Selection(block=None if name == "all" else Block(name)), value.place)
        for name, value in ordered
    )


def _chosen(node: Node, parameter: Parameter) -> str:
    text = node.text()
    if text not in parameter.choices:
        near = get_close_matches(text, parameter.choices, 1)
        node.problem(
            f"{text!r} is not known; " + (f"did you mean {near[0]}?" if near else " or ".join(parameter.choices))
        )
    return text


def _choice(fields: Mapping[str, Node], key: str, choices: type[Choice], default: Choice) -> Choice:
    node = fields.get(key)
    return default if node is None else node.attempt(lambda: one_of(choices, node.text(), node.where), default)


def _dtype(fields: Mapping[str, Node]) -> str | None:
    node = fields.get("dtype")
    if node is None:
        return None
    if dtypes.by_name(node.text()) not in dtypes.OUTPUT_DTYPES:
        node.problem(f"{node.text()!r} cannot be written; choose bfloat16, float16 or float32")
    return node.text()


def _size(fields: Mapping[str, Node]) -> int:
    node = fields.get("max_shard_size")
    return SHARD_SIZE if node is None else node.attempt(lambda: parse_size(node.text(), node.where), 0)


def _seed(fields: Mapping[str, Node]) -> int:
    node = fields.get("seed")
    value = 0 if node is None else node.plain()
    if not isinstance(value, int) or isinstance(value, bool):
        assert node is not None
        node.problem("needs a whole number")
        return 0
    return value


def to_dict(recipe: Recipe, references: Sequence[str]) -> dict[str, Any]:
    """``recipe`` in the words of this dialect, without defaults; ``references`` stand for its inputs."""
    models = references if recipe.base is None else references[1:]
    entries: dict[str, Any] = {
        "method": recipe.method,
        "base": None if recipe.base is None else references[0],
        "models": [
            {"model": model, **_spelled(own)} if own else model
            for model, own in zip(models, recipe.model_settings, strict=True)
        ],
        **_spelled(recipe.settings),
        **recipe.options,
        "seed": recipe.seed or None,
        **recipe.common_words(),
    }
    return {key: value for key, value in entries.items() if value is not None}


def _spelled(settings: Mapping[str, Setting]) -> dict[str, Any]:
    spelled: dict[str, Any] = {}
    for name, setting in settings.items():
        blocks = {str(curve.selection.block or "all"): _short(curve.values) for curve in setting}
        spelled[name] = blocks["all"] if set(blocks) == {"all"} else blocks
    return spelled


def _short(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)
