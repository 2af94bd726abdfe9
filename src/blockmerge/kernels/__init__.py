"""Arrays in, arrays out: the arithmetic of merging, compiled by numba.

No names, no files, no policy. Arrays are flat and hold encoded elements as :class:`blockmerge.dtypes.DType`
stores them: bfloat16 as uint16, float16 as int16 (so that a kernel can tell them apart by type), float32 and
float64 as themselves; all operands of a tile are one array (operands, elements). Every kernel releases the GIL,
allocates no more than a cache holds, and where it writes encoded elements, it returns True when one is not finite.
Slow, clear twins are in :mod:`blockmerge.kernels.reference`.

Importing this package imports numba (0.2 s) and compiles or loads nothing; a kernel is compiled at its first call with
new types, in a second or two, and kept on disk (see :mod:`blockmerge.kernels.cache`). Indices that are unsigned, counts
that are cast back to 32 bits and slices of whole rows are there because loops vectorise with them and not without.
"""

from __future__ import annotations

from blockmerge.kernels.blend import cast, convert, lerp, original
from blockmerge.kernels.scan import first_nonfinite, nonfinite

__all__ = ["cast", "convert", "first_nonfinite", "lerp", "nonfinite", "original"]
