"""Reading two models once, and measuring where they differ.

Tensors are cut into granules, counted from their start; what a granule gives does not depend on who reads it, and
granules are added up in their order. So results depend on neither threads nor luck.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.comparison.difference import Difference, Statistics, TensorDifference
from blockmerge.comparison.pairs import Pair, Pairs
from blockmerge.execution.compute import Buffers, place_of
from blockmerge.execution.events import Event, Progress, Started, TensorCompared
from blockmerge.execution.threads import Workers
from blockmerge.methods.operations import GRANULE
from blockmerge.sources import Source
from blockmerge.tensors import TensorSpec

__all__ = ["compare"]

Numbers = NDArray[np.float64]
_JOB = 4
"""Granules that a thread looks at in one go: threads meet at the interpreter's lock between any two of these."""


def compare(
    pairs: Pairs, sources: tuple[Source, Source], *, threads: int, emit: Callable[[Event], object]
) -> Difference:
    """Read the paired tensors of both models and measure them; see :func:`blockmerge.diff`."""
    found = _Comparison(pairs.pairs, sources, threads, emit).run()
    return Difference(
        models=(sources[0].label, sources[1].label),
        order=pairs.order,
        tensors=tuple(found),
        only_first=tuple(pairs.only_first),
        only_second=tuple(pairs.only_second),
        unlike=pairs.unlike,
        notes=tuple(pairs.notes),
    )


@dataclass
class _Work:
    """One pair in the making: a row of ``found`` for each granule, and how many jobs are missing."""

    index: int
    pair: Pair
    found: Numbers
    missing: int


class _Job(NamedTuple):
    work: _Work
    granules: range


class _Comparison:
    def __init__(
        self, pairs: Sequence[Pair], sources: tuple[Source, Source], threads: int, emit: Callable[[Event], object]
    ) -> None:
        from blockmerge.kernels import compare as kernels

        self._kernels, self._pairs, self._sources, self._emit = kernels, pairs, sources, emit
        self._workers = Workers(self._deal(), self._measure, threads=threads)
        self._threads = threads
        self._lanes = threading.local()
        self._guard = threading.Lock()
        self._read = 0
        self._results: dict[int, TensorDifference] = {}

    def run(self) -> list[TensorDifference]:
        total = sum(pair.nbytes for pair in self._pairs)
        self._emit(Started(len(self._pairs), total, 0, self._threads))
        started = time.perf_counter()
        told: set[int] = set()

        def pulse() -> None:
            for index in sorted(set(self._results) - told):
                told.add(index)
                found = self._results[index]
                self._emit(TensorCompared(found.pair.name, found.statistics.relative))
            self._emit(Progress(self._read, 0, time.perf_counter() - started))

        self._workers.run(pulse)
        return [self._results[index] for index in range(len(self._pairs))]

    def _deal(self) -> Iterator[_Job]:
        for index, pair in enumerate(self._pairs):
            count = max(1, -(-pair.elements // GRANULE))
            jobs = [range(first, min(first + _JOB, count)) for first in range(0, count, _JOB)]
            work = _Work(index, pair, np.zeros((count, self._kernels.FIELDS)), len(jobs))
            yield from (_Job(work, granules) for granules in jobs)

    def _measure(self, job: _Job, buffers: Buffers) -> None:
        work, pair = job.work, job.work.pair
        a, b = self._granules(pair, job.granules, buffers)
        self._observe(pair, a, b, work.found[job.granules.start : job.granules.stop])
        with self._guard:
            self._read += a.nbytes + b.nbytes
            work.missing -= 1
            last = work.missing == 0
        if last:
            self._results[work.index] = self._joined(pair, work.found, buffers)

    def _granules(self, pair: Pair, granules: range, buffers: Buffers) -> tuple[NDArray[Any], NDArray[Any]]:
        """The encoded elements of both tensors in ``granules``."""
        first = granules.start * GRANULE
        count = min(granules.stop * GRANULE, pair.elements) - first
        a, b = (
            _read(source, spec, first, count, buffers.operand(number, count * spec.dtype.itemsize))
            for number, (source, spec) in enumerate(zip(self._sources, (pair.first, pair.second), strict=True))
        )
        return a, b

    def _observe(self, pair: Pair, a: NDArray[Any], b: NDArray[Any], out: Numbers) -> None:
        if not pair.numeric:
            out[0, 0] = np.count_nonzero(a.view(_bits(a)) != b.view(_bits(b)) if a.dtype == b.dtype else a != b)
            return
        self._kernels.compare(a, b, GRANULE, self._scratch(), out)
        for row in np.flatnonzero(~np.isfinite(out).all(axis=1)):
            granule = slice(row * GRANULE, (row + 1) * GRANULE)
            self._kernels.compare_finite(a[granule], b[granule], out[row])

    def _scratch(self) -> Numbers:
        lanes: Numbers | None = getattr(self._lanes, "lanes", None)
        if lanes is None:
            lanes = self._lanes.lanes = np.empty((5, self._kernels.LANES))
        return lanes

    def _joined(self, pair: Pair, found: Numbers, buffers: Buffers) -> TensorDifference:
        """The result for a pair whose granules are all measured; the one with the largest difference is read again."""
        total = np.zeros(self._kernels.FIELDS)
        for row in found:
            total += row
        largest = float(found[:, 4].max())
        place = None
        if largest:
            granule = int(found[:, 4].argmax())
            a, b = self._granules(pair, range(granule, granule + 1), buffers)
            place = tuple(place_of(granule * GRANULE + self._kernels.position(a, b, largest), pair.shape))
        statistics = Statistics(
            elements=pair.elements,
            differing=int(total[0]),
            squares=(float(total[1]), float(total[2])),
            distance=float(total[3]),
            largest=largest,
            nonfinite=(int(total[5]), int(total[6])),
        )
        return TensorDifference(pair, statistics, place)


def _read(source: Source, spec: TensorSpec, first: int, count: int, buffer: NDArray[np.uint8]) -> NDArray[Any]:
    source.read_into(spec.name, first, count, buffer.data)
    return buffer.view(spec.dtype.storage)


def _bits(elements: NDArray[Any]) -> str:
    """The type under which elements are equal if their bits are."""
    return f"uint{8 * elements.dtype.itemsize}"
