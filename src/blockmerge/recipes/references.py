"""The models of a recipe, numbered in the order in which they are first named."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["References"]


class References:
    """Texts that name models, each once; a recipe holds their numbers."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names = list(names)
        self._numbers = {name: number for number, name in reversed(list(enumerate(self.names)))}

    def number(self, reference: str) -> int:
        """The number of a model, which joins the others if it is new."""
        number = self._numbers.setdefault(reference, len(self.names))
        if number == len(self.names):
            self.names.append(reference)
        return number
