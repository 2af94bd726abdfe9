"""Which dialect a recipe file is written in."""

from __future__ import annotations

from pathlib import Path

from blockmerge.errors import RecipeError
from blockmerge.methods import METHODS, Method
from blockmerge.recipes import blockmerge, methods, native
from blockmerge.recipes.document import Document
from blockmerge.recipes.recipe import Recipe

__all__ = ["load_recipe"]


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe: native YAML, or a file of BlockMerge_Gradient's YAML edition.

    Raises :class:`RecipeError`, or :class:`~blockmerge.errors.Problems` with all that is wrong, each with its line.
    """
    document = Document.read(Path(path))
    keys = set(document.root.keys())
    if keys & {"model_path1", "model_path2", "operations"}:
        return blockmerge.read(document)
    if "merge_method" in keys:
        raise RecipeError(
            f"{path}: is a mergekit recipe, which this version does not read; see docs/methods.md for ours"
        )
    method = _method(document)
    return native.read(document) if method is None else methods.read(document, method)


def _method(document: Document) -> Method | None:
    """The method that a native recipe names, unless it is a gradient (or cannot be told)."""
    for key, node in document.root.pairs():
        if key == "method":
            return METHODS.get(str(node.plain()))
    return None
