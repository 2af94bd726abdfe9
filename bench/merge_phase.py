"""One merge, printing how long its phases took: reading, blending, checking, digesting and writing, then publishing."""

from __future__ import annotations

import sys

import blockmerge
import blockmerge.kernels

if __name__ == "__main__":
    first, second, out, values = sys.argv[1:]
    plan = blockmerge.plan(blockmerge.gradient(first, second, values=[float(v) for v in values.split(",")]))
    finished = blockmerge.merge(plan, out)
    print(f"merge phase {finished.seconds_merging:.3f} s, publishing {finished.seconds_publishing:.3f} s")
