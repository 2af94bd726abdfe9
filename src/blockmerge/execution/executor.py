"""Dealing the tiles of a plan to threads: read, compute, check, digest, write.

A row is cut into canonical blocks of 1 MiB of its output, counted from the tensor's start; a block is computed by one
thread, tile by tile, in buffers that stay in its cache. Digests are over blocks, so they depend on nothing but content.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from blockmerge.errors import NonFiniteError
from blockmerge.execution.events import Event, Progress, TensorDone
from blockmerge.execution.work import RowWork, Tile, granules, tiles
from blockmerge.execution.writer import PartialModel
from blockmerge.planning import Piece, Plan, Row
from blockmerge.sources import Source

__all__ = ["TILE", "Executor"]

TILE = 1 << 19
"""Bytes of output computed at once: with its operands, what an L2 cache holds."""
_PULSE = 0.1


class _Job(NamedTuple):
    """One block of one pass over a row."""

    work: RowWork
    number: int
    block: int


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
        self._finished = threading.Event()
        self._working = threads
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
            while not self._finished.wait(_PULSE):
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

    def _deal(self) -> Iterator[_Job]:
        """Every block of every pass of every row.

        Rows that measure first are taken in step, each one pass behind the row after it: when a pass is dealt, the one
        before it is long done, and no thread has to wait.
        """
        rows, works = self._plan.rows, dict[int, RowWork]()
        passes = 1 + max((len(p.operation.measures) for row in rows for p in row.pieces), default=0)
        for step in range(len(rows) + passes - 1):
            for number in range(min(passes, step + 1) - 1, -1, -1):
                index = step - number
                if index >= len(rows):
                    continue
                if number == 0:
                    works[index] = RowWork(rows[index])
                work = works[index]
                if number < work.passes:
                    yield from (_Job(work, number, block) for block in range(work.blocks))
                if number + 1 == passes:
                    del works[index]

    def _next(self) -> _Job | None:
        with self._guard:
            return None if self._stopped else next(self._jobs, None)

    def _work(self) -> None:
        buffers = _Buffers()
        try:
            while (job := self._next()) is not None:
                while not job.work.wait(job.number, _PULSE):
                    if self._stopped:
                        return
                if job.number + 1 < job.work.passes:
                    self._measure(job, buffers)
                else:
                    self._compute(job, buffers)
        except BaseException as error:
            self._failure = self._failure or error
            self._stopped = True
        finally:
            with self._guard:
                self._working -= 1
                if self._working == 0:
                    self._finished.set()

    def _measure(self, job: _Job, buffers: _Buffers) -> None:
        from blockmerge.kernels import nonfinite

        row, read = job.work.row, 0
        for tile in granules(row, job.block):
            piece, measure = row.pieces[tile.piece], job.work.measure(job.number, tile.piece)
            if measure is not None:
                operands = self._operands(piece, tile, buffers)
                if job.number == 0 and piece.operation.strict and any(map(nonfinite, operands)):
                    self._bad_value(row, piece, tile, operands)  # statistics would carry it all over the tensor
                job.work.observe(measure, tile, operands)
                read += _counted(piece, tile)
        self._account(job, read, 0)

    def _compute(self, job: _Job, buffers: _Buffers) -> None:
        row, digest = job.work.row, xxhash.xxh3_128()
        read = written = 0
        for tile in tiles(row, job.block, self._tile):
            piece = row.pieces[tile.piece]
            operands = self._operands(piece, tile, buffers)
            result = buffers.result(tile.count * row.dtype.itemsize)
            elements = result.view(row.dtype.storage)
            bad = job.work.runs[tile.piece](operands, elements, tile.first)
            if bad and piece.operation.strict:
                self._bad_value(row, piece, tile, operands, elements)
            size = row.dtype.itemsize
            kept = result[tile.skipped * size : (tile.skipped + tile.kept) * size]
            digest.update(kept.data)
            self._output.write(row, (tile.first + tile.skipped) * size, kept.data)
            read += _counted(piece, tile)
            written += kept.nbytes
        job.work.set_digest(job.block, digest.digest())
        self._account(job, read, written)

    def _operands(self, piece: Piece, tile: Tile, buffers: _Buffers) -> list[NDArray[Any]]:
        """What the piece reads for a tile."""
        operands: list[NDArray[Any]] = []
        for number, read in enumerate(piece.reads):
            buffer = buffers.operand(number, tile.count * read.dtype.itemsize)
            self._sources[read.model].read_into(read.name, tile.first, tile.count, buffer.data)
            operands.append(buffer.view(read.dtype.storage))
        return operands

    def _account(self, job: _Job, read: int, written: int) -> None:
        done = job.work.finish_block(job.number)
        with self._guard:
            self.bytes_read += read
            self.bytes_written += written
            if done:
                name, digest = job.work.row.name, job.work.digest
                self.digests[name] = digest
                self._done.append(TensorDone(name, digest))

    def _bad_value(
        self,
        row: Row,
        piece: Piece,
        tile: Tile,
        operands: Sequence[NDArray[Any]],
        result: NDArray[Any] | None = None,
    ) -> None:
        self.nonfinite.add(row.name)
        if not self._allow_nonfinite:
            raise self._nonfinite(row, piece, tile, operands, result)

    def _nonfinite(
        self,
        row: Row,
        piece: Piece,
        tile: Tile,
        operands: Sequence[NDArray[Any]],
        result: NDArray[Any] | None,
    ) -> NonFiniteError:
        """An error that names the model, the tensor and the place of the first bad value, if possible in an operand."""
        from blockmerge.kernels import first_nonfinite

        for operand, read in zip(operands, piece.reads, strict=True):
            if (at := first_nonfinite(operand)) >= 0:
                label, place = self._sources[read.model].label, _place(tile.first + at, row.shape)
                return NonFiniteError(
                    f"{label}: {read.name}{place} is not finite; the checkpoint is damaged (--allow-nonfinite goes on)"
                )
        place = _place(tile.first + (0 if result is None else first_nonfinite(result)), row.shape)
        return NonFiniteError(
            f"{row.name}{place} overflows {row.dtype}; choose a wider --dtype (or --allow-nonfinite to write infinity)"
        )


def _counted(piece: Piece, tile: Tile) -> int:
    """The bytes that count as read for a tile: a row in two blocks counts once."""
    return sum(tile.kept * read.dtype.itemsize for read in piece.reads)


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
