"""Tokens: which a model has, which a merged one gets, and which rows of its matrices they stand for."""

from __future__ import annotations

from blockmerge.vocabularies.choice import TokenizerChoice, TokenSource

__all__ = ["TokenSource", "TokenizerChoice"]
