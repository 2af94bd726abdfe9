"""The family of methods that thin out task vectors, let them agree on signs, and add them to the base.

Selection looks at differences from the base in float32. What is selected is summed in float32, or in float64 for
float32 results and float64 inputs, and rounded once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call
from blockmerge.methods.operations import Array, Measure, Operation, Run, precision_of
from blockmerge.methods.scratch import scratch
from blockmerge.methods.selection import Coarse, Fine, Share, Ties, bounds_of, deltas, quotas

__all__ = ["TaskVectors"]

Thin = Callable[[NDArray[np.float32], int, int], None]
"""Zeroes in place what is dropped of a task vector: takes a granule, the number of the model, the first element."""


@dataclass(frozen=True)
class TaskVectors(Operation):
    """``base + scale * join(weight * thinned(x - base))``; operand 0 is the base.

    ``thin``: ``magnitude`` keeps the ``shares`` of each vector by magnitude; ``chance`` keeps elements at random with
    the density of each share and, with ``rescale``, divides by it; ``none`` keeps all. ``join``: ``sum``, or ``sign``
    for the sum of those elements that agree with the sign of the whole sum. ``normalize`` divides by the weights that
    took part.
    ``key`` seeds chance, and the choice among equal magnitudes.
    """

    weights: tuple[float, ...]
    shares: tuple[Share, ...]
    thin: Literal["none", "magnitude", "chance"] = "none"
    join: Literal["sum", "sign"] = "sum"
    normalize: bool = False
    rescale: bool = False
    scale: float = 1.0
    key: int = 0

    @classmethod
    def of(
        cls,
        call: Call,
        shares: Sequence[Share],
        *,
        thin: Literal["magnitude", "chance"],
        join: Literal["sum", "sign"],
        rescale: bool = False,
    ) -> TaskVectors:
        """The operation of a method with the usual parameters; where all of a vector is kept, nothing is thinned."""
        if join == "sum" and call.flag("normalize"):
            call.total("weight")
        whole = all(share.density >= 1 and share.gamma <= 0 for share in shares)
        return cls(
            weights=call.each("weight"),
            shares=tuple(shares),
            thin="none" if whole else thin,
            join=join,
            normalize=call.flag("normalize"),
            rescale=rescale,
            scale=call.number("lambda"),
            key=call.key,
        )

    @property
    def measures(self) -> Sequence[Measure]:
        """Three passes find the magnitudes to keep; chance needs none."""
        return (Coarse(), Fine(self.shares), Ties(self.shares)) if self.thin == "magnitude" else ()

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "task vectors",
            "weights": list(self.weights),
            "shares": [[share.density, share.gamma] for share in self.shares],
            "thin": self.thin,
            "join": self.join,
            "normalize": self.normalize,
            "rescale": self.rescale,
            "scale": self.scale,
            "key": self.key,
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Thin and join tile by tile."""
        from blockmerge.kernels import sums

        precision = precision_of(dtypes, out)
        factors = self._factors(precision)
        thin = self._thinning(statistics)
        divisor = sum(self.weights) if self.normalize and self.join == "sum" else 1.0
        scale = precision(self.scale / divisor)
        weights = np.array(self.weights, precision)

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            kept = deltas(operands)
            for number, delta in enumerate(kept):
                thin(delta, number, first)
            joined = scratch("joined", (result.size,), precision)
            self._joined(_widened(kept, operands, factors), weights, joined)
            total = scratch("total", (result.size,), precision)
            sums.numbers(operands[0], total)
            sums.add_numbers(total, joined, scale)
            return sums.store(total, result)

        return run

    def _factors(self, precision: Any) -> list[Any]:
        """What chance divides by."""
        inverse = self.thin == "chance" and self.rescale
        return [
            precision(1.0 / share.density) if inverse and share.density > 0 else precision(1.0) for share in self.shares
        ]

    def _joined(self, vectors: NDArray[Any], weights: NDArray[Any], out: NDArray[Any]) -> None:
        from blockmerge.kernels import consensus, sums

        out[:] = 0
        if self.join == "sign":
            consensus.agreeing_sum(vectors, weights, self.normalize, out)
            return
        for vector, weight in zip(vectors, weights, strict=True):
            sums.add_numbers(out, vector, weight)

    def _thinning(self, statistics: Sequence[Array]) -> Thin:
        from blockmerge.kernels import select

        keys = [np.uint64(select.mixed(np.uint64(number), np.uint64(self.key))) for number in range(len(self.shares))]
        if self.thin == "chance":
            limits = [np.uint64(round(min(max(share.density, 0.0), 1.0) * 2**32)) for share in self.shares]
            one = np.float32(1.0)
            return lambda delta, k, first: select.keep_by_chance(delta, limits[k], first, keys[k], one)
        if self.thin == "none":
            return lambda delta, k, first: None
        bounds = bounds_of(statistics[0][0], statistics[1][0], self.shares)
        kept = quotas(statistics[2], bounds)

        def by_magnitude(delta: NDArray[np.float32], k: int, first: int) -> None:
            low, high = np.uint32(bounds[k].low), np.uint32(bounds[k].high)
            select.keep_between(delta, low, int(kept[first][k, 0]), high, int(kept[first][k, 1]), first, keys[k])

        return by_magnitude


def _widened(kept: NDArray[np.float32], operands: Sequence[Array], factors: Sequence[Any]) -> NDArray[Any]:
    """The kept elements in the precision of ``factors``, times these: for float64, the differences are taken anew."""
    from blockmerge.kernels import consensus, sums

    if factors[0].dtype == np.float64:
        wide = scratch("wide", kept.shape, np.float64)
        for vector, operand, mask in zip(wide, operands[1:], kept, strict=True):
            sums.difference(operand, operands[0], vector)
            consensus.mask_by(vector, mask)
        kept = wide  # pyright: ignore[reportAssignmentType]
    for vector, factor in zip(kept, factors, strict=True):
        if factor != 1:
            vector *= factor
    return kept
