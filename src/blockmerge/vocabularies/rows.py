"""Which rows of which models make up the matrix of a model in the merged vocabulary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["AVERAGE", "MEAN", "ZERO", "RowMap"]

ZERO, AVERAGE, MEAN = -1, -2, -3
"""Donors that are no models: zeros, the average of some rows, the mean of the rows of all tokens."""
Integers = NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class RowMap:
    """The aligned matrix of model number ``model``, row by row; all arrays are int64.

    Row ``r`` is row ``row[r]`` of model ``donor[r]``; zeros where that is ``ZERO``; where it is ``AVERAGE``, the
    average of rows ``member_row[i]`` of models ``member_model[i]`` for ``i`` from ``start[row[r]]`` up to
    ``start[row[r] + 1]``; and where it is ``MEAN``, the mean of the rows ``tokens`` of this very matrix.
    """

    model: int
    donor: Integers
    row: Integers
    start: Integers
    member_model: Integers
    member_row: Integers
    tokens: Integers

    @property
    def size(self) -> int:
        """Rows of the aligned matrix."""
        return len(self.donor)

    def is_identity(self, rows: int) -> bool:
        """Whether the aligned matrix is the model's own one of ``rows`` rows."""
        own = bool((self.donor == self.model).all()) and np.array_equal(self.row, np.arange(self.size))
        return own and rows == self.size

    @property
    def donors(self) -> tuple[int, ...]:
        """The models that it takes rows from, in order."""
        whole = np.unique(self.donor[self.donor >= 0])
        return tuple(int(model) for model in np.union1d(whole, self.member_model))

    def rows_needed(self, model: int) -> int:
        """How many rows the matrix of ``model`` must have."""
        rows = np.concatenate((self.row[self.donor == model], self.member_row[self.member_model == model]))
        return int(rows.max(initial=-1)) + 1

    def digest(self) -> str:
        """sha256 (hex) of all that decides a row."""
        digest = hashlib.sha256(str(self.model).encode())
        for array in (self.donor, self.row, self.start, self.member_model, self.member_row, self.tokens):
            digest.update(len(array).to_bytes(8, "little") + array.astype("<i8").tobytes())
        return digest.hexdigest()
