"""Blend finetuned language models: streaming, exact, at the speed of copying the files.

    import blockmerge

    plan = blockmerge.plan(blockmerge.gradient("first", "second", values=[1.0, 0.5, 0.0]))
    print(plan)
    blockmerge.merge(plan, "merged")

Names are imported when they are first used, so that ``import blockmerge`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockmerge.api import clean, diff, draw, extract_lora, inspect, merge, plan, verify
    from blockmerge.comparison import Difference
    from blockmerge.errors import (
        BlockmergeError,
        FormatError,
        MismatchError,
        ModelError,
        NonFiniteError,
        OutputError,
        Problems,
        RecipeError,
        VerificationError,
    )
    from blockmerge.planning import Inspection, Plan
    from blockmerge.recipes import Recipe, gradient, load_recipe

__all__ = [
    "BlockmergeError",
    "Difference",
    "FormatError",
    "Inspection",
    "MismatchError",
    "ModelError",
    "NonFiniteError",
    "OutputError",
    "Plan",
    "Problems",
    "Recipe",
    "RecipeError",
    "VerificationError",
    "clean",
    "diff",
    "draw",
    "extract_lora",
    "gradient",
    "inspect",
    "load_recipe",
    "merge",
    "plan",
    "verify",
]

__version__ = "0.1.0"

_HOMES = {
    "clean": "api",
    "diff": "api",
    "draw": "api",
    "extract_lora": "api",
    "inspect": "api",
    "merge": "api",
    "plan": "api",
    "verify": "api",
    "Difference": "comparison",
    "Inspection": "planning",
    "Plan": "planning",
    "Recipe": "recipes",
    "gradient": "recipes",
    "load_recipe": "recipes",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'blockmerge' has no attribute {name!r}")
    return getattr(import_module(f"blockmerge.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
