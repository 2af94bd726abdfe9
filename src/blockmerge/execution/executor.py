"""Dealing the tiles of a plan to threads: read, compute, check, digest, write.

A row is cut into canonical blocks of 1 MiB of its output, counted from the tensor's start; a block is computed by one
thread, tile by tile, in buffers that stay in its cache. Digests are over blocks, so they depend on nothing but content.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from blockmerge.errors import NonFiniteError
from blockmerge.execution.events import Event, Progress, TensorDone
from blockmerge.execution.writer import PartialModel
from blockmerge.methods.operations import Run
from blockmerge.planning import Piece, Plan, Row
from blockmerge.sources import Source

__all__ = ["BLOCK", "Executor"]

BLOCK = 1 << 20
"""Bytes of output in a canonical block."""
TILE = 1 << 19
"""Bytes of output computed at once: with its operands, what an L2 cache holds."""
_DIGEST = 16
_PULSE = 0.1


@dataclass(slots=True)
class _RowState:
    """A row in the making: its functions, the digests of its blocks, and how many are still to come."""

    row: Row
    runs: list[Run]
    digests: bytearray
    remaining: int


@dataclass(frozen=True, slots=True)
class _Tile:
    piece: int
    first: int
    count: int


class Executor:
    """Runs all rows of one plan. ``nonfinite`` holds the names of tensors with values that are not finite."""

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[Source],
        output: PartialModel,
        *,
        threads: int,
        allow_nonfinite: bool,
        emit: Callable[[Event], object],
        tile: int = TILE,
    ) -> None:
        self._plan, self._sources, self._output = plan, sources, output
        self._threads, self._allow_nonfinite, self._emit, self._tile = threads, allow_nonfinite, emit, tile
        self._guard = threading.Lock()
        self._wake = threading.Event()
        self._jobs = self._deal()
        self._failure: BaseException | None = None
        self._stopped = False
        self._done: list[TensorDone] = []
        self.digests: dict[str, str] = {}
        self.nonfinite: set[str] = set()
        self.bytes_read = 0
        self.bytes_written = 0

    def run(self) -> None:
        """Compute and write every row; raises the first error after all threads have stopped."""
        workers = [threading.Thread(target=self._work, name=f"blockmerge-{k}") for k in range(self._threads)]
        started = time.perf_counter()
        try:
            for worker in workers:
                worker.start()
            while any(worker.is_alive() for worker in workers):
                self._wake.wait(_PULSE)
                self._wake.clear()
                self._report(started)
        finally:  # also when a listener raises or Ctrl-C arrives
            self._stopped = True
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
        self._report(started)
        if self._failure is not None:
            raise self._failure

    def _report(self, started: float) -> None:
        with self._guard:
            done, self._done = self._done, []
        for event in done:
            self._emit(event)
        self._emit(Progress(self.bytes_read, self.bytes_written, time.perf_counter() - started))

    def _deal(self) -> Iterator[tuple[_RowState, int]]:
        """Every block of every row, in order; each row is prepared when its first block is dealt."""
        for row in self._plan.rows:
            blocks = max(1, -(-row.nbytes // BLOCK))
            runs = [piece.operation.bind([read.dtype for read in piece.reads], row.dtype) for piece in row.pieces]
            state = _RowState(row, runs, bytearray(_DIGEST * blocks), blocks)
            for block in range(blocks):
                yield state, block

    def _next(self) -> tuple[_RowState, int] | None:
        with self._guard:
            return None if self._stopped else next(self._jobs, None)

    def _work(self) -> None:
        buffers = _Buffers()
        try:
            while (job := self._next()) is not None:
                self._block(*job, buffers)
        except BaseException as error:
            self._failure = self._failure or error
            self._stopped = True
        finally:
            self._wake.set()

    def _block(self, state: _RowState, block: int, buffers: _Buffers) -> None:
        row = state.row
        digest = xxhash.xxh3_128()
        read = written = 0
        for tile in tiles(row, block, self._tile):
            piece = row.pieces[tile.piece]
            result = buffers.result(tile.count * row.dtype.itemsize)
            self._compute(row, piece, state.runs[tile.piece], tile, result, buffers)
            view = result.data
            digest.update(view)
            self._output.write(row, tile.first * row.dtype.itemsize, view)
            read += sum(tile.count * operand.dtype.itemsize for operand in piece.reads)
            written += len(view)
        state.digests[_DIGEST * block : _DIGEST * (block + 1)] = digest.digest()
        self._account(state, read, written)

    def _compute(self, row: Row, piece: Piece, run: Run, tile: _Tile, result: NDArray[Any], buffers: _Buffers) -> None:
        operands: list[NDArray[Any]] = []
        for number, read in enumerate(piece.reads):
            buffer = buffers.operand(number, tile.count * read.dtype.itemsize)
            self._sources[read.model].read_into(read.name, tile.first, tile.count, buffer.data)
            operands.append(buffer.view(read.dtype.storage))
        bad = run(operands, result.view(row.dtype.storage))
        if bad and piece.operation.strict:
            self.nonfinite.add(row.name)
            if not self._allow_nonfinite:
                raise self._nonfinite(row, piece, tile, operands, result.view(row.dtype.storage))

    def _account(self, state: _RowState, read: int, written: int) -> None:
        with self._guard:
            self.bytes_read += read
            self.bytes_written += written
            state.remaining -= 1
            if state.remaining == 0:
                digest = xxhash.xxh3_128_hexdigest(bytes(state.digests))
                self.digests[state.row.name] = digest
                self._done.append(TensorDone(state.row.name, digest))

    def _nonfinite(
        self, row: Row, piece: Piece, tile: _Tile, operands: Sequence[NDArray[Any]], result: NDArray[Any]
    ) -> NonFiniteError:
        """An error that names the model, the tensor and the place of the first bad value."""
        from blockmerge.kernels import first_nonfinite

        at = first_nonfinite(result)
        place = _place(tile.first + at, row.shape)
        for operand, read in zip(operands, piece.reads, strict=True):
            if first_nonfinite(operand[at : at + 1]) == 0:
                label = self._sources[read.model].label
                return NonFiniteError(
                    f"{label}: {read.name}{place} is not finite; the checkpoint is damaged (--allow-nonfinite goes on)"
                )
        return NonFiniteError(
            f"{row.name}{place} overflows {row.dtype}; choose a wider --dtype (or --allow-nonfinite to write infinity)"
        )


def tiles(row: Row, block: int, tile: int) -> Iterator[_Tile]:
    """The tiles of one block of ``row``: at most ``tile`` bytes of output each, none across pieces."""
    size = max(1, row.dtype.itemsize)
    start, end = block * BLOCK // size, min((block + 1) * BLOCK // size, row.elements)
    step = max(1, tile // size)
    for number, piece in enumerate(row.pieces):
        low, high = max(start, piece.first), min(end, piece.first + piece.count)
        for first in range(low, high, step):
            yield _Tile(number, first, min(step, high - first))


def _place(index: int, shape: Sequence[int]) -> list[int]:
    """The indices of flat element ``index`` in an array of ``shape``."""
    place: list[int] = []
    for size in reversed(shape):
        index, inside = divmod(index, size)
        place.append(inside)
    return place[::-1]


class _Buffers:
    """The memory of one thread, grown to the largest tile and then used again and again."""

    def __init__(self) -> None:
        self._result: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._operands: list[NDArray[np.uint8]] = []

    def result(self, count: int) -> NDArray[np.uint8]:
        """``count`` bytes to compute into."""
        if self._result.size < count:
            self._result = np.empty(count, np.uint8)
        return self._result[:count]

    def operand(self, number: int, count: int) -> NDArray[np.uint8]:
        """``count`` bytes to read operand ``number`` into."""
        while len(self._operands) <= number:
            self._operands.append(np.empty(0, np.uint8))
        if self._operands[number].size < count:
            self._operands[number] = np.empty(count, np.uint8)
        return self._operands[number][:count]
