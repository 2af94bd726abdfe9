"""What every native recipe may say, whatever its method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blockmerge import dtypes
from blockmerge.recipes import tokens
from blockmerge.recipes.document import Node
from blockmerge.recipes.recipe import SHARD_SIZE, OnMissing, Reading, Recipe
from blockmerge.recipes.references import References
from blockmerge.recipes.values import Choice, one_of, parse_size

__all__ = ["KEYS", "read", "spelled"]

KEYS = ("name", "by", "dtype", "on_missing", "max_shard_size", "tokenizer", "chat_template")


def read(fields: Mapping[str, Node], references: References) -> dict[str, Any]:
    """The arguments of :class:`Recipe` that ``fields`` give."""
    return {
        "by": _choice(fields, "by", Reading, Reading.TENSOR),
        "dtype": _dtype(fields),
        "on_missing": _choice(fields, "on_missing", OnMissing, OnMissing.ERROR),
        "max_shard_size": _size(fields),
        "tokenizer": tokens.read_tokenizer(fields["tokenizer"], references) if "tokenizer" in fields else None,
        "chat_template": fields["chat_template"].text() if "chat_template" in fields else None,
    }


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


def spelled(recipe: Recipe, models: Sequence[str]) -> dict[str, Any]:
    """The words for what in ``recipe`` differs from the defaults; ``models`` stand for its inputs."""
    words = {
        "by": recipe.by.value if recipe.by is not Reading.TENSOR else None,
        "dtype": recipe.dtype,
        "on_missing": recipe.on_missing.value if recipe.on_missing is not OnMissing.ERROR else None,
        "max_shard_size": recipe.max_shard_size if recipe.max_shard_size != SHARD_SIZE else None,
        "tokenizer": tokens.spelled(recipe.tokenizer, models) if recipe.tokenizer is not None else None,
        "chat_template": recipe.chat_template,
    }
    return {word: value for word, value in words.items() if value is not None}
