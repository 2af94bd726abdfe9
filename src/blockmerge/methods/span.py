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
    """Lengths of the inputs."""
    return np.sqrt(np.maximum(np.diag(gram), 0.0))


def units(gram: Floats) -> Floats:
    """The inputs scaled to length one, a row each; zero vectors stay zero."""
    lengths = norms(gram)
    return np.diag(np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0))


def slerp(gram: Floats, t: float, lerp_above: float) -> Floats:
    """Spherical interpolation from the first of two inputs (t = 0) to the second, which are not normalised.

    Where the cosine of their angle is above ``lerp_above`` in size (parallel, opposite, or one is zero): linear.
    """
    lengths = norms(gram)
    cosine = gram[0, 1] / (lengths[0] * lengths[1]) if lengths.all() else 1.0
    if abs(cosine) > lerp_above:
        return np.array([1.0 - t, t])
    angle = math.acos(cosine)
    return np.array([math.sin((1.0 - t) * angle), math.sin(t * angle)]) / math.sin(angle)


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


def stock(gram: Floats, *, extrapolate: bool) -> float:
    """Model Stock's ratio between the average (1) and the base (0), from the mean cosine of the differences.

    A negative mean cosine would point away from the base; the paper has no such case, so the base is kept, unless
    ``extrapolate``.
    """
    count = len(gram)
    directions = units(gram)
    cosines = [dot(gram, directions[i], directions[j]) for i in range(count) for j in range(i)]
    cosine = min(max(float(np.mean(cosines)), -1.0), 1.0)
    if cosine < 0 and not extrapolate:
        return 0.0
    below = 1.0 + (count - 1) * cosine
    return count * cosine / below if abs(below) > 1e-12 else 0.0


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
