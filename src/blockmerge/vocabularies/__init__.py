"""Tokens: which a model has, which a merged one gets, and which rows of its matrices they stand for."""

from __future__ import annotations

from blockmerge.vocabularies.aligned import AlignedSource
from blockmerge.vocabularies.build import Vocabulary, build_vocabulary
from blockmerge.vocabularies.choice import TokenizerChoice, TokenSource
from blockmerge.vocabularies.files import tokenizer_files
from blockmerge.vocabularies.rows import RowMap
from blockmerge.vocabularies.tokens import AddedToken, Tokens, read_tokens

__all__ = [
    "AddedToken",
    "AlignedSource",
    "RowMap",
    "TokenSource",
    "TokenizerChoice",
    "Tokens",
    "Vocabulary",
    "build_vocabulary",
    "read_tokens",
    "tokenizer_files",
]
