"""The picture of any other merge: its numbers along the tensors, or as a table if they are the same for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from blockmerge.methods import METHODS
from blockmerge.planning import Plan, Row
from blockmerge.report.panel import LEFT, Panel, legend
from blockmerge.report.svg import FAINT, LINE, WIDTH, page, shortened, text

__all__ = ["card_svg", "settings_svg", "varying"]

_TOP, _PANEL, _GAP, _BOTTOM = 104, 110, 40, 30
_MOST = 6
"""Panels; a merge of more numbers that vary shows the first of them."""
_LINE = 28


class Series(NamedTuple):
    """A number of a method along the model: that of input number ``model``, or of all if it is None.

    ``values`` has it by tensor.
    """

    parameter: str
    model: int | None
    values: Mapping[str, float]


def settings_svg(plan: Plan) -> str:
    """The numbers that vary, a diagram for each."""
    rows, shown = list(plan.curve_rows()), varying(plan)[:_MOST]
    bottom = _TOP + (_PANEL + _GAP) * len(shown)
    title = _title(plan)
    constant = [f"{_named(plan, one)} {_constant(one):.4g}" for one in _series(plan) if not _varies(one)]
    covered = {name: 0.0 for one in shown for name in one.values}
    parts = [text(LEFT, 30, title, size=18, weight=600), *legend(rows, covered, "not merged")]
    for number, one in enumerate(shown):
        top = _TOP + (_PANEL + _GAP) * number
        panel = Panel(
            rows, one.values, top=top, bottom=top + _PANEL, bounds=(0.0, _limit(one)), ticks=(), label="{:.3g}".format
        )
        parts += [text(LEFT, top - 10, _named(plan, one), weight=600), *panel.draw(numbers=one is shown[-1])]
    said = f"tensors in module order, {len(rows)} from the embeddings to the head"
    parts.append(text(LEFT, bottom + _BOTTOM - 12, shortened("; ".join([said, *constant]), 130), colour=FAINT))
    return page(bottom + _BOTTOM, title, _described(plan, constant), parts)


def card_svg(plan: Plan) -> str:
    """The numbers as a table: a line for each model, one for what holds for all."""
    series = _series(plan)
    names = list(dict.fromkeys(one.parameter for one in series if one.model is not None))
    found = {(one.parameter, one.model): f"{_constant(one):.4g}" for one in series}
    shared = [f"{one.parameter} {_constant(one):.4g}" for one in series if one.model is None]
    title, lefts = _title(plan), [520 + 110 * k for k in range(len(names))]
    method = METHODS[plan.recipe.method]
    parts = [
        text(24, 34, title, size=18, weight=600),
        text(24, 58, shortened(method.equation, 130), colour=FAINT),
        *(text(x, 92, name, size=12, anchor="end", colour=FAINT) for x, name in zip(lefts, names, strict=True)),
    ]
    y = 92
    for number, (role, model) in enumerate(zip(plan.roles, plan.inputs, strict=True)):
        y += _LINE
        parts.append(f'<line x1="24" y1="{y - 19}" x2="{WIDTH - 24}" y2="{y - 19}" stroke="{LINE}" stroke-width="1"/>')
        parts += [text(24, y, role, colour=FAINT), text(104, y, shortened(model.label, 44))]
        values = (found.get((name, number), "") for name in names)
        parts += [text(x, y, value, anchor="end") for x, value in zip(lefts, values, strict=True)]
    said = "; ".join([*shared, f"{len(plan.rows)} tensors"])
    return page(y + 48, title, _described(plan, shared), [*parts, text(24, y + 32, said, colour=FAINT)])


def varying(plan: Plan) -> list[Series]:
    """The numbers that are not the same for all tensors."""
    return [one for one in _series(plan) if _varies(one)]


def _series(plan: Plan) -> list[Series]:
    """All numbers of the method, by parameter and model."""
    found: dict[tuple[str, int | None], dict[str, float]] = {}
    for row in plan.curve_rows():
        for name, values in row.numbers if row.pieces else ():  # a tensor without elements is made from none
            for model, value in zip(_models(row, values, name, plan), values, strict=True):
                found.setdefault((name, model), {})[row.name] = value
    return [Series(name, model, values) for (name, model), values in found.items()]


def _models(row: Row, values: Sequence[float], name: str, plan: Plan) -> list[int | None]:
    """Whose the values are: those of the operands of a row but its base, or of all."""
    parameter = METHODS[plan.recipe.method].parameter(name)
    if parameter is None or not parameter.per_model:
        return [None]
    return [read.model for read in row.pieces[0].reads[-len(values) :]]


def _varies(series: Series) -> bool:
    return len(set(series.values.values())) > 1


def _constant(series: Series) -> float:
    return next(iter(series.values.values()))


def _limit(series: Series) -> float:
    """The top of the axis: 1, unless all is far below it."""
    largest = max(series.values.values())
    return 1.0 if largest <= 0.0 or largest > 0.2 else largest


def _named(plan: Plan, series: Series) -> str:
    name = series.parameter
    return name if series.model is None else f"{name} of {shortened(plan.inputs[series.model].label, 60)}"


def _title(plan: Plan) -> str:
    models = " × ".join(model.label for model in plan.inputs)
    return shortened(f"{plan.recipe.method}: {models}", 84)


def _described(plan: Plan, constant: Sequence[str]) -> str:
    """The picture in words."""
    words = [f"{len(plan.inputs)} models merged by {plan.recipe.method}"]
    for one in varying(plan):
        values = list(one.values.values())
        words.append(f"{_named(plan, one)} from {values[0]:.4g} to {values[-1]:.4g} along the tensors")
    return "; ".join([*words, *constant]) + "."
