"""Which dialect each document of a recipe file is written in."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from blockmerge.errors import BlockmergeError, Problems, RecipeError, raise_all
from blockmerge.formats.yamltext import yaml_text
from blockmerge.methods import METHODS, Method
from blockmerge.recipes import blockmerge, mergekit, methods, native
from blockmerge.recipes.document import Document
from blockmerge.recipes.recipe import Recipe
from blockmerge.recipes.stages import Entry, assembled

__all__ = ["from_dict", "load_recipe", "parse_recipe", "plain_yaml"]


def load_recipe(path: str | Path) -> Recipe:
    """Read a recipe: native YAML, a file of mergekit's, or one of BlockMerge_Gradient's YAML edition.

    Several documents, separated by ``---``, are stages: each but the result has a ``name`` that others take as a model.

    Raises :class:`RecipeError`, or :class:`~blockmerge.errors.Problems` with all that is wrong, each with its line.
    """
    return _assembled(Document.read(Path(path)))


def parse_recipe(text: str, name: str = "recipe") -> Recipe:
    """As :func:`load_recipe`, from ``text``; ``name`` stands for the file in errors."""
    return _assembled(Document.parse(text, name))


def from_dict(content: Mapping[str, Any]) -> Recipe:
    """The recipe that :func:`to_dict` wrote, as blockmerge.json holds it."""
    return parse_recipe(plain_yaml(content), "blockmerge.json")


def plain_yaml(content: Mapping[str, Any]) -> str:
    """The plain values of a recipe, right or wrong, as YAML: a document for each stage and for the result."""
    stages: object = content.get("stages")
    last = {key: value for key, value in content.items() if key != "stages"}
    documents: list[object] = [*cast("list[object]", stages), last] if isinstance(stages, list) else [dict(content)]
    return yaml_text(*documents, width=100, flow=None)


def _assembled(documents: list[Document]) -> Recipe:
    entries: list[Entry] = []
    problems: list[BlockmergeError] = []
    for document in documents:
        try:
            recipe = _read(document)
            names = [node for key, node in document.root.pairs() if key == "name" and not node.is_null]
            name = names[0].text() if names else ""
            document.check()
            entries.append(Entry(recipe, names[0].where if names else document.root.where, name))
        except Problems as error:
            problems += error.problems
        except RecipeError as error:
            problems.append(error)
    raise_all(problems)
    return assembled(entries)


def _read(document: Document) -> Recipe:
    keys = set(document.root.keys())
    if keys & {"model_path1", "model_path2", "operations"}:
        return blockmerge.read(document)
    if "experts" in keys:
        raise RecipeError(
            f"{document.root.where}: is a file of mergekit-moe, which builds a mixture of experts; "
            "Blockmerge merges models into one of their own kind"
        )
    if any(get_close_matches(key, keys, 1, 0.85) for key in ("merge_method", "base_model")):  # even if misspelt
        return mergekit.read(document)
    method = _method(document)
    return native.read(document) if method is None else methods.read(document, method)


def _method(document: Document) -> Method | None:
    """The method that a native recipe names, unless it is a gradient (or cannot be told)."""
    for key, node in document.root.pairs():
        if key == "method":
            return METHODS.get(str(node.plain()))
    return None
