"""Slow, clear twins of the kernels, in numpy and float64: what the fast ones are held to.

Encodings are taken apart with exact integer and power-of-two arithmetic, independently of :mod:`.bits`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import BF16, F16, F32, F64, DType

__all__ = ["convert", "decode", "encode", "lerp", "lerp_wide", "original", "rounded"]

Numbers = NDArray[np.float64]
_FORMATS = {BF16: (7, -126, 127), F16: (10, -14, 15), F32: (23, -126, 127)}
"""Explicit significand bits, smallest and largest exponent of normal numbers."""


def decode(elements: NDArray[np.generic], dtype: DType) -> Numbers:
    """The exact values of encoded ``elements``, as float64."""
    with np.errstate(invalid="ignore"):  # a signalling NaN becomes a quiet one
        if dtype == BF16:
            return (elements.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        if dtype == F16:
            return elements.view(np.float16).astype(np.float64)
        return elements.astype(np.float64)


def rounded(values: Numbers, dtype: DType) -> Numbers:
    """``values`` rounded once, to nearest with ties to even, to what ``dtype`` can hold (infinity on overflow)."""
    if dtype == F64:
        return values
    bits, low, high = _FORMATS[dtype]
    with np.errstate(all="ignore"):
        exponent = np.maximum(np.frexp(values)[1] - 1, low)
        unit = np.ldexp(1.0, exponent - bits)
        result = np.where(np.isfinite(values), np.rint(values / unit) * unit, values)
        limit = (2.0 - 2.0**-bits) * 2.0**high
        return np.where(np.abs(result) > limit, np.copysign(np.inf, result), result)


def encode(values: Numbers, dtype: DType) -> NDArray[np.generic]:
    """``values`` rounded once and spelled in ``dtype``; NaN becomes the canonical quiet NaN of 16-bit formats."""
    with np.errstate(all="ignore"):
        exact = rounded(values, dtype)
        if dtype == BF16:
            spelled = (exact.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
            return np.where(np.isnan(exact), np.uint16(0x7FC0), spelled)
        if dtype == F16:
            spelled = exact.astype(np.float16).view(np.int16)
            return np.where(np.isnan(exact), np.int16(0x7E00), spelled)
        return exact.astype(dtype.storage)


def convert(a: NDArray[np.generic], a_dtype: DType, out_dtype: DType) -> NDArray[np.generic]:
    """``a`` in another format, rounded once."""
    return encode(decode(a, a_dtype), out_dtype)


def _lerp(x: Numbers, y: Numbers, w: float, step: DType) -> Numbers:
    """The two-sided interpolation, each operation rounded to ``step`` (float64 holds float32 steps)."""
    share, rest = (float(rounded(np.array(value), step)) for value in (w, 1.0 - w))
    with np.errstate(all="ignore"):
        if share < 0.5:
            return rounded(x - rounded(share * rounded(x - y, step), step), step)
        return rounded(y - rounded(rest * rounded(y - x, step), step), step)


def lerp(
    a: NDArray[np.generic], a_dtype: DType, b: NDArray[np.generic], b_dtype: DType, out_dtype: DType, w: float
) -> NDArray[np.generic]:
    """``(1 - w) a + w b`` in float32 steps."""
    return encode(_lerp(decode(a, a_dtype), decode(b, b_dtype), w, F32), out_dtype)


def lerp_wide(
    a: NDArray[np.generic], a_dtype: DType, b: NDArray[np.generic], b_dtype: DType, out_dtype: DType, w: float
) -> NDArray[np.generic]:
    """``(1 - w) a + w b`` in float64 steps."""
    return encode(_lerp(decode(a, a_dtype), decode(b, b_dtype), w, F64), out_dtype)


def original(
    x: Numbers, y: Numbers, *, load: tuple[DType, DType], work: tuple[DType, DType], work_sum: DType, ratio: float
) -> Numbers:
    """The original's blend of exact values, in the format that model 1 is blended in: see the kernel."""
    first, second = (rounded(rounded(value, load[k]), work[k]) for k, value in enumerate((x, y)))
    shares = [float(np.float32(value)) for value in (1 - ratio, ratio)]
    with np.errstate(all="ignore"):
        products = [
            rounded(rounded(share * value, F32), dtype)
            for share, value, dtype in zip(shares, (first, second), work, strict=True)
        ]
        return rounded(rounded(rounded(products[0] + products[1], F32), work_sum), work[0])
