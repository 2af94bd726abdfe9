"""The tokens of the result, and where each model's rows for them come from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from blockmerge.errors import RecipeError, listed
from blockmerge.sources.base import Source
from blockmerge.sources.small import SmallFile
from blockmerge.vocabularies.choice import TokenizerChoice, TokenSource
from blockmerge.vocabularies.files import NewToken, extended_files, splits_alike, tokenizer_files
from blockmerge.vocabularies.rows import AVERAGE, MEAN, ZERO, RowMap
from blockmerge.vocabularies.tokens import AddedToken, Tokens, read_tokens, token_contents

__all__ = ["Vocabulary", "build_vocabulary"]

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
_LACKS = -1
"""The row of a token in the matrix of a model that does not have it."""


@dataclass(frozen=True, eq=False, slots=True)
class Vocabulary:
    """The vocabulary of the result.

    ``size`` rows for ``tokens`` tokens and some padding; ``maps`` say for each model where its rows come from.
    ``files`` are all tokenizer files of the result, those of model number ``source`` or made from them. ``notes`` and
    ``warnings`` tell in sentences what was done. If ``unchanged``, all matrices and files stay as they are.
    """

    size: int
    tokens: int
    maps: tuple[RowMap, ...]
    files: Mapping[str, SmallFile]
    source: int
    unchanged: bool
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def digest(self) -> str:
        """sha256 (hex) of what decides the rows of all models."""
        return hashlib.sha256("\n".join(rows.digest() for rows in self.maps).encode()).hexdigest()


def build_vocabulary(
    choice: TokenizerChoice, models: Sequence[Source], rows: Sequence[int], base: int | None
) -> Vocabulary:
    """The vocabulary that ``choice`` asks for, of ``models`` whose embeddings have ``rows`` rows.

    A model keeps its own row of every token that it has. For others it gets the row that ``choice`` names, else that of
    model number ``base``, else that of the only model that has the token, else the average of all that have it; a token
    of no model gets zeros. Without a ``base`` the first model leads a union, but comes before nobody as a donor.

    Rows beyond the tokens are kept: each model's own if it has no token there, else those of the model that leads.
    Rows beyond these hold the mean of all tokens (https://nlp.stanford.edu/~johnhew/vocab-expansion.html).

    Raises :class:`ModelError` for tokenizers that cannot be read or extended, :class:`RecipeError` where ``choice``
    asks a model for a token that it does not have. Numbers in ``choice`` and ``base`` count ``models``.
    """
    lead = choice.model if choice.source == "model" and choice.model is not None else base or 0
    known = list(_read_all(models))
    new = _new_tokens(choice, known, rows, lead)
    align = _Alignment.of(choice, models, known, rows, base, [*known[lead].ids.items(), *((t.text, t.id) for t in new)])
    size, align = _fit(align, max(rows[lead], *(t.id + 1 for t in new[-1:]), 1), choice.pad_to_multiple_of or 1)
    maps = tuple(_row_map(align, number, known, rows, lead, size) for number in range(len(models)))
    files = extended_files(models[lead], known[lead], new, known) if new else tokenizer_files(models[lead].files)
    unchanged = not new and all(one.is_identity(count) for one, count in zip(maps, rows, strict=True))
    labels = [model.label for model in models]
    return Vocabulary(
        size=size,
        tokens=len(align.ids),
        maps=maps,
        files=files,
        source=lead,
        unchanged=unchanged,
        notes=tuple(_notes(labels, known, rows, new, maps, align, lead, unchanged)),
        warnings=tuple(_warnings(labels, known, lead, new, align, size)),
    )


def _read_all(models: Sequence[Source]) -> Iterator[Tokens]:
    """The tokens of each model; equal ones are one object, so that nothing is parsed or compared twice."""
    read: dict[tuple[tuple[str, bytes], ...], Tokens] = {}
    for model in models:
        key = tuple(token_contents(model.files, model.label).items())
        if key not in read:
            read[key] = read_tokens(model.files, model.label)
        yield read[key]


def _new_tokens(choice: TokenizerChoice, known: Sequence[Tokens], rows: Sequence[int], lead: int) -> list[NewToken]:
    """What the tokenizer that leads lacks: tokens of the other models by number and id, then those of the recipe."""
    has = known[lead].ids
    found: dict[str, tuple[int | None, AddedToken | None]] = {}
    for number, tokens in enumerate(known if choice.source == "union" else ()):
        ids = tokens.ids
        lacking = [] if ids is has else [token for token in ids.keys() - has.keys() if ids[token] < rows[number]]
        for token in sorted(lacking, key=ids.__getitem__):
            found.setdefault(token, (number, tokens.added.get(token)))
    for token in choice.tokens:
        if token not in has:
            found.setdefault(token, (None, AddedToken()))
    first = max(has.values()) + 1
    return [NewToken(token, first + k, *origin) for k, (token, origin) in enumerate(found.items())]


@dataclass(frozen=True, eq=False, slots=True)
class _Alignment:
    """All tokens by id (``T`` of them), the rows that ``K`` models have of them, and what stands in for missing ones.

    ``donor`` and ``row`` are as in :class:`RowMap`, with ``members`` of averages as columns of (model, row) from
    ``start`` on; ``forced`` ones stand in for all models; ``chosen`` ones come from the recipe.
    """

    texts: Sequence[str]
    ids: Integers  # [T], ascending
    own: Integers  # [K, T]
    donor: Integers
    row: Integers
    forced: Flags
    chosen: Flags
    start: Integers
    members: Integers  # [2, ...]

    @classmethod
    def of(
        cls,
        choice: TokenizerChoice,
        models: Sequence[Source],
        known: Sequence[Tokens],
        rows: Sequence[int],
        base: int | None,
        tokens: list[tuple[str, int]],
    ) -> _Alignment:
        tokens.sort(key=lambda token: token[1])
        texts = [text for text, _ in tokens]
        ids = np.array([number for _, number in tokens], np.int64)
        own = _own_rows(known, rows, texts)
        donor, row, start, members = _defaults(own, base)
        forced, chosen = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
        place = {text: number for number, text in enumerate(texts)} if choice.tokens else {}
        for text, source in choice.tokens.items():
            at = place[text]
            forced[at] = source.force
            if source.zero or source.model is not None:
                chosen[at] = True
                donor[at], row[at] = _chosen_row(text, source, models, known, rows)
        return cls(texts, ids, own, donor, row, forced, chosen, start, members)

    def upto(self, tokens: Flags) -> _Alignment:
        """The alignment of some of the tokens only."""
        texts = [text for text, kept in zip(self.texts, tokens, strict=True) if kept]
        own = np.ascontiguousarray(self.own[:, tokens])
        donor, row = self.donor[tokens], self.row[tokens]
        forced, chosen = self.forced[tokens], self.chosen[tokens]
        return _Alignment(texts, self.ids[tokens], own, donor, row, forced, chosen, self.start, self.members)


def _own_rows(known: Sequence[Tokens], rows: Sequence[int], texts: Sequence[str]) -> Integers:
    """[K, T]: the row of each token in each model; one beyond the matrix is none."""
    own = np.empty((len(known), len(texts)), np.int64)
    for number, tokens in enumerate(known):
        own[number] = np.fromiter(map(tokens.ids.get, texts, repeat(_LACKS)), np.int64, len(texts))
        own[number, own[number] >= rows[number]] = _LACKS
    return own


def _defaults(own: Integers, base: int | None) -> tuple[Integers, Integers, Integers, Integers]:
    """What stands in for a missing token if the recipe says nothing: donor, row, start and members of averages."""
    has = own != _LACKS
    count = has.sum(axis=0)
    donor = np.where(count == 0, ZERO, has.argmax(axis=0))  # the first that has it
    if base is not None:
        donor[has[base]] = base
    row = np.where(donor == ZERO, 0, np.take_along_axis(own, np.maximum(donor, 0)[None], axis=0)[0])
    several = count > 1 if base is None else (count > 1) & ~has[base]
    donor[several], row[several] = AVERAGE, np.arange(several.sum())
    start = np.concatenate(([0], np.cumsum(count[several])))
    token, model = np.nonzero(has[:, several].T)  # by token, then by model
    return donor, row, start, np.stack((model, own[:, several][model, token]))


def _chosen_row(
    text: str, source: TokenSource, models: Sequence[Source], known: Sequence[Tokens], rows: Sequence[int]
) -> tuple[int, int]:
    """Donor and row of a token whose row the recipe names."""
    if source.zero or source.model is None:
        return ZERO, 0
    label = models[source.model].label
    row = source.token_id
    if row is None:
        wanted = text if source.token is None else source.token
        row = known[source.model].ids.get(wanted)
        if row is None:
            raise RecipeError(f"tokenizer.tokens: {text!r} is to come from {label}, which has no token {wanted!r}")
    if not 0 <= row < rows[source.model]:
        raise RecipeError(
            f"tokenizer.tokens: {text!r} is to come from row {row} of {label}, which has {rows[source.model]} rows"
        )
    return source.model, row


def _fit(align: _Alignment, least: int, multiple: int) -> tuple[int, _Alignment]:
    """How many rows the result has, and the tokens that fit in them.

    Left out are tokens at the end that no model has a row for and that nobody asked for: the tokenizer that leads
    lists them, but its matrix ends before.
    """
    wanted = align.chosen | (align.donor != ZERO)
    size = max(least, int(align.ids[wanted].max(initial=-1)) + 1)
    size = -(-size // multiple) * multiple
    return size, align.upto(align.ids < size) if align.ids[-1] >= size else align


def _row_map(
    align: _Alignment, number: int, known: Sequence[Tokens], rows: Sequence[int], lead: int, size: int
) -> RowMap:
    """The map of model ``number``: tokens its own or what stands in for them, then padding."""
    own = (align.own[number] != _LACKS) & ~align.forced
    donor, row = np.full(size, MEAN, np.int64), np.zeros(size, np.int64)
    donor[align.ids] = np.where(own, number, align.donor)
    row[align.ids] = np.where(own, align.own[number], align.row)

    padding = np.ones(size, bool)
    padding[align.ids] = False
    kept = np.flatnonzero(padding[: rows[lead]])
    there = np.ones(max(size, rows[number]), bool)
    there[rows[number] :] = False
    taken = np.fromiter(known[number].ids.values(), np.int64)
    there[taken[taken < rows[number]]] = False
    donor[kept], row[kept] = np.where(there[kept], number, lead), kept

    averaged = donor == AVERAGE
    used, row[averaged] = np.unique(row[averaged], return_inverse=True)
    lengths = align.start[used + 1] - align.start[used]
    start = np.concatenate(([0], np.cumsum(lengths)))
    places = np.arange(int(start[-1])) + np.repeat(align.start[used] - start[:-1], lengths)
    member_model, member_row = align.members[:, places]
    return RowMap(number, donor, row, start, member_model, member_row, align.ids)


def _notes(
    labels: Sequence[str],
    known: Sequence[Tokens],
    rows: Sequence[int],
    new: Sequence[NewToken],
    maps: Sequence[RowMap],
    align: _Alignment,
    lead: int,
    unchanged: bool,
) -> Iterator[str]:
    if unchanged:
        yield f"all models have the same {len(align.ids):,} tokens in the same rows"
    added = Counter(token.model for token in new if token.flags is not None)
    for origin, count in Counter(token.model for token in new).items():
        source = "the recipe" if origin is None else labels[origin]
        yield f"new tokens from {source}: {added[origin]:,} added, {count - added[origin]:,} ordinary"
    for label, tokens, count, one in zip(labels, known, rows, maps, strict=True):
        beyond = [token for token, number in tokens.ids.items() if number >= count]
        if beyond:
            yield (
                f"{label}: its matrix has {count:,} rows, none for {len(beyond):,} of its tokens, "
                f"which count as missing: {listed(map(repr, beyond), 3)}"
            )
        if not one.is_identity(count):
            yield f"{label}: {', '.join(_shares(labels, one))}"
    differing = _differing_flags(known)
    if differing:
        named = listed(map(repr, differing), 3)
        yield f"{named}: added with different flags; {labels[lead]}'s count, else the first model's"


def _shares(labels: Sequence[str], one: RowMap) -> Iterator[str]:
    """How many tokens and padding rows of a map come from where."""
    donor, row = one.donor[one.tokens], one.row[one.tokens]
    moved = int((row[donor == one.model] != one.tokens[donor == one.model]).sum())
    yield f"{int((donor == one.model).sum()):,} of {len(donor):,} tokens its own" + (
        f" ({moved:,} in other rows)" if moved else ""
    )
    for number in np.unique(donor[(donor >= 0) & (donor != one.model)]):
        yield f"{int((donor == number).sum()):,} from {labels[number]}"
    averages = np.diff(one.start)[row[donor == AVERAGE]]
    for members in np.unique(averages):
        yield f"{int((averages == members).sum()):,} averaged over {members} models"
    if zeros := int((donor == ZERO).sum()):
        yield f"{zeros:,} zero"
    padding = np.delete(one.donor, one.tokens)
    for number in np.unique(padding[(padding >= 0) & (padding != one.model)]):
        yield f"rows of padding from {labels[number]}: {int((padding == number).sum()):,}"
    if means := int((padding == MEAN).sum()):
        yield f"rows of padding at the mean of all tokens: {means:,}"


def _differing_flags(known: Sequence[Tokens]) -> list[str]:
    """The tokens that are added ones in some model, and not in the same way in all that have them."""
    distinct = list({id(tokens): tokens for tokens in known}.values())
    added = dict.fromkeys(token for tokens in distinct for token in tokens.added)
    return [
        token for token in added if len({tokens.added.get(token) for tokens in distinct if token in tokens.ids}) > 1
    ]


def _warnings(
    labels: Sequence[str], known: Sequence[Tokens], lead: int, new: Sequence[NewToken], align: _Alignment, size: int
) -> Iterator[str]:
    missing = [align.texts[at] for at in np.flatnonzero((align.donor == ZERO) & ~align.chosen).tolist()]
    if missing:
        yield f"no model has a row for {listed(map(repr, missing), 3)}; zeros are taken"
    rowless = [token for token, number in known[lead].ids.items() if number >= size]
    if rowless:
        yield (
            f"{labels[lead]}: {len(rowless):,} tokens of its tokenizer have no row in any model, nor in the result: "
            f"{listed(map(repr, rowless), 3)}"
        )
    for number, count in Counter(
        token.model for token in new if token.flags is None and token.model is not None
    ).items():
        if not splits_alike(known[lead], known[number]):
            yield (
                f"{labels[number]}: {count:,} of its ordinary tokens are new, but it splits text in another way than "
                f"{labels[lead]}, whose way the result takes; it may never meet them"
            )
