"""One model's elements moved towards another's."""

from __future__ import annotations

from blockmerge.kernels.bits import encode, finite, number
from blockmerge.kernels.cache import kernel

__all__ = ["approach"]


@kernel
def approach(a, b, out, most):
    """``a`` moved towards ``b`` by ``most`` (float32 or float64, like all steps), but never past it, rounded once."""
    bad = False
    for i in range(out.size):
        x, y = number(a[i], most), number(b[i], most)
        apart = y - x
        near = abs(apart) <= most
        value = x + (most if apart > 0 else -most)
        value = y if near | (not finite(b[i])) else value
        value = x if apart == 0 else value
        element = encode(value, out[i])
        bad |= not finite(element)
        out[i] = element
    return bad
