"""From two models to the adapter that turns one into the other."""

from __future__ import annotations

from blockmerge.adapters.extraction import extract
from blockmerge.adapters.result import Extracted, Factored
from blockmerge.adapters.selection import Selection, select

__all__ = ["Extracted", "Factored", "Selection", "extract", "select"]
