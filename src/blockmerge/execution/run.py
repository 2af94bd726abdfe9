"""One merge from checked plan to published model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from blockmerge.errors import ModelError, RecipeError
from blockmerge.execution.events import Event, Finished, Publishing, Started
from blockmerge.execution.executor import Executor
from blockmerge.execution.writer import PartialModel, check_output, index_file
from blockmerge.planning import Plan
from blockmerge.report import published_files
from blockmerge.sources import Source

__all__ = ["check_unchanged", "run"]


def run(
    plan: Plan,
    sources: Sequence[Source],
    out: Path,
    *,
    threads: int | None = None,
    overwrite: bool = False,
    allow_nonfinite: bool = False,
    emit: Callable[[Event], object] = lambda event: None,
) -> Finished:
    """Carry out ``plan`` into the folder ``out``; see :func:`blockmerge.merge`."""
    threads = usable_cores() if threads is None else threads
    if threads < 1:
        raise RecipeError(f"threads: {threads} is no number of threads")
    check_output([part for model in plan.leaves for part in model.parts], plan.bytes_to_write, out, overwrite=overwrite)
    with PartialModel(plan.shards, out, overwrite=overwrite).open() as output:
        started = time.perf_counter()
        emit(
            Started(
                len(plan.rows),
                sum(row.read_bytes for row in plan.rows),
                sum(shard.size for shard in plan.shards),
                threads,
            )
        )
        executor = Executor(plan, sources, output, threads=threads, allow_nonfinite=allow_nonfinite, emit=emit)
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
        )
    emit(finished)
    return finished


def usable_cores() -> int:
    """The cores that this process may use; one thread each."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def check_unchanged(sources: Sequence[Source]) -> None:
    """Raise :class:`ModelError` if a file of ``sources`` is not the one that was opened any more."""
    for source in sources:
        if (name := source.changed()) is not None:
            raise ModelError(f"{source.label}: {name} changed while it was read; nothing was published, start again")
