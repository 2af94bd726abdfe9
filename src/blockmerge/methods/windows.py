"""What one reading of a tensor tells about windows of its scores: how many are where, and an excerpt of the tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import GRANULE, STEP, Array, Tally
from blockmerge.methods.scratch import scratch
from blockmerge.methods.vectors import uniform

__all__ = ["MOST", "Part", "Seen", "Watch", "Windows", "parts"]

_ROOM, MOST = GRANULE // 4, 1 << 25
"""Elements of a granule's excerpt, and bytes of a tensor's, that may be kept."""
Ends = NDArray[np.int64]


class Part(NamedTuple):
    """Operands (operands, elements) of some of the elements of a granule from ``start`` on.

    Those of chunk k behind that are the ones from ``ends[k]`` to ``ends[k + 1]``.
    """

    start: int
    operands: NDArray[Any]
    ends: Ends


def parts(operands: Sequence[Array]) -> Iterator[Part]:
    """All elements of a granule."""
    for start, some in uniform(operands, STEP):
        yield Part(start, some, np.array([*range(0, some.shape[1], STEP), some.shape[1]]))


@dataclass(frozen=True, slots=True)
class Windows:
    """Neighbouring floats as bits of float32: the ``lows`` of each window, and its size; of score ``numbers``."""

    lows: NDArray[np.uint32]
    sizes: NDArray[np.uint32]
    numbers: NDArray[np.int64]

    @property
    def ends(self) -> NDArray[np.uint32]:
        """The bits behind each."""
        return self.lows + self.sizes


@dataclass
class Seen:
    """What was seen of ``windows``: ``counts``, (windows, 3 + bins), as ``kernels.select.count_window`` tells them.

    Of granules, by their first element: ``above`` is what was found out about what is above the first window,
    ``excerpts`` are what is in any window; None if that was too much to keep.
    """

    windows: Windows
    counts: NDArray[np.int64]
    above: dict[int, Array]
    excerpts: dict[int, list[Part]] | None

    def __add__(self, other: Seen) -> Seen:
        """What was seen of two tensors that are measured as one."""
        return Seen(self.windows, self.counts + other.counts, {}, None)


class Watch(Tally):
    """Looks at ``windows``, as ``scoring`` scores.

    ``above`` takes operands, and the bits behind the first window. ``excerpting``: whether to keep excerpts.
    """

    def __init__(
        self, scoring: Any, windows: Windows, above: Callable[[NDArray[Any], np.uint32], Array], *, excerpting: bool
    ) -> None:
        from blockmerge.kernels import select

        self._scoring, self._windows, self._look_above = scoring, windows, above
        self._above, self._excerpts = dict[int, Array](), dict[int, list[Part]]()
        self._left = MOST if excerpting else 0
        super().__init__((windows.lows.size, 3 + int(windows.sizes.max()) // select.VALUES), self._look)

    def total(self) -> Seen:
        """All that was seen."""
        return Seen(self._windows, super().total()[0], self._above, self._excerpts if self._left > 0 else None)

    def _look(self, operands: Sequence[Array], first: int, counts: Array) -> None:
        excerpt, above = list[Part](), list[Array]()
        for start, some in uniform(operands, STEP):
            excerpt.append(self._counted(some, first, start, counts))
            above.append(self._look_above(some, self._windows.ends[0]))
        with self._guard:
            self._above[first] = sum(above[1:], above[0])
            self._left -= sum(part.operands.nbytes for part in excerpt)
            if self._left > 0:
                self._excerpts[first] = excerpt
            else:
                self._excerpts.clear()

    def _counted(self, operands: NDArray[Any], first: int, start: int, counts: Array) -> Part:
        """Count in operands from element ``start`` of a granule on; gives their excerpt."""
        from blockmerge.kernels import select

        lows, sizes, numbers = self._windows.lows, self._windows.sizes, self._windows.numbers
        room = scratch("excerpt", (len(operands), _ROOM if self._left > 0 else 0), operands.dtype)
        ends = np.zeros(1 - (-operands.shape[1] // STEP), np.int64)
        select.count_window(self._scoring, operands, first + start, numbers, lows, sizes, counts, room, STEP, ends)
        if ends[-1] > room.shape[1]:
            self._left = 0
        return Part(start, room[:, : ends[-1]].copy(), ends)
