"""Numbers along the tensors of a model: a dot for each tensor, a line for each block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from blockmerge.architectures import Block
from blockmerge.planning import Row
from blockmerge.report.svg import BAND, COLOURS, FAINT, LINE, WIDTH, rectangle, text

__all__ = ["LEFT", "Panel", "legend"]

LEFT, _RIGHT = 64, 24


class Panel:
    """One diagram between ``top`` and ``bottom``; ``values`` are those of ``rows``, by name, where there is one.

    The axis holds ``bounds`` and whatever lies outside; ``ticks`` are marked on it, in the words of ``label``.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        values: Mapping[str, float],
        *,
        top: float,
        bottom: float,
        bounds: tuple[float, float] = (0.0, 1.0),
        ticks: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
        label: Callable[[float], str] = "{:.0%}".format,
    ) -> None:
        self._rows, self._values, self._top, self._bottom = rows, values, top, bottom
        self._last = max([row.position or 0 for row in rows] + [1])
        self._low, self._high = min([bounds[0], *values.values()]), max([bounds[1], *values.values()])
        self._ticks, self._label = sorted({*ticks, self._low, self._high}), label

    def draw(self, *, numbers: bool = True) -> list[str]:
        """The elements of the picture, with ``numbers`` of layers below."""
        return [*self._layers(numbers=numbers), *self._axis(), *self._curves()]

    def _x(self, position: float) -> float:
        return round(LEFT + (WIDTH - LEFT - _RIGHT) * position / self._last, 1)

    def _y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(self._bottom - (self._bottom - self._top) * share, 1)

    def _layers(self, *, numbers: bool) -> list[str]:
        """A band behind every second layer, with as many layer numbers as fit."""
        spans: dict[int, list[int]] = {}
        for row in self._rows:
            if row.layer is not None and row.position is not None:
                spans.setdefault(row.layer, []).append(row.position)
        step = max(1, -(-len(spans) // 24))
        parts: list[str] = []
        for number, (layer, positions) in enumerate(sorted(spans.items())):
            left, right = self._x(min(positions) - 0.5), self._x(max(positions) + 0.5)
            if number % 2 == 0:
                parts.append(rectangle(left, self._top, right - left, self._bottom - self._top, BAND))
            if numbers and number % step == 0:
                middle = round((left + right) / 2, 1)
                parts.append(text(middle, self._bottom + 18, str(layer), size=11, anchor="middle", colour=FAINT))
        if numbers and spans:
            parts.append(text(LEFT - 8, self._bottom + 18, "layer", size=11, anchor="end", colour=FAINT))
        return parts

    def _axis(self) -> list[str]:
        parts: list[str] = []
        for value in self._ticks:
            y = self._y(value)
            parts.append(
                f'<line x1="{LEFT}" y1="{y}" x2="{WIDTH - _RIGHT}" y2="{y}" stroke="{LINE}" stroke-width="1"/>'
            )
            parts.append(text(LEFT - 8, y + 4, self._label(value), size=12, anchor="end", colour=FAINT))
        return parts

    def _curves(self) -> list[str]:
        """A thin line through each block's tensors, a dot on each; tensors without a value are ticks on the floor."""
        parts: list[str] = []
        radius = 3.5 if len(self._rows) <= 150 else 2.0 if len(self._rows) <= 600 else 1.2
        for block in _present(self._rows, self._values):
            points = [
                (self._x(row.position or 0), self._y(self._values[row.name]))
                for row in self._rows
                if row.block is block and row.name in self._values
            ]
            path = " ".join(f"{x},{y}" for x, y in points)
            colour = COLOURS[block]
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5" opacity="0.45"/>')
            parts += [f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}"/>' for x, y in points]
        floor = self._y(max(self._low, 0.0))
        left_out = [row for row in self._rows if row.name not in self._values]
        if ticks := " ".join(f"M{self._x(row.position or 0)} {floor - 3}v6" for row in left_out):
            parts.append(f'<path d="{ticks}" stroke="{FAINT}" stroke-width="1"/>')
        return parts


def legend(rows: Sequence[Row], values: Mapping[str, float], left_out: str) -> list[str]:
    """The blocks with their colours, and what the ticks of tensors without a value mean."""
    parts: list[str] = []
    x = float(LEFT)
    for block in _present(rows, values):
        parts.append(f'<circle cx="{x + 5}" cy="50" r="5" fill="{COLOURS[block]}"/>')
        parts.append(text(x + 16, 54, block.value))
        x += 40 + 7.2 * len(block.value)
    if any(row.name not in values for row in rows):
        parts.append(f'<line x1="{x}" y1="50" x2="{x + 14}" y2="50" stroke="{FAINT}" stroke-width="2"/>')
        parts.append(text(x + 20, 54, left_out, colour=FAINT))
    return parts


def _present(rows: Sequence[Row], values: Mapping[str, float]) -> list[Block]:
    found = {row.block for row in rows if row.name in values}
    return [block for block in COLOURS if block in found]
