"""The files that torch.save has written since torch 1.6: a zip archive of a pickle and the bytes of each storage.

They are read as data: the pickle is never run (:mod:`blockmerge.formats.pickled`), and the archive only stores
(:mod:`blockmerge.formats.archive`), so the elements of a contiguous tensor are a range of the file, as in safetensors.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import BinaryIO, cast

from blockmerge.errors import FormatError
from blockmerge.formats.archive import Archive, Member, read_archive
from blockmerge.formats.pickled import REMEDY, StoredTensor, interpret
from blockmerge.formats.safetensors import MAX_NAME, MAX_RANK, MAX_TENSORS, Header
from blockmerge.tensors import TensorSpec

__all__ = ["read_header"]

MAX_PICKLE = 100_000_000
_ZIP = b"PK\x03\x04"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of torch before 1.6 starts: the pickle of a magic number."""
_KEYS = ("state_dict", "model", "module")
"""Under which trainers keep the weights beside other things: Lightning, many scripts, DeepSpeed."""


def read_header(file: BinaryIO, size: int, where: str) -> Header:
    """Read and check what an open file of ``size`` bytes declares; names that share a storage share its bytes.

    ``raw`` is the pickle and the directory of the archive. Raises :class:`FormatError` naming ``where`` for anything
    that is not a whole file of ``torch.save`` with a dict of contiguous tensors, or asks for more than that.
    """
    _check_kind(file.read(512), where)
    archive = read_archive(file, size, where)
    root = next(iter(archive.members)).partition("/")[0] + "/" if archive.members else "/"
    if not all(name.startswith(root) for name in archive.members):
        raise FormatError(f"{where}: its members are not all in one folder; torch.save did not write it")
    _check_archive(file, archive, root, where)
    pickle = _read(file, archive, root + "data.pkl", MAX_PICKLE, where)
    found = _state_dict(interpret(pickle, where), where)
    if len(found) > MAX_TENSORS:
        raise FormatError(f"{where}: declares {len(found):,} tensors; more than {MAX_TENSORS:,} are refused")
    specs: dict[str, TensorSpec] = {}
    offsets: dict[str, int] = {}
    for name, value in found.items():
        spec, tensor = _spec(name, value, where)
        specs[spec.name] = spec
        offsets[spec.name] = _offset(spec, tensor, archive.members.get(f"{root}data/{tensor.storage.key}"), where)
    return Header(specs, offsets, {}, pickle + archive.directory, size)


def _check_kind(start: bytes, where: str) -> None:
    """Refuse what is not a zip file with the reason."""
    if start.startswith(_ZIP):
        return
    if start.startswith(_LEGACY) or start[257:262] == b"ustar":
        raise FormatError(f"{where}: has the format of torch before 1.6; {REMEDY}")
    raise FormatError(f"{where}: is no file of torch.save (its first bytes are {start[:8]!r}); download it again")


def _check_archive(file: BinaryIO, archive: Archive, root: str, where: str) -> None:
    """Whether this is an archive of a little-endian checkpoint."""
    if any(name.startswith(f"{root}code/") or name == f"{root}constants.pkl" for name in archive.members):
        raise FormatError(
            f"{where}: is a TorchScript program; torch.jit.load it and save its state_dict as safetensors"
        )
    if root + "data.pkl" not in archive.members:
        raise FormatError(f"{where}: is a zip archive without data.pkl; torch.save did not write it")
    if root + "byteorder" in archive.members:
        order = _read(file, archive, root + "byteorder", 16, where)
        if order != b"little":
            raise FormatError(f"{where}: its byte order is {order!r}, not little; save it on a little-endian machine")


def _read(file: BinaryIO, archive: Archive, name: str, most: int, where: str) -> bytes:
    """A whole member of at most ``most`` bytes. A checksum of 0 is one that torch was told to leave out."""
    member = archive.members[name]
    if member.size > most:
        raise FormatError(f"{where}: {name} has {member.size:,} bytes; more than {most:,} are refused")
    file.seek(member.start)
    data = file.read(member.size)
    if len(data) != member.size or member.crc not in (0, zlib.crc32(data)):
        raise FormatError(f"{where}: {name} fails its checksum; the file is damaged: download it again")
    return data


def _state_dict(top: object, where: str) -> Mapping[object, object]:
    """The dict of tensors: what is stored, or what it holds under a well-known key if it holds no tensor itself."""
    if isinstance(top, dict):
        outer = cast("dict[object, object]", top)
        for candidate in (outer, *(outer.get(key) for key in _KEYS)):
            if isinstance(candidate, dict):
                found = cast("dict[object, object]", candidate)
                if any(isinstance(value, StoredTensor) for value in found.values()):
                    return found
    raise FormatError(f"{where}: holds no dict of tensors, nor one under {' or '.join(_KEYS)}; save a state_dict")


def _spec(name: object, value: object, where: str) -> tuple[TensorSpec, StoredTensor]:
    if not isinstance(name, str) or not name or len(name) > MAX_NAME or not name.isprintable():
        raise FormatError(f"{where}: {str(name)[:80]!r} is no name for a tensor")
    if not isinstance(value, StoredTensor):
        kind = type(value).__name__.strip("_")
        raise FormatError(f"{where}: {name} is a {kind}, not a tensor; save the tensors alone, as a state_dict")
    if len(value.shape) > MAX_RANK:
        raise FormatError(f"{where}: {name}: has {len(value.shape)} dimensions; more than {MAX_RANK} are refused")
    return TensorSpec(name, value.dtype, value.shape), value


def _offset(spec: TensorSpec, tensor: StoredTensor, member: Member | None, where: str) -> int:
    """The first byte of a tensor in the file, once it is known that its storage holds it in one piece."""
    at, storage = f"{where}: {spec.name}", tensor.storage
    itemsize = storage.dtype.itemsize if storage.dtype else 1
    if member is None:
        raise FormatError(f"{at}: its storage {storage.key[:80]!r} is not in the file")
    if member.size != storage.numel * itemsize:
        raise FormatError(f"{at}: {member.size:,} bytes do not hold the {storage.numel:,} elements of its storage")
    if not spec.elements:
        return member.start
    if not _contiguous(tensor):
        how = f"shape {list(tensor.shape)}, strides {list(tensor.strides)}"
        raise FormatError(f"{at}: is not contiguous ({how}); save it again after .contiguous()")
    start = tensor.offset * spec.dtype.itemsize
    if start + spec.nbytes > member.size:
        raise FormatError(f"{at}: reaches {start + spec.nbytes - member.size:,} bytes past the end of its storage")
    return member.start + start


def _contiguous(tensor: StoredTensor) -> bool:
    """Whether the elements follow each other, the last dimension fastest; strides of dimensions of 1 mean nothing."""
    return all(
        size == 1 or stride == math.prod(tensor.shape[axis + 1 :])
        for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.strides, strict=True))
    )
