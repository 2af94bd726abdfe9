"""consensus_ta and consensus_ties: of a joined task vector, only what several models use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.declaration import Call, Method, Parameter
from blockmerge.methods.operations import STEP, Array, Measure, Operation, Run, precision_of
from blockmerge.methods.scratch import chunks, scratch
from blockmerge.methods.selection import Deltas, Selection, Share
from blockmerge.methods.task_arithmetic import LAMBDA, NORMALIZE, WEIGHT
from blockmerge.methods.ties import DENSITY
from blockmerge.methods.vectors import deltas, vectors

__all__ = ["METHODS", "Consensus"]

Trim = Callable[[Sequence[Array], slice, int], NDArray[Any]]
"""Takes operands, which part of them, and their first element; gives task vectors, zero where they are trimmed."""


@dataclass(frozen=True)
class Consensus(Operation):
    """``base + scale * used(join(weight * trimmed(x - base)))``; operand 0 is the base.

    ``used`` keeps an element of the joined vector if for ``least`` models or more the element of their whole task
    vector is at least its ``factor`` times as large as the distance to the joined one. ``join``: ``sum``, or ``sign``
    for the sum of what agrees with the sign of the whole sum; ``normalize`` divides by the weights that took part.
    ``shares`` say what is kept of each vector by magnitude; ``key`` chooses among equal ones.
    """

    weights: tuple[float, ...]
    shares: tuple[Share, ...]
    factors: tuple[float, ...]
    least: int
    join: Literal["sum", "sign"]
    normalize: bool
    scale: float
    key: int

    @property
    def _selection(self) -> Selection:
        return Selection(Deltas(), self.shares, self.key)

    @property
    def measures(self) -> Sequence[Measure]:
        """The passes that find the magnitudes to keep, unless all are."""
        return self._selection.measures

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "consensus",
            "weights": list(self.weights),
            "densities": [share.density for share in self.shares],
            "factors": list(self.factors),
            "least": self.least,
            "join": self.join,
            "normalize": self.normalize,
            "scale": self.scale,
            "key": self.key,
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Trim, join and keep what is used, tile by tile."""
        from blockmerge.kernels import sums, tall

        precision = precision_of(dtypes, out)
        factors, weights = np.array(self.factors, precision), np.array(self.weights, precision)
        trimmed, scale = self._trimming(statistics, precision), precision(self.scale)

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            bad = False
            for part in chunks(result.size, STEP):
                base = operands[0][part]
                joined, total = scratch("joined", base.shape, precision), scratch("total", base.shape, precision)
                self._join(trimmed(operands, part, first), weights, joined)
                tall.keep_used(vectors(operands, part, deltas(operands, part), precision), factors, self.least, joined)
                sums.numbers(base, total)
                sums.add_numbers(total, joined, scale)
                bad |= sums.store(total, result[part])
            return bad

        return run

    def _join(self, trimmed: NDArray[Any], weights: NDArray[Any], out: NDArray[Any]) -> None:
        from blockmerge.kernels import consensus

        if self.join == "sign":
            consensus.agreeing_sum(trimmed, weights, self.normalize, out)
        else:
            consensus.plain_sum(
                trimmed, weights / weights.dtype.type(sum(self.weights) if self.normalize else 1.0), out
            )

    def _trimming(self, statistics: Sequence[Array], precision: Any) -> Trim:
        from blockmerge.kernels import consensus, thin

        if self._selection.whole:
            return lambda operands, part, _first: vectors(operands, part, deltas(operands, part), precision)
        keep = self._selection.bind(statistics)

        def trim(operands: Sequence[Array], part: slice, first: int) -> NDArray[Any]:
            narrow = deltas(operands, part)
            thin.thin_all(narrow, keep(first + part.start, narrow.shape[1]), first + part.start)
            found = vectors(operands, part, narrow, precision)
            if found is not narrow:
                for vector, delta in zip(found, narrow, strict=True):
                    consensus.mask_by(vector, delta)
            return found

        return trim


def _build(call: Call, *, join: Literal["sum", "sign"]) -> Operation:
    if join == "sum" and call.flag("normalize"):
        call.total("weight")
    densities = call.each("density") if join == "sign" else (1.0,) * len(call.each("weight"))
    return Consensus(
        weights=call.each("weight"),
        shares=tuple(Share(density) for density in densities),
        factors=call.each("tall_lambda"),
        least=int(call.number("k")),
        join=join,
        normalize=call.flag("normalize"),
        scale=call.number("lambda"),
        key=call.key,
    )


_USED = (
    Parameter(
        "tall_lambda",
        "A model uses an element if its change is this many times its distance to the joined change, or more.",
        default=0.4,
        per_model=True,
        low=0,
    ),
    Parameter("k", "Models that must use an element for it to be kept, rounded down.", default=2.0, low=0),
    LAMBDA,
    NORMALIZE,
)
_MASK = "[at least k models have |d_i| >= tall_lambda_i |D - d_i|]"

METHODS = (
    Method(
        name="consensus_ta",
        summary="Task arithmetic without the elements that too few of the models use.",
        equation=f"B + lambda D {_MASK}, D = sum(w_i d_i) [/ sum(w_i)], d_i = W_i - B",
        paper="arXiv:2405.07813",
        build=partial(_build, join="sum"),
        parameters=(WEIGHT, *_USED),
        base="required",
        symmetric=True,
    ),
    Method(
        name="consensus_ties",
        summary="ties without the elements that too few of the models use.",
        equation=f"B + lambda D {_MASK}, D = sum(w_i t_i [sign agrees]) [/ sum(w_i [sign agrees])], "
        "t_i = top density of d_i = W_i - B",
        paper="arXiv:2405.07813",
        build=partial(_build, join="sign"),
        parameters=(WEIGHT, DENSITY, *_USED),
        base="required",
    ),
)
