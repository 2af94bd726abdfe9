"""Reading a file at a position, from many threads, without mapping it.

A mapped file that somebody truncates kills the process (SIGBUS); a positional read of it is an ordinary error.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
from pathlib import Path

from blockmerge.errors import FormatError, ModelError
from blockmerge.formats.regular import regular_descriptor

__all__ = ["PositionalFile", "identity", "raise_file_limit"]

_HAS_PREADV = hasattr(os, "preadv")


def identity(path: Path) -> tuple[int, ...]:
    """What changes when the file is rewritten or replaced: size, modification time in ns, device, inode.

    Raises :class:`ModelError` if it is missing or anything but a regular file (a pipe would hang a reader).
    """
    try:
        status = path.stat()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{path}: is not a regular file")
    return status.st_size, status.st_mtime_ns, status.st_dev, status.st_ino


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: large models come in hundreds of shards."""
    if os.name != "posix":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return
    for wanted in (hard, 10240):  # macOS says that there is no limit, and then refuses to have none
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


class PositionalFile:
    """An open file that any thread may read at any position."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = _open(path) if _HAS_PREADV else -1
        self._per_thread = threading.local()

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` from ``offset``; :class:`FormatError` if the file ends first."""
        done = 0
        while done < len(buffer):
            try:
                count = self._read_some(buffer[done:], offset + done)
            except OSError as error:
                raise ModelError(f"{self.path}: cannot be read at byte {offset + done:,}: {error.strerror}") from error
            if count == 0:
                raise FormatError(f"{self.path}: ends at byte {offset + done:,}; it was cut while being read")
            done += count

    def _read_some(self, buffer: memoryview, offset: int) -> int:
        if _HAS_PREADV:
            return os.preadv(self._descriptor, [buffer], offset)
        file = self._thread_file()
        file.seek(offset)
        return file.readinto(buffer)

    def _thread_file(self) -> io.FileIO:
        """Where positional reads are missing (Windows), each thread has its own file and position."""
        file: io.FileIO | None = getattr(self._per_thread, "file", None)
        if file is None:
            file = self._per_thread.file = io.FileIO(self.path, "rb")
        return file

    def close(self) -> None:
        """Release the file; a thread's own file goes with the thread."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _open(path: Path) -> int:
    try:
        return regular_descriptor(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be opened: {error.strerror}") from error
