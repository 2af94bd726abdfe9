"""Several documents in one file: merges whose results another one takes, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from blockmerge.errors import BlockmergeError, RecipeError, raise_all
from blockmerge.recipes.recipe import Recipe

__all__ = ["NAME", "Entry", "assembled"]

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""What a document may be called; a folder may be named after it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One document: what it holds, where it stands, and what others call it by; nothing if the text is empty."""

    recipe: Recipe
    where: str
    name: str


def assembled(entries: Sequence[Entry]) -> Recipe:
    """The recipe of the document without a name, or else of the last, with all that it needs as stages.

    Raises :class:`RecipeError` or several at once: a name that is given twice or used nowhere, a circle.
    """
    if len(entries) == 1:
        return entries[0].recipe
    unnamed = [entry for entry in entries if not entry.name]
    result = unnamed[-1] if unnamed else entries[-1]
    problems = [
        RecipeError(f"{entry.where}: needs a name, so that another document can take its result as a model")
        for entry in unnamed[:-1]
    ]
    named: dict[str, Entry] = {}
    for entry in entries:
        if entry.name and (problem := _bad_name(entry, named)):
            problems.append(RecipeError(f"{entry.where}: {problem}"))
        named.setdefault(entry.name, entry)
    raise_all(problems)
    named = {name: entry for name, entry in named.items() if name}
    stages: dict[str, Recipe] = {}
    _collect(result, named, stages, ())
    raise_all(_unused(entries, result, stages))
    return replace(result.recipe, stages=stages)


def _bad_name(entry: Entry, named: Mapping[str, Entry]) -> str:
    if not re.fullmatch(NAME, entry.name):
        return f"{entry.name[:40]!r} is no name; use letters, digits, dots, dashes and underscores"
    return f"{entry.name!r} is the name of another document too" if entry.name in named else ""


def _collect(entry: Entry, named: Mapping[str, Entry], stages: dict[str, Recipe], path: tuple[str, ...]) -> None:
    """Add to ``stages`` what ``entry`` needs, first things first; ``path`` are the names that led here."""
    path = (*path, entry.name)
    for name in (model for model in entry.recipe.models if model in named and model not in stages):
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise RecipeError(f"{entry.where}: takes its own result as a model: {circle}")
        _collect(named[name], named, stages, path)
        stages[name] = named[name].recipe


def _unused(entries: Sequence[Entry], result: Entry, stages: Mapping[str, Recipe]) -> list[BlockmergeError]:
    """Documents whose results nobody takes: a name is misspelt, or they are merges of their own."""
    models = [model for entry in entries for model in entry.recipe.models if model not in stages]
    problems: list[BlockmergeError] = []
    for entry in entries:
        if entry is not result and entry.name not in stages:
            near = get_close_matches(entry.name, models, 1)
            hint = f"does {near[0]!r} mean it?" if near else "put it into a file of its own"
            problems.append(RecipeError(f"{entry.where}: no other document takes {entry.name!r} as a model; {hint}"))
    return problems
