"""Geometry in the span of some vectors that are known by their scalar products only.

A vector is a row of shares ``a`` and stands for ``sum(a[i] * x[i])``; ``gram[i, j]`` is the scalar product of x[i] and
x[j]. All in float64. The shares of x[i] itself are the unit row i.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["dot", "geometric_median", "karcher_mean", "norm", "norms", "slerp", "stock", "tangent_mean", "units"]

Floats = NDArray[np.float64]
_OPPOSITE = 1e-6
"""Lengths from scalar products are good to half of float64's digits; a sine below this may be all rounding."""


def dot(gram: Floats, a: Floats, b: Floats) -> float:
    """Scalar product of two vectors."""
    return float(a @ gram @ b)


def norm(gram: Floats, a: Floats) -> float:
    """Length of a vector; rounding may make its square negative, which counts as zero."""
    return math.sqrt(max(dot(gram, a, a), 0.0))


def norms(gram: Floats) -> Floats:
    """Lengths of the inputs, (..., n) for Gram matrices (..., n, n)."""
    return np.sqrt(np.maximum(np.diagonal(gram, axis1=-2, axis2=-1), 0.0))


def units(gram: Floats) -> Floats:
    """The inputs scaled to length one, a row each; zero vectors stay zero."""
    lengths = norms(gram)
    return np.diag(np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0))


def slerp(gram: Floats, t: float, lerp_above: float) -> Floats:
    """Spherical interpolation from the first of two inputs (t = 0) to the second, which are not normalised.

    Where the cosine of their angle is above ``lerp_above`` in size (parallel, opposite, or one is zero): linear. Takes
    one Gram matrix or many, (..., 2, 2), and gives shares (..., 2).
    """
    product = np.prod(norms(gram), axis=-1)
    cosine = np.divide(gram[..., 0, 1], product, out=np.ones_like(product), where=product > 0)
    linear = np.abs(cosine) > lerp_above
    angle = _acos(np.where(linear, 0.0, cosine))
    shares = np.stack([_sin((1.0 - t) * angle), _sin(t * angle)], axis=-1) / _sin(angle)[..., None]
    return np.where(linear[..., None], np.array([1.0 - t, t]), shares)


_sin, _acos = (np.vectorize(function, otypes=[np.float64]) for function in (math.sin, math.acos))
"""The system's functions; numpy's own depend on the processor."""


def tangent_mean(gram: Floats, weights: Sequence[float]) -> Floats:
    """One step of the exponential map at the weighted mean direction, scaled by the weighted mean length.

    Falls back to the weighted sum where the mean direction is undefined (all zero, or balanced opposites).
    """
    shares, directions = np.array(weights), units(gram)
    centre = shares @ directions
    if (length := norm(gram, centre)) < 1e-12:
        return shares
    centre = centre / length
    tangent = sum(
        (w * (u - dot(gram, u, centre) * centre) for w, u in zip(shares, directions, strict=True)), 0 * centre
    )
    step = norm(gram, tangent)
    turned = math.cos(step) * centre + _sinc(step) * tangent
    return turned * float(shares @ norms(gram))


def karcher_mean(gram: Floats, iterations: int, tolerance: float) -> Floats:
    """The point of the sphere from which the logarithms of all directions sum to zero, scaled by the mean length."""
    lengths, directions = norms(gram), units(gram)
    present = [k for k, length in enumerate(lengths) if length > 0]
    if not present:
        return np.full(len(gram), 1.0 / len(gram))
    mean = directions[present].mean(axis=0)
    if (length := norm(gram, mean)) < tolerance:
        mean, length = directions[present[0]], 1.0
    mean = mean / length
    for _ in range(iterations):
        tangent = np.mean([_logarithm(gram, mean, directions[k]) for k in present], axis=0)
        step = norm(gram, tangent)
        if step < tolerance:
            break
        mean = math.cos(step) * mean + _sinc(step) * tangent
        mean = mean / norm(gram, mean)
    return mean * float(lengths.mean())


def _logarithm(gram: Floats, at: Floats, to: Floats) -> Floats:
    """The tangent at ``at`` that leads to ``to`` along the sphere; zero for the opposite point."""
    cosine = min(max(dot(gram, at, to), -1.0), 1.0)
    across = to - cosine * at
    sine = norm(gram, across)
    if sine == 0 or (cosine < 0 and sine < _OPPOSITE):
        return 0 * across
    return across * (math.atan2(sine, cosine) / sine)


def _sinc(angle: float) -> float:
    return math.sin(angle) / angle if angle > 0 else 1.0


def stock(gram: Floats, *, extrapolate: bool) -> Floats:
    """Model Stock's ratio between the average (1) and the base (0), from the mean cosine of the differences.

    A negative mean cosine would point away from the base; the paper has no such case, so the base is kept, unless
    ``extrapolate``. Takes one Gram matrix or many, (..., n, n), and gives as many numbers (...).
    """
    count = gram.shape[-1]
    lengths = norms(gram)
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    i, j = np.tril_indices(count, -1)
    cosine = np.clip(np.mean(inverse[..., i] * gram[..., i, j] * inverse[..., j], axis=-1), -1.0, 1.0)
    below = 1.0 + (count - 1) * cosine
    kept = (np.abs(below) <= 1e-12) | ((cosine < 0) & (not extrapolate))
    return np.where(kept, 0.0, count * cosine / np.where(kept, 1.0, below))


def geometric_median(gram: Floats, weights: Sequence[float], iterations: int, tolerance: float) -> Floats:
    """The point with the least weighted sum of distances to the inputs, by Weiszfeld's iteration.

    An input that the iteration meets is left as Vardi and Zhang (PNAS 2000) do: distances are kept off zero.
    """
    start = np.array(weights) / sum(weights)
    point = start
    scale = float(norms(gram).max())
    for _ in range(iterations):
        apart = np.array([norm(gram, point - row) for row in np.eye(len(gram))])
        pull = start / np.maximum(apart, scale * 1e-12 or 1.0)
        following = pull / pull.sum()
        moved, point = norm(gram, following - point), following
        if moved <= tolerance * scale:
            break
    return point
