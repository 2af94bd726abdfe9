"""Where compiled kernels are kept between runs.

numba notices a change in the file of a kernel but not in the helpers it calls from other files, and would run a
stale kernel. So the folder carries a hash of all kernel sources. Where no folder can be written, kernels are compiled
anew in each process, which costs a second and changes nothing else. The same goes for a file that a crash or a full
disk left incomplete: each carries a digest, for machine code with a hole in it would run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.runtime import rtsys

__all__ = ["compiling", "inner", "kept", "kernel"]


def _user_cache() -> Path:
    """The folder for caches of this user, as the platform names it."""
    if chosen := os.environ.get("BLOCKMERGE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "blockmerge"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "blockmerge"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "blockmerge"


def _sources_hash() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def _usable_folder() -> Path | None:
    try:
        folder = _user_cache() / f"kernels-{_sources_hash()}"
        if not folder.exists():
            folder.mkdir(parents=True)
            _remove_old(folder.parent)
    except FileExistsError:  # another process was faster
        pass
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _remove_old(cache: Path) -> None:
    """Remove the kernels of other versions that nobody has added to for long."""
    for folder in cache.glob("kernels-*"):
        with suppress(OSError):  # another process may have been faster
            if time.time() - folder.stat().st_mtime > _OLD:
                shutil.rmtree(folder)


_OLD = 60 * 86400
"""Seconds after which the kernels of another version are removed."""
_FOLDER = _usable_folder()


class _SealedFile(IndexDataCacheFile):
    """numba's files, with a digest behind what they hold; its reader stops before that."""

    def _dump(self, obj: Any) -> bytes:
        content = super()._dump(obj)
        return content + hashlib.sha256(content).digest()

    def _load_data(self, name: str) -> Any:
        content = Path(self._data_path(name)).read_bytes()
        if hashlib.sha256(content[:-32]).digest() != content[-32:]:
            raise ValueError("damaged")
        return super()._load_data(name)


class _Cache(FunctionCache):
    """numba's cache, but what cannot be read is forgotten and what cannot be written is not kept.

    ``lost`` says that this has happened.
    """

    lost = False

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _SealedFile(self._cache_path, self._impl.filename_base, stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load machine code without what only compiling needs: numba loads that in 0.1 s, and again if it compiles."""
        try:
            rtsys.initialize(target_context)  # the memory that machine code asks for
            return self._load_overload(sig, target_context)
        except Exception:  # a damaged pickle raises anything
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception:  # the disk may be full, or the index damaged and of those that cannot be replaced
            _Cache.lost = True


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` at first use, without the GIL, and keep the result on disk where that is possible.

    Divisions by zero give infinity or NaN; a check for them would keep loops from being vectorised.
    The folder is given to numba for this function only: other users of numba in the process keep their own.
    """
    if _FOLDER is None:
        return numba.njit(nogil=True, error_model="numpy")(function)
    compiled = numba.njit(nogil=True, error_model="numpy")(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_FOLDER)
    try:
        compiled._cache = _Cache(function)
    finally:
        numba.config.CACHE_DIR = before
    return compiled


class _Clock(event.Listener):
    """The seconds in which kernels are compiled; one at a time, whichever thread asks for it, and what it calls."""

    def __init__(self) -> None:
        self.seconds, self._depth, self._started = 0.0, 0, 0.0

    def on_start(self, event: Any) -> None:
        self._started = self._started if self._depth else time.perf_counter()
        self._depth += 1

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        self.seconds += 0.0 if self._depth else time.perf_counter() - self._started


_CLOCK = _Clock()
event.register("numba:compile", _CLOCK)


def compiling() -> float:
    """The seconds that this process has spent on compiling so far."""
    return _CLOCK.seconds


def kept() -> bool:
    """Whether what is compiled is kept for the next process."""
    return _FOLDER is not None and not _Cache.lost


FRUGAL: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
"""Options of what kernels alone call, and is passed all the memory it needs: nobody counts who uses an array.

Counting takes some hundred nanoseconds for every few thousand elements. Such a function can make no array, nor give
one to a kernel.
"""
inner = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **FRUGAL)
"""Compile such a function: without what calls from Python need, which would take time."""
