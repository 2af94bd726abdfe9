"""A model with a LoRA adapter (Hu et al. 2021, arXiv:2106.09685), merged while it is read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.errors import ModelError, listed, printable
from blockmerge.sources.adapter_config import ADAPTER_CONFIG, AdapterConfig, read_adapter_config
from blockmerge.sources.adapter_layout import Layout, Product, lay_out_adapter
from blockmerge.sources.base import Fingerprint
from blockmerge.sources.local import LocalSource, Shard, open_shard, pickles_read
from blockmerge.sources.positional import identity
from blockmerge.sources.small import SmallFile, small_files
from blockmerge.tensors import TensorSpec

__all__ = ["ADAPTER_WEIGHTS", "AdapterSource"]

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_ADAPTER_PICKLE = "adapter_model.bin"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_STRETCH = 2048
"""Elements of a row that are summed at a time; they stay in the nearest cache."""
_CHUNK = 1 << 17
"""Elements that are measured at a time, in whole rows."""
_KEPT = 8
"""Tensors whose factors are kept decoded: a merge works on a few at a time."""
_NONE: NDArray[np.float64] = np.empty(0)
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class _Factors:
    """A product ready to be added: ``left`` (rows, rank), ``right`` (rank, columns), and what rows or columns are
    multiplied with in the end."""

    left: Floats
    right: Floats
    scaling: float
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]


class AdapterSource:
    """The weights of ``base`` with the adapter in ``folder``; see :class:`~blockmerge.sources.base.Source`.

    Adapted tensors are float32: the base's weight, decoded exactly, plus ``scaling * B @ A``, rounded once. They are
    computed for the elements that are asked for and kept nowhere. The product is summed over the rank in order, in
    float64 for a base of 32 or 64 bits and in float32 otherwise, so a weight does not depend on what it is read with.
    With DoRA (Liu et al. 2024, arXiv:2402.09353) the weights of each output are scaled to a length of their own; what
    they have is measured once for each tensor, in a pass over it.
    """

    def __init__(self, base: LocalSource, folder: Path, label: str | None = None) -> None:
        self._base = base
        self._options = read_adapter_config(folder)
        self._watched = {ADAPTER_CONFIG: identity(folder / ADAPTER_CONFIG)}
        self._path = folder
        self.label = label or f"{base.label}+{printable(folder.resolve().name)}"
        own = small_files(folder)
        self._shard = _open_weights(folder)
        with ExitStack() as stack:
            stack.callback(self._shard.file.close)
            tensors = self._shard.header.tensors
            self._layout = lay_out_adapter(tensors, self._options, base.specs, base.config, self.label)
            stack.pop_all()
        self.specs: Mapping[str, TensorSpec] = self._layout.specs
        self.config: Mapping[str, Any] = _adapted_config(base.config, self._layout)
        own_tokenizer = _tokenizers_differ(own, base.files)
        self.files: Mapping[str, SmallFile] = _files(own if own_tokenizer else base.files, base, self.config)
        pickled = pickles_read([self._shard.path.name])
        self.remarks = (*base.remarks, *pickled, *_remarks(self._layout, self._options, own_tokenizer))
        self._guard = threading.Lock()
        self._factors: dict[str, _Factors] = {}
        self._lengths: dict[str, NDArray[np.float64]] = {}
        self._scratch = threading.local()

    def read_into(self, name: str, first: int, count: int, buffer: memoryview) -> None:
        """Put elements into ``buffer``, those of adapted tensors computed; see the contract."""
        product = self._layout.products.get(name)
        if product is None:
            self._read_plain(name, first, count, buffer)
        else:
            with self._guard:
                factors = self._prepared(name, product)
            self._compute(name, factors, first, np.frombuffer(buffer, np.float32, count))

    def fingerprint(self) -> Fingerprint:
        """The base's, and the header and the decisive options of the adapter."""
        base = self._base.fingerprint()
        return Fingerprint(
            headers={**base.headers, self._shard.path.name: self._shard.digest, ADAPTER_CONFIG: self._options.digest},
            identity={
                **base.identity,
                self._shard.path.name: identity(self._shard.path),
                ADAPTER_CONFIG: identity(self._path / ADAPTER_CONFIG),
            },
        )

    def changed(self) -> str | None:
        """The first file, of the base or the adapter, that is not the one that was opened any more, or None."""
        if self._shard.changed():
            return self._shard.path.name
        if identity(self._path / ADAPTER_CONFIG) != self._watched[ADAPTER_CONFIG]:
            return ADAPTER_CONFIG
        return self._base.changed()

    def close(self) -> None:
        """Release the files of both."""
        self._shard.file.close()
        self._base.close()

    # ---- elements ----------------------------------------------------------------------------------------------------

    def _read_plain(self, name: str, first: int, count: int, buffer: memoryview) -> None:
        """The elements as base or adapter store them."""
        if key := self._layout.replaced.get(name):
            self._shard.read_into(key, first, buffer)
        else:
            self._base.read_into(self._layout.origins.get(name, name), first, count, buffer)

    def _stored_dtype(self, name: str) -> DType:
        """The dtype of what :meth:`_read_plain` gives."""
        if key := self._layout.replaced.get(name):
            return self._shard.header.tensors[key].dtype
        return self._base.specs[self._layout.origins.get(name, name)].dtype

    def _compute(self, name: str, factors: _Factors, first: int, out: NDArray[np.float32]) -> None:
        from blockmerge.kernels.lowrank import add_product

        if not out.size:
            return
        dtype = self._stored_dtype(name)
        encoded = self._room("encoded", out.size * dtype.itemsize, np.uint8)
        self._read_plain(name, first, out.size, encoded.data)
        add_product(
            encoded.view(dtype.storage),
            factors.left,
            factors.right,
            factors.scaling,
            factors.rows,
            factors.columns,
            first,
            self._room(factors.left.dtype.name, _STRETCH, factors.left.dtype),
            out,
        )

    def _room(self, use: str, count: int, dtype: Any) -> NDArray[Any]:
        """Memory of this thread, grown to the largest request and then used again."""
        room: NDArray[Any] | None = getattr(self._scratch, use, None)
        if room is None or room.size < count:
            room = np.empty(count, dtype)
            setattr(self._scratch, use, room)
        return room[:count]

    # ---- factors -----------------------------------------------------------------------------------------------------

    def _prepared(self, name: str, product: Product) -> _Factors:
        """The factors of a tensor, from those kept or anew; the guard is held."""
        factors = self._factors.pop(name, None) or self._decoded(name, product)
        self._factors[name] = factors
        if len(self._factors) > _KEPT:
            del self._factors[next(iter(self._factors))]
        return factors

    def _decoded(self, name: str, product: Product) -> _Factors:
        number = np.dtype(np.float64 if self._stored_dtype(name).bits > 16 else np.float32)
        a, b = (self._tensor(key, number) for key in (product.a, product.b))
        left, right = (a.T, b.T) if product.inputs_first else (b, a)
        factors = _Factors(np.ascontiguousarray(left), np.ascontiguousarray(right), product.scaling, _NONE, _NONE)
        if product.magnitude is None:
            return factors
        if name not in self._lengths:
            self._lengths[name] = self._measured(name, factors, by_column=product.inputs_first)
        magnitudes = self._tensor(product.magnitude, np.dtype(np.float64)).reshape(-1)
        with np.errstate(divide="ignore", invalid="ignore"):  # what is not finite then is found when it is merged
            scales = magnitudes / self._lengths[name]
        if product.inputs_first:
            return replace(factors, columns=scales)
        return replace(factors, rows=scales)

    def _tensor(self, key: str, number: np.dtype[Any]) -> Floats:
        """A whole tensor of the adapter, decoded."""
        from blockmerge.kernels import convert

        spec = self._shard.header.tensors[key]
        encoded = bytearray(spec.nbytes)
        self._shard.read_into(key, 0, memoryview(encoded))
        decoded = np.empty(spec.elements, number)
        convert(np.frombuffer(encoded, spec.dtype.storage), decoded)
        return decoded.reshape(spec.shape)

    def _measured(self, name: str, factors: _Factors, *, by_column: bool) -> NDArray[np.float64]:
        """The Euclidean length of the weights of each output, summed in float64 in a fixed order."""
        from blockmerge.kernels.lowrank import add_squares_by_column, squares_by_row

        rows, columns = self.specs[name].shape
        totals = np.zeros(columns if by_column else rows)
        step = max(1, _CHUNK // max(1, columns))
        for row in range(0, rows, step):
            values = np.empty((min(step, rows - row), columns), np.float32)
            self._compute(name, factors, row * columns, values.reshape(-1))
            if by_column:
                add_squares_by_column(values, totals)
            else:
                squares_by_row(values, totals[row : row + step])
        return np.sqrt(totals)


def _open_weights(folder: Path) -> Shard:
    for name in (ADAPTER_WEIGHTS, _ADAPTER_PICKLE):
        if (folder / name).exists():
            return open_shard(folder / name)
    raise ModelError(f"{folder}: has no {ADAPTER_WEIGHTS}; after the + stands an adapter, as peft saves it")


def _adapted_config(config: Mapping[str, Any], layout: Layout) -> Mapping[str, Any]:
    """The config of the adapted model: its vocabulary and its tie."""
    adapted = dict(config)
    text = config.get("text_config")
    if layout.untied:
        adapted["tie_word_embeddings"] = False
    if layout.vocabulary is not None and "vocab_size" in config:
        adapted["vocab_size"] = layout.vocabulary
    if layout.vocabulary is not None and isinstance(text, Mapping):
        adapted["text_config"] = {**text, "vocab_size": layout.vocabulary}
    return adapted


def _files(found: Mapping[str, SmallFile], base: LocalSource, config: Mapping[str, Any]) -> Mapping[str, SmallFile]:
    """The small files ``found``; config.json is the base's, unless the adapter changes it."""
    files = {name: file for name, file in found.items() if name != "config.json"}
    return files if config != base.config else {**files, "config.json": base.files["config.json"]}


def _tokenizers_differ(own: Mapping[str, SmallFile], base: Mapping[str, SmallFile]) -> bool:
    """Whether the adapter brings a tokenizer that is not its base's."""
    for name in _TOKENIZERS:
        if name in own:
            return name not in base or own[name].read() != base[name].read()
    return False


def _remarks(layout: Layout, options: AdapterConfig, own_tokenizer: bool) -> Iterator[str]:
    ranks = sorted({product.rank for product in layout.products.values()})
    if ranks:
        kind = "DoRA" if options.use_dora else "LoRA"
        span = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        yield f"{len(layout.products)} tensors are read as float32 sums of base and adapter ({kind} of rank {span})"
    if layout.replaced:
        yield f"{len(layout.replaced)} tensors are the adapter's own: {listed(layout.replaced, 4)}"
    yield from layout.notes
    if own_tokenizer:
        yield "the adapter has a tokenizer of its own, which stands; other files beside the weights are its own, too"
    if options.unknown:
        yield f"{ADAPTER_CONFIG}: {listed(options.unknown)} is not known here and taken to change nothing"
