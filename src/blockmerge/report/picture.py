"""Which picture a plan has."""

from __future__ import annotations

from blockmerge.planning import Plan
from blockmerge.report.figure import gradient_svg
from blockmerge.report.layermap import is_stacked, layermap_svg
from blockmerge.report.settings import card_svg, settings_svg, varying

__all__ = ["picture_name", "plan_svg"]


def plan_svg(plan: Plan) -> str:
    """The picture as SVG text: the gradient, the map of layers, the numbers along the model, or a table of them."""
    if plan.recipe.method == "gradient":
        return gradient_svg(plan)
    if is_stacked(plan):
        return layermap_svg(plan)
    return settings_svg(plan) if varying(plan) else card_svg(plan)


def picture_name(plan: Plan) -> str | None:
    """The file that a published model has its picture in; None where a table in words says as much."""
    if plan.recipe.method == "gradient":
        return "gradient.svg"
    return "merge.svg" if is_stacked(plan) or varying(plan) else None
