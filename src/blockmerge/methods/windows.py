"""What one reading of a tensor tells about windows of its scores: how many are where, and an excerpt of the tensor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.methods.operations import STEP, Array, Tally
from blockmerge.methods.scratch import scratch
from blockmerge.methods.vectors import uniform

__all__ = ["MOST", "Part", "Seen", "Watch", "Windows", "parts"]

MOST, _SHARE = 1 << 25, 4
"""Bytes that the excerpts of a tensor may take; one over the part of a granule that is worth keeping."""
Ends = NDArray[np.int64]
Above = Callable[[NDArray[Any], np.uint32], Array]
"""What has to be known of operands whose first score has bits from these on."""


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

    def __init__(self, scoring: Any, windows: Windows, above: Above, *, excerpting: bool) -> None:
        from blockmerge.kernels import select

        self._windows, self._kept = windows, _Kept(MOST if excerpting else 0)
        shape = windows.lows.size, 3 + int(windows.sizes.max()) // select.VALUES
        super().__init__(shape, partial(_look, scoring, windows, above, self._kept))

    def total(self) -> Seen:
        """All that was seen."""
        return Seen(self._windows, super().total()[0], self._kept.above, self._kept.excerpts)


class _Kept:
    """What is kept of granules: ``above`` of all, and excerpts unless they take more than ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self.above = dict[int, Array]()
        self._excerpts = dict[int, list[Part]]()
        self._left, self._guard = most, threading.Lock()

    @property
    def excerpts(self) -> dict[int, list[Part]] | None:
        """Those of all granules, or none."""
        return None if self.full else self._excerpts

    @property
    def full(self) -> bool:
        """Whether there were too many."""
        return self._left <= 0

    def add(self, first: int, above: Array, excerpt: list[Part], most: int) -> None:
        """Keep what was found in a granule, unless it has more than ``most`` bytes."""
        size = sum(part.operands.nbytes for part in excerpt)
        with self._guard:
            self.above[first] = above
            self._left -= size if size <= most else self._left
            if self.full:
                self._excerpts.clear()
            else:
                self._excerpts[first] = excerpt


def _look(
    scoring: Any, windows: Windows, above: Above, kept: _Kept, operands: Sequence[Array], first: int, counts: Array
) -> None:
    """Look at a granule."""
    from blockmerge.kernels import select

    lows, sizes, numbers = windows.lows, windows.sizes, windows.numbers
    excerpt, larger = list[Part](), list[Array]()
    for start, some in uniform(operands, STEP):
        room = scratch("excerpt", (len(some), 0 if kept.full else some.shape[1]), some.dtype)
        ends = np.zeros(1 - (-some.shape[1] // STEP), np.int64)
        select.count_window(scoring, some, first + start, numbers, lows, sizes, counts, room, STEP, ends)
        excerpt.append(Part(start, room[:, : ends[-1]].copy(), ends))
        larger.append(above(some, windows.ends[0]))
    kept.add(first, sum(larger[1:], larger[0]), excerpt, sum(each.nbytes for each in operands) // _SHARE)
