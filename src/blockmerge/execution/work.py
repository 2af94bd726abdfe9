"""One row in the making: its passes, what they measured, and the digests of its blocks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from blockmerge.methods.operations import GRANULE, STEP, Measure, Observe, Run, Whole, whole_rows
from blockmerge.planning import Piece, Row

__all__ = ["BLOCK", "Group", "RowWork", "Tile", "granules", "tiles"]

BLOCK = 1 << 20
"""Bytes of output in a canonical block."""
_DIGEST = 16
Array = NDArray[Any]
_NOTHING: Array = np.empty(0)


@dataclass(frozen=True, slots=True)
class Tile:
    """``count`` elements of a row from element ``first`` on, inside piece number ``piece``.

    Of these, ``kept`` from the one at ``skipped`` on belong to the block; the others are there to make rows whole.
    """

    piece: int
    first: int
    count: int
    skipped: int
    kept: int

    def start(self, part: int) -> Tile:
        """The first ``1 / part`` of it, but an element at least."""
        return Tile(self.piece, self.first, -(-self.count // part), 0, -(-self.kept // part))


def tiles(row: Row, block: int, tile: int) -> Iterator[Tile]:
    """The tiles of one block of ``row``, none across pieces: at most ``tile`` bytes of output each, or one row.

    A row of an operation that lies across the edge of blocks is computed in each of them. Where an operation measures
    first and has no rows, tiles are whole chunks.
    """
    for number, piece, low, high in _cut(row, block):
        operation = piece.operation
        unit = STEP if operation.measures and operation.row == 1 else operation.row
        step = whole_rows(tile // row.dtype.itemsize, unit)
        start = low - (low - piece.first) % unit
        end = min(high + (piece.first - high) % unit, piece.first + piece.count)
        for first in range(start, end, step):
            last = min(first + step, end)
            begin = max(first, low)
            yield Tile(number, first, last - first, begin - first, min(last, high) - begin)


def granules(row: Row, block: int) -> Iterator[Tile]:
    """The granules that start in one block of ``row``, for measuring passes: they depend on nothing but the row."""
    for number, piece, low, high in _cut(row, block):
        step = whole_rows(GRANULE, piece.operation.row)
        for first in range(low + (piece.first - low) % step, high, step):
            count = min(step, piece.first + piece.count - first)
            yield Tile(number, first, count, 0, count)


def _cut(row: Row, block: int) -> Iterator[tuple[int, Piece, int, int]]:
    """The pieces that have elements in a block: number, piece, the first of these elements and the end."""
    size = row.dtype.itemsize
    start, end = block * BLOCK // size, min((block + 1) * BLOCK // size, row.elements)
    for number, piece in enumerate(row.pieces):
        low, high = max(start, piece.first), min(end, piece.first + piece.count)
        if low < high:
            yield number, piece, low, high


class _Observed:
    """What the granules of a piece gave in one pass: ``found`` is all of it, or its sum, in the order of granules."""

    def __init__(self, first: int) -> None:
        self.found: list[Array] = []
        self._next = first
        self._early: dict[int, tuple[Array, int]] = {}

    def add(self, tile: Tile, found: Array, *, stacked: bool) -> None:
        """Take what one granule gave; it waits for those before it."""
        self._early[tile.first] = found, tile.first + tile.count
        while self._next in self._early:
            found, self._next = self._early.pop(self._next)
            if stacked or not self.found:
                self.found.append(found)
            else:
                self.found[0] += found


class Group:
    """Rows that are measured together: a pass ends when it has ended for all of ``count`` rows."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._arrived: list[RowWork] = []
        self._total: Any = None
        self._guard = threading.Lock()

    def arrive(self, work: RowWork, number: int) -> None:
        """Take what pass ``number`` counted in a row; the last row opens the next pass for all, with the sum."""
        with self._guard:
            counts = work.give_up()
            self._total = counts if self._total is None else self._total + counts
            self._arrived.append(work)
            if len(self._arrived) < self._count:
                return
            works, total, self._arrived, self._total = self._arrived, self._total, [], None
        for each in works:
            each.take(total)
            each.open(number + 1)


class RowWork:
    """The state of one row. Its passes run one after the other; the blocks of a pass in any order, on any thread.

    ``done`` are blocks of the result that are written already, with their digests: the last pass leaves them out.
    """

    def __init__(self, row: Row, done: Mapping[int, bytes] | None = None, group: Group | None = None) -> None:
        self.row = row
        self._group = group
        self.blocks = max(1, -(-row.nbytes // BLOCK))
        self.passes = row.passes
        self.runs: list[Run] = []
        self._measures = [piece.operation.measures for piece in row.pieces]
        self._observers: list[Observe | None] = []
        self._statistics: list[list[Any]] = [[] for _ in row.pieces]
        self._observed: list[_Observed] = []
        self._remaining = [self.blocks] * self.passes
        self._started = [threading.Event() for _ in range(self.passes)]
        self._idle: set[int] = set()
        self._digests = bytearray(_DIGEST * self.blocks)
        self._guard = threading.Lock()
        self.done = frozenset(done or ())
        for block, digest in (done or {}).items():
            self.set_digest(block, digest)
        self._remaining[-1] -= len(self.done)
        if self._remaining[-1] or group is not None:
            self.open(0)

    def left(self, number: int) -> Iterator[int]:
        """The blocks that pass ``number`` has to look at; none if the row is done, or nothing is to be seen."""
        last = number + 1 == self.passes
        if self.idle(number) or (not self._remaining[-1] and (last or self._group is None)):
            return iter(())
        return (block for block in range(self.blocks) if not (last and block in self.done))

    def wait(self, number: int, seconds: float) -> bool:
        """Wait until pass ``number`` may run; False if it still may not."""
        return self._started[number].wait(seconds)

    def idle(self, number: int) -> bool:
        """Whether pass ``number`` has turned out not to be needed, and is over."""
        return number in self._idle

    def measure(self, number: int, piece: int) -> Measure | None:
        """What pass ``number`` has to find out about a piece, if anything."""
        measures = self._measures[piece]
        return measures[number] if number < len(measures) else None

    def checking(self, number: int, piece: int) -> bool:
        """Whether pass ``number`` is the first that looks at every element of a piece."""
        return number == next(k for k, measure in enumerate(self._measures[piece]) if measure.part == 1)

    def measuring(self, number: int, piece: int) -> Measure | None:
        """The same, while that pass runs: nothing, if what was measured before has told enough."""
        return self.measure(number, piece) if self._observers[piece] is not None else None

    def observe(self, measure: Measure, tile: Tile, operands: Sequence[Array]) -> None:
        """Let ``measure``, that of the pass which runs, look at a granule, and keep what it found."""
        observer: Any = self._observers[tile.piece]
        found = observer(operands, tile.first)
        if found is not None:
            with self._guard:
                self._observed[tile.piece].add(tile, found, stacked=measure.stacked)

    def set_digest(self, block: int, digest: bytes) -> None:
        """Note the digest of a block's bytes."""
        self._digests[_DIGEST * block : _DIGEST * (block + 1)] = digest

    @property
    def digest(self) -> str:
        """The digest of the tensor, once all blocks have theirs."""
        return xxhash.xxh3_128_hexdigest(bytes(self._digests))

    def finish_block(self, number: int) -> bool:
        """Count a block of pass ``number`` as done; True if that was the last of the last pass."""
        with self._guard:
            self._remaining[number] -= 1
            if self._remaining[number]:
                return False
        if number + 1 == self.passes:
            return True
        self._end(number)
        return False

    def _end(self, number: int) -> None:
        """Let the next pass begin, as soon as this one has ended in all rows of the group."""
        self._close(number)
        if self._group is None:
            self.open(number + 1)
        else:
            self._group.arrive(self, number)

    @property
    def _joined(self) -> list[Any]:
        """The statistics of the piece that is measured with other rows."""
        pieces = zip(self.row.pieces, self._statistics, strict=True)
        return next(statistics for piece, statistics in pieces if piece.operation.joined is not None)

    def give_up(self) -> Any:
        """What the pass that ended counted; a group has it from here on, once for all rows."""
        return self._joined.pop()

    def take(self, total: Any) -> None:
        """What it counted in all rows of the group."""
        self._joined.append(total)

    def open(self, number: int) -> None:
        """Let pass ``number`` begin; it ends at once if it has nothing to look at."""
        self._start(number)
        if number + 1 < self.passes and all(observer is None for observer in self._observers):
            self._idle.add(number)
            self._started[number].set()
            self._end(number)
        else:
            self._started[number].set()

    def _start(self, number: int) -> None:
        if number + 1 == self.passes:
            self.runs = [
                piece.operation.bind([read.dtype for read in piece.reads], self.row.dtype, statistics)
                for piece, statistics in zip(self.row.pieces, self._statistics, strict=True)
            ]
        else:
            self._observed = [_Observed(piece.first) for piece in self.row.pieces]
            measures = [self.measure(number, piece) for piece in range(len(self.row.pieces))]
            self._observers = [
                measure.bind(statistics) if measure is not None else None
                for measure, statistics in zip(measures, self._statistics, strict=True)
            ]

    def _close(self, number: int) -> None:
        """Turn what a pass observed into its statistic: the sum over granules, or all of them in order."""
        pieces = zip(self._observers, self._observed, self._statistics, strict=True)
        for piece, (observer, observed, statistics) in enumerate(pieces):
            if isinstance(observer, Whole):
                statistics.append(observer.total())
            elif self.measure(number, piece) is not None:
                statistics.append(_NOTHING if observer is None else np.stack(observed.found))
        self._observed, self._observers = [], []
