"""The files that Blockmerge adds to a model: card, picture, manifest."""

from __future__ import annotations

from collections.abc import Mapping

from blockmerge.planning import CopiedFile, Plan
from blockmerge.report.card import PICTURE, model_card
from blockmerge.report.figure import gradient_svg
from blockmerge.report.manifest import manifest

__all__ = ["published_files"]


def published_files(plan: Plan, digests: Mapping[str, str]) -> list[CopiedFile]:
    """Card, picture and manifest. They hold no time and no path, so equal merges give equal files."""
    contents = {
        "README.md": model_card(plan),
        "blockmerge.json": manifest(plan, digests),
    }
    if plan.recipe.method == "gradient":
        contents[PICTURE] = gradient_svg(plan)
    return [CopiedFile(name, len(encoded := text.encode()), encoded) for name, text in contents.items()]
