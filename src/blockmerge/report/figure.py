"""The picture of a gradient: model 2's share in each tensor, along the model."""

from __future__ import annotations

from collections.abc import Sequence

from blockmerge.planning import Plan, Row
from blockmerge.report.panel import LEFT, Panel, legend
from blockmerge.report.svg import FAINT, page, text

__all__ = ["gradient_svg"]

_HEIGHT = 420
_TOP, _BOTTOM = 74, 62


def gradient_svg(plan: Plan) -> str:
    """The picture as SVG text."""
    rows = list(plan.curve_rows())
    values = {row.name: row.ratio for row in rows if row.ratio is not None}
    first, second = (model.label for model in plan.inputs)
    title = f"Share of {second} in each tensor"
    parts = [
        text(LEFT, 30, title, size=18, weight=600),
        *legend(rows, values, "model 1, not blended"),
        *Panel(rows, values, top=_TOP, bottom=_HEIGHT - _BOTTOM).draw(),
        text(LEFT, _HEIGHT - 12, f"tensors in module order, {len(rows)} from the embeddings to the head", colour=FAINT),
    ]
    return page(_HEIGHT, title, _described(rows, first, second), parts)


def _described(rows: Sequence[Row], first: str, second: str) -> str:
    shown = [row.ratio for row in rows if row.ratio is not None]
    if not shown:
        return f"Every tensor is {first}'s."
    return (
        f"{len(shown)} of {len(rows)} tensors are blended; the share of {second} starts at {shown[0]:.2f}, ends at "
        f"{shown[-1]:.2f}, and lies between {min(shown):.2f} and {max(shown):.2f}. The rest is {first}'s."
    )
