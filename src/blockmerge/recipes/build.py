"""A recipe from plain arguments: what the command line and Python share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from blockmerge import dtypes
from blockmerge.architectures import Block
from blockmerge.errors import BlockmergeError, RecipeError, attempt, raise_all
from blockmerge.recipes.recipe import Arithmetic, Curve, Only, OnMissing, Reading, Recipe, Selection
from blockmerge.recipes.references import References
from blockmerge.recipes.settings import BLOCKS
from blockmerge.recipes.tokens import choice_of, numbers_of
from blockmerge.recipes.values import checked_values, one_of, parse_layers, parse_size, unknown
from blockmerge.vocabularies import TokenizerChoice

__all__ = ["gradient"]

Values = float | Sequence[float]


def gradient(
    model1: str,
    model2: str,
    *,
    values: Values | Mapping[str, Values],
    by: str = "tensor",
    only: str | None = None,
    filters: Sequence[str] = (),
    layers: str | tuple[int, int] | None = None,
    dtype: str | None = None,
    arithmetic: str = "exact",
    on_missing: str = "error",
    max_shard_size: str | int = "2GB",
    tokenizer: str | TokenizerChoice | None = None,
    chat_template: str | None = None,
) -> Recipe:
    """Blend two models by a gradient.

    :param model1: folder or Hub id (``org/name``, ``org/name@revision``); its config, tokenizer and extra rows stand.
    :param model2: the other one.
    :param values: model 2's share along the model, such as ``[1.0, 0.5, 0.0]``; or one such list for each block
        (``embeddings``, ``attention``, ``mlp``, ``norms``, ``head``), laid over that block's tensors, with the key
        ``all`` for the tensors that no other key covers.
    :param by: ``tensor`` lays the values over tensors in module order, ``layer`` gives one value to each layer.
    :param only: ``layers`` or ``non-layers``.
    :param filters: texts of which a tensor's name must contain one.
    :param layers: half-open range of layers, ``"0:20"`` or ``(0, 20)``.
    :param dtype: ``bfloat16``, ``float16`` or ``float32``; default model 1's.
    :param arithmetic: ``exact``, or ``original`` for the bits of BlockMerge_Gradient.
    :param on_missing: ``error`` or ``keep``, for tensors that only one model has.
    :param max_shard_size: size of a weight file at most, such as ``"2GB"``, or bytes.
    :param tokenizer: ``union``, ``base`` (model 1's, row by token), a model, or a
        :class:`~blockmerge.vocabularies.TokenizerChoice`; default model 1's, row by row.
    :param chat_template: ``auto`` for what most models have, the name of a known one, or a template; default model 1's.

    Tensors that no curve covers stay model 1's. Raises :class:`RecipeError` for what does not make sense, or
    :class:`~blockmerge.errors.Problems` for all of it.
    """
    problems: list[BlockmergeError] = []
    checked = partial(attempt, problems)
    chosen = checked(lambda: one_of(Arithmetic, arithmetic, "arithmetic"), Arithmetic.EXACT)
    selection = Selection(
        literal_layers=chosen is Arithmetic.ORIGINAL,
        only=checked(lambda: None if only is None else one_of(Only, only, "only"), None),
        filters=(filters,) if isinstance(filters, str) else tuple(filters),
        layers=checked(lambda: parse_layers(layers, "layers") if isinstance(layers, str) else layers, None),
    )
    references = References((str(model1), str(model2)))
    recipe = Recipe(
        models=tuple(references.names),
        curves=_curves(values, selection, problems),
        by=checked(lambda: one_of(Reading, by, "by"), Reading.TENSOR),
        arithmetic=chosen,
        dtype=checked(lambda: _dtype(dtype, chosen), None),
        on_missing=checked(lambda: one_of(OnMissing, on_missing, "on_missing"), OnMissing.ERROR),
        max_shard_size=checked(lambda: parse_size(max_shard_size, "max_shard_size"), 0),
        tokenizer=checked(lambda: _tokenizer(tokenizer, references), None),
        chat_template=chat_template,
    )
    raise_all(problems)
    return recipe


def _curves(
    values: Values | Mapping[str, Values], selection: Selection, problems: list[BlockmergeError]
) -> tuple[Curve, ...]:
    """A curve for each block that has values; that of all others is the last."""
    named = values if isinstance(values, Mapping) else {"all": values}
    if not named:
        problems.append(RecipeError("values: is empty; a gradient looks like [1.0, 0.5, 0.0]"))
    curves: list[Curve] = []
    for name, curve in named.items():
        origin = f"values:{name}" if isinstance(values, Mapping) else "values"
        block = attempt(problems, partial(_block, name), None)
        numbers = attempt(problems, partial(_numbers, curve, origin), (0.0,))
        curves.append(Curve(numbers, replace(selection, block=block), origin=origin))
    return tuple(sorted(curves, key=lambda curve: curve.selection.block is None))


def _dtype(dtype: str | None, arithmetic: Arithmetic) -> str | None:
    if dtype is not None and dtypes.by_name(dtype) not in dtypes.OUTPUT_DTYPES:
        raise RecipeError(f"dtype: {dtype!r} cannot be written; choose bfloat16, float16 or float32")
    if arithmetic is not Arithmetic.EXACT and dtype not in (None, "float16"):
        raise RecipeError(f"dtype: {dtype} does not go with the original's arithmetic, which always writes float16")
    return dtype


def _tokenizer(tokenizer: str | TokenizerChoice | None, references: References) -> TokenizerChoice | None:
    if isinstance(tokenizer, str):
        return choice_of(tokenizer, references, "tokenizer")
    if tokenizer is not None and not numbers_of(tokenizer) <= {0, 1}:
        raise RecipeError("tokenizer: numbers of models are 0 for model 1 and 1 for model 2")
    return tokenizer


def _numbers(values: Values, where: str) -> tuple[float, ...]:
    return checked_values(values if isinstance(values, Sequence) else [values], where)


def _block(name: str) -> Block | None:
    if name == "all":
        return None
    if name == Block.OTHER:
        raise RecipeError("values: 'other' cannot be chosen; tensors of no named block belong to 'all'")
    if name not in BLOCKS:
        raise RecipeError(f"values: {unknown(name, BLOCKS)}")
    return Block(name)
