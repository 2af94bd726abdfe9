"""The native dialect: the same words as the command line and Python.

method: gradient
models: [org/first, org/second]
values: [1.0, 0.5, 0.0]          # or one list per block: {attention: [0.2, 0.8], mlp: [0.8, 0.2]}
by: tensor                       # everything from here on has this default
dtype: bfloat16                  # ... but model 1's
arithmetic: exact
on_missing: error
max_shard_size: 2GB
tokenizer: union                 # nothing: model 1's
chat_template: auto              # nothing: model 1's
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from blockmerge.errors import Problems, RecipeError
from blockmerge.formats.yamltext import yaml_text
from blockmerge.methods import METHODS
from blockmerge.recipes import blockmerge, common, methods, tokens
from blockmerge.recipes.build import gradient
from blockmerge.recipes.document import Document, Node
from blockmerge.recipes.recipe import Arithmetic, Recipe
from blockmerge.recipes.references import References
from blockmerge.recipes.values import unknown

__all__ = ["KEYS", "read", "to_dict", "to_documents", "to_yaml"]

KEYS = {
    "method": True,
    "models": True,
    "values": True,
    "only": False,
    "filters": False,
    "layers": False,
    "arithmetic": False,
    **dict.fromkeys(common.KEYS, False),
}


def read(document: Document) -> Recipe:
    """The recipe that ``document`` holds. Raises :class:`RecipeError` or several at once."""
    if not any(key == "method" and node.plain() == "gradient" for key, node in document.root.pairs()):
        _check_keys(document)
    fields = document.root.fields(KEYS)
    readers: dict[str, Callable[[Node], Any]] = {"values": _values, "filters": _texts, "models": _texts}
    arguments = {
        key: readers.get(key, Node.text)(node) for key, node in fields.items() if key not in ("name", "tokenizer")
    }
    arguments.pop("method")
    models: list[str] = arguments.pop("models", [])
    if "models" in fields and len(models) != 2:
        fields["models"].problem(f"a gradient blends two models, not {len(models)}")
    references = References(models)
    tokenizer = tokens.read_tokenizer(fields["tokenizer"], references) if "tokenizer" in fields else None
    first, second, *_ = *models, "first", "second"  # what is wrong with them is told already
    if not arguments.get("values") and ("values" not in fields or fields["values"].keys()):  # and with these
        arguments["values"] = 0.0
    try:
        recipe = gradient(first, second, **arguments)
    except (RecipeError, Problems) as error:  # it names the argument; we know the line
        for problem in error.problems if isinstance(error, Problems) else (error,):
            key, _, what = str(problem).partition(": ")
            fields.get(key.partition(":")[0], document.root).problem(what)
        document.check()
        raise
    document.check()
    return replace(recipe, models=tuple(references.names), tokenizer=tokenizer)


def _check_keys(document: Document) -> None:
    """What can be said about a recipe whose method is not known, or not named: which keys it needs, nobody knows."""
    parameters = {parameter.name for method in METHODS.values() for parameter in method.parameters}
    every = dict.fromkeys((*KEYS, *methods.KEYS, *methods.INPUTS, *parameters), False)
    fields = document.root.fields(every | {"method": True}, shown=KEYS)
    if "method" in fields:
        known = ["gradient", *METHODS]
        fields["method"].problem(unknown(fields["method"].text(), known, "`blockmerge methods` lists them"))
    for key, read in {"values": _values, "filters": _texts}.items():
        if key in fields:
            read(fields[key])
    for key in ("only", "layers", "arithmetic"):
        if key in fields:
            fields[key].text()
    document.check()


def _texts(node: Node) -> list[str]:
    return [item.text() for item in node.items()]


def _values(node: Node) -> Any:
    if not node.is_mapping:
        return node.numbers()
    fields = node.fields(dict.fromkeys(("all", "embeddings", "attention", "mlp", "norms", "head"), False))
    return {key: value.numbers() for key, value in fields.items()}


def to_dict(recipe: Recipe, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``recipe`` in the words of this dialect (or, if operations overlap, of BlockMerge's), without defaults.

    ``names`` say what models are called instead of their references, so that a published recipe holds no path of the
    machine that made it. Stages come as a list under ``stages``.
    """
    *stages, last = to_documents(recipe, names)
    return {"stages": stages, **last} if stages else last


def to_documents(recipe: Recipe, names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """``recipe`` as the YAML documents that it takes: its stages and itself."""
    names = dict(names or {})
    every = [model for one in (recipe, *recipe.stages.values()) for model in one.models if model not in recipe.stages]
    taken = {names.get(model, model) for model in every}
    for stage in recipe.stages:
        names[stage] = _free(stage, taken)
    stages = [{"name": names[name], **_document(stage, names)} for name, stage in recipe.stages.items()]
    return [*stages, _document(recipe, names)]


def _free(name: str, taken: Collection[str]) -> str:
    """A name like ``name`` that no model bears."""
    return name if name not in taken else _free(f"{name}-", taken)


def _document(recipe: Recipe, names: Mapping[str, str]) -> dict[str, Any]:
    models = [names.get(model, model) for model in recipe.models]
    if recipe.method != "gradient":
        return methods.to_dict(recipe, models)
    if recipe.overlapping:
        return blockmerge.to_dict(recipe, models)
    selection = recipe.curves[0].selection
    curves = {str(curve.selection.block or "all"): list(curve.values) for curve in recipe.curves}
    entries: dict[str, Any] = {
        "method": "gradient",
        "models": models[:2],
        "values": curves["all"] if set(curves) == {"all"} else curves,
        "only": selection.only.value if selection.only else None,
        "filters": list(selection.filters) or None,
        "layers": "{}:{}".format(*selection.layers) if selection.layers else None,
        "arithmetic": recipe.arithmetic.value if recipe.arithmetic is not Arithmetic.EXACT else None,
        **common.spelled(recipe, models),
    }
    return {key: value for key, value in entries.items() if value is not None}


def to_yaml(recipe: Recipe, names: Mapping[str, str] | None = None) -> str:
    """``recipe`` as YAML that ``blockmerge merge`` takes; see :func:`to_dict`. Stages are documents of their own."""
    return yaml_text(*to_documents(recipe, names), width=100, flow=None)
