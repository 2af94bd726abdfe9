"""The yardstick: the bytes of a two-model merge, moved and not computed on, by one process per core.

Reads all of the second model and copies the first, in 1 MiB pieces, each process its share of every file.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path

_PIECE = 1 << 20


def _share(number: int, count: int, first: Path, second: Path, out: Path) -> None:
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    for folder, target in ((second, None), (first, out)):
        for path in sorted(folder.glob("*.safetensors")):
            size = path.stat().st_size
            source = os.open(path, os.O_RDONLY)
            sink = os.open(target / path.name, os.O_RDWR) if target else -1
            for start in range(number * _PIECE, size, count * _PIECE):
                length = os.preadv(source, [view], start)
                if target:
                    os.pwrite(sink, view[:length], start)


def copy(first: Path, second: Path, out: Path) -> None:
    """Copy ``first`` to ``out`` and read ``second``."""
    out.mkdir(parents=True)
    for path in first.glob("*.safetensors"):
        with (out / path.name).open("wb") as file:
            file.truncate(path.stat().st_size)
    count = len(os.sched_getaffinity(0))
    workers = [
        multiprocessing.Process(target=_share, args=(number, count, first, second, out)) for number in range(count)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    copy(*map(Path, sys.argv[1:4]))
