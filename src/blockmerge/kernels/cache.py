"""Where compiled kernels are kept between runs.

numba notices a change in the file of a kernel but not in the helpers it calls from other files, and would run a
stale kernel. So the folder carries a hash of all kernel sources. Where no folder can be written, kernels are compiled
anew in each process, which costs a second and changes nothing else.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

__all__ = ["kernel"]


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
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


_FOLDER = _usable_folder()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile ``function`` at first use, without the GIL, and keep the result on disk where that is possible.

    Divisions by zero give infinity or NaN; a check for them would keep loops from being vectorised.
    The folder is given to numba for this function only: other users of numba in the process keep their own.
    """
    if _FOLDER is None:
        return numba.njit(nogil=True, error_model="numpy")(function)
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(_FOLDER)
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    finally:
        numba.config.CACHE_DIR = before
