"""Sums of the rows of a matrix."""

from __future__ import annotations

from blockmerge.kernels.bits import decode_wide
from blockmerge.kernels.cache import kernel

__all__ = ["add_rows"]


@kernel
def add_rows(a, total):
    """Add the rows of ``a``, each as long as the float64 ``total``, to it, one after the other."""
    width = total.size
    for row in range(a.size // width):
        for i in range(width):
            total[i] += decode_wide(a[row * width + i])
