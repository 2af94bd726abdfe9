"""What is known of a tensor before its bytes are read."""

from __future__ import annotations

import math
from dataclasses import dataclass

from blockmerge.dtypes import DType

__all__ = ["TensorSpec"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Declared dtype and shape of a named tensor, as in the header of its file.

    ``home`` is the dtype that the tensor has in its model, where it is read in another one.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    home: DType | None = None

    @property
    def result_dtype(self) -> DType:
        """The dtype that a result takes which goes in its place, unless somebody asks for another; never 8 bits."""
        return self.dtype if self.home is None or self.home.bits < 16 else self.home

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar (shape ``()``)."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, as they are read or written."""
        return self.elements * self.dtype.bits // 8
