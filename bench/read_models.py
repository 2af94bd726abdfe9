"""The yardstick of a comparison: all bytes of two models, read and not looked at, by one thread per core.

Reads 1 MiB pieces positionally, as the comparison does; prints the seconds without those that Python takes to start.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

_PIECE = 1 << 20


def _share(number: int, count: int, folders: list[Path]) -> None:
    view = memoryview(bytearray(_PIECE))
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")):
            source = os.open(path, os.O_RDONLY)
            for start in range(number * _PIECE, path.stat().st_size, count * _PIECE):
                os.preadv(source, [view], start)
            os.close(source)


def read(folders: list[Path]) -> None:
    """Read everything once."""
    count = len(os.sched_getaffinity(0))
    workers = [threading.Thread(target=_share, args=(number, count, folders)) for number in range(count)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    started = time.perf_counter()
    read([Path(folder) for folder in sys.argv[1:]])
    print(f"read phase {time.perf_counter() - started:.3f} s")
