"""Which tokens the result has, as people write it.

tokenizer: union                                  # or base, or one of the models
tokenizer:
  source: union
  tokens:
    <|im_start|>: {source: org/chat, force: true}
    <|end|>: {source: {model: org/chat, token: <|im_end|>}}       # or token_id: 7
    <|unused|>: {source: zero}
  pad_to_multiple_of: 64
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from blockmerge.errors import RecipeError
from blockmerge.recipes.document import Node
from blockmerge.recipes.references import References
from blockmerge.vocabularies import TokenizerChoice, TokenSource

__all__ = ["choice_of", "chosen_in", "numbers_of", "read_tokenizer", "row_of_token", "spelled"]

RowReader = Callable[[Node, References], TokenSource]


def choice_of(text: str, references: References, where: str) -> TokenizerChoice:
    """The choice that one word means, which stands at ``where``: ``union``, ``base`` or a model.

    Raises :class:`RecipeError` for what is next to one of these words and names no model of the recipe and no folder.
    """
    if text == "union" or text == "base":
        return TokenizerChoice(text)
    near = get_close_matches(text.lower(), ("union", "base"), 1, cutoff=0.7)
    if near and text not in references.names and not Path(text).exists():
        raise RecipeError(f"{where}: there is no model {text!r}; did you mean {near[0]}?")
    return TokenizerChoice("model", references.number(text))


def chosen_in(node: Node, text: str, references: References) -> TokenizerChoice:
    """The same for the word at ``node``, where a mistake is noted."""
    return node.attempt(lambda: choice_of(text, references, node.where), TokenizerChoice("union"))


def read_tokenizer(node: Node, references: References, row_of: RowReader | None = None) -> TokenizerChoice:
    """What a recipe says under ``tokenizer``; ``row_of`` reads where the row of a token comes from."""
    if not node.is_mapping:
        return chosen_in(node, node.text(), references)
    fields = node.fields({"source": False, "tokens": False, "pad_to_multiple_of": False})
    source = fields.get("source")
    choice = TokenizerChoice("union") if source is None else chosen_in(source, source.text(), references)
    tokens: dict[str, TokenSource] = {}
    for token, value in fields["tokens"].pairs() if "tokens" in fields else ():
        if token in tokens:
            value.problem("is given twice")
        tokens[token] = _source(value, references, row_of or _row)
    if "tokens" in fields and not (fields["tokens"].is_mapping or fields["tokens"].is_null):
        fields["tokens"].problem("needs tokens and where their rows come from")
    multiple = fields.get("pad_to_multiple_of")
    return TokenizerChoice(choice.source, choice.model, tokens, None if multiple is None else _multiple(multiple))


def numbers_of(choice: TokenizerChoice) -> set[int]:
    """The numbers of the models that ``choice`` names."""
    named = (choice.model, *(source.model for source in choice.tokens.values()))
    return {number for number in named if number is not None}


def _multiple(node: Node) -> int | None:
    if node.is_null:
        return None
    value = node.whole()
    if not 0 < value < 1 << 20:
        node.problem("needs a number of rows, such as 64")
    return value


def _source(node: Node, references: References, row_of: RowReader) -> TokenSource:
    fields = node.fields({"source": False, "force": False})
    force = fields["force"].flag() if "force" in fields else False
    source = fields.get("source")
    if source is None or source.is_null:
        if force:
            node.problem("force needs a source")
        return TokenSource()
    return replace(row_of(source, references), force=force)


def _row(node: Node, references: References) -> TokenSource:
    if not node.is_mapping:
        text = node.text()
        return TokenSource(zero=True) if text == "zero" else TokenSource(references.number(text))
    fields = node.fields({"model": True, "token": False, "token_id": False})
    reference = fields["model"].text() if "model" in fields else ""
    return row_of_token(node, fields, references.number(reference))


def row_of_token(node: Node, fields: Mapping[str, Node], model: int) -> TokenSource:
    """The row of another token of a model, which ``fields`` name by its text or its number."""
    if "token" in fields and "token_id" in fields:
        node.problem("token and token_id are two ways to say the same; give one")
    token = fields["token"].text() if "token" in fields else None
    number = fields["token_id"].whole() if "token_id" in fields else None
    if number is not None and number < 0:
        fields["token_id"].problem("is the number of a row, 0 or more")
    return TokenSource(model, token, number)


def spelled(choice: TokenizerChoice, models: Sequence[str]) -> str | dict[str, Any]:
    """``choice`` as :func:`read_tokenizer` reads it."""
    source = choice.source if choice.model is None else models[choice.model]
    if not choice.tokens and choice.pad_to_multiple_of is None:
        return source
    entries: dict[str, Any] = {
        "source": source,
        "tokens": {token: _spelled(source, models) for token, source in choice.tokens.items()} or None,
        "pad_to_multiple_of": choice.pad_to_multiple_of,
    }
    return {key: value for key, value in entries.items() if value is not None}


def _spelled(source: TokenSource, models: Sequence[str]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    if source.zero:
        entries["source"] = "zero"
    elif source.model is not None:
        row = {"token": source.token} if source.token is not None else {}
        row |= {"token_id": source.token_id} if source.token_id is not None else {}
        name = models[source.model]
        entries["source"] = {"model": name, **row} if row or name == "zero" else name
    if source.force:
        entries["force"] = True
    return entries
