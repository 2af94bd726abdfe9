"""Several documents in one file: merges whose results another one takes, by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from blockmerge.errors import BlockmergeError, RecipeError, raise_all
from blockmerge.recipes.document import Node
from blockmerge.recipes.recipe import Recipe

__all__ = ["Entry", "assembled"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One document: what it holds, and where it starts. ``name`` is the value of its key of that name, if any."""

    recipe: Recipe
    root: Node
    name: Node | None

    @property
    def text(self) -> str:
        """The name that others call it by; empty if there is none."""
        return "" if self.name is None else self.name.text()


def assembled(entries: Sequence[Entry]) -> Recipe:
    """The recipe of the document without a name, or else of the last, with all that it needs as stages.

    Raises :class:`RecipeError` or several at once: a name that is given twice or used nowhere, a circle.
    """
    if len(entries) == 1:
        return entries[0].recipe
    unnamed = [entry for entry in entries if not entry.text]
    result = unnamed[-1] if unnamed else entries[-1]
    problems = [
        RecipeError(f"{entry.root.where}: needs a name, so that another document can take its result as a model")
        for entry in unnamed[:-1]
    ]
    named: dict[str, Entry] = {}
    for entry in entries:
        if entry.name is not None and (problem := _bad_name(entry, named)):
            problems.append(RecipeError(f"{entry.name.where}: {problem}"))
        named.setdefault(entry.text, entry)
    raise_all(problems)
    named = {name: entry for name, entry in named.items() if name}
    stages: dict[str, Recipe] = {}
    _collect(result, named, stages, ())
    raise_all(_unused(entries, result, stages))
    return replace(result.recipe, stages=stages)


def _bad_name(entry: Entry, named: Mapping[str, Entry]) -> str:
    if not _NAME.fullmatch(entry.text):
        return f"{entry.text[:40]!r} is no name; use letters, digits, dots, dashes and underscores"
    return f"{entry.text!r} is the name of another document too" if entry.text in named else ""


def _collect(entry: Entry, named: Mapping[str, Entry], stages: dict[str, Recipe], path: tuple[str, ...]) -> None:
    """Add to ``stages`` what ``entry`` needs, first things first; ``path`` are the names that led here."""
    path = (*path, entry.text)
    for name in (model for model in entry.recipe.models if model in named and model not in stages):
        if name in path:
            circle = " -> ".join((*path[path.index(name) :], name))
            raise RecipeError(f"{entry.root.where}: takes its own result as a model: {circle}")
        _collect(named[name], named, stages, path)
        stages[name] = named[name].recipe


def _unused(entries: Sequence[Entry], result: Entry, stages: Mapping[str, Recipe]) -> list[BlockmergeError]:
    """Documents whose results nobody takes: a name is misspelt, or they are merges of their own."""
    models = [model for entry in entries for model in entry.recipe.models if model not in stages]
    problems: list[BlockmergeError] = []
    for entry in entries:
        if entry is not result and entry.text not in stages:
            near = get_close_matches(entry.text, models, 1)
            hint = f"does {near[0]!r} mean it?" if near else "put it into a file of its own"
            where = (entry.name or entry.root).where
            problems.append(RecipeError(f"{where}: no other document takes {entry.text!r} as a model; {hint}"))
    return problems
