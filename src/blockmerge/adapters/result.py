"""What came of an extraction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Extracted", "Factored"]


@dataclass(frozen=True, slots=True)
class Factored:
    """One linear layer. ``norm`` is the squared Frobenius norm of what the finetune changed, ``lost`` what of it the
    product lacks."""

    name: str
    rank: int
    norm: float
    lost: float

    @property
    def kept(self) -> float:
        """The share of the change that the product keeps, 0 to 1."""
        return _share(self.norm, self.lost)


@dataclass(frozen=True, slots=True)
class Extracted:
    """An adapter at ``path``. ``str()`` prints it as a table; :meth:`to_json` spells it out.

    ``whole`` are tensors that it holds as they are; ``uncovered`` differ between the models and stay the base's;
    ``unchanged`` counts linear layers that do not differ.
    """

    path: Path
    rank: int
    layers: tuple[Factored, ...]
    whole: tuple[str, ...]
    uncovered: tuple[str, ...]
    unchanged: int
    seconds: float

    @property
    def kept(self) -> float:
        """The share of the squared Frobenius norm of all changes in linear layers that the adapter keeps, 0 to 1."""
        return _share(sum(layer.norm for layer in self.layers), sum(layer.lost for layer in self.layers))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "path": str(self.path),
            "rank": self.rank,
            "kept": self.kept,
            "layers": [
                {"name": layer.name, "rank": layer.rank, "kept": layer.kept, "norm": layer.norm**0.5}
                for layer in self.layers
            ],
            "whole": list(self.whole),
            "uncovered": list(self.uncovered),
            "unchanged": self.unchanged,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [f"{'kept':>7} {'rank':>5} {'change':>9}  tensor"]
        lines += [f"{layer.kept:>7.2%} {layer.rank:>5} {layer.norm**0.5:>9.3g}  {layer.name}" for layer in self.layers]
        lines += [f"{'whole':>7} {'':>5} {'':>9}  {name}" for name in self.whole]
        lines += [f"{'none':>7} {'':>5} {'':>9}  {name}" for name in self.uncovered]
        return "\n".join([*lines, "", self.summary()])

    def summary(self) -> str:
        """The last lines: what is kept in all, and what is not."""
        text = f"{self.path}: {self.kept:.2%} of the change of {len(self.layers)} linear layers kept"
        text += f" at rank {self.rank}, in {self.seconds:.1f} s"
        if self.unchanged:
            text += f"; {self.unchanged} linear layers do not differ"
        if self.uncovered:
            text += f"; {len(self.uncovered)} tensors differ and stay the base's"
        return text


def _share(norm: float, lost: float) -> float:
    return max(0.0, 1.0 - lost / norm) if norm else 1.0
