"""Files of the Hub's cache whose names are their checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blockmerge.errors import BlockmergeError, ModelError
from blockmerge.formats.regular import open_regular

__all__ = ["damaged_blobs"]

_KINDS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def damaged_blobs(folders: Iterable[Path], threads: int) -> list[BlockmergeError]:
    """Read the weight files in snapshots of the Hub's cache, and say which are not what the Hub sent.

    The cache names large files by their sha256. Files that do not lie there have no checksum to be held to.
    """
    files = sorted({path for folder in folders for path in _blobs(folder)})
    with ThreadPoolExecutor(threads) as pool:
        return [problem for problem in pool.map(_problem, files) if problem is not None]


def _blobs(folder: Path) -> Iterator[tuple[Path, Path]]:
    for path in (path for kind in _KINDS for path in folder.glob(kind)):
        blob = path.resolve()
        if path.is_symlink() and blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) and blob.is_file():
            yield path, blob


def _problem(file: tuple[Path, Path]) -> ModelError | None:
    path, blob = file
    try:
        with open_regular(blob) as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        return ModelError(f"{path}: cannot be read: {error.strerror or error}")
    if digest == blob.name:
        return None
    return ModelError(f"{path}: is not what the Hub sent (its sha256 differs); delete {blob} and download again")
