"""The verbs: what every face of Blockmerge may use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blockmerge.errors import BlockmergeError, ModelError, OutputError, RecipeError, raise_all
from blockmerge.planning import InputModel, Inspection, Plan, inspect_source, make_plan
from blockmerge.recipes import Recipe, load_recipe
from blockmerge.sources import ModelLocation, Source, locate, open_model, read_card

if TYPE_CHECKING:
    from blockmerge.execution import Event, Finished

__all__ = ["draw", "inspect", "merge", "plan"]


def inspect(model: str | Path) -> Inspection:
    """Look at a model: architecture, tensors in module order, dtypes, ties, vocabulary, and what is odd about it.

    :param model: folder or Hub id (``org/name``, ``org/name@revision``).

    Raises :class:`~blockmerge.errors.ModelError` if there is no such model or its files are broken.
    """
    with contextlib.closing(open_model(locate(str(model)))) as source:
        return inspect_source(source)


def plan(recipe: Recipe | str | Path, *, quiet: bool = False) -> Plan:
    """Work out everything that a merge will do, from the headers of its inputs; no weight is read.

    :param recipe: what :func:`blockmerge.gradient` returns, or the path of a recipe file.
    :param quiet: show no progress of downloads from the Hub.

    Raises :class:`~blockmerge.errors.BlockmergeError`: one problem, or all of them as
    :class:`~blockmerge.errors.Problems`.
    """
    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    with ExitStack() as stack:
        return _plan(wanted, stack, quiet=quiet)[0]


def merge(
    plan: Plan | Recipe | str | Path,
    out: str | Path,
    *,
    on_event: Callable[[Event], object] | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
) -> Finished:
    """Carry out ``plan`` into the folder ``out``, which appears there whole or not at all.

    :param plan: what :func:`plan` returns; or a recipe or the path of one, to be planned first.

    :param on_event: called with each :data:`~blockmerge.execution.Event`, in this thread.
    :param threads: default one per usable core. Results do not depend on it.
    :param overwrite: replace a model that is at ``out``.
    :param allow_nonfinite: write NaN and infinity instead of stopping at them.

    Raises :class:`~blockmerge.errors.OutputError`, :class:`~blockmerge.errors.ModelError` (an input changed or is
    damaged) or :class:`~blockmerge.errors.NonFiniteError`; nothing is left behind then.
    """
    from blockmerge.execution import run

    if not isinstance(plan, Plan):
        plan = _planned(plan)
    with ExitStack() as stack:
        return run(
            plan,
            _sources(plan, stack, allow_nonfinite=allow_nonfinite),
            Path(out).expanduser(),
            threads=threads,
            overwrite=overwrite,
            allow_nonfinite=allow_nonfinite,
            emit=on_event or (lambda event: None),
        )


_planned = plan
"""The function, where an argument bears its name."""


def draw(plan: Plan, path: str | Path) -> None:
    """Draw the gradient of ``plan`` into a file that ends in ``.svg``, or in ``.png`` (extra ``plot``).

    Raises :class:`~blockmerge.errors.RecipeError` for another ending, :class:`~blockmerge.errors.OutputError` if the
    file cannot be written.
    """
    from blockmerge.report import gradient_png, gradient_svg

    if plan.recipe.method != "gradient":
        raise RecipeError(f"{path}: only gradients have a picture, {plan.recipe.method} has none")
    target = Path(path).expanduser()
    kind = target.suffix.lower()
    if kind not in (".svg", ".png"):
        raise RecipeError(f"{path}: a picture ends in .svg or .png")
    picture = gradient_svg(plan).encode() if kind == ".svg" else gradient_png(plan)
    try:
        target.write_bytes(picture)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _plan(recipe: Recipe, stack: ExitStack, *, quiet: bool) -> tuple[Plan, list[Source]]:
    """The plan of ``recipe`` and its inputs, open for as long as ``stack`` is; stages are planned first."""
    locations = _locate_all([name for name in recipe.models if name not in recipe.stages], quiet=quiet)
    opened = _open_all(list(locations.values()), stack)
    inputs: list[InputModel] = []
    sources: list[Source] = []
    for reference in recipe.models:
        if reference in recipe.stages:
            staged, under = _plan(replace(recipe.stages[reference], stages=recipe.stages), stack, quiet=quiet)
            source = _staged(staged, under, reference)
            model = InputModel(reference, None, source.fingerprint(), {}, staged)
        else:
            location = locations[reference]
            source = opened[location]
            model = InputModel(reference, location, source.fingerprint(), read_card(location.folder))
        inputs.append(model)
        sources.append(source)
    return make_plan(recipe, inputs, sources), sources


def _sources(plan: Plan, stack: ExitStack, *, allow_nonfinite: bool) -> list[Source]:
    """The inputs of ``plan``, opened again, if they still are what was planned with."""
    opened = _open_all([model.location for model in plan.inputs if model.location is not None], stack)
    sources: list[Source] = []
    for model in plan.inputs:
        if model.plan is not None:
            under = _sources(model.plan, stack, allow_nonfinite=allow_nonfinite)
            sources.append(_staged(model.plan, under, model.reference, allow_nonfinite=allow_nonfinite))
            continue
        assert model.location is not None
        source = opened[model.location]
        if source.fingerprint() != model.fingerprint:
            raise ModelError(f"{model.reference}: its weights are not the ones that were planned with; plan again")
        sources.append(source)
    return sources


def _staged(plan: Plan, sources: Sequence[Source], label: str, *, allow_nonfinite: bool = False) -> Source:
    from blockmerge.execution.stage import PlannedSource

    return PlannedSource(plan, sources, label, allow_nonfinite=allow_nonfinite)


def _locate_all(references: Sequence[str], *, quiet: bool) -> dict[str, ModelLocation]:
    """All locations by reference, or all problems with them."""
    found: dict[str, ModelLocation] = {}
    problems: list[BlockmergeError] = []
    for reference in references:
        try:
            found[reference] = locate(reference, quiet=quiet)
        except BlockmergeError as error:
            problems.append(error)
    raise_all(problems)
    return _told_apart(found)


def _open_all(locations: Sequence[ModelLocation], stack: ExitStack) -> dict[ModelLocation, Source]:
    """The models at ``locations``, open; all problems of opening them at once."""
    sources: dict[ModelLocation, Source] = {}
    problems: list[BlockmergeError] = []
    for location in locations:
        try:
            sources[location] = stack.enter_context(contextlib.closing(open_model(location)))
        except BlockmergeError as error:
            problems.append(error)
    raise_all(problems)
    return sources


def _told_apart(locations: dict[str, ModelLocation]) -> dict[str, ModelLocation]:
    """Two folders of one name get their number added, so that people can tell the models apart."""
    if len({location.name for location in locations.values()}) == len(locations):
        return locations
    return {
        reference: replace(location, label=f"{location.label} ({k})")
        for k, (reference, location) in enumerate(locations.items(), start=1)
    }
