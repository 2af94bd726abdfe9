"""Where a model is and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ModelLocation"]


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """Where a model is on this machine, and under which name and commit it is known elsewhere.

    ``label`` is the Hub id, or the folder's name; ``revision`` the commit, or None for a folder.
    """

    folder: Path
    label: str
    revision: str | None = None
