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

from collections.abc import Sequence
from typing import Any

from blockmerge.recipes.document import Node
from blockmerge.recipes.references import References
from blockmerge.vocabularies import TokenizerChoice, TokenSource

__all__ = ["choice_of", "read_tokenizer", "spelled"]


def choice_of(text: str, references: References) -> TokenizerChoice:
    """The choice that one word means: ``union``, ``base`` or a model."""
    if text == "union" or text == "base":
        return TokenizerChoice(text)
    return TokenizerChoice("model", references.number(text))


def read_tokenizer(node: Node, references: References) -> TokenizerChoice:
    """What a recipe says under ``tokenizer``."""
    if not node.is_mapping:
        return choice_of(node.text(), references)
    fields = node.fields({"source": False, "tokens": False, "pad_to_multiple_of": False})
    choice = choice_of(fields["source"].text() if "source" in fields else "union", references)
    tokens: dict[str, TokenSource] = {}
    for token, value in fields["tokens"].pairs() if "tokens" in fields else ():
        if token in tokens:
            value.problem("is given twice")
        tokens[token] = _source(value, references)
    if "tokens" in fields and not fields["tokens"].is_mapping:
        fields["tokens"].problem("needs tokens and where their rows come from")
    multiple = fields.get("pad_to_multiple_of")
    return TokenizerChoice(choice.source, choice.model, tokens, None if multiple is None else _multiple(multiple))


def _multiple(node: Node) -> int | None:
    if node.is_null:
        return None
    value = node.whole()
    if not 0 < value < 1 << 20:
        node.problem("needs a number of rows, such as 64")
    return value


def _source(node: Node, references: References) -> TokenSource:
    fields = node.fields({"source": False, "force": False})
    force = fields["force"].flag() if "force" in fields else False
    source = fields.get("source")
    if source is None or source.is_null:
        if force:
            node.problem("force needs a source: a model, {model, token} or zero")
        return TokenSource()
    if not source.is_mapping:
        text = source.text()
        return (
            TokenSource(zero=True, force=force) if text == "zero" else TokenSource(references.number(text), force=force)
        )
    found = source.fields({"model": True, "token": False, "token_id": False})
    if "token" in found and "token_id" in found:
        source.problem("token and token_id are two ways to say the same; give one")
    return TokenSource(
        model=references.number(found["model"].text()) if "model" in found else None,
        token=found["token"].text() if "token" in found else None,
        token_id=found["token_id"].whole() if "token_id" in found else None,
        force=force,
    )


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
