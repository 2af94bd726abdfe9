"""Working memory of operations: one set of arrays per thread, used again for every tile."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["CHUNK", "chunks", "scratch"]

CHUNK = 1 << 14
"""Elements that an operation works on at once: with a few operands as float64, what an L2 cache holds."""

_own = threading.local()


def scratch(purpose: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialised array that this thread alone uses for ``purpose``, until it asks for it again."""
    arrays: dict[str, NDArray[Any]] = _own.__dict__.setdefault("arrays", {})
    size, found = math.prod(shape), arrays.get(purpose)
    if found is None or found.size < size or found.dtype != dtype:
        found = arrays[purpose] = np.empty(size, dtype)
    return found[:size].reshape(shape)


def chunks(size: int, step: int = CHUNK) -> Iterator[slice]:
    """Consecutive slices of at most ``step`` elements that cover ``size``."""
    for first in range(0, size, step):
        yield slice(first, min(first + step, size))
