"""How two runs of elements differ, in float64.

Sums run in :data:`LANES` lanes, two elements at a time, and the lanes are joined in order: a fixed order that the
processor can still work on in parallel. The scalar product of a and b follows from the sums of a a, b b and d d.
"""

from __future__ import annotations

from blockmerge.kernels.bits import decode_wide, finite
from blockmerge.kernels.cache import inner, kernel

__all__ = ["FIELDS", "LANES", "compare", "compare_finite", "position"]

LANES = 128
FIELDS = 7
"""Numbers that a comparison gives: elements that differ, sums of a a, b b and d d for d = a - b, the largest magnitude
of d, elements of a that are not finite, and of b."""


@kernel
def compare(a, b, granule, lanes, out):
    """Fill a row of ``out``, the :data:`FIELDS`, for every ``granule`` elements; the last may be fewer.

    They are right where all elements are finite; if one is not, neither is a sum of its granule.
    lanes: (5, LANES) float64, to work in.
    """
    for row in range(len(out)):
        start = row * granule
        _compare(a[start : start + granule], b[start : start + granule], lanes, out[row])


@inner
def _compare(a, b, lanes, out):
    differing, aa, bb, dd, most = lanes[0], lanes[1], lanes[2], lanes[3], lanes[4]
    lanes[:] = 0.0
    step = 2 * LANES
    whole = a.size // step * step
    for start in range(0, whole, step):
        middle = start + LANES
        a1, a2 = a[start:middle], a[middle : start + step]
        b1, b2 = b[start:middle], b[middle : start + step]
        for k in range(LANES):
            p1, p2 = decode_wide(a1[k]), decode_wide(a2[k])
            q1, q2 = decode_wide(b1[k]), decode_wide(b2[k])
            d1, d2 = p1 - q1, p2 - q2
            differing[k] += (1.0 if p1 != q1 else 0.0) + (1.0 if p2 != q2 else 0.0)
            aa[k] += p1 * p1 + p2 * p2
            bb[k] += q1 * q1 + q2 * q2
            dd[k] += d1 * d1 + d2 * d2
            larger = abs(d1) if abs(d1) > abs(d2) else abs(d2)
            most[k] = larger if larger > most[k] else most[k]
    for i in range(whole, a.size):
        p, q = decode_wide(a[i]), decode_wide(b[i])
        d, k = p - q, i % LANES
        differing[k] += p != q
        aa[k] += p * p
        bb[k] += q * q
        dd[k] += d * d
        most[k] = max(most[k], abs(d))
    out[:] = 0.0
    for k in range(LANES):
        for j in range(4):
            out[j] += lanes[j, k]
        out[4] = max(out[4], most[k])


@kernel
def compare_finite(a, b, out):
    """As :func:`compare`, without the places where an element is not finite; NaN does not differ from NaN there."""
    out[:] = 0.0
    for i in range(a.size):
        p, q = decode_wide(a[i]), decode_wide(b[i])
        out[0] += not (p == q or (p != p and q != q))
        out[5] += not finite(a[i])
        out[6] += not finite(b[i])
        if finite(a[i]) and finite(b[i]):
            d = p - q
            out[1] += p * p
            out[2] += q * q
            out[3] += d * d
            out[4] = max(out[4], abs(d))


@kernel
def position(a, b, distance):
    """The first index at which the elements lie ``distance`` apart; -1 if there is none."""
    for i in range(a.size):
        if abs(decode_wide(a[i]) - decode_wide(b[i])) == distance:
            return i
    return -1
