"""A model in a folder, as transformers and the Hub lay it out."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from blockmerge.dtypes import BF16
from blockmerge.errors import FormatError, ModelError, listed, printable
from blockmerge.formats import float8, safetensors, torchfile
from blockmerge.formats.jsonfile import read_object
from blockmerge.formats.regular import open_regular
from blockmerge.formats.safetensors import Header, check_name
from blockmerge.sources.base import Fingerprint
from blockmerge.sources.positional import PositionalFile, identity, raise_file_limit
from blockmerge.sources.small import SmallFile, small_files
from blockmerge.tensors import TensorSpec

__all__ = ["WEIGHTS", "LocalSource", "Shard", "is_index", "open_shard", "pickles_read", "weight_map"]

WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
"""Where transformers looks for weights, in this order: one file, or the index of its shards."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_KINDS = ("*.safetensors", "*.gguf", *(f"*{suffix}" for suffix in _PICKLES))
_SHARD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Shard:
    """One open weight file, and what it was when it was opened."""

    path: Path
    header: Header
    identity: tuple[int, ...]
    file: PositionalFile

    def read_into(self, name: str, first: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with encoded elements of tensor ``name``, from element ``first`` on."""
        bits = self.header.tensors[name].dtype.bits
        self.file.read_into(buffer, self.header.offsets[name] + first * bits // 8)

    @property
    def digest(self) -> str:
        """sha256 (hex) of its header."""
        return hashlib.sha256(self.header.raw).hexdigest()

    def changed(self) -> bool:
        """Whether the file is not the one that was opened any more."""
        return identity(self.path) != self.identity


class LocalSource:
    """The weights and config of one folder; see :class:`~blockmerge.sources.base.Source`.

    Of several sets of weights the one that transformers loads is read: ``model.safetensors``, else the shards of
    ``model.safetensors.index.json``, else ``pytorch_model.bin`` or its shards. If there is none of them, a single
    file of torch.save is read, whatever its name. What else has weights in it is left alone and named in ``remarks``.
    """

    def __init__(self, folder: Path, label: str | None = None) -> None:
        self.folder = folder
        self.label = label or printable(folder.resolve().name)
        if not folder.is_dir():
            raise ModelError(f"{folder}: there is no such folder")
        raise_file_limit()
        self._shards: dict[str, Shard] = {}
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        folder = self.folder
        main = _main_file(folder)
        index = weight_map(folder / main) if is_index(main) else None
        shards = {main} if index is None else set(index.values())
        _check_present(folder / main, sorted(shards))
        for name in sorted(shards):
            self._shards[name] = open_shard(folder / name)
        self._home = _homes(self._shards)
        if index is not None:
            _check_index(index, folder / main, self._shards)
        self.specs: Mapping[str, TensorSpec] = {
            name: _read_as(shard.header.tensors[name])
            for shard in self._shards.values()
            for name in sorted(shard.header.tensors)
        }
        self.config: Mapping[str, Any] = _read_config(folder)
        self.files: Mapping[str, SmallFile] = small_files(folder)
        self.remarks = tuple(_remarks(folder, self._shards))

    def read_into(self, name: str, first: int, count: int, buffer: memoryview) -> None:
        """Put encoded elements into ``buffer``; see the contract."""
        shard = self._home[name]
        stored = shard.header.tensors[name].dtype
        if not float8.is_float8(stored):
            shard.read_into(name, first, buffer)
            return
        codes = np.empty(count, np.uint8)
        shard.read_into(name, first, codes.data)
        float8.to_bfloat16(codes, stored, np.frombuffer(buffer, np.uint16))

    def fingerprint(self) -> Fingerprint:
        """Header digests as read at opening, identities as of now."""
        return Fingerprint(
            headers={name: shard.digest for name, shard in self._shards.items()},
            identity={name: identity(shard.path) for name, shard in self._shards.items()},
        )

    def changed(self) -> str | None:
        """The first file that is not the one that was opened any more, or None."""
        return next((name for name, shard in self._shards.items() if shard.changed()), None)

    def close(self) -> None:
        """Release all files."""
        for shard in self._shards.values():
            shard.file.close()


def _read_as(spec: TensorSpec) -> TensorSpec:
    """What a stored tensor is to those that read it: numbers of 8 bits are bfloat16, which holds them exactly."""
    return replace(spec, dtype=BF16, home=spec.dtype) if float8.is_float8(spec.dtype) else spec


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not os.path.lexists(path):
        raise ModelError(f"{folder}: has no config.json; a model folder needs one, as transformers saves it")
    return read_object(path, max_bytes=10_000_000)


def _remarks(folder: Path, shards: Mapping[str, Shard]) -> Iterator[str]:
    """Other sets of weights in the folder, and how the read ones were read."""
    others = [name for name in _weights_in(folder) if name not in shards]
    if others:
        yield f"not read, because transformers would load others: {listed(others, 4)}"
    yield from pickles_read(shards)
    stored = {spec.dtype for shard in shards.values() for spec in shard.header.tensors.values()}
    if narrow := sorted(dtype.name for dtype in stored if float8.is_float8(dtype)):
        yield f"{listed(narrow)} is read as bfloat16, which holds all of its numbers"


def pickles_read(names: Iterable[str]) -> Iterator[str]:
    """A remark on those of ``names`` that are pickles, if any is."""
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        yield f"pickles, read as data, without running them: {listed(pickles, 4)}"


def _weights_in(folder: Path) -> list[str]:
    return sorted(path.name for kind in _KINDS for path in folder.glob(kind) if path.exists())


def _main_file(folder: Path) -> str:
    """The file of the weights, or their index."""
    if known := next((name for name in WEIGHTS if (folder / name).exists()), None):
        return known
    if (folder / "adapter_config.json").is_file():
        raise ModelError(f"{folder}: is an adapter, not a model; write its base before it, BASE+{folder}")
    found = _weights_in(folder)
    if len(found) == 1 and found[0].endswith(_PICKLES):
        return found[0]
    if not found:
        raise ModelError(f"{folder}: holds no weights (none of {', '.join(WEIGHTS)})")
    only = f"{folder}: holds none of {', '.join(WEIGHTS)}, only {listed(found, 2)}"
    raise ModelError(f"{only}; save it with transformers' save_pretrained")


def is_index(name: str) -> bool:
    """Whether the file of this name lists shards."""
    return name.endswith(".index.json")


def weight_map(index: Path) -> dict[str, str]:
    """The shard of each tensor, as the index file lists them: plain names of files of the index's own kind."""
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    entries: object = read_object(index).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise FormatError(f"{index}: has no weight_map that lists tensors")
    shards: dict[str, str] = {}
    for name, shard in entries.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str) or not isinstance(shard, str) or not _plain(shard, suffix):
            raise FormatError(f"{index}: {str(shard)[:80]!r} is no plain name of a {suffix} file")  # pyright: ignore[reportUnknownArgumentType]
        check_name(name, str(index))
        shards[name] = shard
    return shards


def _plain(shard: str, suffix: str) -> bool:
    """Whether it names a file of this kind that is beside its index."""
    return _SHARD_NAME.fullmatch(shard) is not None and shard.endswith(suffix)


def _check_present(main: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if not main.with_name(name).exists()]
    if missing:
        raise ModelError(
            f"{main}: {len(missing)} of {len(names)} shards are missing, first {missing[0]}; download again"
        )


def open_shard(path: Path) -> Shard:
    """Open a weight file and check its header; what is not called ``.safetensors`` is taken for one of torch.save.

    Raises :class:`ModelError` if it cannot be read, :class:`FormatError` if it is broken.
    """
    known = identity(path)
    read_header = safetensors.read_header if path.suffix == ".safetensors" else torchfile.read_header
    try:
        with open_regular(path) as file:
            header = read_header(file, known[0], str(path))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    return Shard(path, header, known, PositionalFile(path))


def _homes(shards: Mapping[str, Shard]) -> dict[str, Shard]:
    """The shard of each tensor; a tensor in two of them would mean two truths."""
    homes: dict[str, Shard] = {}
    for shard in shards.values():
        for name in shard.header.tensors:
            if name in homes:
                raise FormatError(f"{shard.path}: {name} is also in {homes[name].path.name}; which one counts?")
            homes[name] = shard
    return homes


def _check_index(listing: Mapping[str, str], index: Path, shards: Mapping[str, Shard]) -> None:
    """The index and the shards must list the same tensors."""
    for name, shard in listing.items():
        if name not in shards[shard].header.tensors:
            raise FormatError(f"{index}: says that {name} is in {shard}, but it is not there")
    for shard in shards.values():
        for name in shard.header.tensors:
            if name not in listing:
                raise FormatError(f"{shard.path}: {name} is not listed in {index.name}")
