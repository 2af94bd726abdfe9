"""Where two models differ: paired by name, read once, told by tensor, block and layer.

:func:`compare` reads; a :class:`Difference` prints as text and as JSON, and :func:`difference_svg` draws it.
"""

from __future__ import annotations

from blockmerge.comparison.difference import Difference, Statistics, TensorDifference
from blockmerge.comparison.heatmap import difference_svg
from blockmerge.comparison.measure import compare
from blockmerge.comparison.pairs import Pair, Pairs, pair_up

__all__ = ["Difference", "Pair", "Pairs", "Statistics", "TensorDifference", "compare", "difference_svg", "pair_up"]
