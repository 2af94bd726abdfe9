"""What of an unfinished model is written already: the file that lets an interrupted merge go on.

``OUT.partial.journal`` is a lock while a merge runs. It begins with what the merge is (its plan, its layout, its
inputs, the folder it builds), followed by records of 28 bytes: a block and the digest of its bytes, noted after they
were written; a position up to which all that was noted is durable; or the start of another run.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import uuid
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from blockmerge.execution.system import told
from blockmerge.planning import Plan

__all__ = ["Journal", "Key", "Noted", "key_of"]

_MAGIC = b"blockmerge journal 1\n"
_LENGTH = struct.Struct("<II")
_RECORD = struct.Struct("<II16sI")
_SPECIAL = 0xFFFFFFFF
_SYNC, _BOOT = 0, 1
_MOST = 100_000_000
Digests = dict[int, dict[int, bytes]]
"""Of the bytes of blocks, by row and block."""
Key = Mapping[str, Any]
"""What a merge is; see :func:`key_of`."""


def key_of(plan: Plan) -> dict[str, Any]:
    """What must be the same for a merge to go on: the bytes that it writes, and the files that it reads."""
    layout = hashlib.sha256()
    for shard in plan.shards:
        layout.update(shard.name.encode() + b"\0" + shard.header)
    inputs = {
        leaf.reference: {name: list(identity[:2]) for name, identity in sorted(leaf.fingerprint.identity.items())}
        for leaf in plan.leaves
    }
    return {"plan": plan.digest, "layout": layout.hexdigest(), "inputs": inputs}


@dataclass
class Noted:
    """What a journal holds. ``folder`` is the inode of the folder that its merge builds.

    ``safe`` are digests by row and block that can be trusted, ``doubtful`` those of bytes that a power failure may have
    lost.
    """

    key: Key
    folder: int
    safe: Digests = field(default_factory=Digests)
    doubtful: Digests = field(default_factory=Digests)


class Journal:
    """The journal in an open file, which is locked. Notes may come from any thread; the rest from one.

    What cannot be written raises :class:`~blockmerge.errors.OutputError`.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._guard = threading.Lock()

    def start(self, key: Key, folder: Path) -> None:
        """Begin anew, for the merge ``key`` into ``folder``."""
        header = json.dumps({"key": key, "folder": folder.stat().st_ino}).encode()
        os.ftruncate(self._file.fileno(), 0)
        self._append(_MAGIC + _LENGTH.pack(len(header), zlib.crc32(header)) + header)
        self.resume()

    def resume(self) -> None:
        """Go on behind what is there."""
        self._append(_record(_SPECIAL, _BOOT, _boot_id()))
        self._sync()

    def note(self, row: int, block: int, digest: bytes) -> None:
        """Note that a block is written. The system has that from here on, whatever becomes of this process."""
        self._append(_record(row, block, digest))

    def settle(self, sync: Callable[[], None]) -> None:
        """Let ``sync`` make durable what was written, and note that all blocks noted before are."""
        with self._guard:
            position = self._file.seek(0, os.SEEK_END)
        sync()
        self._append(_record(_SPECIAL, _SYNC, position.to_bytes(16, "little")))
        self._sync()

    def _sync(self) -> None:
        with told(Path(self._file.name)):
            os.fsync(self._file.fileno())

    def _append(self, data: bytes) -> None:
        with told(Path(self._file.name)), self._guard:
            self._file.seek(0, os.SEEK_END)
            while data:
                data = data[self._file.write(data) :]

    def read(self) -> Noted | None:
        """What the file holds; None if it is no journal (new, empty, of another version, damaged at its head).

        A torn record at the end is cut off.
        """
        self._file.seek(0)
        content = self._file.read(_MOST + 1)
        noted, at = _head(content)
        if noted is None or len(content) > _MOST:
            return None
        boot, unsettled = b"", deque[tuple[int, int, int, bytes]]()
        while (found := _at(content, at)) is not None:
            row, block, digest = found
            if row != _SPECIAL:
                unsettled.append((at, row, block, digest))
            elif block == _BOOT:
                boot = digest
            else:
                _settle(noted, unsettled, int.from_bytes(digest, "little"))
            at += _RECORD.size
        if boot == _boot_id():  # the system did not stop since: it has all that was written
            _settle(noted, unsettled, at)
        for _, row, block, digest in unsettled:
            noted.doubtful.setdefault(row, {})[block] = digest
        os.ftruncate(self._file.fileno(), at)
        return noted


def _settle(noted: Noted, unsettled: deque[tuple[int, int, int, bytes]], position: int) -> None:
    """What was noted before ``position`` is safe."""
    while unsettled and unsettled[0][0] < position:
        _, row, block, digest = unsettled.popleft()
        noted.safe.setdefault(row, {})[block] = digest


def _head(content: bytes) -> tuple[Noted | None, int]:
    start = len(_MAGIC) + _LENGTH.size
    if not content.startswith(_MAGIC) or len(content) < start:
        return None, 0
    length, checksum = _LENGTH.unpack_from(content, len(_MAGIC))
    header = content[start : start + length]
    if len(header) != length or zlib.crc32(header) != checksum:
        return None, 0
    parsed = cast("dict[str, Any]", json.loads(header))
    return Noted(parsed["key"], parsed["folder"]), start + length


def _record(row: int, block: int, digest: bytes) -> bytes:
    body = _RECORD.pack(row, block, digest, 0)[:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")


def _at(content: bytes, at: int) -> tuple[int, int, bytes] | None:
    if at + _RECORD.size > len(content):
        return None
    row, block, digest, checksum = _RECORD.unpack_from(content, at)
    if zlib.crc32(content[at : at + _RECORD.size - 4]) != checksum:
        return None
    return row, block, digest


def _boot_id() -> bytes:
    """What changes when the system starts anew; without a way to know, something that is new each time."""
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
    except (OSError, ValueError):
        return uuid.uuid4().bytes
