"""Ways to thin out task vectors: by magnitude, by chance, by a chance that grows with magnitude.

A thinning is data until it is bound to what was measured; then it tells the kernels in what way to thin.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.declaration import Call
from blockmerge.methods.operations import GRANULE, STEP, Array, Measure, Observe, whole_rows
from blockmerge.methods.selection import Deltas, Selection, Share, keys
from blockmerge.methods.vectors import uniform

__all__ = [
    "ByChance",
    "ByMagnitude",
    "ByRank",
    "Matched",
    "Nothing",
    "Thinning",
    "Way",
    "matched",
    "rescaled",
]

Way = Callable[[int, int], Any]
"""Tells the kernels in what way to thin (:mod:`blockmerge.kernels.thin`): takes the first element and how many."""


class Thinning(ABC):
    """One way to thin; ``rescale`` says whether it makes up for what it drops."""

    @property
    def measures(self) -> Sequence[Measure]:
        """Passes over the tensors before elements can be chosen."""
        return ()

    @property
    def row(self) -> int:
        """Elements that must be seen together."""
        return 1

    @property
    def step(self) -> int:
        """Elements of a chunk: whole rows, and as many as a cache holds."""
        return whole_rows(STEP, self.row)

    @property
    def joined(self) -> Hashable | None:
        """What tensors that are thinned as one have in common."""
        return None

    @property
    @abstractmethod
    def whole(self) -> bool:
        """Whether nothing is dropped."""

    @abstractmethod
    def numbers(self) -> dict[str, Any]:
        """The plain values, for the plan and its digest."""

    @abstractmethod
    def bind(self, statistics: Sequence[Array]) -> Way:
        """The way, given what was measured."""

    def scales(self, statistics: Sequence[Array], models: int) -> Sequence[float]:
        """What is left of each task vector is multiplied by this."""
        del statistics
        return (1.0,) * models


@dataclass(frozen=True)
class Nothing(Thinning):
    """Drops nothing."""

    @property
    def whole(self) -> bool:
        """Nothing is dropped."""
        return True

    def numbers(self) -> dict[str, Any]:
        """No values."""
        return {}

    def bind(self, statistics: Sequence[Array]) -> Way:
        """Keep everything."""
        from blockmerge.kernels import thin

        del statistics
        return lambda _first, _count: thin.Everything()


@dataclass(frozen=True)
class ByMagnitude(Thinning):
    """Keeps the ``shares`` of the task vectors; ``key`` seeds the choice among equal magnitudes.

    ``overall``: they are shares of whole models, so there is one threshold for all tensors, and all magnitudes that
    equal it are kept.
    """

    shares: tuple[Share, ...]
    key: int
    overall: bool = False

    @property
    def _selection(self) -> Selection:
        return Selection(Deltas(), self.shares, self.key, joined=self.overall)

    @property
    def measures(self) -> Sequence[Measure]:
        """The passes that find the magnitudes to keep."""
        return self._selection.measures

    @property
    def joined(self) -> Hashable | None:
        """All tensors of which as much is kept."""
        return ("magnitude", self.shares) if self.overall else None

    @property
    def whole(self) -> bool:
        """Whether nothing is dropped."""
        return self._selection.whole

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        shares = [[share.density, share.gamma, share.density_first] for share in self.shares]
        if self.overall:
            return {"by": "magnitude in the whole model", "shares": shares}
        return {"by": "magnitude", "shares": shares, "key": self.key}

    def bind(self, statistics: Sequence[Array]) -> Way:
        """Keep what lies between two magnitudes, and of those equal to one as many as a chunk may."""
        return self._selection.bind(statistics)


@dataclass(frozen=True)
class ByChance(Thinning):
    """Keeps each element with the chance that ``densities`` give, and divides by that if ``rescale``."""

    densities: tuple[float, ...]
    key: int
    rescale: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing is dropped."""
        return min(self.densities) >= 1

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {"by": "chance", "densities": list(self.densities), "rescale": self.rescale, "key": self.key}

    def bind(self, statistics: Sequence[Array]) -> Way:
        """Keep by a hash of the index."""
        from blockmerge.kernels import chance, thin

        del statistics
        limits = np.array([chance.limit_of(density) for density in self.densities], np.uint32)
        seeds = keys(len(self.densities), self.key)
        return lambda _first, _count: thin.ByChance(limits, seeds)

    def scales(self, statistics: Sequence[Array], models: int) -> Sequence[float]:
        """One over the densities, if they are made up for."""
        del statistics
        return [1.0 / density if self.rescale and density > 0 else 1.0 for density in self.densities]


@dataclass(frozen=True)
class ByRank(Thinning):
    """Keeps elements with a chance that is linear in the rank of their magnitude within their row.

    ``chances`` are, for each model, that of the smallest element of a row and that of the largest; the only one of a
    row has their mean. Equal magnitudes share the mean of their ranks. ``length`` is a row's. With ``rescale`` elements
    are divided by their chance, so that each is kept on average as it is.
    """

    chances: tuple[tuple[float, float], ...]
    length: int
    key: int
    rescale: bool = False

    @property
    def row(self) -> int:
        """A whole row is ranked."""
        return self.length

    @property
    def whole(self) -> bool:
        """Whether nothing is dropped."""
        return min(low for low, _ in self.chances) >= 1

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        chances = [list(ends) for ends in self.chances]
        return {"by": "rank", "chances": chances, "length": self.length, "rescale": self.rescale, "key": self.key}

    def bind(self, statistics: Sequence[Array]) -> Way:
        """Keep by a hash of the index, row by row."""
        from blockmerge.kernels import thin

        del statistics
        chances, seeds = np.array(self.chances), keys(len(self.chances), self.key)

        kind = thin.ByRankRescaled if self.rescale else thin.ByRank

        def way(_first: int, count: int) -> thin.ByRank | thin.ByRankRescaled:
            row = min(self.length, count)  # a vocabulary's row may be cut
            return kind(chances, seeds, thin.ranking(row), row)

        return way


@dataclass(frozen=True)
class _Norms(Measure):
    """The pass that adds up the magnitudes of task vectors as they are and when thinned by ``thinning``.

    For each granule: its first element, the two norms of each of the ``models`` in float64, and a bit for each of the
    ``elements`` that is left, if all these fit into memory. All as bytes, (granules, bytes).
    """

    thinning: Thinning
    models: int
    elements: int

    @property
    def stacked(self) -> bool:
        """Granules are told apart: sums are in their order."""
        return True

    def memory(self, size: int) -> int:
        """The bytes of all bits, or nothing if these are too many."""
        del size
        return self.bits

    @property
    def bits(self) -> int:
        """The same, which only depends on how many elements there are."""
        row = self.thinning.row
        each = -(-self.elements // row) * -(-row // 8) if row > 1 else -(-self.elements // 8)
        return self.models * each if self.models * each <= _MOST else 0

    @property
    def unit(self) -> int:
        """Elements of which the bits stand together, in whole bytes."""
        from blockmerge.kernels.sums import SOME

        return self.thinning.row if self.thinning.row > 1 else SOME

    @property
    def granule(self) -> int:
        """Elements of a granule that is not the last."""
        return whole_rows(GRANULE, self.thinning.row)

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """What was found in one granule."""
        from blockmerge.kernels import thin

        way, step, unit, models = self.thinning.bind(statistics), self.thinning.step, self.unit, self.models
        rows, size = -(-min(self.granule, self.elements) // unit) if self.bits else 0, -(-unit // 8)

        def observe(operands: Sequence[Array], first: int) -> NDArray[np.uint8]:
            found = np.zeros(_HEAD + 16 * models + rows * models * size, np.uint8)
            found[:_HEAD].view(np.int64)[0] = first
            total = found[_HEAD : _HEAD + 16 * models].view(np.float64).reshape(models, 2)
            bits = found[_HEAD + 16 * models :].reshape(rows, models, size)
            for start, some in uniform(operands, step):
                norms = np.empty_like(total)
                thin.norms(some, way(first + start, some.shape[1]), first + start, norms, bits[start // unit :])
                total += norms
            return found

        return observe

    def norms(self, found: Array) -> NDArray[np.float64]:
        """The norms of the tensor, (models, 2)."""
        norms = np.ascontiguousarray(found[:, _HEAD : _HEAD + 16 * self.models]).view(np.float64)
        return norms.reshape(-1, self.models, 2).sum(axis=0)

    def left(self, found: Array) -> Way:
        """The way that leaves the same again."""
        from blockmerge.kernels import thin

        begin, skipped, row = int(found[0, :_HEAD].view(np.int64)[0]), _HEAD + 16 * self.models, self.unit

        def way(_first: int, _count: int) -> thin.Remembered:
            marks = np.empty(row + 8, np.uint8)
            return thin.Remembered(found, skipped, begin, self.granule, self.models, marks, row)

        return way


_HEAD, _MOST = 8, 1 << 25
"""Bytes of a granule's first element, and of what may be remembered of a tensor."""


@dataclass(frozen=True)
class Matched(Thinning):
    """``thinning``, with one factor for each model that gives back the L1 norm of its task vector; as mergekit does.

    What is left is not decided twice, if the decisions for all ``elements`` of a tensor fit into memory.
    """

    thinning: Thinning
    models: int
    elements: int

    @property
    def _norms(self) -> _Norms:
        return _Norms(self.thinning, self.models, self.elements)

    @property
    def measures(self) -> Sequence[Measure]:
        """One pass more, for the norms."""
        return (*self.thinning.measures, self._norms)

    @property
    def row(self) -> int:
        """The row of the thinning."""
        return self.thinning.row

    @property
    def whole(self) -> bool:
        """Whether nothing is dropped."""
        return self.thinning.whole

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {**self.thinning.numbers(), "matched": "l1"}

    def bind(self, statistics: Sequence[Array]) -> Way:
        """That of the thinning, or what it left when it was measured."""
        norms = self._norms
        return norms.left(statistics[-1]) if norms.bits else self.thinning.bind(statistics[:-1])

    def scales(self, statistics: Sequence[Array], models: int) -> Sequence[float]:
        """The ratios of the norms; 1 where one of them is next to nothing or not finite."""
        del models
        return [
            before / after if min(before, after) >= _NO_NORM and math.isfinite(before) else 1.0
            for before, after in self._norms.norms(statistics[-1])
        ]


_NO_NORM = 1e-7


def matched(call: Call, thinning: Thinning) -> Thinning:
    """``thinning``, with its norms given back if the flag ``rescale`` asks for that."""
    if not call.flag("rescale"):
        return thinning
    return Matched(thinning, models=len(call.each("weight")), elements=math.prod(call.shape))


def rescaled(call: Call, make: Callable[[bool], Thinning]) -> Thinning:
    """What ``make`` gives with its own rescaling, without any, or with norms given back, as the settings say."""
    if call.values["variant"] == "mergekit":
        return matched(call, make(False))
    return make(call.flag("rescale"))
