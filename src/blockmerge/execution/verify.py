"""Whether a merged model is what its manifest says, and what its inputs give."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import xxhash

from blockmerge.errors import ModelError
from blockmerge.execution.compute import Buffers
from blockmerge.execution.events import Event, Progress, Started
from blockmerge.execution.threads import Workers
from blockmerge.execution.work import BLOCK
from blockmerge.formats.jsonfile import read_object
from blockmerge.report.manifest import MANIFEST, SCHEME
from blockmerge.sources import Source
from blockmerge.tensors import TensorSpec

__all__ = ["Manifest", "Verified", "check_digests", "read_manifest", "recompute", "sampled"]


@dataclass(frozen=True)
class Manifest:
    """What a merged model says of itself: its recipe, the digest of its plan, a digest of each tensor."""

    recipe: Mapping[str, Any]
    plan: str
    tensors: Mapping[str, str]


@dataclass(frozen=True)
class Verified:
    """What was found: ``tensors`` compared with their digests, ``recomputed`` of them with what the inputs give.

    ``differing`` tells what is wrong, a line each; empty if nothing is.
    """

    path: Path
    tensors: int
    recomputed: int
    differing: tuple[str, ...]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the model in ``folder``. Raises :class:`ModelError` if it has none that can be read."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"{folder}: has no {MANIFEST}; only models that Blockmerge made can be verified")
    content = read_object(path)
    recipe, plan, tensors = content.get("recipe"), content.get("plan"), content.get("tensors")
    if content.get("format") != 1 or not isinstance(recipe, dict) or not isinstance(plan, str):
        raise ModelError(f"{path}: is no manifest that this version can read")
    if not isinstance(tensors, dict) or not all(isinstance(value, str) for value in tensors.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        raise ModelError(f"{path}: lists no digests of tensors")
    return Manifest(cast("dict[str, Any]", recipe), plan, cast("dict[str, str]", tensors))


class _Part(NamedTuple):
    """One block of a tensor."""

    spec: TensorSpec
    block: int

    @property
    def nbytes(self) -> int:
        """Its bytes; the last block of a tensor is shorter."""
        return min(BLOCK, self.spec.nbytes - self.block * BLOCK)


def check_digests(
    model: Source, manifest: Manifest, *, threads: int, emit: Callable[[Event], object] = lambda event: None
) -> list[str]:
    """Read all tensors of ``model`` and compare their digests; a line for each that is not as it should be."""
    found = [f"{name} is missing" for name in manifest.tensors if name not in model.specs]
    found += [f"{name} is not in {MANIFEST}" for name in model.specs if name not in manifest.tensors]
    specs = [spec for name, spec in model.specs.items() if name in manifest.tensors]
    digests = _each(specs, lambda part: xxhash.xxh3_128_digest(_bytes(model, part)), threads, emit)
    for spec, blocks in digests:
        digest = SCHEME + xxhash.xxh3_128_hexdigest(b"".join(blocks))
        if digest != manifest.tensors[spec.name]:
            found.append(f"{spec.name} differs from what was written")
    return found


def recompute(
    model: Source,
    planned: Source,
    names: Iterable[str],
    *,
    threads: int,
    emit: Callable[[Event], object] = lambda event: None,
) -> list[str]:
    """Compute the tensors ``names`` again, through ``planned``, and compare them with ``model``, byte for byte."""
    found: list[str] = []
    specs = [model.specs[name] for name in names if name in model.specs]
    for spec in [spec for spec in specs if planned.specs.get(spec.name) != spec]:
        found.append(f"{spec.name} has another shape or dtype than its inputs give")
        specs.remove(spec)
    equal = _each(specs, lambda part: _bytes(model, part) == _bytes(planned, part), threads, emit)
    for spec, blocks in equal:
        if not all(blocks):
            first = blocks.index(False) * BLOCK // spec.dtype.itemsize
            found.append(f"{spec.name} differs from what its inputs give, from the block of element {first} on")
    return found


def sampled(sizes: Mapping[str, int], share: float, seed: str) -> list[str]:
    """Some of the names, drawn by ``seed``, that hold at least that ``share`` of all bytes; at least one."""
    drawn = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    wanted, chosen = share * sum(sizes.values()), list[str]()
    for name in drawn:
        if chosen and wanted <= 0:
            break
        chosen.append(name)
        wanted -= sizes[name]
    return chosen


def _bytes(model: Source, part: _Part) -> bytes:
    size = part.spec.dtype.itemsize
    first = part.block * BLOCK // size
    buffer = bytearray(part.nbytes)
    model.read_into(part.spec.name, first, len(buffer) // size, memoryview(buffer))
    return bytes(buffer)


def _each(
    specs: list[TensorSpec], look: Callable[[_Part], Any], threads: int, emit: Callable[[Event], object]
) -> Iterator[tuple[TensorSpec, list[Any]]]:
    """What ``look`` finds in the blocks of each tensor, in their order. Telling progress is this thread's."""
    found = {spec.name: [None] * max(1, -(-spec.nbytes // BLOCK)) for spec in specs}
    parts = (_Part(spec, block) for spec in specs for block in range(len(found[spec.name])))
    guard, read = threading.Lock(), 0

    def work(part: _Part, _buffers: Buffers) -> None:
        nonlocal read
        found[part.spec.name][part.block] = look(part)
        with guard:
            read += part.nbytes

    total, started = sum(spec.nbytes for spec in specs), time.perf_counter()
    emit(Started(len(specs), total, total, threads))
    workers = Workers(parts, work, threads=threads)
    workers.run(lambda: emit(Progress(read, read, time.perf_counter() - started)))
    return ((spec, found[spec.name]) for spec in specs)
