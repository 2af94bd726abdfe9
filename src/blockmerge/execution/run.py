"""One merge from checked plan to published model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import xxhash

from blockmerge.errors import ModelError, RecipeError
from blockmerge.execution.events import Event, Finished, Publishing, Started
from blockmerge.execution.executor import Executor
from blockmerge.execution.journal import key_of
from blockmerge.execution.work import BLOCK
from blockmerge.execution.writer import PartialModel, check_output, index_file
from blockmerge.planning import Plan
from blockmerge.report import published_files
from blockmerge.sources import Source

__all__ = ["check_unchanged", "run", "thread_count"]


def run(
    plan: Plan,
    sources: Sequence[Source],
    out: Path,
    *,
    threads: int | None = None,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
    restart: bool = False,
    emit: Callable[[Event], object] = lambda event: None,
) -> Finished:
    """Carry out ``plan`` into the folder ``out``; see :func:`blockmerge.merge`."""
    threads = thread_count(threads)
    key, partial = key_of(plan), PartialModel(plan.shards, out, overwrite=overwrite, names=plan.files)
    if not restart and partial.finished_before(key):
        return _told(emit, Finished(out, 0, 0, 0.0, 0.0, 0))
    from blockmerge.kernels import cache

    inputs = [part for model in plan.leaves for part in model.parts]
    check_output(inputs, _need(plan), out, overwrite=overwrite, names=plan.files)
    with partial.open(key, restart=restart) as (output, journal):
        started, compiling = time.perf_counter(), cache.compiling()
        reading = sum(row.read_bytes for row in plan.rows)
        emit(Started(len(plan.rows), reading, sum(shard.size for shard in plan.shards), threads))
        done = _written(plan, output)
        executor = Executor(
            plan, sources, output, journal, done, threads=threads, allow_nonfinite=allow_nonfinite, emit=emit
        )
        executor.run()
        check_unchanged(sources)
        merged = time.perf_counter()
        emit(Publishing(merged - started))
        path = output.publish({**plan.files, **index_file(plan), **published_files(plan, executor.digests)})
        finished = Finished(
            path=path,
            bytes_read=executor.bytes_read,
            bytes_written=executor.bytes_written,
            seconds_merging=merged - started,
            seconds_publishing=time.perf_counter() - merged,
            nonfinite=len(executor.nonfinite),
            seconds_compiling=min(cache.compiling() - compiling, merged - started),
            kept=cache.kept(),
        )
    return _told(emit, finished)


def _need(plan: Plan) -> int:
    """Bytes of all files of the result. The manifest's size is known: a digest is as long as another."""
    added = {**index_file(plan), **published_files(plan, {row.name: "0" * 32 for row in plan.rows})}
    return plan.bytes_to_write + sum(file.size for file in added.values())


def _told(emit: Callable[[Event], object], finished: Finished) -> Finished:
    emit(finished)
    return finished


def _written(plan: Plan, output: PartialModel) -> dict[int, dict[int, bytes]]:
    """The digests, by row and block, of what an earlier run wrote, as far as it is still there.

    After a power failure, blocks that were not known to be durable are read and compared.
    """
    found = {index: dict(blocks) for index, blocks in output.done.items()}
    for index, blocks in output.doubtful.items():
        row = plan.rows[index]
        for block, digest in blocks.items():
            first = block * BLOCK
            data = output.read(row, first, min(BLOCK, row.nbytes - first))
            if xxhash.xxh3_128_digest(data) == digest:
                found.setdefault(index, {})[block] = digest
    return found


def thread_count(wanted: int | None) -> int:
    """As many threads as ``wanted``, by default one per core that this process may use.

    Raises :class:`RecipeError` if there would be none.
    """
    if wanted is None:
        return _usable_cores()
    if wanted < 1:
        raise RecipeError(f"threads: {wanted} is no number of threads")
    return wanted


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def check_unchanged(sources: Sequence[Source]) -> None:
    """Raise :class:`ModelError` if a file of ``sources`` is not the one that was opened any more."""
    for source in sources:
        if (name := source.changed()) is not None:
            raise ModelError(f"{source.label}: {name} changed while it was read; start again")
