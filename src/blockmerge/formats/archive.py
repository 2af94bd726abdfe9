"""Zip archives that only store: where the bytes of each member are in the file.

Nothing is ever unpacked, so there is nothing to blow up; and a file with two readings is refused. Every byte belongs to
one member or to the directory, and what stands before a member must agree with what the directory says of it.
The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO

from blockmerge.errors import FormatError

__all__ = ["Archive", "Member", "read_archive"]

MAX_MEMBERS = 250_000
MAX_DIRECTORY = 100_000_000
MAX_NAME = 1024
_LOCAL = struct.Struct("<4s5H3I2H")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
"""What stands in a field of 16 or 32 bits whose value is in the zip64 record instead."""
_ENCRYPTED, _DESCRIPTOR, _UTF8 = 0x1, 0x8, 0x800
_ZIP64 = 1


@dataclass(frozen=True, slots=True)
class Member:
    """A stored file: its bytes are ``size`` ones from ``start``; ``header`` is where its header starts.

    ``crc`` is the recorded CRC-32, 0 if its writer left it out; ``flags`` are the format's general purpose bits.
    """

    name: str
    header: int
    size: int
    crc: int
    flags: int
    start: int = -1


@dataclass(frozen=True, slots=True)
class Archive:
    """The members by name, in the order of the directory; ``directory`` is its text as stored."""

    members: Mapping[str, Member]
    directory: bytes


def read_archive(file: BinaryIO, size: int, where: str) -> Archive:
    """Read and check the structure of an open zip file of ``size`` bytes.

    Raises :class:`FormatError` naming ``where`` for anything that is not a whole archive of stored members, without
    gaps, comments, encryption or two members of one name (in upper or lower case).
    """
    count, start, directory = _directory(file, size, where)
    entries = list(_entries(directory, count, where))
    if len({entry.name.lower() for entry in entries}) != len(entries):
        raise _broken(where, "two members have one name")
    ordered = sorted(entries, key=lambda entry: entry.header)
    ends = [entry.header for entry in ordered[1:]] + [start]
    if ordered and ordered[0].header != 0:
        raise _broken(where, "something stands before its first member")
    starts = {entry.name: _data_start(file, entry, end, where) for entry, end in zip(ordered, ends, strict=True)}
    return Archive({entry.name: replace(entry, start=starts[entry.name]) for entry in entries}, directory)


def _directory(file: BinaryIO, size: int, where: str) -> tuple[int, int, bytes]:
    """The number of members, where the directory starts, and the directory."""
    if size < _END.size:
        raise _broken(where, f"{size} bytes are too few; download it again")
    signature, *fields, comment = _END.unpack(_read(file, size - _END.size, _END.size, where))
    disk, first_disk, here, count, length, start = fields
    if signature != b"PK\x05\x06" or comment:
        raise _broken(where, "it does not end with its directory; it is truncated or has a tail: download it again")
    end, wide = size - _END.size, _end64(file, size, where)
    if wide is not None:
        end = size - _END.size - _LOCATOR.size - _END64.size
        narrow = (here, count, length, start)
        if any(a not in (b, full) for a, b, full in zip(narrow, wide, (_FULL16,) * 2 + (_FULL32,) * 2, strict=True)):
            raise _broken(where, "its two ends disagree")
        here, count, length, start = wide
    if disk or first_disk or here != count:
        raise _broken(where, "it is a part of a split archive")
    if count > MAX_MEMBERS or length > MAX_DIRECTORY:
        raise _broken(where, f"it lists {count:,} members in {length:,} bytes; no checkpoint has as many")
    if start + length != end:
        raise _broken(where, "its directory is not where it ends")
    return count, start, _read(file, start, length, where)


def _end64(file: BinaryIO, size: int, where: str) -> tuple[int, int, int, int] | None:
    """Members here and in all, length and start of the directory, if the archive has a zip64 end."""
    at = size - _END.size - _LOCATOR.size
    if at < _END64.size:
        return None
    signature, disk, position, disks = _LOCATOR.unpack(_read(file, at, _LOCATOR.size, where))
    if signature != b"PK\x06\x07":
        return None
    at -= _END64.size
    signature, length, _, _, this, first, *numbers = _END64.unpack(_read(file, at, _END64.size, where))
    if (signature, length, position) != (b"PK\x06\x06", _END64.size - 12, at) or disk or this or first or disks != 1:
        raise _broken(where, "its zip64 end is not sound")
    here, count, length, start = numbers
    return here, count, length, start


def _entries(directory: bytes, count: int, where: str) -> Iterator[Member]:
    """The members that ``directory`` lists, exactly ``count``."""
    at = 0
    for _ in range(count):
        if len(directory) - at < _ENTRY.size:
            raise _broken(where, "its directory ends too early")
        signature, *fields, header = _ENTRY.unpack_from(directory, at)
        _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment, disk, _, _ = fields
        at += _ENTRY.size
        raw, extra = directory[at : at + name_length], directory[at + name_length : at + name_length + extra_length]
        at += name_length + extra_length
        if signature != b"PK\x01\x02" or comment or disk or at > len(directory):
            raise _broken(where, "its directory is not sound")
        name = _name(raw, where)
        _check_stored(name, flags, method, where)
        size, packed, header = _widened((size, packed, header), extra, where)
        if packed != size:
            raise _broken(where, f"{name} is stored in {packed:,} bytes and said to have {size:,}")
        yield Member(name, header, size, crc, flags)
    if at != len(directory):
        raise _broken(where, "its directory lists more members than it counts")


def _name(raw: bytes, where: str) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(where, "the name of a member is not UTF-8") from error
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise _broken(where, f"{name[:80]!r} is no name for a member")
    return name


def _check_stored(name: str, flags: int, method: int, where: str) -> None:
    if flags & _ENCRYPTED:
        raise _broken(where, f"{name} is encrypted")
    if method:
        remedy = "if it is a TorchScript program, torch.jit.load it and save its state_dict as safetensors"
        raise _broken(where, f"{name} is compressed, which torch.save never does; {remedy}")
    if flags & ~(_DESCRIPTOR | _UTF8):
        raise _broken(where, f"{name} has the unknown flags {flags:#x}")


def _widened(narrow: Sequence[int], extra: bytes, where: str) -> tuple[int, ...]:
    """``narrow`` with every value that does not fit into 32 bits taken from the zip64 field of ``extra``."""
    at, wide = 0, None
    while at < len(extra):
        if len(extra) - at < 4:
            raise _broken(where, "an extra field ends too early")
        kind, length = struct.unpack_from("<2H", extra, at)
        field = extra[at + 4 : at + 4 + length]
        if len(field) != length or (kind == _ZIP64 and wide is not None):
            raise _broken(where, "an extra field is not sound")
        wide = field if kind == _ZIP64 else wide
        at += 4 + length
    needed = sum(value == _FULL32 for value in narrow)
    if needed and len(wide or b"") < 8 * needed:
        raise _broken(where, "a zip64 field is missing")
    numbers = iter(struct.unpack_from(f"<{needed}Q", wide or b""))
    return tuple(next(numbers) if value == _FULL32 else value for value in narrow)


def _data_start(file: BinaryIO, entry: Member, end: int, where: str) -> int:
    """Where the bytes of ``entry`` start, once it is known that what surrounds them fits and ``end`` follows."""
    wrong = _broken(where, f"the header of {entry.name} does not agree with the directory")
    at = entry.header
    if end - at < _LOCAL.size:
        raise wrong
    signature, *fields = _LOCAL.unpack(_read(file, at, _LOCAL.size, where))
    _, flags, method, _, _, crc, packed, size, name_length, extra_length = fields
    start = at + _LOCAL.size + name_length + extra_length
    if signature != b"PK\x03\x04" or flags != entry.flags or method or start + entry.size > end:
        raise wrong
    text = _read(file, at + _LOCAL.size, name_length + extra_length, where)
    known = _widened((size, packed), text[name_length:], where)
    if text[:name_length] != entry.name.encode():
        raise wrong
    if (crc, *known) != (entry.crc, entry.size, entry.size) and not (
        flags & _DESCRIPTOR and crc in (0, entry.crc) and set(known) <= {0, entry.size}
    ):
        raise wrong
    if _read(file, start + entry.size, min(end - start - entry.size, 32), where) not in _tails(entry):
        raise _broken(where, f"{entry.name} is not followed by the next member")
    return start


def _tails(entry: Member) -> set[bytes]:
    """What may stand between the bytes of a member and the next one."""
    if not entry.flags & _DESCRIPTOR:
        return {b""}
    crc = struct.pack("<I", entry.crc)
    bodies = [crc + struct.pack("<2Q", entry.size, entry.size)]
    if entry.size <= _FULL32:
        bodies.append(crc + struct.pack("<2I", entry.size, entry.size))
    tails = {signature + body for signature in (b"", b"PK\x07\x08") for body in bodies}
    return tails if entry.size else tails | {b""}


def _read(file: BinaryIO, at: int, count: int, where: str) -> bytes:
    file.seek(at)
    data = file.read(count)
    if len(data) != count:
        raise _broken(where, f"it ends before byte {at + count:,}; it is truncated: download it again")
    return data


def _broken(where: str, why: str) -> FormatError:
    return FormatError(f"{where}: is no sound zip archive: {why}")
