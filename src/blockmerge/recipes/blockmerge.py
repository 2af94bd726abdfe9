"""The dialect of BlockMerge_Gradient: the YAML edition's files, and the flags of the script.

    model_path1: first
    model_path2: second
    output_model_path: merged
    max_shard_size: 2000MiB
    operations:
      - {operation: attention, filter: self_attn, gradient_values: [0.2, 0.8], layer_only: false, no_layers: false}

Operations run in order, each on what the one before it left. Both editions write float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blockmerge.errors import RecipeError
from blockmerge.recipes.build import gradient
from blockmerge.recipes.document import Document, Node
from blockmerge.recipes.recipe import Arithmetic, Curve, Only, Recipe, Selection
from blockmerge.recipes.values import parse_list, parse_size

__all__ = ["KEYS", "from_flags", "read", "to_dict"]

KEYS = {
    "name": False,
    "model_path1": True,
    "model_path2": True,
    "output_model_path": False,
    "max_shard_size": False,
    "operations": True,
}
OPERATION_KEYS = {"operation": False, "filter": False, "layer_only": False, "no_layers": False, "gradient_values": True}
SHARD_SIZE = "2000MiB"


def from_flags(
    model1: str,
    model2: str,
    *,
    gradient_values: str,
    max_shard_size: str = SHARD_SIZE,
    layer_only: bool = False,
    no_layers: bool = False,
    custom_filter: str | None = None,
) -> Recipe:
    """The recipe that the flags of the original script mean; ``layer_only`` wins over ``no_layers``, as there."""
    return gradient(
        model1,
        model2,
        values=parse_list(gradient_values, "--gradient_values"),
        only="layers" if layer_only else "non-layers" if no_layers else None,
        filters=[custom_filter] if custom_filter else [],
        arithmetic="original",
        max_shard_size=max_shard_size,
    )


def read(document: Document) -> Recipe:
    """The recipe in a file of the YAML edition. Raises :class:`RecipeError` or several at once."""
    fields = document.root.fields(KEYS)
    text = {key: node.text() for key, node in fields.items() if key not in ("name", "operations", "max_shard_size")}
    size = fields.get("max_shard_size")
    shard_size = (
        parse_size(SHARD_SIZE, "") if size is None else size.attempt(lambda: parse_size(size.text(), size.where), 0)
    )
    curves = [_curve(node) for node in fields["operations"].items()] if "operations" in fields else []
    if "operations" in fields and not curves:
        fields["operations"].problem("holds no operation")
    document.check()
    return Recipe(
        models=(text["model_path1"], text["model_path2"]),
        curves=tuple(curves),
        arithmetic=Arithmetic.ORIGINAL_YAML,
        max_shard_size=shard_size,
        overlapping=True,
        dialect="blockmerge",
        output=text.get("output_model_path"),
    )


def _curve(node: Node) -> Curve:
    fields = node.fields(OPERATION_KEYS)
    name = fields["operation"].text() if "operation" in fields else node.path
    flags = {key: fields[key].flag() for key in ("layer_only", "no_layers") if key in fields}
    pattern = None if "filter" not in fields or fields["filter"].plain() is None else fields["filter"].text()
    values = fields["gradient_values"].numbers() if "gradient_values" in fields else (0.0,)
    selection = _selection(flags.get("layer_only", False), flags.get("no_layers", False), pattern)
    return Curve(values, selection, origin=f"{node.place}: {name}")


def _selection(layer_only: bool, no_layers: bool, pattern: str | None) -> Selection:
    only = Only.LAYERS if layer_only else Only.NON_LAYERS if no_layers else None
    return Selection(only=only, filters=(pattern,) if pattern else (), literal_layers=True)


def to_dict(recipe: Recipe, models: Sequence[str]) -> dict[str, Any]:
    """``recipe`` in the keys of the YAML edition, without paths of a machine."""
    operations: list[dict[str, Any]] = []
    for curve in recipe.curves:
        selection = curve.selection
        if len(selection.filters) > 1 or selection.layers or selection.block:
            raise RecipeError(f"{curve.origin}: the YAML edition has no words for this selection")
        operation = {
            "operation": curve.origin.rpartition(": ")[2],
            "filter": selection.filters[0] if selection.filters else None,
            "layer_only": True if selection.only is Only.LAYERS else None,
            "no_layers": True if selection.only is Only.NON_LAYERS else None,
            "gradient_values": list(curve.values),
        }
        operations.append({key: value for key, value in operation.items() if value is not None})
    return {"model_path1": models[0], "model_path2": models[1], "operations": operations}
