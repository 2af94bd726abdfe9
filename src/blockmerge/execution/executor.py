"""Dealing the blocks of a plan to threads: compute, digest, write.

A row is cut into canonical blocks of 1 MiB of its output, counted from the tensor's start; a block is computed by one
thread. Digests are over blocks, so they depend on nothing but content.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import xxhash

from blockmerge.execution.compute import TILE, Buffers, Computer
from blockmerge.execution.events import Event, Progress, TensorDone
from blockmerge.execution.journal import Journal
from blockmerge.execution.threads import PULSE, Workers
from blockmerge.execution.work import BLOCK, Group, RowWork
from blockmerge.execution.writer import PartialModel
from blockmerge.planning import Plan
from blockmerge.sources import Source

__all__ = ["Executor"]

_WINDOW = 2 << 30
"""Bytes that a power failure may cost."""


class _Job(NamedTuple):
    """One block of one pass over a row."""

    work: RowWork
    row: int
    number: int
    block: int


class Executor:
    """Runs all rows of one plan."""

    def __init__(
        self,
        plan: Plan,
        sources: Sequence[Source],
        output: PartialModel,
        journal: Journal,
        done: Mapping[int, Mapping[int, bytes]],
        *,
        threads: int,
        allow_nonfinite: bool,
        emit: Callable[[Event], object],
        tile: int = TILE,
    ) -> None:
        self._plan, self._output, self._emit = plan, output, emit
        self._journal, self._written_before = journal, done
        self._synced = 0
        self._computer = Computer(sources, tile=tile, allow_nonfinite=allow_nonfinite)
        self._guard = threading.Lock()
        self._workers = Workers(self._deal(), self._work, threads=threads)
        self._done: list[TensorDone] = []
        self.digests: dict[str, str] = {}
        self.bytes_read = 0
        self.bytes_written = 0

    @property
    def nonfinite(self) -> set[str]:
        """Names of tensors with values that are not finite."""
        return self._computer.nonfinite

    def run(self) -> None:
        """Compute and write every row; raises the first error after all threads have stopped."""
        started = time.perf_counter()

        def pulse() -> None:
            self._report(started)
            self._save()

        self._workers.run(pulse)

    def _save(self) -> None:
        """Now and then let what is written outlive the system."""
        if self.bytes_written - self._synced >= _WINDOW:
            self._synced = self.bytes_written
            self._journal.settle(self._output.sync)

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
        rows, works = self._plan.rows, self._joined()
        yield from self._deal_joined(works)
        early = frozenset(works)
        passes = max((row.passes for row in rows), default=1)
        for step in range(len(rows) + passes - 1):
            for number in range(min(passes, step + 1) - 1, -1, -1):
                index = step - number
                if index >= len(rows):
                    continue
                if number == 0 and index not in early:
                    works[index] = self._row_work(index)
                work = works[index]
                if number < work.passes and not (index in early and number + 1 < work.passes):
                    yield from (_Job(work, index, number, block) for block in work.left(number))
                if number + 1 == passes:
                    del works[index]

    def _joined(self) -> dict[int, RowWork]:
        """The rows that are measured together, by number, ready to be worked on."""
        members: dict[Hashable, list[int]] = {}
        for index, row in enumerate(self._plan.rows):
            if row.joined is not None:
                members.setdefault(row.joined, []).append(index)
        groups = [(indices, Group(len(indices))) for indices in members.values()]
        return {index: self._row_work(index, group) for indices, group in groups for index in indices}

    def _deal_joined(self, works: Mapping[int, RowWork]) -> Iterator[_Job]:
        """Their measuring passes, each over all rows before the next."""
        for number in range(max((work.passes for work in works.values()), default=1) - 1):
            for index, work in works.items():
                if number + 1 < work.passes:
                    yield from (_Job(work, index, number, block) for block in work.left(number))

    def _row_work(self, index: int, group: Group | None = None) -> RowWork:
        """The row number ``index``, ready to be worked on; one that is done already is counted at once."""
        row, done = self._plan.rows[index], self._written_before.get(index, {})
        work = RowWork(row, done, group)
        with self._guard:
            self.bytes_written += sum(min(BLOCK, row.nbytes - block * BLOCK) for block in done)
            if len(done) == work.blocks:
                self.digests[row.name] = work.digest
                self._done.append(TensorDone(row.name, work.digest))
        return work

    def _work(self, job: _Job, buffers: Buffers) -> None:
        while not job.work.wait(job.number, PULSE):
            if self._workers.stopped:
                return
        if job.work.idle(job.number):
            return
        if job.number + 1 < job.work.passes:
            self._measure(job, buffers)
        else:
            self._compute(job, buffers)

    def _measure(self, job: _Job, buffers: Buffers) -> None:
        self._account(job, self._computer.measure(job.work, job.number, job.block, buffers), 0)

    def _compute(self, job: _Job, buffers: Buffers) -> None:
        row, digest = job.work.row, xxhash.xxh3_128()
        read = written = 0
        for part in self._computer.compute(job.work, job.block, buffers):
            digest.update(part.data)
            self._output.write(row, part.first_byte, part.data)
            read += part.read
            written += part.data.nbytes
        job.work.set_digest(job.block, digest.digest())
        self._journal.note(job.row, job.block, digest.digest())
        self._account(job, read, written)

    def _account(self, job: _Job, read: int, written: int) -> None:
        done = job.work.finish_block(job.number)
        with self._guard:
            self.bytes_read += read
            self.bytes_written += written
            if done:
                name, digest = job.work.row.name, job.work.digest
                self.digests[name] = digest
                self._done.append(TensorDone(name, digest))
