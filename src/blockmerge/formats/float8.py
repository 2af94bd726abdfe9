"""Floating-point numbers of 8 bits, read as bfloat16, which holds each of them exactly."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType

__all__ = ["is_float8", "to_bfloat16"]

_FORMATS = {
    "F8_E4M3": (4, 7, (0x7F, 0xFF)),
    "F8_E5M2": (5, 15, (*range(0x7C, 0x80), *range(0xFC, 0x100))),
    "F8_E4M3FNUZ": (4, 8, (0x80,)),
    "F8_E5M2FNUZ": (5, 16, (0x80,)),
}
"""Bits of the exponent, its bias, and the codes that are no finite number: NaN, and in F8_E5M2 two infinities."""
_INFINITIES = {"F8_E5M2": (0x7C, 0xFC)}


def is_float8(dtype: DType) -> bool:
    """Whether its elements are numbers of 8 bits that :func:`to_bfloat16` knows."""
    return dtype.code in _FORMATS


def to_bfloat16(codes: NDArray[np.uint8], dtype: DType, out: NDArray[np.uint16]) -> None:
    """Put the bfloat16 encodings of ``codes`` into ``out``, an array as long."""
    np.take(_table(dtype.code), codes, out=out, mode="clip")  # no code is out of bounds; other modes buffer


@cache
def _table(code: str) -> NDArray[np.uint16]:
    """The bfloat16 of each of the 256 codes."""
    exponent_bits, bias, special = _FORMATS[code]
    fraction_bits = 7 - exponent_bits
    codes = np.arange(256)
    exponent, fraction = codes >> fraction_bits & (1 << exponent_bits) - 1, codes & (1 << fraction_bits) - 1
    whole = fraction + (exponent > 0) * (1 << fraction_bits)
    values = np.ldexp(whole.astype(np.float32), np.maximum(exponent, 1) - bias - fraction_bits)
    values = np.where(codes >= 0x80, -values, values)
    values[list(special)] = np.nan
    for at, infinity in zip(_INFINITIES.get(code, ()), (np.inf, -np.inf), strict=False):
        values[at] = infinity
    encoded = (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), encoded)
