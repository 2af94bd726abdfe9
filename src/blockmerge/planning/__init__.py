"""From a recipe and the headers of its inputs to a table: one row per output tensor, every byte's place known.

No weight is read here. :func:`make_plan` is the way in; a :class:`Plan` prints as text and as JSON.
"""

from __future__ import annotations

from blockmerge.planning.build import make_plan
from blockmerge.planning.inspection import Inspection, inspect_source
from blockmerge.planning.plan import InputModel, Piece, Plan, Read, Row, Shard
from blockmerge.planning.spelling import alike
from blockmerge.planning.vocabulary import aligned

__all__ = [
    "InputModel",
    "Inspection",
    "Piece",
    "Plan",
    "Read",
    "Row",
    "Shard",
    "aligned",
    "alike",
    "inspect_source",
    "make_plan",
]
