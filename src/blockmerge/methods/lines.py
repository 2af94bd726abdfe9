"""Sums whose shares follow from scalar products, as in :mod:`.sphere`, but for each row or column of a tensor alone.

A row is what lies along the last dimension, a column what lies along the first. Products, sums and shares are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.methods.operations import Array, Measure, Observe, Operation, Run, whole_rows
from blockmerge.methods.scratch import CHUNK, chunks, scratch
from blockmerge.methods.sphere import Shares, decoded, shares_of

__all__ = ["ColumnSum", "RowSum"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RowSum(Operation):
    """A sum with shares of its own for each row of ``length`` elements; ``solve`` finds them from their Gram matrices.

    Operand 0 is the base, if there is one. ``settings`` are the plain numbers that ``solve`` was made from.
    """

    method: str
    settings: tuple[float, ...]
    solve: Shares
    base: bool
    length: int

    @property
    def row(self) -> int:
        """A row is measured and summed at once."""
        return self.length

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "row span",
            "method": self.method,
            "settings": list(self.settings),
            "base": self.base,
            "length": self.length,
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Gather the scalar products of all rows of a tile, then sum."""
        from blockmerge.kernels import dots, sums

        del dtypes, out, statistics
        step = whole_rows(CHUNK, self.length)

        def run(operands: Sequence[Array], result: Array, _first: int) -> bool:
            count, rows = len(operands) - self.base, result.size // self.length
            grams = np.empty((rows, count, count))
            for part in chunks(result.size, step):
                dots.grams(decoded(operands, part, base=self.base), self.length, grams[_rows(part, self.length)])
            shares = np.ascontiguousarray(shares_of(self.solve, grams).T)
            bad = False
            for part in chunks(result.size, step):
                total = scratch("total", (part.stop - part.start,), np.float64)
                total[:] = 0.0
                for k, vector in enumerate(decoded(operands, part, base=self.base)):
                    sums.add_rows(total, vector, shares[k, _rows(part, self.length)], self.length)
                if self.base:
                    sums.add(total, operands[0][part], 1.0)
                bad |= sums.store(total, result[part])
            return bad

        return run


def _rows(part: slice, length: int) -> slice:
    return slice(part.start // length, part.stop // length)


@dataclass(frozen=True, slots=True)
class _ColumnGrams(Measure):
    """The pass that gathers scalar products of columns; its statistic is (models, models, columns)."""

    base: bool
    columns: int

    def bind(self, statistics: Sequence[Array]) -> Observe:
        """The products of one granule, which is made of whole rows."""
        from blockmerge.kernels import dots

        del statistics

        def observe(operands: Sequence[Array], _first: int) -> Floats:
            count = len(operands) - self.base
            total = np.zeros((count, count, self.columns))
            for part in chunks(operands[0].size, whole_rows(CHUNK, self.columns)):
                dots.add_products(decoded(operands, part, base=self.base), self.columns, total)
            below, above = np.tril_indices(count, -1)
            total[below, above] = total[above, below]
            return total

        return observe


@dataclass(frozen=True)
class ColumnSum(Operation):
    """A sum with shares of its own for each of ``columns`` columns; else as :class:`RowSum`."""

    method: str
    settings: tuple[float, ...]
    solve: Shares
    base: bool
    columns: int

    @property
    def measures(self) -> tuple[_ColumnGrams, ...]:
        """One pass for the scalar products."""
        return (_ColumnGrams(self.base, self.columns),)

    @property
    def row(self) -> int:
        """Products are gathered over whole rows."""
        return self.columns

    def numbers(self) -> dict[str, Any]:
        """The plain values."""
        return {
            "kind": "column span",
            "method": self.method,
            "settings": list(self.settings),
            "base": self.base,
            "columns": self.columns,
        }

    def bind(self, dtypes: Sequence[DType], out: DType, statistics: Sequence[Array] = ()) -> Run:
        """Sum with the shares that follow from the scalar products."""
        from blockmerge.kernels import sums

        del dtypes, out
        shares = np.ascontiguousarray(shares_of(self.solve, np.moveaxis(statistics[0][0], -1, 0)).T)

        def run(operands: Sequence[Array], result: Array, first: int) -> bool:
            bad = False
            for part in chunks(result.size):
                total = scratch("total", (part.stop - part.start,), np.float64)
                total[:] = 0.0
                for k, vector in enumerate(decoded(operands, part, base=self.base)):
                    sums.add_columns(total, vector, shares[k], (first + part.start) % self.columns)
                if self.base:
                    sums.add(total, operands[0][part], 1.0)
                bad |= sums.store(total, result[part])
            return bad

        return run
