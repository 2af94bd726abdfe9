"""The picture of stacked layers: which layer of which model stands where in the result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from blockmerge.architectures import layer_of
from blockmerge.planning import Plan
from blockmerge.report.svg import FAINT, INK, LINE, WIDTH, page, rectangle, shade, shortened, text

__all__ = ["is_stacked", "layermap_svg"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 220, 24, 76, 62
_ROW, _BAR = 46, 34
Origins = dict[int, dict[int, int]]
"""For each input, the layer of it that each layer of the result is made of."""


class Run(NamedTuple):
    """``length`` layers of the result from ``first`` on, made of as many layers of a model from ``origin`` on."""

    first: int
    length: int
    origin: int

    @property
    def label(self) -> str:
        """The layers of the model."""
        return _span(self.origin, self.length)


def is_stacked(plan: Plan) -> bool:
    """Whether layers of the result are others in some model, or not all made of the same models."""
    origins = _origins(plan)
    moved = any(layer != origin for found in origins.values() for layer, origin in found.items())
    return moved or len({frozenset(found) for found in origins.values()}) > 1


def layermap_svg(plan: Plan) -> str:
    """The picture as SVG text; a shade stands for the place of a layer in its own model."""
    origins = _origins(plan)
    count = 1 + max((layer for found in origins.values() for layer in found), default=0)
    depth = 1 + max((origin for found in origins.values() for origin in found.values()), default=0)
    width = (WIDTH - _LEFT - _RIGHT) / count
    bottom = _TOP + _ROW * len(origins)
    title = f"{count} layers of {len(origins)} model{'s' if len(origins) > 1 else ''}"
    parts = [
        text(24, 34, title, size=18, weight=600),
        text(24, 58, "which layers of each model stand where in the result; the darker, the later in their own model"),
    ]
    for number, (model, found) in enumerate(origins.items()):
        y = _TOP + _ROW * number
        parts += [
            text(24, y + 22, shortened(plan.inputs[model].label, 26)),
            f'<line x1="{_LEFT}" y1="{y + _BAR / 2}" x2="{WIDTH - _RIGHT}" y2="{y + _BAR / 2}" stroke="{LINE}"/>',
        ]
        for run in _runs(found):
            parts += _drawn(run, y, width, depth)
    parts += _numbers(count, width, bottom)
    parts.append(text(24, bottom + _BOTTOM - 14, f"{plan.recipe.method}; {len(plan.rows)} tensors", colour=FAINT))
    return page(bottom + _BOTTOM, title, _described(plan, origins), parts)


def _origins(plan: Plan) -> Origins:
    found: Origins = {}
    for row in plan.rows:
        for read in row.pieces[0].reads if row.pieces and row.layer is not None else ():
            origin = layer_of(read.name)
            if origin is not None and row.layer is not None:
                found.setdefault(read.model, {}).setdefault(row.layer, origin)
    return {model: dict(sorted(found[model].items())) for model in sorted(found)}


def _runs(found: dict[int, int]) -> Iterator[Run]:
    """The layers of one model, those together that are neighbours in both."""
    run: Run | None = None
    for layer, origin in found.items():
        if run is not None and (layer, origin) == (run.first + run.length, run.origin + run.length):
            run = run._replace(length=run.length + 1)
            continue
        if run is not None:
            yield run
        run = Run(layer, 1, origin)
    if run is not None:
        yield run


def _drawn(run: Run, y: float, width: float, depth: int) -> list[str]:
    """A rectangle for each layer, and the layers in words where there is room."""
    shares = [(run.origin + k) / max(depth - 1, 1) for k in range(run.length)]
    parts = [
        rectangle(round(_LEFT + width * (run.first + k), 1), y, width, _BAR, shade(0.1 + 0.9 * share))
        for k, share in enumerate(shares)
    ]
    left = round(_LEFT + width * run.first, 1)
    parts.append(rectangle(left, y, width * run.length, _BAR, "none", ' stroke="#ffffff" stroke-width="2"'))
    if 7 * len(run.label) + 6 <= width * run.length:
        colour = "#ffffff" if 0.1 + 0.9 * sum(shares) / run.length > 0.45 else INK
        middle = round(left + width * run.length / 2, 1)
        parts.append(text(middle, y + 22, run.label, size=12, anchor="middle", colour=colour))
    return parts


def _numbers(count: int, width: float, bottom: float) -> list[str]:
    step = max(1, -(-count // 20))
    parts = [
        text(round(_LEFT + width * (k + 0.5), 1), bottom + 12, str(k), size=11, anchor="middle", colour=FAINT)
        for k in range(0, count, step)
    ]
    return [*parts, text(24, bottom + 12, "layer of the result", size=11, colour=FAINT)]


def _span(first: int, length: int) -> str:
    return str(first) if length == 1 else f"{first} to {first + length - 1}"


def _layers(first: int, length: int) -> str:
    return f"layer{'s' if length > 1 else ''} {_span(first, length)}"


def _described(plan: Plan, origins: Origins) -> str:
    """The picture in words."""
    words = [
        f"{_layers(run.first, run.length)} {'is' if run.length == 1 else 'are'} {_layers(run.origin, run.length)} "
        f"of {plan.inputs[model].label}"
        for model, found in origins.items()
        for run in _runs(found)
    ]
    return "; ".join(words)[:2000] + "."
