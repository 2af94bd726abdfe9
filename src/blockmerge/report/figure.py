"""The picture of a gradient: model 2's share in each tensor, along the model.

Drawn as SVG text, without a plotting library, because every published model carries it: the same plan must give the
same bytes everywhere. PNG is made from the same SVG (extra ``plot``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape

from blockmerge.architectures import Block
from blockmerge.errors import BlockmergeError
from blockmerge.planning import Plan, Row

__all__ = ["COLOURS", "gradient_png", "gradient_svg"]

COLOURS = {
    Block.EMBEDDINGS: "#cc79a7",
    Block.ATTENTION: "#0072b2",
    Block.MLP: "#e69f00",
    Block.NORMS: "#009e73",
    Block.HEAD: "#d55e00",
    Block.OTHER: "#6b7280",
}
"""The Okabe-Ito palette, which colour-blind readers can tell apart; the same block has one colour everywhere."""

_WIDTH, _HEIGHT = 960, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 74, 62
_INK, _FAINT, _BAND = "#1f2937", "#6b7280", "#f3f4f6"


def gradient_svg(plan: Plan) -> str:
    """The picture as SVG text."""
    rows = list(plan.curve_rows())
    scale = _Scale([row.position or 0 for row in rows], [row.ratio for row in rows if row.ratio is not None])
    first, second = (model.location.name for model in plan.inputs)
    title = f"Share of {second} in each tensor"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        'role="img" font-family="system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(_described(rows, first, second))}</desc>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="#ffffff"/>',
        _text(_LEFT, 30, title, size=18, weight=600),
        *_legend(rows),
        *_layers(rows, scale),
        *_axis(scale),
        *_curves(rows, scale),
        _text(
            _LEFT, _HEIGHT - 12, f"tensors in module order, {len(rows)} from the embeddings to the head", colour=_FAINT
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def gradient_png(plan: Plan) -> bytes:
    """The picture as PNG, twice the size; needs the extra ``plot``."""
    try:
        import resvg_py
    except ImportError as error:
        raise BlockmergeError("a PNG needs the extra plot: pip install 'blockmerge[plot]' (or ask for .svg)") from error
    return bytes(resvg_py.svg_to_bytes(svg_string=gradient_svg(plan), zoom=2))


class _Scale:
    """From positions and ratios to points; the ratio axis holds 0 to 1 and whatever lies outside."""

    def __init__(self, positions: Sequence[int], ratios: Sequence[float]) -> None:
        self.last = max(max(positions, default=0), 1)
        self.low, self.high = min([0.0, *ratios]), max([1.0, *ratios])

    def x(self, position: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * position / self.last, 1)

    def y(self, ratio: float) -> float:
        share = (ratio - self.low) / (self.high - self.low)
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share, 1)


def _described(rows: Sequence[Row], first: str, second: str) -> str:
    shown = [row.ratio for row in rows if row.ratio is not None]
    if not shown:
        return f"Every tensor is {first}'s."
    return (
        f"{len(shown)} of {len(rows)} tensors are blended; the share of {second} starts at {shown[0]:.2f}, ends at "
        f"{shown[-1]:.2f}, and lies between {min(shown):.2f} and {max(shown):.2f}. The rest is {first}'s."
    )


def _text(
    x: float, y: float, text: str, *, size: int = 13, weight: int = 400, anchor: str = "start", colour: str = _INK
) -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(text)}</text>"
    )


def _present(rows: Iterable[Row]) -> list[Block]:
    found = {row.block for row in rows if row.ratio is not None}
    return [block for block in COLOURS if block in found]


def _legend(rows: Sequence[Row]) -> list[str]:
    parts: list[str] = []
    x = float(_LEFT)
    for block in _present(rows):
        parts.append(f'<circle cx="{x + 5}" cy="50" r="5" fill="{COLOURS[block]}"/>')
        parts.append(_text(x + 16, 54, block.value))
        x += 40 + 7.2 * len(block.value)
    if any(row.ratio is None for row in rows):
        parts.append(f'<line x1="{x}" y1="50" x2="{x + 14}" y2="50" stroke="{_FAINT}" stroke-width="2"/>')
        parts.append(_text(x + 20, 54, "model 1, not blended", colour=_FAINT))
    return parts


def _layers(rows: Sequence[Row], scale: _Scale) -> list[str]:
    """A band behind every second layer, with as many layer numbers as fit."""
    spans: dict[int, list[int]] = {}
    for row in rows:
        if row.layer is not None and row.position is not None:
            spans.setdefault(row.layer, []).append(row.position)
    step = max(1, -(-len(spans) // 24))
    parts: list[str] = []
    for number, (layer, positions) in enumerate(sorted(spans.items())):
        left, right = scale.x(min(positions) - 0.5), scale.x(max(positions) + 0.5)
        if number % 2 == 0:
            height = _HEIGHT - _TOP - _BOTTOM
            parts.append(
                f'<rect x="{left}" y="{_TOP}" width="{round(right - left, 1)}" height="{height}" fill="{_BAND}"/>'
            )
        if number % step == 0:
            middle = round((left + right) / 2, 1)
            parts.append(_text(middle, _HEIGHT - _BOTTOM + 18, str(layer), size=11, anchor="middle", colour=_FAINT))
    if spans:
        parts.append(_text(_LEFT - 8, _HEIGHT - _BOTTOM + 18, "layer", size=11, anchor="end", colour=_FAINT))
    return parts


def _axis(scale: _Scale) -> list[str]:
    parts: list[str] = []
    for ratio in sorted({0.0, 0.25, 0.5, 0.75, 1.0, scale.low, scale.high}):
        y = scale.y(ratio)
        parts.append(f'<line x1="{_LEFT}" y1="{y}" x2="{_WIDTH - _RIGHT}" y2="{y}" stroke="#d1d5db" stroke-width="1"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{ratio:.0%}", size=12, anchor="end", colour=_FAINT))
    return parts


def _curves(rows: Sequence[Row], scale: _Scale) -> list[str]:
    """A thin line through each block's tensors and a dot on each tensor; uncovered tensors are ticks on the floor."""
    parts: list[str] = []
    radius = 3.5 if len(rows) <= 150 else 2.0 if len(rows) <= 600 else 1.2
    for block in _present(rows):
        points = [
            (scale.x(row.position or 0), scale.y(row.ratio))
            for row in rows
            if row.block is block and row.ratio is not None
        ]
        path = " ".join(f"{x},{y}" for x, y in points)
        colour = COLOURS[block]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5" opacity="0.45"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}"/>' for x, y in points]
    floor = scale.y(0.0)
    ticks = " ".join(f"M{scale.x(row.position or 0)} {floor - 3}v6" for row in rows if row.ratio is None)
    if ticks:
        parts.append(f'<path d="{ticks}" stroke="{_FAINT}" stroke-width="1"/>')
    return parts
