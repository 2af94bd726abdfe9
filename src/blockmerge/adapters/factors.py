"""The best product of two thin matrices for a matrix, by a randomised singular value decomposition.

Halko, Martinsson and Tropp 2011 (arXiv:0909.4061), algorithms 4.4 and 5.1: a random sample of the range, sharpened by
power iterations, and an exact decomposition inside it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["factorise", "kept_share"]

Floats = NDArray[np.float32]
_OVERSAMPLING = 16
_ITERATIONS = 3
_ROWS = 1024


def factorise(matrix: Floats, rank: int, key: str) -> tuple[Floats, Floats]:
    """``left`` (rows, rank) and ``right`` (rank, columns), whose product is near the best one of that rank.

    Both carry the square roots of the singular values, largest first. The random numbers follow from ``key`` alone, so
    the same matrix gives the same factors, as far as the machine's linear algebra library repeats itself.
    """
    scale = float(np.linalg.norm(matrix))
    if scale == 0.0:
        return np.zeros((matrix.shape[0], rank), np.float32), np.zeros((rank, matrix.shape[1]), np.float32)
    width = min(rank + _OVERSAMPLING, *matrix.shape)
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    random = np.random.Generator(np.random.Philox(key=seed))
    matrix = matrix / np.float32(scale)  # small differences must not vanish when they are multiplied
    basis = _orthogonal(matrix @ random.standard_normal((matrix.shape[1], width), dtype=np.float32))
    for _ in range(_ITERATIONS if width < min(matrix.shape) else 0):
        basis = _orthogonal(matrix @ _orthogonal(matrix.T @ basis))
    inner, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    roots = np.sqrt(values[:rank] * np.float32(scale))
    return basis @ (inner[:, :rank] * roots), roots[:, None] * right[:rank]


def _orthogonal(matrix: Floats) -> Floats:
    return np.linalg.qr(matrix)[0]


def kept_share(matrix: Floats, left: Floats, right: Floats) -> tuple[float, float]:
    """The squared Frobenius norm of ``matrix``, and that of what the product lacks of it."""
    whole = lost = 0.0
    for first in range(0, matrix.shape[0], _ROWS):
        rows = matrix[first : first + _ROWS]
        whole += float(np.square(rows, dtype=np.float64).sum())
        lost += float(np.square(rows - left[first : first + _ROWS] @ right, dtype=np.float64).sum())
    return whole, lost
