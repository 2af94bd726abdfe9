"""One comparison, printing how long it took without the start of Python and numba."""

from __future__ import annotations

import sys
import time

import blockmerge
from blockmerge.demo.measure import MODELS

if __name__ == "__main__":
    blockmerge.diff(*MODELS.values())  # loads the kernels
    started = time.perf_counter()
    blockmerge.diff(*sys.argv[1:])
    print(f"diff phase {time.perf_counter() - started:.3f} s")
