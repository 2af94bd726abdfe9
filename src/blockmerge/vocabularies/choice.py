"""What a recipe says about tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["TokenSource", "TokenizerChoice"]


@dataclass(frozen=True, slots=True)
class TokenSource:
    """Where the row of one token comes from: number ``model`` of the recipe's models, or ``zero``.

    The row is that of the same token there, or of another ``token``, or the row number ``token_id``. It stands in for
    models that lack the token; with ``force`` for all.
    """

    model: int | None = None
    token: str | None = None
    token_id: int | None = None
    zero: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class TokenizerChoice:
    """Which tokens the result has: those of all models (``union``), of the ``base``, or of model number ``model``.

    ``tokens`` name more, and where the rows of some come from; the number of rows is a multiple of
    ``pad_to_multiple_of``.
    """

    source: Literal["union", "base", "model"] = "union"
    model: int | None = None
    tokens: Mapping[str, TokenSource] = field(default_factory=dict[str, TokenSource])
    pad_to_multiple_of: int | None = None
