"""Opening a file that is one: a pipe would hang its reader, a device may give bytes without end."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

__all__ = ["open_regular", "regular_descriptor"]

_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK"))


def regular_descriptor(path: Path) -> int:
    """A descriptor to read ``path``, at once. Raises :class:`OSError` also if it is anything but a regular file."""
    descriptor = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


def open_regular(path: Path) -> BufferedReader:
    """``path``, open for reading; see :func:`regular_descriptor`."""
    return os.fdopen(regular_descriptor(path), "rb")
