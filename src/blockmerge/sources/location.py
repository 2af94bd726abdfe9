"""Where a model is and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ModelLocation"]


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """Where a model is on this machine, and under which name and commit it is known elsewhere.

    ``label`` is the Hub id, or the folder's name; ``revision`` the commit, or None for a folder. ``adapter`` is where
    an adapter of this model is, if it is meant to be read with one.
    """

    folder: Path
    label: str
    revision: str | None = None
    adapter: ModelLocation | None = None

    @property
    def parts(self) -> tuple[ModelLocation, ...]:
        """The model itself and its adapter, if it has one."""
        return (self,) if self.adapter is None else (self, self.adapter)

    @property
    def name(self) -> str:
        """How people call it: ``base``, or ``base+adapter``."""
        return "+".join(part.label for part in self.parts)

    @property
    def published(self) -> str:
        """The name with the commits it stands for: ``org/base@commit+org/adapter@commit``."""
        return "+".join(f"{part.label}@{part.revision}" if part.revision else part.label for part in self.parts)
