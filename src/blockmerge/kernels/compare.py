"""How two runs of elements differ, in float64.

Sums run in :data:`LANES` lanes, element i in lane i modulo their number, and the lanes are joined in order: a fixed
order that the processor can still work on in parallel.
"""

from __future__ import annotations

from blockmerge.kernels.bits import decode_wide, finite
from blockmerge.kernels.cache import kernel

__all__ = ["FIELDS", "LANES", "compare", "compare_finite", "position"]

LANES = 128
FIELDS = 8
"""Numbers that a comparison gives: elements that differ, sums of a a, b b, a b and d d for d = a - b, the largest
magnitude of d, elements of a that are not finite, and of b."""


@kernel
def compare(a, b, lanes, out):
    """Fill ``out``, the :data:`FIELDS`, for elements that are all finite; if one is not, a sum is not either.

    lanes: (6, LANES) float64, to work in.
    """
    differing, aa, bb, ab, dd, most = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5]
    lanes[:] = 0.0
    for start in range(0, a.size, LANES):
        x, y = a[start : start + LANES], b[start : start + LANES]
        for k in range(x.size):
            p, q = decode_wide(x[k]), decode_wide(y[k])
            d = p - q
            differing[k] += 1.0 if p != q else 0.0
            aa[k] += p * p
            bb[k] += q * q
            ab[k] += p * q
            dd[k] += d * d
            most[k] = abs(d) if abs(d) > most[k] else most[k]
    out[:] = 0.0
    for k in range(LANES):
        for j in range(5):
            out[j] += lanes[j, k]
        out[5] = max(out[5], most[k])


@kernel
def compare_finite(a, b, out):
    """As :func:`compare`, without the places where an element is not finite; NaN does not differ from NaN there."""
    out[:] = 0.0
    for i in range(a.size):
        p, q = decode_wide(a[i]), decode_wide(b[i])
        out[0] += not (p == q or (p != p and q != q))
        out[6] += not finite(a[i])
        out[7] += not finite(b[i])
        if finite(a[i]) and finite(b[i]):
            d = p - q
            out[1] += p * p
            out[2] += q * q
            out[3] += p * q
            out[4] += d * d
            out[5] = max(out[5], abs(d))


@kernel
def position(a, b, distance):
    """The first index at which the elements lie ``distance`` apart; -1 if there is none."""
    for i in range(a.size):
        if abs(decode_wide(a[i]) - decode_wide(b[i])) == distance:
            return i
    return -1
