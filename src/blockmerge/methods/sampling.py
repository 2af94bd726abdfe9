"""A sample of scores, and two of it between which a rank of all scores is."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import GRANULE, STEP, Array, Whole
from blockmerge.methods.vectors import uniform

__all__ = ["HIGHEST", "LOWEST", "PART", "Bits", "Sampling", "around"]

PART = 64
"""One over the part of a tensor that is in a sample."""
LOWEST, HIGHEST = -1, 1 << 31
"""Below and above the bits of every size."""
Bits = NDArray[np.uint32]
"""Sizes of float32 as whole numbers, which ascend with them; what is not a number comes last."""
_MOST, _CLUSTER, _DEVIATIONS = 1 << 22, 1 << 11, 6


class Sampling(Whole):
    """Keeps the bits of all that is scored, for each of ``scores`` numbers: (scores, elements).

    Where that takes more than some MB, it keeps those of every second granule, or fourth, and so on.
    """

    def __init__(self, scoring: Any, scores: int) -> None:
        self._scoring, self._scores = scoring, scores
        self._most, self._stride = max(4, _MOST * PART // (4 * scores * GRANULE)), 1
        self._found = dict[int, Bits]()
        self._guard = threading.Lock()

    def __call__(self, operands: Sequence[Array], first: int) -> None:
        """Score the first part of a granule."""
        from blockmerge.kernels import select

        found = np.empty((self._scores, operands[0].size), np.uint32)
        for start, some in uniform(operands, STEP):
            for number, bits in enumerate(found):
                select.sizes(self._scoring, number, some, first + start, bits[start : start + some.shape[1]])
        with self._guard:
            self._found[first] = found
            self._thin()

    def _thin(self) -> None:
        """Which ones stay in the end does not depend on the order in which they come."""
        self._found = {first: bits for first, bits in self._found.items() if not first // GRANULE % self._stride}
        while len(self._found) > self._most:
            self._stride *= 2
            self._found = {first: bits for first, bits in self._found.items() if not first // GRANULE % self._stride}

    def total(self) -> Bits:
        """All that is kept."""
        return np.concatenate([self._found[first] for first in sorted(self._found)], axis=1)


def around(sample: Bits, rank: Callable[[int, int], int]) -> tuple[int, int]:
    """Two bits, the first of which is smaller: next to certainly what is at ``rank`` is one of them, or between.

    ``sample`` (elements,) stands in the order of the tensor: how much its parts differ tells how far it may mislead.
    """
    size = sample.size
    at = min(max(rank(size, size - int(np.count_nonzero(sample))), 0), size - 1)
    ordered = np.partition(sample, at)
    clusters = sample[: size - size % _CLUSTER].reshape(-1, _CLUSTER)
    spread = float(np.std(np.count_nonzero(clusters < ordered[at], axis=1))) if len(clusters) else 0.0
    deviation = max(math.sqrt(at * (size - at) / size), math.sqrt(len(clusters)) * spread)
    slack = math.ceil(_DEVIATIONS * (deviation + 1))
    low = LOWEST if at < slack else int(np.partition(ordered[: at + 1], at - slack)[at - slack])
    high = HIGHEST if at + slack >= size else int(np.partition(ordered[at:], slack)[slack])
    return low, max(high, low + 1)
