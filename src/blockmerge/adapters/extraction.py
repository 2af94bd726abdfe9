"""Writing the adapter: one matrix after the other, each decomposed and forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blockmerge.adapters.factors import factorise, kept_share
from blockmerge.adapters.files import small_files
from blockmerge.adapters.result import Extracted, Factored
from blockmerge.adapters.selection import Matrix, Selection, differences
from blockmerge.dtypes import DType
from blockmerge.errors import NonFiniteError
from blockmerge.execution.events import Event, Finished, Progress, Publishing, Started
from blockmerge.execution.run import check_unchanged
from blockmerge.execution.writer import PartialModel, check_output
from blockmerge.formats.safetensors import build_header
from blockmerge.planning import InputModel, Shard
from blockmerge.sources import ADAPTER_WEIGHTS, Source
from blockmerge.tensors import TensorSpec

__all__ = ["Opened", "extract"]

Opened = tuple[InputModel, Source]
"""An input and its open weights."""

_PREFIX = "base_model.model."
_CHUNK = 1 << 20


def extract(
    selection: Selection,
    model: Opened,
    base: Opened,
    out: Path,
    *,
    dtype: DType,
    overwrite: bool = False,
    emit: Callable[[Event], object] = lambda event: None,
) -> Extracted:
    """Decompose what is selected and publish the adapter at ``out``; see :func:`blockmerge.extract_lora`."""
    return _Extraction(selection, model, base, dtype, emit).run(out, overwrite=overwrite)


class _Extraction:
    def __init__(
        self, selection: Selection, model: Opened, base: Opened, dtype: DType, emit: Callable[[Event], object]
    ) -> None:
        self.selection, self.dtype, self.emit = selection, dtype, emit
        self.inputs = (model[0], base[0])
        self.model, self.base = model[1], base[1]
        self.started = time.perf_counter()
        specs = sorted(self._specs(), key=lambda spec: (-spec.dtype.bits, spec.name))  # aligned without gaps
        header = build_header(specs, {"format": "pt"})
        self.offsets: dict[str, int] = {}
        self.size = len(header)
        for spec in specs:
            self.offsets[spec.name] = self.size
            self.size += spec.nbytes
        self.shard = Shard(ADAPTER_WEIGHTS, header, self.size)
        self.read = self.written = 0

    def run(self, out: Path, *, overwrite: bool) -> Extracted:
        check_output([part for model in self.inputs for part in model.parts], self.size, out, overwrite=overwrite)
        with PartialModel([self.shard], out, overwrite=overwrite).open() as (output, _):
            count = len(self.selection.matrices) + len(self.selection.whole)
            self.emit(Started(count, self._bytes_to_read(), self.size, 1))
            layers = tuple(self._factored(matrix, output) for matrix in self.selection.matrices)
            for name, module in self.selection.whole.items():
                self._copy(name, module, output)
            check_unchanged([self.model, self.base])
            merged = time.perf_counter()
            self.emit(Publishing(merged - self.started))
            result = self._result(out, layers)
            path = output.publish(small_files(self.selection, result, *self.inputs))
        seconds = time.perf_counter() - merged
        self.emit(Finished(path, self.read, self.written, merged - self.started, seconds, 0))
        return result

    def _result(self, out: Path, layers: tuple[Factored, ...]) -> Extracted:
        return Extracted(
            path=out,
            rank=self.selection.rank,
            layers=layers,
            whole=tuple(self.selection.whole),
            uncovered=tuple(self.selection.uncovered),
            unchanged=len(self.selection.unchanged),
            seconds=time.perf_counter() - self.started,
        )

    def _specs(self) -> list[TensorSpec]:
        """The tensors of the adapter."""
        found: list[TensorSpec] = []
        for matrix in self.selection.matrices:
            rows, columns = matrix.shape
            inputs, outputs = (rows, columns) if self.selection.inputs_first else (columns, rows)
            found.append(TensorSpec(_key(matrix.module, "lora_A"), self.dtype, (matrix.rank, inputs)))
            found.append(TensorSpec(_key(matrix.module, "lora_B"), self.dtype, (outputs, matrix.rank)))
        for name, module in self.selection.whole.items():
            spec = self.model.specs[name]
            found.append(TensorSpec(_key(module), spec.dtype, spec.shape))
        return found

    def _bytes_to_read(self) -> int:
        names = [matrix.name for matrix in self.selection.matrices]
        pairs = sum(source.specs[name].nbytes for name in names for source in (self.model, self.base))
        return pairs + sum(self.model.specs[name].nbytes for name in self.selection.whole)

    def _factored(self, matrix: Matrix, output: PartialModel) -> Factored:
        difference = self._difference(matrix)
        left, right = factorise(difference, matrix.rank, matrix.name)
        a, b = (left.T, right.T) if self.selection.inputs_first else (right, left)
        a, b = (self._write(_key(matrix.module, part), array, output) for part, array in (("lora_A", a), ("lora_B", b)))
        left, right = (a.T, b.T) if self.selection.inputs_first else (b, a)
        norm, lost = kept_share(difference, left, right)
        self._report()
        return Factored(matrix.name, matrix.rank, norm, lost)

    def _difference(self, matrix: Matrix) -> NDArray[np.float32]:
        found = np.empty(matrix.shape[0] * matrix.shape[1], np.float32)
        for first, values in differences(self.model, self.base, matrix.name):
            found[first : first + values.size] = values
        self.read += sum(source.specs[matrix.name].nbytes for source in (self.model, self.base))
        if not np.isfinite(found).all():
            raise NonFiniteError(
                f"{matrix.name}: differs by a number that is not finite between {self.model.label} and "
                f"{self.base.label}; a checkpoint is damaged"
            )
        return found.reshape(matrix.shape)

    def _write(self, key: str, array: NDArray[np.float32], output: PartialModel) -> NDArray[np.float32]:
        """Write a factor, rounded to the dtype of the adapter; returns what a reader will find."""
        from blockmerge.kernels import convert

        encoded = np.empty(array.size, self.dtype.storage)
        if convert(np.ascontiguousarray(array).reshape(-1), encoded):
            raise NonFiniteError(f"{key} overflows {self.dtype}; choose another dtype")
        self._put(key, 0, encoded, output)
        rounded = np.empty(array.size, np.float32)
        convert(encoded, rounded)
        return rounded.reshape(array.shape)

    def _copy(self, name: str, module: str, output: PartialModel) -> None:
        spec = self.model.specs[name]
        for first in range(0, spec.elements, _CHUNK):
            count = min(_CHUNK, spec.elements - first)
            room = np.empty(count * spec.dtype.itemsize, np.uint8)
            self.model.read_into(name, first, count, room.data)
            self._put(_key(module), first * spec.dtype.itemsize, room, output)
        self.read += spec.nbytes
        self._report()

    def _put(self, key: str, first_byte: int, array: NDArray[np.generic], output: PartialModel) -> None:
        data = array.view(np.uint8).data
        output.write_at(0, self.offsets[key] + first_byte, data)
        self.written += len(data)

    def _report(self) -> None:
        self.emit(Progress(self.read, self.written, time.perf_counter() - self.started))


def _key(module: str, part: str | None = None) -> str:
    """What PEFT calls a tensor of the layer ``module``."""
    return f"{_PREFIX}{module}.{part}.weight" if part else f"{_PREFIX}{module}.weight"
