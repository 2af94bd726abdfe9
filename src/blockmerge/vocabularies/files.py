"""The tokenizer files of the result: those of a model as they are, or with more tokens in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, cast

from blockmerge.errors import FormatError, ModelError
from blockmerge.formats.jsonfile import parse_object
from blockmerge.sources.base import Source
from blockmerge.sources.small import SmallFile
from blockmerge.vocabularies.tokens import CONVERT, AddedToken, Tokens

__all__ = ["NewToken", "extended_files", "splits_alike", "tokenizer_files"]

_LEGACY = (
    "tokenizer.model", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json", "*.tiktoken",
)  # fmt: skip
"""Other spellings of the tokens, which would contradict a tokenizer.json with more of them."""
_PATTERNS = (
    *_LEGACY, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "chat_template.json", "chat_templates/*.jinja", "additional_chat_templates/*.jinja", "tokenization_*.py",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token to be added under ``id``: from model number ``model``, or from the recipe; ordinary without ``flags``."""

    text: str
    id: int
    model: int | None
    flags: AddedToken | None


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def tokenizer_files(files: Mapping[str, SmallFile]) -> dict[str, SmallFile]:
    """Those of a model's small ``files`` that belong to its tokenizer, chat templates included."""
    return {name: file for name, file in files.items() if _is_one_of(name, _PATTERNS)}


def extended_files(
    source: Source, tokens: Tokens, new: Sequence[NewToken], known: Sequence[Tokens]
) -> dict[str, SmallFile]:
    """The tokenizer files of ``source``, which has ``tokens``, with ``new`` ones; ``known`` are those of all models.

    Added tokens become added tokens; ordinary ones enter the vocabulary of the tokenizer's model. Text is cut into
    those as well where their merges (BPE) apply to the same alphabet; otherwise a BPE only knows them.
    Raises :class:`ModelError` if ``source`` has no tokenizer.json, or if the result does not load as planned.
    """
    if not tokens.document:
        raise ModelError(f"{source.label}: {new[0].text!r} cannot be added to {tokens.file}; {CONVERT}")
    where = f"{source.label}: tokenizer.json"
    document = _extended(source.label, tokens, new, known)
    _check_merges(document["model"], where)
    files = {name: file for name, file in tokenizer_files(source.files).items() if not _is_one_of(name, _LEGACY)}
    files["tokenizer.json"] = _written(document, where)
    _check_loads(files["tokenizer.json"], {**tokens.ids, **{token.text: token.id for token in new}}, where)
    if "tokenizer_config.json" in files:
        files["tokenizer_config.json"] = _with_decoder(files["tokenizer_config.json"], new, source.label)
    return files


def splits_alike(one: Tokens, other: Tokens) -> bool:
    """Whether two tokenizers of one kind cut text into the same pieces before their vocabularies come into play."""
    try:
        return _splitting(one.document) == _splitting(other.document)
    except RecursionError:  # nested about as deeply as a JSON file may be
        return False


def _extended(label: str, tokens: Tokens, new: Sequence[NewToken], known: Sequence[Tokens]) -> dict[str, Any]:
    """The tokenizer.json of ``tokens`` with ``new`` ones."""
    document = copy.copy(dict(tokens.document))
    model: dict[str, Any] = dict(document["model"])
    document["model"] = model
    ordinary = [token for token in new if token.flags is None]
    added = {text: (tokens.ids[text], flags) for text, flags in tokens.added.items()}
    added |= {token.text: (token.id, token.flags) for token in new if token.flags is not None}
    listed_already: dict[str, Any] = {entry["content"]: entry for entry in document.get("added_tokens", ())}
    document["added_tokens"] = [
        listed_already.get(text) or {"id": number, "content": text, **asdict(flags)}
        for text, (number, flags) in sorted(added.items(), key=lambda item: item[1][0])
    ]
    numbers = {text: number for text, (number, _) in added.items()} | {token.text: token.id for token in ordinary}
    if isinstance(model["vocab"], list):
        _extend_pieces(model, numbers, ordinary, known, label)
    else:
        _extend_table(model, numbers, ordinary)
        if ordinary and isinstance(model.get("merges"), list):
            model["merges"] = _more_merges(tokens, ordinary, known, model["vocab"])
    return document


def _extend_table(model: dict[str, Any], numbers: Mapping[str, int], ordinary: Sequence[NewToken]) -> None:
    """Enter ordinary tokens into a vocabulary that is a table of ids.

    tokenizers numbers added tokens that are not in it anew, from its length on, whatever ids the file gives them. Where
    that would be wrong they are entered as well.
    """
    vocabulary: dict[str, int] = model["vocab"]
    outside = sorted(number for text, number in numbers.items() if text not in vocabulary)
    first = len(vocabulary)
    if ordinary or outside != list(range(first, first + len(outside))):
        model["vocab"] = {**vocabulary, **numbers}


def _extend_pieces(
    model: dict[str, Any],
    numbers: Mapping[str, int],
    ordinary: Sequence[NewToken],
    known: Sequence[Tokens],
    label: str,
) -> None:
    """Append ordinary tokens to a vocabulary that is a list of pieces with scores (Unigram), in which place is id.

    A piece keeps the score that it has where it comes from. One without gets a score below that of being cut into
    single characters, so that text is cut as before.
    """
    if not ordinary:
        return
    scores = _scores(model)
    further = sorted((number, text) for text, number in numbers.items() if text not in scores)
    if [number for number, _ in further] != list(range(len(scores), len(scores) + len(further))):
        raise ModelError(f"{label}: the ids of its tokens have gaps; a Unigram tokenizer with gaps cannot be extended")
    worst = min(scores.values())
    elsewhere = {number: _scores(one.document.get("model", {})) for number, one in enumerate(known)}
    given = {t.text: elsewhere[t.model].get(t.text) for t in ordinary if t.model is not None}
    for _, text in further:
        score = given.get(text)
        scores[text] = len(text) * min(worst, 0.0) - 1.0 if score is None else score
    model["vocab"] = [*model["vocab"], *([text, scores[text]] for _, text in further)]


def _scores(model: Mapping[str, Any]) -> dict[str, float]:
    """The score of each piece of a Unigram model; of others none."""
    vocabulary: object = model.get("vocab")
    return dict(cast("list[tuple[str, float]]", vocabulary)) if isinstance(vocabulary, list) else {}


def _more_merges(
    base: Tokens, ordinary: Sequence[NewToken], known: Sequence[Tokens], vocabulary: Mapping[str, int]
) -> list[Any]:
    """The merges of a BPE tokenizer.json, and those that lead to ``ordinary`` tokens where text is split alike.

    They come last, in the order of their models, so that text which needs no new token is cut as before.
    """
    old: list[Any] = base.document["model"]["merges"]
    before = set(_merges(base.document))
    further: list[tuple[str, str]] = []
    for number in dict.fromkeys(token.model for token in ordinary if token.model is not None):
        wanted = {token.text for token in ordinary if token.model == number}
        if splits_alike(known[number], base):
            further += [
                (left, right)
                for left, right in _merges(known[number].document)
                if left + right in wanted and {left, right} <= vocabulary.keys() and (left, right) not in before
            ]
    as_text = all(isinstance(merge, str) for merge in old)
    return [*old, *(" ".join(merge) if as_text else list(merge) for merge in further)]


def _splitting(document: Mapping[str, Any]) -> list[Any]:
    """What decides the alphabet of the pieces that a vocabulary consists of."""
    model: Mapping[str, Any] = document.get("model", {})
    prefix, suffix = (model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    return [document.get("normalizer"), document.get("pre_tokenizer"), model.get("type"), prefix, suffix]


def _merges(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges in a tokenizer.json, written as "left right" or as pairs; whatever is neither is left out."""
    found: object = document.get("model", {}).get("merges")
    pairs: list[tuple[str, str]] = []
    for merge in cast("list[object]", found) if isinstance(found, list) else ():
        parts: object = merge.split(" ") if isinstance(merge, str) else merge
        match parts:
            case [str() as left, str() as right]:
                pairs.append((left, right))
            case _:
                pass
    return pairs


def _with_decoder(file: SmallFile, new: Sequence[NewToken], label: str) -> SmallFile:
    """tokenizer_config.json with the new added tokens in its added_tokens_decoder, if it has one."""
    config = parse_object(file.read(), f"{label}: tokenizer_config.json")
    if "added_tokens_decoder" not in config:
        return file
    further = {str(token.id): {"content": token.text, **asdict(token.flags)} for token in new if token.flags}
    config["added_tokens_decoder"] = {**config["added_tokens_decoder"], **further}
    return _written(config, f"{label}: tokenizer_config.json")


def _written(document: Mapping[str, Any], where: str) -> SmallFile:
    try:
        return SmallFile.of(json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    except RecursionError as error:
        raise FormatError(f"{where}: nested too deeply") from error
    except UnicodeEncodeError as error:
        raise FormatError(f"{where}: holds half of a surrogate pair, which is no text") from error


def _check_merges(model: Mapping[str, Any], where: str) -> None:
    """The library ends the process over merges of a BPE whose right part is shorter than the prefix it should have."""
    prefix: object = model.get("continuing_subword_prefix") or ""
    if not isinstance(prefix, str) or (
        prefix and any(not right.startswith(prefix) for _, right in _merges({"model": model}))
    ):
        raise FormatError(
            f"{where}: has a merge without the prefix {str(prefix)[:80]!r} of pieces that continue a word"
        )


def _check_loads(file: SmallFile, planned: Mapping[str, int], where: str) -> None:
    """Load the new tokenizer.json as transformers does, and compare."""
    import tokenizers

    try:
        got = tokenizers.Tokenizer.from_str(file.read().decode()).get_vocab(with_added_tokens=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exceptions, and its panics are not even those
        raise ModelError(f"{where}: does not load once tokens are added: {' '.join(str(error).split())}") from error
    if got != dict(planned):
        text = next(text for text in {**planned, **got} if planned.get(text) != got.get(text))
        raise ModelError(
            f"{where}: cannot be extended: {text!r} would get the id {got.get(text)}, not {planned.get(text)}"
        )
