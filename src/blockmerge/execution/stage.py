"""The result of a plan as a source of weights, computed where it is read: merges of merges need no disk between."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from blockmerge.execution.compute import Buffers, Computer
from blockmerge.execution.work import BLOCK, Group, RowWork
from blockmerge.formats.jsonfile import parse_object
from blockmerge.planning import Plan, Row
from blockmerge.sources import Fingerprint, SmallFile, Source
from blockmerge.tensors import TensorSpec

__all__ = ["PlannedSource"]

_KEPT = 8
"""Rows whose measurements are kept; more than an executor works on at once."""


class PlannedSource:
    """What ``plan`` would write, from its opened ``sources``; see :class:`~blockmerge.sources.Source`.

    Every element is what the files of that merge would hold, rounded to their format.
    """

    def __init__(self, plan: Plan, sources: Sequence[Source], label: str, *, allow_nonfinite: bool = False) -> None:
        self.label = label
        self.remarks: tuple[str, ...] = ()
        self.files: Mapping[str, SmallFile] = plan.files
        self.config: Mapping[str, Any] = parse_object(plan.files["config.json"].read(), f"{label}: config.json")
        self.specs = {row.name: TensorSpec(row.name, row.dtype, row.shape) for row in plan.rows}
        self._rows = {row.name: row for row in plan.rows}
        self._plan, self._sources = plan, sources
        self._computer = Computer(sources, allow_nonfinite=allow_nonfinite)
        self._works: OrderedDict[Hashable, _Measured] = OrderedDict()
        self._guard = threading.Lock()
        self._own = threading.local()

    def read_into(self, name: str, first: int, count: int, buffer: memoryview) -> None:
        """Compute encoded elements into ``buffer``; see the contract."""
        row = self._rows[name]
        start, stop = first * row.dtype.itemsize, (first + count) * row.dtype.itemsize
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            data, origin = self._block(row, block), block * BLOCK
            low, high = max(start, origin), min(stop, origin + len(data))
            buffer[low - start : high - start] = data[low - origin : high - origin]

    def _block(self, row: Row, block: int) -> bytearray:
        """The bytes of a block; each thread keeps the last one, since it is mostly read on from there."""
        last: tuple[str, int, bytearray] | None = getattr(self._own, "last", None)
        if last is not None and last[:2] == (row.name, block):
            return last[2]
        if not hasattr(self._own, "buffers"):
            self._own.buffers = Buffers()
        work = self._work(row).ready(row.name, self._computer, self._own.buffers)
        data = bytearray(min(BLOCK, row.nbytes - block * BLOCK))
        for part in self._computer.compute(work, block, self._own.buffers):
            at = part.first_byte - block * BLOCK
            data[at : at + part.data.nbytes] = part.data
        self._own.last = (row.name, block, data)
        return data

    def _work(self, row: Row) -> _Measured:
        key = row.name if row.joined is None else row.joined
        with self._guard:
            if key not in self._works:
                together = [other for other in self._plan.rows if other.joined == key]
                self._works[key] = _Measured(together or [row])
                if len(self._works) > _KEPT:
                    self._works.popitem(last=False)
            self._works.move_to_end(key)
            return self._works[key]

    def fingerprint(self) -> Fingerprint:
        """The digest of the plan, which covers the headers of its inputs."""
        return Fingerprint(headers={"plan": self._plan.digest}, identity={})

    def changed(self) -> str | None:
        """The first input that is not the one that was opened any more, or None."""
        return next((name for source in self._sources if (name := source.changed()) is not None), None)

    def close(self) -> None:
        """Nothing of its own; who opened the inputs closes them."""


class _Measured:
    """A row, or those that are measured together; the first thread that needs them runs their measuring passes."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._works: dict[str, RowWork] = {}
        self._guard = threading.Lock()

    def ready(self, name: str, computer: Computer, buffers: Buffers) -> RowWork:
        """The row ``name``, ready to compute."""
        with self._guard:
            if not self._works:
                group = Group(len(self._rows)) if self._rows[0].joined is not None else None
                works = {row.name: RowWork(row, group=group) for row in self._rows}
                for number in range(max(work.passes for work in works.values()) - 1):
                    for work in works.values():
                        for block in work.left(number):
                            computer.measure(work, number, block, buffers)
                            work.finish_block(number)
                self._works = works
            return self._works[name]
