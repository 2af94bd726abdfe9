"""The safetensors format: eight bytes of header length, a JSON header, the tensors back to back.

Stricter than the format's own library, so that no two readers can see different tensors in one file: no duplicate
names, no unknown fields, no names that are not printable, and a header that starts with ``{``. What it costs to refuse
a file is bounded before its header is parsed: by bytes, and by the signs in them that begin values.
The format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

from blockmerge import dtypes
from blockmerge.errors import FormatError
from blockmerge.formats.jsonfile import parse_object
from blockmerge.tensors import TensorSpec

__all__ = ["MAX_NAME", "MAX_RANK", "MAX_TENSORS", "Header", "build_header", "check_name", "parse_header", "read_header"]

MAX_HEADER = 32_000_000
"""The format allows 100 MB. The 2,000 tensors of a model of 405B take 0.3 MB."""
MAX_TENSORS = 100_000
"""More than the files of any model in use hold together; each costs a kilobyte of memory."""
MAX_VALUES = 10 * MAX_TENSORS
MAX_NAME = 1024
MAX_RANK = 8
_LENGTH = 8
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Header:
    """What a weight file declares.

    ``offsets`` gives each tensor's first byte in the file; ``raw`` is the text that says so (JSON here), whose digest
    identifies the layout; ``size`` is the length that the file must have.
    """

    tensors: Mapping[str, TensorSpec]
    offsets: Mapping[str, int]
    metadata: Mapping[str, str]
    raw: bytes
    size: int


def read_header(file: BinaryIO, size: int, where: str) -> Header:
    """Read and check the header of an open file of ``size`` bytes.

    Raises :class:`FormatError` naming ``where`` for anything that is not a whole, plain safetensors file.
    """
    start = file.read(_LENGTH)
    if len(start) < _LENGTH:
        raise FormatError(f"{where}: {size} bytes are too few for a safetensors file; download it again")
    length = int.from_bytes(start, "little")
    if length > MAX_HEADER:
        raise FormatError(f"{where}: claims a header of {length:,} bytes; this is no file of a model")
    if length > size - _LENGTH:
        raise FormatError(f"{where}: ends inside its header, {size:,} bytes; the file is truncated: download it again")
    raw = file.read(length)
    if len(raw) < length:
        raise FormatError(f"{where}: ends inside its header; the file is truncated: download it again")
    return parse_header(raw, size, where)


def parse_header(raw: bytes, size: int, where: str) -> Header:
    """Check the header text ``raw`` of a file of ``size`` bytes; see :func:`read_header`."""
    if not raw.startswith(b"{"):
        raise FormatError(f"{where}: its header does not start with '{{'; this is no safetensors file")
    if not raw.rstrip(b" ").endswith(b"}"):
        raise FormatError(f"{where}: its header is padded with something other than spaces")
    entries = parse_object(raw, where, MAX_VALUES)
    metadata = _metadata(entries.pop("__metadata__", {}), where)
    if len(entries) > MAX_TENSORS:
        raise FormatError(f"{where}: declares {len(entries):,} tensors; more than {MAX_TENSORS:,} are refused")
    base = _LENGTH + len(raw)
    found = [_tensor(name, entry, where) for name, entry in entries.items()]
    end = _check_contiguous(found, where)
    if base + end != size:
        shortfall = base + end - size
        if shortfall > 0:
            raise FormatError(f"{where}: {shortfall:,} bytes short of what its header declares; download it again")
        raise FormatError(f"{where}: {-shortfall:,} bytes follow the last tensor; the file is corrupt")
    return Header(
        tensors={spec.name: spec for spec, _, _ in found},
        offsets={spec.name: base + first for spec, first, _ in found},
        metadata=metadata,
        raw=raw,
        size=size,
    )


def _metadata(entry: object, where: str) -> dict[str, str]:
    if not isinstance(entry, dict):
        raise FormatError(f"{where}: __metadata__ is not an object")
    texts: dict[str, str] = {}
    for key, value in entry.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(key, str) or not isinstance(value, str):
            raise FormatError(f"{where}: __metadata__ holds something other than text")
        texts[key] = value
    return texts


def check_name(name: str, where: str) -> None:
    """Raise :class:`FormatError`, naming ``where``, for a name that no tensor should bear: empty, endless, unprintable.

    What is left can be shown on a terminal and written into any file. Dots and slashes are fine: no name of a tensor
    ever becomes that of a file.
    """
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise FormatError(f"{where}: {name[:80]!r} is no name for a tensor")


def _tensor(name: str, entry: object, where: str) -> tuple[TensorSpec, int, int]:
    """The spec, first and last byte of one header entry."""
    check_name(name, where)
    at = f"{where}: {name}"
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    if set(fields) != _FIELDS:
        raise FormatError(f"{at}: needs exactly dtype, shape and data_offsets")
    code, shape, bounds = fields["dtype"], _naturals(fields["shape"]), _naturals(fields["data_offsets"])
    dtype = dtypes.by_code(code) if isinstance(code, str) else None
    if dtype is None:
        raise FormatError(f"{at}: unknown dtype {str(code)[:40]!r}")
    if shape is None or len(shape) > MAX_RANK:
        raise FormatError(f"{at}: its shape is not a list of at most {MAX_RANK} whole numbers")
    if bounds is None or len(bounds) != 2 or bounds[0] > bounds[1]:
        raise FormatError(f"{at}: its data_offsets are not two ascending whole numbers")
    bits = math.prod(shape) * dtype.bits
    if math.prod(max(1, size) for size in shape) * dtype.bits >= 2**63 or bits % 8:  # an empty tensor has strides, too
        raise FormatError(f"{at}: no file holds a {dtype} tensor of shape {list(shape)}")
    if bounds[1] - bounds[0] != bits // 8:
        raise FormatError(f"{at}: {bounds[1] - bounds[0]:,} bytes do not hold {dtype} of shape {list(shape)}")
    return TensorSpec(name, dtype, shape), bounds[0], bounds[1]


def _naturals(value: object) -> tuple[int, ...] | None:
    """``value`` as whole numbers from zero up; None if it is anything else (a bool is no number here)."""
    if not isinstance(value, list):
        return None
    numbers: list[int] = []
    for number in value:  # pyright: ignore[reportUnknownVariableType]
        if type(number) is not int or number < 0:  # pyright: ignore[reportUnknownArgumentType]
            return None
        numbers.append(number)
    return tuple(numbers)


def _check_contiguous(found: Iterable[tuple[TensorSpec, int, int]], where: str) -> int:
    """The end of the last tensor, once it is known that they leave no gap and share no byte."""
    end = 0
    for spec, first, last in sorted(found, key=lambda item: (item[1], item[2])):
        if first != end:
            problem = "overlaps the tensor before it" if first < end else "leaves a gap before it"
            raise FormatError(f"{where}: {spec.name} {problem}; the file is corrupt or made to deceive")
        end = last
    return end


def build_header(tensors: Iterable[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a file that holds ``tensors`` back to back in this order: length and padded JSON.

    The text is padded with spaces to a multiple of 8, so that every tensor is aligned if they come in descending
    order of element size.
    """
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for spec in tensors:
        entries[spec.name] = {
            "dtype": spec.dtype.code,
            "shape": list(spec.shape),
            "data_offsets": [end, end + spec.nbytes],
        }
        end += spec.nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH, "little") + text
