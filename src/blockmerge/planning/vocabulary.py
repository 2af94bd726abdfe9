"""Models whose embedding and head have the rows of one common vocabulary, where a recipe asks for that."""

from __future__ import annotations

from collections.abc import Sequence

from blockmerge.architectures import Block, block_of, module_order, vocabulary_tensors
from blockmerge.errors import BlockmergeError, ModelError, raise_all
from blockmerge.planning.spelling import alike
from blockmerge.planning.ties import Ties
from blockmerge.recipes import Recipe
from blockmerge.sources import Source
from blockmerge.vocabularies import AlignedSource, Vocabulary, build_vocabulary

__all__ = ["aligned", "vocabulary_of"]


def vocabulary_of(recipe: Recipe, sources: Sequence[Source]) -> Vocabulary | None:
    """The vocabulary that ``recipe`` asks for; None if rows go by their number.

    Raises :class:`ModelError` or :class:`RecipeError`, or several at once.
    """
    if recipe.tokenizer is None:
        return None
    problems: list[BlockmergeError] = []
    rows: list[int] = []
    for source in sources:
        embedding = next((name for name in _stored(source) if block_of(name) is Block.EMBEDDINGS), None)
        if embedding is None:
            problems.append(ModelError(f"{source.label}: has no embedding matrix, which tokenizer: needs"))
        else:
            rows.append(source.specs[embedding].shape[0])
    raise_all(problems)
    return build_vocabulary(recipe.tokenizer, sources, rows, 0 if 0 in recipe.bases else None)


def aligned(vocabulary: Vocabulary | None, sources: Sequence[Source]) -> list[Source]:
    """``sources`` as models of ``vocabulary``, with the names of the first; those that are so already, as they are."""
    sources = alike(sources)
    if vocabulary is None or vocabulary.unchanged:
        return sources
    ties = [Ties(source, module_order(source.config, source.specs)) for source in sources]
    digest = vocabulary.digest()
    found: list[Source] = []
    for source, row_map in zip(sources, vocabulary.maps, strict=True):
        tensors: dict[str, list[str | None]] = {}
        for name in _stored(source):
            if not row_map.is_identity(source.specs[name].shape[0]):
                specs = [other.spec(name) for other in ties]
                tensors[name] = [None if spec is None else spec.name for spec in specs]
        found.append(AlignedSource(source, sources, tensors, row_map, digest) if tensors else source)
    return found


def _stored(source: Source) -> list[str]:
    """The tensors with a row for each token, in module order."""
    names = module_order(source.config, source.specs).names
    return [name for name in vocabulary_tensors(names) if name in source.specs and source.specs[name].shape]
