"""Arrays in, arrays out: the arithmetic of merging, compiled by numba.

No names, no files, no policy. Arrays are flat and hold encoded elements as :class:`blockmerge.dtypes.DType`
stores them: bfloat16 as uint16, float16 as int16 (so that a kernel can tell them apart by type), float32 and
float64 as themselves. Every kernel releases the GIL, allocates nothing, and returns True when it wrote a value
that is not finite. Its slow, clear twin is in :mod:`blockmerge.kernels.reference`.

Importing this package imports numba (0.2 to 0.4 s) and compiles or loads nothing; a kernel is compiled at its first
call with new dtypes, in a fraction of a second, and kept on disk (see :mod:`blockmerge.kernels.cache`).
"""

from __future__ import annotations

from blockmerge.kernels.blend import cast, convert, lerp, original
from blockmerge.kernels.scan import first_nonfinite, nonfinite

__all__ = ["cast", "convert", "first_nonfinite", "lerp", "nonfinite", "original"]
