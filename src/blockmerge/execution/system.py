"""What differs between operating systems when writing, in one place. Every Linux extra has a plain fallback."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import IO, Any

from blockmerge.errors import OutputError

__all__ = [
    "OutputFile",
    "exchange",
    "locked",
    "sync_folder",
    "told",
]

LINUX = sys.platform.startswith("linux")
_WRITE, _WAIT_AROUND = 2, 1 | 2 | 4  # of sync_file_range(2)
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


class OutputFile:
    """A file of known size that threads write at positions."""

    def __init__(self, path: Path, size: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
        self._file: IO[bytes] = os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0)
        os.ftruncate(self._file.fileno(), size)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset``; thread-safe where the system has positional writes."""
        while len(data):
            count = self._write_some(data, offset)
            data, offset = data[count:], offset + count

    def _write_some(self, data: memoryview, offset: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._file.fileno(), data, offset)
        self._file.seek(offset)  # the caller holds a lock there
        return self._file.write(data)

    def read(self, count: int, offset: int) -> bytes:
        """The bytes that are there; only while nobody writes."""
        self._file.seek(offset)
        return self._file.read(count)

    def start_writeback(self, *, wait: bool) -> None:
        """Ask the system to write dirty pages now, so that they never pile up; with ``wait``, until they are written.

        This bounds memory and says nothing about durability: that is :meth:`sync`.
        """
        if LINUX:
            flags = _WAIT_AROUND if wait else _WRITE
            _libc().sync_file_range(self._file.fileno(), ctypes.c_int64(0), ctypes.c_int64(0), flags)

    def sync(self) -> None:
        """Make the contents durable. An error here is final: the kernel may have dropped the pages already."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def told(where: Path) -> Generator[None]:
    """Turn what the system says while writing into one line: an :class:`OutputError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(f"{where}: the disk is full; make room and start again") from error
        raise OutputError(f"{where}: cannot be written: {error.strerror or error}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable, where the system knows how."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step; False where the system or the file system cannot."""
    if not LINUX:
        return False
    try:
        rename = _libc().renameat2
    except AttributeError:
        return False
    return rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0


@contextlib.contextmanager
def locked(path: Path) -> Generator[IO[bytes] | None]:
    """The file ``path`` (created if missing), open for reading and writing, held against others.

    None if another one holds it. The file that was locked must still be the one that bears the name: the holder before
    us may have removed it.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    with open(path, "r+b", buffering=0, opener=lambda name, _: os.open(name, flags, 0o666)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file if _locked(file) and _is_at(file, path) else None


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _locked(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
