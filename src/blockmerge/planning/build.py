"""From a recipe and opened inputs to a plan."""

from __future__ import annotations

from collections.abc import Sequence

from blockmerge import dtypes
from blockmerge.architectures import missing
from blockmerge.dtypes import DType
from blockmerge.errors import BlockmergeError, MismatchError, listed, raise_all
from blockmerge.planning import checks
from blockmerge.planning.blend import blend
from blockmerge.planning.code import code_of
from blockmerge.planning.combine import combine
from blockmerge.planning.config import config_of, spelled
from blockmerge.planning.layout import lay_out
from blockmerge.planning.plan import InputModel, Plan
from blockmerge.planning.rows import output_dtype
from blockmerge.planning.spelling import alike, told
from blockmerge.planning.vocabulary import aligned, vocabulary_of
from blockmerge.recipes import Arithmetic, Recipe
from blockmerge.sources import SmallFile, Source
from blockmerge.vocabularies import Vocabulary, tokenizer_files
from blockmerge.vocabularies.templates import choose_template, with_template

__all__ = ["make_plan"]

_GENERATION = "generation_config.json"
"""Goes with the tokenizer: it holds numbers of tokens."""


def make_plan(
    recipe: Recipe, inputs: Sequence[InputModel], sources: Sequence[Source], *, copy_code: bool = False
) -> Plan:
    """Plan the merge of opened models; reads headers, configs and nothing else.

    ``copy_code``: code that the first model brings along goes with the result.

    Raises :class:`RecipeError`, :class:`ModelError` or :class:`MismatchError`, or several as ``Problems``.
    """
    first = sources[0]
    sources = alike(sources)
    spelling = told(sources)
    problems: list[BlockmergeError] = [problem for source in sources for problem in checks.unusable(source)]
    problems += [problem for other in sources[1:] for problem in checks.incompatible(first, other)]
    raise_all(problems)
    vocabulary = vocabulary_of(recipe, sources)
    sources = aligned(vocabulary, sources)
    worked = blend(recipe, sources) if recipe.method == "gradient" else combine(recipe, sources)
    rows, shards = lay_out(worked.rows, recipe.max_shard_size)
    written = output_dtype(recipe, _main_dtype(first))
    config = config_of(sources, dtype=written, untied=worked.untied, layers=worked.layers, vocabulary=vocabulary)
    if lacking := missing(config, (row.name for row in rows)):
        text = f"{first.label}: config.json promises {listed(lacking)}, and no tensor of the result is that"
        if recipe.arithmetic is Arithmetic.EXACT:
            raise MismatchError(f"{text}; a checkpoint is incomplete, or the config of another model")
        worked.warnings.append(text)
    files, file_notes = _files(recipe, sources, vocabulary)
    code, code_warnings, code_notes = code_of(first, copy=copy_code)
    by_token = vocabulary is not None
    differing = [line for other in sources[1:] for line in checks.differences(first, other, by_token=by_token)]
    return Plan(
        recipe=recipe,
        inputs=tuple(inputs),
        architecture=checks.architecture(first),
        order=worked.order,
        rows=rows,
        shards=shards,
        files={"config.json": spelled(config, first), **files, **code},
        dtype=written,
        warnings=(
            *worked.warnings,
            *code_warnings,
            *(vocabulary.warnings if vocabulary else ()),
            *dict.fromkeys(differing),
        ),
        notes=(*spelling, *worked.notes, *(vocabulary.notes if vocabulary else ()), *code_notes, *file_notes),
        vocabulary=vocabulary,
    )


def _main_dtype(source: Source) -> DType:
    """The floating dtype that most bytes of a model are stored in."""
    sizes: dict[DType, int] = {}
    for spec in source.specs.values():
        if checks.blendable(spec.dtype):
            dtype = spec.result_dtype
            sizes[dtype] = sizes.get(dtype, 0) + spec.elements * dtype.itemsize
    return max(sizes, key=lambda dtype: (sizes[dtype], dtype.code), default=dtypes.F32)


def _files(
    recipe: Recipe, sources: Sequence[Source], vocabulary: Vocabulary | None
) -> tuple[dict[str, SmallFile], list[str]]:
    """The small files of the result, and what is said about them."""
    source = sources[0]
    files = {name: file for name, file in source.files.items() if not name.endswith(".py") and name != "config.json"}
    if vocabulary is not None:
        lead = sources[vocabulary.source].files
        replaced = {*tokenizer_files(files), _GENERATION}
        files = {name: file for name, file in files.items() if name not in replaced} | dict(vocabulary.files)
        files |= {_GENERATION: lead[_GENERATION]} if _GENERATION in lead else {}
    notes: list[str] = []
    if not any(name.startswith(("tokenizer", "vocab", "spiece", "tekken")) for name in files):
        notes.append(f"{source.label} has no tokenizer files; the merged model will have none")
    if recipe.chat_template is not None:
        text, note = choose_template(recipe.chat_template, sources)
        files = files if text is None else with_template(files, text)
        notes.append(note)
    return files, notes
