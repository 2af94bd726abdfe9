"""Blends of two models, element by element."""

from __future__ import annotations

from blockmerge.kernels.bits import decode, decode_wide, encode, finite, number, rounded
from blockmerge.kernels.cache import kernel

__all__ = ["cast", "convert", "lerp", "original"]


@kernel
def convert(a, out):
    """``out = a`` in the format of ``out``, rounded once."""
    bad = False
    for i in range(out.size):
        element = encode(decode_wide(a[i]), out[i])
        bad |= not finite(element)
        out[i] = element
    return bad


@kernel
def cast(a, out, load):
    """``out = a``, rounded first to the format of the scalar ``load``, as a model loaded in that dtype is."""
    bad = False
    for i in range(out.size):
        element = encode(rounded(decode(a[i]), load), out[i])
        bad |= not finite(element)
        out[i] = element
    return bad


@kernel
def lerp(a, b, out, w, v):
    """``(1 - w) a + w b``, rounded once to ``out``; ``w`` and ``v = 1 - w`` are float32 or float64, like all steps.

    Two-sided, ``a - w (a - b)`` below one half and ``b - v (b - a)`` from there on, so that the nearer input is the one
    that is exact; and with a minus, so that equal inputs give themselves, even -0.0.
    """
    bad = False
    if w < 0.5:
        for i in range(out.size):
            x = number(a[i], w)
            element = encode(x - w * (x - number(b[i], w)), out[i])
            bad |= not finite(element)
            out[i] = element
    else:
        for i in range(out.size):
            y = number(b[i], w)
            element = encode(y - v * (y - number(a[i], w)), out[i])
            bad |= not finite(element)
            out[i] = element
    return bad


@kernel
def original(a, b, out, load_a, load_b, work_a, work_b, work_sum, share_a, share_b):
    """``out = share_a a + share_b b`` with every step rounded as torch rounds it, like the original scripts.

    Inputs are rounded to the format they are loaded in (``load_*``), then to the one they are blended in (``work_*``);
    products round to the format of their tensor, the sum to the promoted one (``work_sum``), the result to ``work_a``
    and at last to ``out``. These five are scalars whose type names the format; the shares are float32.
    """
    bad = False
    for i in range(out.size):
        x = rounded(rounded(decode(a[i]), load_a), work_a)
        y = rounded(rounded(decode(b[i]), load_b), work_b)
        total = rounded(share_a * x, work_a) + rounded(share_b * y, work_b)
        element = encode(rounded(rounded(total, work_sum), work_a), out[i])
        bad |= not finite(element)
        out[i] = element
    return bad
