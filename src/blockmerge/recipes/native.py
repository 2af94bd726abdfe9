"""The native dialect: the same words as the command line and Python.

method: gradient
models: [org/first, org/second]
values: [1.0, 0.5, 0.0]          # or one list per block: {attention: [0.2, 0.8], mlp: [0.8, 0.2]}
by: tensor                       # everything from here on has this default
dtype: bfloat16                  # ... but model 1's
arithmetic: exact
on_missing: error
max_shard_size: 2GB
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import yaml

from blockmerge.errors import RecipeError, raise_all
from blockmerge.recipes.build import gradient
from blockmerge.recipes.document import Document, Node
from blockmerge.recipes.recipe import Arithmetic, Recipe

__all__ = ["KEYS", "read", "to_dict", "to_yaml"]

KEYS = {
    "method": True,
    "models": True,
    "values": True,
    "by": False,
    "only": False,
    "filters": False,
    "layers": False,
    "dtype": False,
    "arithmetic": False,
    "on_missing": False,
    "max_shard_size": False,
}


def read(document: Document) -> Recipe:
    """The recipe that ``document`` holds. Raises :class:`RecipeError` or several at once."""
    fields = document.root.fields(KEYS)
    readers: dict[str, Callable[[Node], Any]] = {"values": _values, "filters": _texts, "models": _texts}
    arguments = {key: readers.get(key, Node.text)(node) for key, node in fields.items()}
    if (method := arguments.pop("method", None)) not in (None, "gradient"):
        fields["method"].problem(f"{method!r} is not known; `blockmerge methods` lists them")
    models: list[str] = arguments.pop("models", [])
    if "models" in fields and len(models) != 2:
        fields["models"].problem(f"a gradient blends two models, not {len(models)}")
    document.check()
    try:
        return gradient(models[0], models[1], **arguments)
    except RecipeError as error:  # it names the argument; we know the line
        key, _, what = str(error).partition(": ")
        fields.get(key.partition(":")[0], document.root).problem(what)
        raise_all(document.problems)
        raise


def _texts(node: Node) -> list[str]:
    return [item.text() for item in node.items()]


def _values(node: Node) -> Any:
    if not node.is_mapping:
        return node.numbers()
    fields = node.fields(dict.fromkeys(("all", "embeddings", "attention", "mlp", "norms", "head"), False))
    return {key: value.numbers() for key, value in fields.items()}


def to_dict(recipe: Recipe, models: Sequence[str] | None = None) -> dict[str, Any]:
    """``recipe`` in the words of this dialect (or, if operations overlap, of BlockMerge's), without defaults.

    ``models`` replaces the references, so that a published recipe holds no path of the machine that made it.
    """
    if recipe.method != "gradient":
        from blockmerge.recipes.methods import to_dict as method_dict

        return method_dict(recipe, models or recipe.references)
    first, second = models or recipe.models
    if recipe.overlapping:
        from blockmerge.recipes.blockmerge import to_dict as blockmerge_dict

        return blockmerge_dict(recipe, (first, second))
    selection = recipe.curves[0].selection
    curves = {str(curve.selection.block or "all"): list(curve.values) for curve in recipe.curves}
    entries: dict[str, Any] = {
        "method": "gradient",
        "models": [first, second],
        "values": curves["all"] if set(curves) == {"all"} else curves,
        "only": selection.only.value if selection.only else None,
        "filters": list(selection.filters) or None,
        "layers": "{}:{}".format(*selection.layers) if selection.layers else None,
        "arithmetic": recipe.arithmetic.value if recipe.arithmetic is not Arithmetic.EXACT else None,
        **recipe.common_words(),
    }
    return {key: value for key, value in entries.items() if value is not None}


def to_yaml(recipe: Recipe, models: Sequence[str] | None = None) -> str:
    """``recipe`` as YAML that ``blockmerge merge`` takes; see :func:`to_dict`."""
    return yaml.safe_dump(
        to_dict(recipe, models), sort_keys=False, default_flow_style=None, width=100, allow_unicode=True
    )
