"""Task vectors as arrays of numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import Array
from blockmerge.methods.scratch import chunks, scratch

__all__ = ["deltas", "exact", "stacked", "uniform", "vectors"]


def uniform(operands: Sequence[Array], step: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """The operands as arrays (operands, elements), as kernels take them, with the element that each starts at.

    One array, if they are of one format; else parts of ``step`` elements, decoded, which loses nothing.
    """
    if isinstance(operands, np.ndarray):
        yield 0, operands
        return
    for part in chunks(operands[0].size, step):
        yield part.start, stacked([operand[part] for operand in operands])


def exact(operands: NDArray[Any]) -> Any:
    """The numpy type in which differences of encoded elements are next to exact: float32 for formats of 16 bits."""
    return np.float32 if operands.itemsize == 2 else np.float64


def deltas(operands: Sequence[Array], part: slice) -> NDArray[np.float32]:
    """A part of all operands less the first as float32, (models, elements), in this thread's scratch."""
    return _differences(operands, part, scratch("deltas", (len(operands) - 1, part.stop - part.start), np.float32))


def vectors(operands: Sequence[Array], part: slice, narrow: NDArray[np.float32], precision: Any) -> NDArray[Any]:
    """The same in ``precision``: ``narrow`` itself, what :func:`deltas` gave, if that is float32."""
    if precision == np.float32:
        return narrow
    return _differences(operands, part, scratch("wide", narrow.shape, np.float64))


def _differences(operands: Sequence[Array], part: slice, out: NDArray[Any]) -> NDArray[Any]:
    from blockmerge.kernels import sums

    if isinstance(operands, np.ndarray):
        sums.differences(operands, part.start, out)
    else:  # decode no more than the part
        sums.differences(stacked([operand[part] for operand in operands]), 0, out)
    return out


def stacked(operands: Sequence[Array]) -> NDArray[Any]:
    """The operands as one array (operands, elements), as kernels take them.

    They come like that if they are of one format; else they are decoded, which loses nothing.
    """
    if isinstance(operands, np.ndarray):
        return operands
    from blockmerge.kernels import sums

    if len({operand.dtype for operand in operands}) == 1:
        return np.stack(operands)
    wide = any(operand.dtype == np.float64 for operand in operands)
    found = scratch("stacked", (len(operands), operands[0].size), np.float64 if wide else np.float32)
    for operand, numbers in zip(operands, found, strict=True):
        sums.numbers(operand, numbers)
    return found
