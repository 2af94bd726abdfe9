"""What a comparison found. Plain data, in module order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from blockmerge.architectures import Block
from blockmerge.comparison.pairs import Pair
from blockmerge.comparison.text import difference_text

__all__ = ["Difference", "Statistics", "TensorDifference"]

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Statistics:
    """What can be added up over tensors.

    ``differing`` of ``elements`` are not the same number. ``squares`` are the sums of the squares of model 1 and of
    model 2, ``distance`` that of their differences; they leave out elements that are not finite. ``largest`` is the
    greatest magnitude of a difference. ``nonfinite`` counts NaN and infinity in model 1 and in model 2.
    """

    elements: int = 0
    differing: int = 0
    squares: tuple[float, float] = (0.0, 0.0)
    distance: float = 0.0
    largest: float = 0.0
    nonfinite: tuple[int, int] = (0, 0)

    @property
    def share(self) -> float:
        """The share of elements that differ, 0 to 1."""
        return self.differing / self.elements if self.elements else 0.0

    @property
    def relative(self) -> float | None:
        """The L2 norm of the difference over that of model 1's elements; None where that is not defined."""
        if self.distance == 0.0:
            return None if self.differing and not self.squares[0] else 0.0
        ratio = math.sqrt(self.distance / self.squares[0]) if self.squares[0] else math.inf
        return ratio if math.isfinite(ratio) else None

    @property
    def cosine(self) -> float | None:
        """The cosine of the angle between both; None if one is zero all over, or too large for float64."""
        one, two = map(math.sqrt, self.squares)
        if not (0.0 < one * two < math.inf and math.isfinite(self.distance)):
            return None
        cosine = (one / two + two / one - self.distance / (one * two)) / 2  # the law of cosines
        return 1.0 if self.distance == 0.0 else max(-1.0, min(1.0, cosine))

    @staticmethod
    def total(parts: Iterable[Statistics]) -> Statistics:
        """The statistics of all ``parts`` together, added in their order."""
        total = Statistics()
        for part in parts:
            total = Statistics(
                total.elements + part.elements,
                total.differing + part.differing,
                (total.squares[0] + part.squares[0], total.squares[1] + part.squares[1]),
                total.distance + part.distance,
                max(total.largest, part.largest),
                (total.nonfinite[0] + part.nonfinite[0], total.nonfinite[1] + part.nonfinite[1]),
            )
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "elements": self.elements,
            "differing": self.differing,
            "share": self.share,
            "relative": self.relative,
            "cosine": self.cosine,
            "largest": self.largest if math.isfinite(self.largest) else None,
            "nonfinite": list(self.nonfinite),
        }


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """One pair of tensors: ``place`` holds the indices of the largest difference, None if there is none.

    Tensors that are not floating point have no norms: their elements are equal or differ.
    """

    pair: Pair
    statistics: Statistics
    place: tuple[int, ...] | None

    @property
    def name(self) -> str:
        """Its name in model 1."""
        return self.pair.name

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = self.statistics.to_json()
        if not self.pair.numeric:
            found["largest"] = None
        return {
            "name": self.name,
            "position": self.pair.position,
            "layer": self.pair.layer,
            "block": self.pair.block.value,
            "dtypes": [self.pair.first.dtype.name, self.pair.second.dtype.name],
            "shape": list(self.pair.shape),
            **found,
            "place": None if self.place is None else list(self.place),
        }


@dataclass(frozen=True)
class Difference:
    """Where two models differ. ``str()`` prints it by layer and block; :meth:`to_json` spells it out.

    ``models`` are their names, ``tensors`` the pairs in module order (``order`` is ``table``) or in the natural order
    of names (``natural``). ``only_first`` and ``only_second`` are tensors without a counterpart, ``unlike`` those that
    cannot be compared, with the reason.
    """

    models: tuple[str, str]
    order: str
    tensors: tuple[TensorDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    unlike: dict[str, str]
    notes: tuple[str, ...]

    @property
    def whole(self) -> Statistics:
        """All tensors together."""
        return Statistics.total(tensor.statistics for tensor in self.tensors)

    @property
    def blocks(self) -> dict[Block, Statistics]:
        """By block, those that there are."""
        found = self._grouped(lambda pair: pair.block)
        return {block: found[block] for block in Block if block in found}

    @property
    def layers(self) -> dict[int, Statistics]:
        """By layer."""
        found = self._grouped(lambda pair: pair.layer)
        return {layer: found[layer] for layer in sorted(layer for layer in found if layer is not None)}

    @property
    def cells(self) -> dict[tuple[int | None, Block], Statistics]:
        """By layer and block; the layer is None outside the stack."""
        return self._grouped(lambda pair: (pair.layer, pair.block))

    def _grouped(self, key: Callable[[Pair], Key]) -> dict[Key, Statistics]:
        groups: dict[Key, list[Statistics]] = {}
        for tensor in self.tensors:
            groups.setdefault(key(tensor.pair), []).append(tensor.statistics)
        return {name: Statistics.total(group) for name, group in groups.items()}

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not defined are null."""
        return {
            "models": list(self.models),
            "order": self.order,
            "whole": self.whole.to_json(),
            "blocks": {block.value: found.to_json() for block, found in self.blocks.items()},
            "layers": {str(layer): found.to_json() for layer, found in self.layers.items()},
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "only_first": list(self.only_first),
            "only_second": list(self.only_second),
            "unlike": dict(self.unlike),
            "notes": list(self.notes),
        }

    def text(self, by: Literal["layer", "tensor"] = "layer") -> str:
        """As text: a table of layers and blocks, or ``by`` tensor a line for each."""
        return difference_text(self, by)

    def __str__(self) -> str:
        return self.text()
