"""The verbs: what every face of Blockmerge may use."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blockmerge import dtypes
from blockmerge.errors import BlockmergeError, ModelError, OutputError, RecipeError, VerificationError, raise_all
from blockmerge.planning import InputModel, Inspection, Plan, aligned, alike, inspect_source, make_plan
from blockmerge.recipes import Recipe, from_dict, load_recipe
from blockmerge.sources import ModelLocation, Source, locate, open_model, read_card

if TYPE_CHECKING:
    from blockmerge.adapters import Extracted
    from blockmerge.comparison import Difference
    from blockmerge.execution import Event, Finished
    from blockmerge.execution.verify import Verified

__all__ = ["clean", "diff", "draw", "extract_lora", "inspect", "merge", "plan", "verify"]


def inspect(model: str | Path) -> Inspection:
    """Look at a model: architecture, tensors in module order, dtypes, ties, vocabulary, and what is odd about it.

    :param model: folder or Hub id (``org/name``, ``org/name@revision``), or ``base+adapter``.

    Raises :class:`~blockmerge.errors.ModelError` if there is no such model or its files are broken.
    """
    with contextlib.closing(open_model(locate(str(model)))) as source:
        return inspect_source(source)


def plan(recipe: Recipe | str | Path, *, quiet: bool = False, copy_code: bool = False) -> Plan:
    """Work out everything that a merge will do, from the headers of its inputs; no weight is read.

    :param recipe: what :func:`blockmerge.gradient` returns, or the path of a recipe file.
    :param quiet: show no progress of downloads from the Hub.
    :param copy_code: let the code that the first model brings along (``auto_map`` in config.json) go with the result.
        It is copied and never run here; ``notes`` name the files.

    Raises :class:`~blockmerge.errors.BlockmergeError`: one problem, or all of them as
    :class:`~blockmerge.errors.Problems`.
    """
    wanted = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    with ExitStack() as stack:
        return _plan(wanted, stack, quiet=quiet, copy_code=copy_code)[0]


def merge(
    plan: Plan | Recipe | str | Path,
    out: str | Path,
    *,
    on_event: Callable[[Event], object] | None = None,
    threads: int | None = None,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
    restart: bool = False,
    verify_inputs: bool = False,
) -> Finished:
    """Carry out ``plan`` into the folder ``out``, which appears there whole or not at all.

    :param plan: what :func:`plan` returns; or a recipe or the path of one, to be planned first.

    :param on_event: called with each :data:`~blockmerge.execution.Event`, in this thread.
    :param threads: default one per usable core. Results do not depend on it.
    :param overwrite: replace a model that is at ``out``.
    :param allow_nonfinite: write NaN and infinity instead of stopping at them.
    :param restart: discard what an interrupted merge left, instead of going on from there.
    :param verify_inputs: first read the weights from the Hub's cache once, and compare them with their sha256.

    Raises :class:`~blockmerge.errors.OutputError`, :class:`~blockmerge.errors.ModelError` (an input changed or is
    damaged) or :class:`~blockmerge.errors.NonFiniteError`. A merge that is stopped (Ctrl-C, a kill, a full disk, a
    power failure) leaves what the same call goes on from; after any other error nothing is left behind.
    """
    from blockmerge.execution import run
    from blockmerge.execution.run import thread_count
    from blockmerge.report import published_files
    from blockmerge.sources.blobs import damaged_blobs

    if not isinstance(plan, Plan):
        plan = _planned(plan)
    published_files(plan, {row.name: "" for row in plan.rows})  # if it cannot be told, find out before the work
    if verify_inputs:
        raise_all(damaged_blobs([part.folder for leaf in plan.leaves for part in leaf.parts], thread_count(threads)))
    with ExitStack() as stack:
        return run(
            plan,
            _sources(plan, stack, allow_nonfinite=allow_nonfinite),
            Path(out).expanduser(),
            threads=threads,
            overwrite=overwrite,
            allow_nonfinite=allow_nonfinite,
            restart=restart,
            emit=on_event or (lambda event: None),
        )


_planned = plan
"""The function, where an argument bears its name."""


def clean(out: str | Path) -> bool:
    """Discard what an interrupted merge into ``out`` left beside it; False if there is nothing.

    Raises :class:`~blockmerge.errors.OutputError` if a merge is at work there.
    """
    from blockmerge.execution import discard

    return discard(Path(out).expanduser())


def verify(
    out: str | Path,
    *,
    inputs: bool = False,
    sample: float = 1.0,
    roots: Sequence[str | Path] = (),
    threads: int | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> Verified:
    """Compare a merged model with the digests in its blockmerge.json, and if asked with what its inputs give.

    :param out: the folder of the model.
    :param inputs: compute tensors again from the inputs, and compare them byte for byte.
    :param sample: the share of the bytes that is computed again, 0 to 1; which tensors follows from the plan alone.
    :param roots: where inputs that are folders lie, which a manifest knows by their names only; besides the folder that
        ``out`` is in and the current one.

    Raises :class:`~blockmerge.errors.ModelError` if it has no manifest or an input is not there, and
    :class:`~blockmerge.errors.VerificationError` if the inputs are not those that it was made of.
    """
    from blockmerge.execution import verify as checking
    from blockmerge.execution.run import thread_count

    if not 0 <= sample <= 1:
        raise RecipeError(f"sample: {sample:g} is no share; 0.05 is a twentieth")
    folder = Path(out).expanduser()
    emit: Callable[[Event], object] = on_event or (lambda event: None)
    threads = thread_count(threads)
    manifest = checking.read_manifest(folder)
    with ExitStack() as stack:
        model = stack.enter_context(contextlib.closing(open_model(ModelLocation(folder, folder.resolve().name))))
        found = checking.check_digests(model, manifest, threads=threads, emit=emit)
        names: list[str] = []
        if inputs:
            places = [*map(Path, roots), folder.resolve().parent, Path()]
            recipe = from_dict(manifest.recipe).with_models(lambda name: _found_in(name, places))
            again, sources = _plan(recipe, stack, quiet=on_event is None)
            if again.digest != manifest.plan:
                raise VerificationError(f"{folder}: its inputs are not those that it was made of")
            names = checking.sampled({row.name: row.nbytes for row in again.rows}, sample, again.digest)
            planned = _staged(again, aligned(again.vocabulary, sources), folder.name, allow_nonfinite=True)
            found += checking.recompute(model, planned, names, threads=threads, emit=emit)
        return checking.Verified(folder, len(manifest.tensors), len(names), tuple(found))


def _found_in(name: str, roots: Sequence[Path]) -> str:
    """The reference of a model, with folders instead of their names where one of ``roots`` has them."""
    return "+".join(
        next((str(root / part) for root in roots if (root / part).is_dir()), part) for part in name.split("+")
    )


def diff(
    model1: str | Path,
    model2: str | Path,
    *,
    on_event: Callable[[Event], object] | None = None,
    threads: int | None = None,
    quiet: bool = False,
) -> Difference:
    """Measure where two models differ: by tensor, by layer and block, in all. Reads both once, in constant memory.

    Tensors are paired by name, through ties; vocabularies of different sizes by the rows that both have. Sums are
    float64, in an order that depends on neither threads nor luck.

    :param model1: what is measured against; folder, Hub id, or ``base+adapter``. So is ``model2``.
    :param on_event: called with :class:`~blockmerge.execution.Started`, :class:`~blockmerge.execution.Progress` and
        :class:`~blockmerge.execution.TensorCompared`, in this thread.
    :param threads: default one per usable core.
    :param quiet: show no progress of downloads from the Hub.

    Raises :class:`~blockmerge.errors.ModelError` (quantised, broken, or changed while it was read) or
    :class:`~blockmerge.errors.MismatchError` (no tensor can be compared).
    """
    from blockmerge.comparison import compare, pair_up
    from blockmerge.execution.run import check_unchanged, thread_count

    with ExitStack() as stack:
        _, sources = _inputs(list(dict.fromkeys((str(model1), str(model2)))), stack, quiet=quiet)
        first, second = alike((sources[0], sources[-1]))
        both = first, second
        found = compare(pair_up(*both), both, threads=thread_count(threads), emit=on_event or (lambda event: None))
        check_unchanged(both)
    return found


def draw(subject: Plan | Difference, path: str | Path) -> None:
    """Draw a plan or a difference into a file that ends in ``.svg``, or in ``.png`` (extra ``plot``).

    Of a plan: the gradient, which layers stand where, or a method's numbers. Of a difference: layers and blocks.

    Raises :class:`~blockmerge.errors.RecipeError` for another ending, :class:`~blockmerge.errors.OutputError` if the
    file cannot be written.
    """
    from blockmerge.comparison import difference_svg
    from blockmerge.report import encoder, plan_svg

    target = Path(path).expanduser()
    encode = encoder(target)
    picture = encode(plan_svg(subject) if isinstance(subject, Plan) else difference_svg(subject))
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
    target = Path(out).expanduser()
    with ExitStack() as stack:
        inputs, sources = _inputs(references, stack, quiet=quiet)
        check_output([part for found in inputs for part in found.parts], 0, target, overwrite=overwrite)
        original, finetune = alike((sources[-1], sources[0]))
        selection = select(
            finetune, original, rank=rank, include=include, exclude=exclude, save_embeddings=save_embeddings
        )
        return extract(
            selection,
            (inputs[0], finetune),
            (inputs[-1], original),
            target,
            dtype=chosen,
            overwrite=overwrite,
            emit=on_event or (lambda event: None),
        )


def _plan(recipe: Recipe, stack: ExitStack, *, quiet: bool, copy_code: bool = False) -> tuple[Plan, list[Source]]:
    """The plan of ``recipe`` and its inputs, open for as long as ``stack`` is; stages are planned first.

    Inputs are as they are stored: who reads them by the plan has them ``aligned``.
    """
    inputs, sources = _inputs([name for name in recipe.models if name not in recipe.stages], stack, quiet=quiet)
    found = {model.reference: (model, source) for model, source in zip(inputs, sources, strict=True)}
    for name in (name for name in recipe.models if name in recipe.stages):
        stage = replace(recipe.stages[name], stages=recipe.stages)
        staged, under = _plan(stage, stack, quiet=quiet, copy_code=copy_code)
        source = _staged(staged, aligned(staged.vocabulary, under), name)
        found[name] = InputModel(name, None, source.fingerprint(), {}, staged), source
    inputs, sources = [found[name][0] for name in recipe.models], [found[name][1] for name in recipe.models]
    return make_plan(recipe, inputs, sources, copy_code=copy_code), sources


def _inputs(references: Sequence[str], stack: ExitStack, *, quiet: bool) -> tuple[list[InputModel], list[Source]]:
    """Models that are somewhere, located and open for as long as ``stack`` is."""
    locations = _locate_all(references, quiet=quiet)
    opened = _open_all(list(locations.values()), stack)
    inputs = [
        InputModel(
            reference, location, opened[location].fingerprint(), read_card([part.folder for part in location.parts])
        )
        for reference, location in locations.items()
    ]
    return inputs, [opened[location] for location in locations.values()]


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
    return aligned(plan.vocabulary, sources)


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
