"""What stands on the page as a recipe: from its form or its YAML to both, with every problem at its line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blockmerge.errors import BlockmergeError, Problems
from blockmerge.recipes import Arithmetic, Curve, OnMissing, Reading, Recipe, to_dict, to_yaml, tokens
from blockmerge.recipes.load import parse_recipe, plain_yaml
from blockmerge.recipes.recipe import SHARD_SIZE

__all__ = ["Draft", "Problem", "command_of", "draft_of_form", "draft_of_text", "problems_of"]

_NAME = "recipe.yaml"
_PLACE = re.compile(rf"^{re.escape(_NAME)}(?::(\d+))?:?\s*")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; ``line`` counts from 1 in the YAML, None if it has no place there."""

    message: str
    line: int | None = None

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {"message": self.message, "line": self.line}


@dataclass(frozen=True, slots=True)
class Draft:
    """A recipe as ``text``. ``recipe`` is None where ``problems`` keep it from being one.

    ``form`` holds the recipe as plain values, as :func:`~blockmerge.recipes.to_dict` spells it.
    """

    text: str
    recipe: Recipe | None
    form: Mapping[str, Any] | None
    problems: tuple[Problem, ...] = ()


def draft_of_text(text: str) -> Draft:
    """What YAML that a person wrote says; it stays as it is written."""
    try:
        recipe = parse_recipe(text, _NAME)
    except BlockmergeError as error:
        return Draft(text, None, None, problems_of(error))
    return Draft(text, recipe, to_dict(recipe))


def draft_of_form(form: Mapping[str, Any]) -> Draft:
    """What the page's form says, in the words of a native recipe."""
    draft = draft_of_text(plain_yaml(form))
    if draft.recipe is None:
        return draft
    return Draft(to_yaml(draft.recipe), draft.recipe, draft.form)


def problems_of(error: BlockmergeError) -> tuple[Problem, ...]:
    """The lines of ``error``, each with its place in the YAML if it names one."""
    errors = error.problems if isinstance(error, Problems) else (error,)
    return tuple(_problem(" ".join(str(one).split())) for one in errors)


def _problem(message: str) -> Problem:
    match = _PLACE.match(message)
    if match is None:
        return Problem(message)
    return Problem(message[match.end() :], int(match[1]) if match[1] else None)


def command_of(recipe: Recipe, out: str) -> str:
    """What to type for the same merge; recipes that have no options of their own go by the file."""
    options = _options(recipe)
    if options is None:
        return shlex.join(["blockmerge", "merge", _NAME, out])
    return shlex.join(["blockmerge", "gradient", *recipe.models[:2], out, *options])


def _options(recipe: Recipe) -> list[str] | None:
    """The options of ``blockmerge gradient``; None if it cannot say this."""
    plain = recipe.method == "gradient" and not recipe.overlapping and not recipe.stages and len(recipe.models) == 2
    tokenizer = None if recipe.tokenizer is None else tokens.spelled(recipe.tokenizer, recipe.models)
    if not plain or not isinstance(tokenizer, str | None):
        return None
    selection = recipe.curves[0].selection
    words = {
        "by": recipe.by if recipe.by is not Reading.TENSOR else None,
        "only": selection.only,
        "layers": "{}:{}".format(*selection.layers) if selection.layers else None,
        "dtype": recipe.dtype,
        "arithmetic": recipe.arithmetic if recipe.arithmetic is not Arithmetic.EXACT else None,
        "on-missing": recipe.on_missing if recipe.on_missing is not OnMissing.ERROR else None,
        "tokenizer": tokenizer,
        "chat-template": recipe.chat_template,
        "max-shard-size": f"{recipe.max_shard_size}B" if recipe.max_shard_size != SHARD_SIZE else None,
    }
    options = [word for curve in recipe.curves for word in ("--values", _values(curve))]
    options += [word for text in selection.filters for word in ("--filter", text)]
    return options + [word for name, value in words.items() if value is not None for word in (f"--{name}", str(value))]


def _values(curve: Curve) -> str:
    numbers = ",".join(map(repr, curve.values))
    block = curve.selection.block
    return numbers if block is None else f"{block}:{numbers}"
