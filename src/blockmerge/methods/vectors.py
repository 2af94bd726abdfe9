"""Task vectors as arrays of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import Array
from blockmerge.methods.scratch import scratch

__all__ = ["vectors"]


def vectors(operands: Sequence[Array], narrow: NDArray[np.float32], precision: Any) -> NDArray[Any]:
    """All operands less the first in ``precision``, (models, elements): ``narrow`` itself, if that is float32."""
    from blockmerge.kernels import sums

    if precision == np.float32:
        return narrow
    wide = scratch("wide", narrow.shape, np.float64)
    for vector, operand in zip(wide, operands[1:], strict=True):
        sums.difference(operand, operands[0], vector)
    return wide
