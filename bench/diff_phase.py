"""One comparison, printing how long it took without the start of Python and numba."""

from __future__ import annotations

import sys
import time

import blockmerge
import blockmerge.kernels.compare

if __name__ == "__main__":
    started = time.perf_counter()
    blockmerge.diff(*sys.argv[1:])
    print(f"diff phase {time.perf_counter() - started:.3f} s")
