"""The verbs: what every face of Blockmerge may use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blockmerge import dtypes
from blockmerge.errors import BlockmergeError, ModelError, OutputError, RecipeError, raise_all
from blockmerge.planning import InputModel, Inspection, Plan, inspect_source, make_plan
from blockmerge.recipes import Recipe, load_recipe
from blockmerge.sources import ModelLocation, Source, locate, open_model, read_card

if TYPE_CHECKING:
    from blockmerge.adapters import Extracted
    from blockmerge.execution import Event, Finished

__all__ = ["draw", "extract_lora", "inspect", "merge", "plan"]


def inspect(model: str | Path) -> Inspection:
    """Look at a model: architecture, tensors in module order, dtypes, ties, vocabulary, and what is odd about it.

    :param model: folder or Hub id (``org/name``, ``org/name@revision``), or ``base+adapter``.

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
    locations = _locate_all(wanted.references, quiet=quiet)
    with _opened(locations) as sources:
        return make_plan(wanted, _inputs(wanted.references, locations, sources), sources)


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
    with _opened([model.location for model in plan.inputs]) as sources:
        for model, source in zip(plan.inputs, sources, strict=True):
            if source.fingerprint() != model.fingerprint:
                raise ModelError(f"{model.reference}: its weights are not the ones that were planned with; plan again")
        return run(
            plan,
            sources,
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


def extract_lora(
    model: str | Path,
    base: str | Path,
    out: str | Path,
    *,
    rank: int,
    dtype: str = "float32",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    save_embeddings: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    on_event: Callable[[Event], object] | None = None,
) -> Extracted:
    """Write what ``model`` learned beyond ``base`` into ``out``, as a LoRA adapter that PEFT and ``base+out`` read.

    Of each linear layer inside the stack, the difference is replaced by the best product of that rank, found by a
    randomised singular value decomposition with fixed seeds. Results repeat on one machine with one version of numpy;
    another linear algebra library rounds differently. Memory is some four times the largest layer in float32.

    :param model: the finetune; folder, Hub id, or ``base+adapter``.
    :param base: what it was made from.
    :param rank: columns of B and rows of A; a layer that is smaller gets a smaller one.
    :param dtype: of the products: ``float32``, ``bfloat16`` or ``float16``.
    :param include: texts of which a layer's name must contain one.
    :param exclude: texts of which it must contain none.
    :param save_embeddings: keep embedding and head whole (``modules_to_save``) where they differ. Everything else that
        differs and is no linear layer, such as norms, is named in the result and not in the adapter.
    :param overwrite: replace an adapter that is at ``out``.
    :param quiet: show no progress of downloads from the Hub.
    :param on_event: called with each :data:`~blockmerge.execution.Event`, in this thread.

    Raises :class:`~blockmerge.errors.BlockmergeError`: one problem, or all of them as
    :class:`~blockmerge.errors.Problems`.
    """
    from blockmerge.adapters import extract, select
    from blockmerge.execution.writer import check_output

    chosen = dtypes.by_name(dtype)
    if chosen not in dtypes.OUTPUT_DTYPES:
        raise RecipeError(f"dtype: {dtype!r} cannot be written; choose bfloat16, float16 or float32")
    if not 1 <= rank <= 65_536:
        raise RecipeError(f"rank: {rank} is none; choose 1 to 65,536, such as 16 or 64")
    references = (str(model), str(base))
    target, locations = Path(out).expanduser(), _locate_all(references, quiet=quiet)
    check_output(locations, 0, target, overwrite=overwrite)
    with _opened(locations) as sources:
        inputs = _inputs(references, locations, sources)
        selection = select(*sources, rank=rank, include=include, exclude=exclude, save_embeddings=save_embeddings)
        finetune, original = zip(inputs, sources, strict=True)
        return extract(
            selection,
            finetune,
            original,
            target,
            dtype=chosen,
            overwrite=overwrite,
            emit=on_event or (lambda event: None),
        )


def _inputs(
    references: Sequence[str], locations: Sequence[ModelLocation], sources: Sequence[Source]
) -> list[InputModel]:
    return [
        InputModel(reference, location, source.fingerprint(), read_card(location.folder))
        for reference, location, source in zip(references, locations, sources, strict=True)
    ]


def _locate_all(references: Sequence[str], *, quiet: bool) -> list[ModelLocation]:
    """All locations, or all problems with them."""
    found: list[ModelLocation] = []
    problems: list[BlockmergeError] = []
    for reference in dict.fromkeys(references):
        try:
            found.append(locate(reference, quiet=quiet))
        except BlockmergeError as error:
            problems.append(error)
    raise_all(problems)
    by_reference = dict(zip(dict.fromkeys(references), found, strict=True))
    return _told_apart([by_reference[reference] for reference in references])


@contextmanager
def _opened(locations: Sequence[ModelLocation]) -> Generator[list[Source]]:
    """The models at ``locations``, open; all problems of opening them at once."""
    with ExitStack() as stack:
        sources: list[Source] = []
        problems: list[BlockmergeError] = []
        for location in locations:
            try:
                sources.append(stack.enter_context(contextlib.closing(open_model(location))))
            except BlockmergeError as error:
                problems.append(error)
        raise_all(problems)
        yield sources


def _told_apart(locations: list[ModelLocation]) -> list[ModelLocation]:
    """Two folders of one name get their number added, so that people can tell the models apart."""
    names = [location.name for location in locations]
    if len(set(names)) == len(names):
        return locations
    return [replace(location, label=f"{location.label} ({k})") for k, location in enumerate(locations, start=1)]
