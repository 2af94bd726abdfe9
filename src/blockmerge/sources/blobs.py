"""Files of the Hub's cache whose names are their checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blockmerge.errors import BlockmergeError, ModelError

__all__ = ["damaged_blobs"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


def damaged_blobs(folders: Iterable[Path], threads: int) -> list[BlockmergeError]:
    """Read the weight files in snapshots of the Hub's cache, and say which are not what the Hub sent.

    The cache names large files by their sha256. Files that do not lie there have no checksum to be held to.
    """
    files = sorted({path for folder in folders for path in _blobs(folder)})
    with ThreadPoolExecutor(threads) as pool:
        found = zip(files, pool.map(_sha256, [blob for _, blob in files]), strict=True)
        return [
            ModelError(f"{path}: is not what the Hub sent (its sha256 differs); delete {blob} and download again")
            for (path, blob), digest in found
            if digest != blob.name
        ]


def _blobs(folder: Path) -> Iterator[tuple[Path, Path]]:
    for path in folder.glob("*.safetensors"):
        blob = path.resolve()
        if path.is_symlink() and blob.parent.name == "blobs" and _SHA256.fullmatch(blob.name) and blob.is_file():
            yield path, blob


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
