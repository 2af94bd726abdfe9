"""The picture of a comparison: layers across, blocks up, and how much each of them differs."""

from __future__ import annotations

from blockmerge.architectures import Block
from blockmerge.comparison.difference import Difference, Statistics
from blockmerge.comparison.text import percent
from blockmerge.report.svg import COLOURS, FAINT, INK, LINE, WIDTH, page, rectangle, shade, shortened, text

__all__ = ["difference_svg"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 128, 24, 86, 62
_CELL, _GAP = 46, 2
_SCALE = 180
_ORDER = (Block.HEAD, Block.MLP, Block.ATTENTION, Block.NORMS, Block.EMBEDDINGS, Block.OTHER)
"""Rows from the top down: a model is read from its embeddings up."""
Cells = dict[tuple[int | None, Block], Statistics]


def difference_svg(found: Difference) -> str:
    """The picture as SVG text."""
    cells = found.cells
    blocks = [block for block in _ORDER if any(block is own for _, own in cells)]
    columns: list[int | None] = [*found.layers]
    if any(layer is None for layer, _ in cells):
        columns.append(None)
    largest = max((cell.relative or 0.0 for cell in cells.values()), default=0.0)
    first, second = (shortened(model, 32) for model in found.models)
    title = f"How far {second} is from {first}"
    bottom = _TOP + _CELL * len(blocks)
    parts = [
        text(24, 34, title, size=18, weight=600),
        text(24, 58, f"L2 norm of the difference over that of {first}; in all {percent(found.whole.relative)}"),
        *_scale(largest),
        *_grid(cells, blocks, columns, largest),
        *_labels(blocks, columns, bottom),
        text(24, bottom + _BOTTOM - 14, _footer(found), colour=FAINT),
    ]
    return page(bottom + _BOTTOM, title, _described(found, largest), parts)


def _width(columns: list[int | None]) -> float:
    """Of a column, in points."""
    return (WIDTH - _LEFT - _RIGHT) / len(columns)


def _grid(cells: Cells, blocks: list[Block], columns: list[int | None], largest: float) -> list[str]:
    parts: list[str] = []
    width = _width(columns)
    gap = _GAP if width > 8 else 0.0
    for row, block in enumerate(blocks):
        for column, layer in enumerate(columns):
            if (cell := cells.get((layer, block))) is not None:
                x, y = round(_LEFT + width * column, 1), _TOP + _CELL * row
                parts += _cell(cell, x, y, width - gap, largest)
    return parts


def _cell(cell: Statistics, x: float, y: float, width: float, largest: float) -> list[str]:
    """A rectangle, with its number where there is room."""
    share = (cell.relative or 0.0) / largest if largest else 0.0
    border = f' stroke="{LINE}" stroke-width="1"' if share < 0.1 and width > 8 else ""
    parts = [rectangle(x, y, width, _CELL - _GAP, shade(share), border)]
    if width >= 44:
        colour = "#ffffff" if share > 0.45 else INK
        parts.append(
            text(round(x + width / 2, 1), y + 27, percent(cell.relative), size=12, anchor="middle", colour=colour)
        )
    return parts


def _labels(blocks: list[Block], columns: list[int | None], bottom: float) -> list[str]:
    """The blocks beside the rows, in their colours, and as many layers below as fit."""
    parts: list[str] = []
    for row, block in enumerate(blocks):
        y = _TOP + _CELL * row + 22
        parts.append(f'<circle cx="29" cy="{y}" r="5" fill="{COLOURS[block]}"/>')
        parts.append(text(40, y + 4, block.value))
    width = _width(columns)
    step = max(1, -(-len(columns) // 24))
    for column, layer in enumerate(columns):
        if layer is None or (column % step == 0 and (column + step <= len(columns) or step == 1)):
            label = "none" if layer is None else str(layer)
            x = round(_LEFT + width * (column + 0.5) - _GAP / 2, 1)
            parts.append(text(x, bottom + 16, label, size=11, anchor="middle", colour=FAINT))
    return [*parts, text(40, bottom + 16, "layer", size=11, colour=FAINT)]


def _scale(largest: float) -> list[str]:
    """What the shades mean."""
    left, steps = WIDTH - _RIGHT - _SCALE, 36
    parts = [
        rectangle(round(left + _SCALE / steps * k, 1), 46, _SCALE / steps + 0.5, 14, shade((k + 0.5) / steps))
        for k in range(steps)
    ]
    ends = ((left, "start", 0.0), (WIDTH - _RIGHT, "end", largest))
    return [
        *parts,
        *(text(x, 76, percent(value), size=11, anchor=anchor, colour=FAINT) for x, anchor, value in ends),
    ]


def _footer(found: Difference) -> str:
    whole = found.whole
    parts = [f"{len(found.tensors)} tensors, {whole.share:.1%} of {whole.elements:,} elements differ"]
    left_out = len(found.only_first) + len(found.only_second) + len(found.unlike)
    if left_out:
        parts.append(f"{left_out} tensors not compared")
    if any(whole.nonfinite):
        parts.append(f"{sum(whole.nonfinite)} values not finite")
    return "; ".join(parts)


def _described(found: Difference, largest: float) -> str:
    """The picture in words."""
    blocks = ", ".join(f"{block.value} {percent(cell.relative)}" for block, cell in found.blocks.items())
    words = f"Relative difference of {found.models[1]} from {found.models[0]}: {percent(found.whole.relative)} in all"
    cells = {key: cell for key, cell in found.cells.items() if cell.relative == largest and largest}
    for layer, block in list(cells)[:1]:
        where = "outside the layers" if layer is None else f"in layer {layer}"
        words += f", most in {block.value} {where} ({percent(largest)})"
    return f"{words}. By block: {blocks}."
