"""Masks: which elements are not zero, a bit each."""

from __future__ import annotations

import numpy as np

from blockmerge.kernels.bits import only
from blockmerge.kernels.cache import inner

__all__ = ["pack", "restrict"]

_GATHER = np.uint64(0x0102040810204080)
"""Multiplied by this, the lowest bits of eight bytes come together in the highest byte."""
_SPREAD, _OWN = np.uint64(0x0101010101010101), np.uint64(0x8040201008040201)


@inner
def pack(values, marks, bits):
    """Set bit ``i % 8`` of ``bits[i // 8]`` where ``values[i]`` is not zero; ``marks`` is room for eight more."""
    for i in range(values.size):
        marks[i] = np.uint8(values[i] != 0)
    marks[values.size : values.size + 8] = 0
    count = (values.size + 7) // 8
    eights, bits = marks[: 8 * count].view(np.uint64), bits[:count]
    for i in range(count):
        bits[i] = np.uint8((eights[i] * _GATHER) >> np.uint64(56))


@inner
def restrict(values, marks, bits):
    """Zero ``values`` where their bit is not set; as above."""
    count = (values.size + 7) // 8
    eights, bits = marks[: 8 * count].view(np.uint64), bits[:count]
    for i in range(count):
        eights[i] = np.uint64(bits[i]) * _SPREAD & _OWN
    for i in range(values.size):
        values[i] = only(values[i], marks[i] != 0)
