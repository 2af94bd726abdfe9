"""Looking for values that are not finite."""

from __future__ import annotations

from blockmerge.kernels.bits import finite
from blockmerge.kernels.cache import kernel

__all__ = ["first_nonfinite", "nonfinite"]


@kernel
def nonfinite(a):
    """Whether any element of ``a`` is NaN or infinite."""
    bad = False
    for i in range(a.size):
        bad |= not finite(a[i])
    return bad


@kernel
def first_nonfinite(a):
    """Index of the first element of ``a`` that is NaN or infinite, or -1."""
    for i in range(a.size):
        if not finite(a[i]):
            return i
    return -1
