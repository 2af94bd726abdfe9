"""What a person asks for: from arguments or YAML to a frozen :class:`Recipe`.

Each dialect is one module: :mod:`.native` and :mod:`.blockmerge` (the YAML edition of BlockMerge_Gradient).
"""

from __future__ import annotations

from blockmerge.recipes.build import gradient
from blockmerge.recipes.load import from_dict, load_recipe
from blockmerge.recipes.native import to_dict, to_yaml
from blockmerge.recipes.recipe import (
    Arithmetic,
    Curve,
    Only,
    OnMissing,
    Part,
    Reading,
    Recipe,
    Selection,
    Setting,
    Slice,
)

__all__ = [
    "Arithmetic",
    "Curve",
    "OnMissing",
    "Only",
    "Part",
    "Reading",
    "Recipe",
    "Selection",
    "Setting",
    "Slice",
    "from_dict",
    "gradient",
    "load_recipe",
    "to_dict",
    "to_yaml",
]
