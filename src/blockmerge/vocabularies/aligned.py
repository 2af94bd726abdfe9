"""A model whose vocabulary tensors have the rows of the merged vocabulary."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import BF16, F16, F32, F64, DType
from blockmerge.errors import MismatchError, ModelError
from blockmerge.sources.base import Fingerprint, Source
from blockmerge.sources.small import SmallFile
from blockmerge.tensors import TensorSpec
from blockmerge.vocabularies.rows import AVERAGE, MEAN, ZERO, RowMap

__all__ = ["AlignedSource"]

_NUMBERS = (BF16, F16, F32, F64)
_BLOCK = 1 << 20
"""Elements that a mean takes up at a time."""


@dataclass(frozen=True, eq=False, slots=True)
class _Aligned:
    """One vocabulary tensor: what it is declared as, and the tensor of each model that its rows come from."""

    spec: TensorSpec
    width: int
    donors: Mapping[int, TensorSpec]


class AlignedSource:
    """Model ``source`` with the rows of ``row_map`` in its vocabulary tensors; all else is as it was.

    ``tensors`` names them, and for each its counterpart in every one of ``models`` or None. Rows are copied bit for
    bit; averages and means are taken in float64 in a fixed order and rounded once. Where donors differ in dtype the
    tensor is declared float32 (float64 if any is), which holds all of them exactly. ``digest`` is the vocabulary's.

    Raises :class:`ModelError` if a donor lacks a tensor, :class:`MismatchError` if its rows are of another kind.
    """

    def __init__(
        self,
        source: Source,
        models: Sequence[Source],
        tensors: Mapping[str, Sequence[str | None]],
        row_map: RowMap,
        digest: str,
    ) -> None:
        self._source = source
        self._models = models
        self._map = row_map
        self._digest = digest
        self.label = source.label
        self.files: Mapping[str, SmallFile] = source.files
        self.config: Mapping[str, Any] = source.config
        self.remarks = source.remarks
        self._aligned = {name: self._align(name, names) for name, names in tensors.items()}
        self.specs: Mapping[str, TensorSpec] = {
            name: self._aligned[name].spec if name in self._aligned else spec for name, spec in source.specs.items()
        }
        self._run_start = _run_starts(row_map)
        self._means: dict[str, NDArray[np.float64]] = {}
        self._guard = threading.Lock()

    def _align(self, name: str, names: Sequence[str | None]) -> _Aligned:
        own = self._source.specs[name]
        donors: dict[int, TensorSpec] = {}
        for number in self._map.donors:
            donor, label = names[number], self._models[number].label
            if donor is None:
                raise ModelError(f"{label}: has no {name}, which the rows of tokens that {self.label} lacks come from")
            spec = donors[number] = self._models[number].specs[donor]
            if spec.shape[1:] != own.shape[1:]:
                raise MismatchError(
                    f"{name}: rows are {list(own.shape[1:])} in {self.label} and {list(spec.shape[1:])} in {label}"
                )
            if spec.shape[0] < self._map.rows_needed(number):
                raise MismatchError(
                    f"{label}: {donor} has {spec.shape[0]} rows, but row {self._map.rows_needed(number) - 1} is a token"
                )
        dtype = self._declared(own, donors)
        home = None if dtype == own.dtype else own.result_dtype
        shape = (self._map.size, *own.shape[1:])
        return _Aligned(replace(own, dtype=dtype, shape=shape, home=home or own.home), math.prod(shape[1:]), donors)

    def _declared(self, own: TensorSpec, donors: Mapping[int, TensorSpec]) -> DType:
        """The format that holds the rows of all donors."""
        dtypes = {own.dtype, *(spec.dtype for spec in donors.values())}
        computed = bool((self._map.donor == AVERAGE).any() or (self._map.donor == MEAN).any())
        odd = [dtype for dtype in dtypes if dtype not in _NUMBERS]
        if odd and (computed or len(dtypes) > 1):
            raise ModelError(
                f"{self.label}: {own.name} cannot be aligned, because {odd[0]} is not read as numbers here"
            )
        if len(dtypes) == 1:
            return own.dtype
        return F64 if F64 in dtypes else F32

    def read_into(self, name: str, first: int, count: int, buffer: memoryview) -> None:
        """Put encoded elements into ``buffer``, gathered from the donors' rows; see the contract."""
        aligned = self._aligned.get(name)
        if aligned is None:
            self._source.read_into(name, first, count, buffer)
            return
        size = aligned.spec.dtype.itemsize
        for row, start, length in self._runs(first, count, aligned.width):
            at = row * aligned.width + start - first
            self._read_run(aligned, row, start, length, buffer[at * size : (at + length) * size])

    def _runs(self, first: int, count: int, width: int) -> Iterator[tuple[int, int, int]]:
        """Cut ``count`` elements from ``first`` on where the donors change.

        Each part is the row it starts in, the element of that row it starts with, and its length in elements.
        """
        end = first + count
        run = int(np.searchsorted(self._run_start, first // width, side="right")) if width else 0
        while first < end:
            stop = min(int(self._run_start[run]) * width, end)
            yield first // width, first % width, stop - first
            first = stop
            run += 1

    def _read_run(self, aligned: _Aligned, row: int, start: int, length: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with ``length`` elements of a run, from element ``start`` of ``row`` on."""
        donor, donor_row = int(self._map.donor[row]), int(self._map.row[row])
        if donor >= 0:
            self._read_rows(aligned, donor, donor_row * aligned.width + start, length, buffer)
        elif donor == ZERO:
            buffer[:] = bytes(len(buffer))
        elif donor == AVERAGE:
            _put(self._average(aligned, donor_row, start, length), aligned.spec.dtype, buffer)
        else:
            assert donor == MEAN
            _put(np.resize(np.roll(self._mean(aligned), -start), length), aligned.spec.dtype, buffer)

    def _read_rows(self, aligned: _Aligned, donor: int, first: int, count: int, buffer: memoryview) -> None:
        """Elements of a donor, in the format of the aligned tensor."""
        spec = aligned.donors[donor]
        if spec.dtype == aligned.spec.dtype:
            self._models[donor].read_into(spec.name, first, count, buffer)
        else:
            _put(_read(self._models[donor], spec, first, count), aligned.spec.dtype, buffer)

    def _average(self, aligned: _Aligned, number: int, start: int, length: int) -> NDArray[np.float64]:
        """``length`` elements of average ``number``, all in its one row, from element ``start`` on."""
        from blockmerge.kernels.rows import add_rows

        members = range(int(self._map.start[number]), int(self._map.start[number + 1]))
        total = np.zeros(length)
        for member in members:
            donor, row = int(self._map.member_model[member]), int(self._map.member_row[member])
            first = row * aligned.width + start
            add_rows(_read(self._models[donor], aligned.donors[donor], first, length), total)
        return total / len(members)

    def _mean(self, aligned: _Aligned) -> NDArray[np.float64]:
        """The mean of the rows of all tokens, [width]; taken once, row after row."""
        from blockmerge.kernels.rows import add_rows

        name, width, tokens = aligned.spec.name, aligned.width, self._map.tokens
        step = max(1, _BLOCK // width)
        with self._guard:
            if name not in self._means:
                total = np.zeros(width)
                for rows in np.split(tokens, np.flatnonzero(np.diff(tokens) != 1) + 1):
                    for first in range(int(rows[0]), int(rows[-1]) + 1, step):
                        count = min(step, int(rows[-1]) + 1 - first)
                        add_rows(_read(self, aligned.spec, first * width, count * width), total)
                self._means[name] = total / len(tokens)
            return self._means[name]

    def fingerprint(self) -> Fingerprint:
        """That of the model, and what its rows are made of."""
        own = self._source.fingerprint()
        return Fingerprint({**own.headers, "vocabulary": self._digest}, own.identity)

    def changed(self) -> str | None:
        """A weight file of the model or of a donor that is not the one that was opened any more, or None."""
        if own := self._source.changed():
            return own
        changes = ((self._models[number], self._models[number].changed()) for number in self._map.donors)
        return next((f"{name} of {model.label}" for model, name in changes if name), None)

    def close(self) -> None:
        """Nothing: the models belong to who opened them."""


def _run_starts(rows: RowMap) -> NDArray[np.int64]:
    """The rows at which another run starts, and last the number of rows.

    A run is consecutive rows of one donor, or zeros, or means; each average is its own.
    """
    same = rows.donor[1:] == rows.donor[:-1]
    follows = (rows.donor[1:] == ZERO) | (rows.donor[1:] == MEAN) | (rows.row[1:] == rows.row[:-1] + 1)
    together = same & follows & (rows.donor[1:] != AVERAGE)
    return np.concatenate(([0], np.flatnonzero(~together) + 1, [rows.size]))


def _read(source: Source, spec: TensorSpec, first: int, count: int) -> NDArray[Any]:
    """Encoded elements of a tensor."""
    raw: NDArray[Any] = np.empty(count, spec.dtype.storage)
    source.read_into(spec.name, first, count, raw.data.cast("B"))
    return raw


def _put(numbers: NDArray[Any], dtype: DType, buffer: memoryview) -> None:
    """Write ``numbers`` into ``buffer`` as ``dtype``, rounded once."""
    from blockmerge.kernels import convert

    convert(numbers, np.frombuffer(buffer, dtype.storage))
