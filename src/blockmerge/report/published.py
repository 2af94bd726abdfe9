"""The files that Blockmerge adds to a model: card, picture, manifest."""

from __future__ import annotations

from collections.abc import Mapping

from blockmerge.planning import Plan
from blockmerge.report.card import model_card
from blockmerge.report.manifest import MANIFEST, manifest
from blockmerge.report.picture import picture_name, plan_svg
from blockmerge.sources import SmallFile

__all__ = ["published_files"]


def published_files(plan: Plan, digests: Mapping[str, str]) -> dict[str, SmallFile]:
    """Card, picture and manifest. They hold no time and no path, so equal merges give equal files."""
    contents = {
        "README.md": model_card(plan),
        MANIFEST: manifest(plan, digests),
    }
    if name := picture_name(plan):
        contents[name] = plan_svg(plan)
    return {name: SmallFile.of(text) for name, text in contents.items()}
