"""Plans and models as plain text, for terminals, logs and golden files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from blockmerge.architectures import Block

if TYPE_CHECKING:
    from blockmerge.planning.inspection import Inspection
    from blockmerge.planning.plan import InputModel, Plan, Row

__all__ = ["gradient_chart", "inspection_text", "plan_summary", "plan_text", "size_text"]

_GLYPHS = {
    Block.EMBEDDINGS: "e",
    Block.ATTENTION: "a",
    Block.MLP: "m",
    Block.NORMS: "n",
    Block.HEAD: "h",
    Block.OTHER: "o",
}
_BLANK = " "


def size_text(count: int) -> str:
    """Bytes for people, in decimal units."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit}"


def plan_text(plan: Plan) -> str:
    """The whole plan: what goes in, the gradient, what is odd, every tensor."""
    return "\n".join([plan_summary(plan), "", tensor_table(plan)])


def plan_summary(plan: Plan) -> str:
    """The plan without its tensors."""
    shards = f"{len(plan.shards)} shard{'s' if len(plan.shards) > 1 else ''}"
    order = "module order" if plan.order == "table" else "natural order of names"
    lines = [
        *(f"{role + ':':<10} {_told(model)}" for role, model in zip(plan.roles, plan.inputs, strict=True)),
        f"architecture: {plan.architecture}, {len(plan.rows)} tensors in {order}",
        f"method:    {plan.recipe.method} by {plan.recipe.by.value}, arithmetic {plan.recipe.arithmetic.value}",
        f"dtype:     {plan.dtype}",
        f"read:      {size_text(plan.bytes_to_read)}",
        f"write:     {size_text(plan.bytes_to_write)} in {shards}, {len(plan.files)} files besides",
        "memory:    some {}, and {} for each thread, whatever the size of the models".format(
            *map(size_text, memory(plan))
        ),
        *(["", gradient_chart(plan)] if plan.recipe.method == "gradient" else []),
        *_remarks("warning", plan.warnings),
        *_remarks("note", plan.notes),
    ]
    return "\n".join(lines)


def _told(model: InputModel) -> str:
    """What an input is called; of a stage also what it is."""
    if model.plan is None:
        return model.published
    return f"{model.published}, {model.plan.recipe.method} of {', '.join(_told(inner) for inner in model.plan.inputs)}"


def memory(plan: Plan) -> tuple[int, int]:
    """Bytes of peak memory, estimated: interpreter, libraries and what is measured; and the buffers of a thread."""
    shared = each = 0
    for piece in (piece for row in plan.rows for piece in row.pieces):
        operands = len(piece.reads)
        large = piece.operation.measures or piece.operation.row > 1
        each = max(each, operands * (_GRANULE if large else _TILE))
        remembered = _ROWS * sum(measure.memory(piece.read_bytes) for measure in piece.operation.measures)
        shared = max(shared, remembered)
    return _BARE + shared, each + _TILE


_BARE, _TILE, _GRANULE = 160_000_000, 500_000, 2_500_000
"""Bytes: of Python, numpy and numba; of an operand of a tile; of one of a granule, with its difference."""
_ROWS = 3
"""What is remembered of tensors is there for one that is written and, as it comes in and as a whole, for the next."""


def _remarks(kind: str, lines: Iterable[str]) -> list[str]:
    return [f"{kind}: {line}" for line in lines]


def gradient_chart(plan: Plan, width: int = 72, height: int = 11) -> str:
    """Model 2's share along the model, a glyph for each block; columns hold neighbouring tensors."""
    rows = list(plan.curve_rows())
    shown = [row for row in rows if row.ratio is not None]
    if not shown:
        return "no tensor is blended: the result is model 1"
    low, high = (extreme([row.ratio or 0.0 for row in shown] + [bound]) for extreme, bound in ((min, 0.0), (max, 1.0)))
    width = min(width, len(rows))
    grid = [[_BLANK] * width for _ in range(height)]
    for row in shown:
        column = (row.position or 0) * width // len(rows)
        level = round(((row.ratio or 0.0) - low) / (high - low) * (height - 1))
        grid[height - 1 - level][column] = _GLYPHS[row.block]
    lines = [
        f"{low + (high - low) * (height - 1 - number) / (height - 1):6.0%} |{''.join(line).rstrip()}"
        for number, line in enumerate(grid)
    ]
    present = [block for block in _GLYPHS if any(row.block is block for row in shown)]
    legend = "  ".join(f"{_GLYPHS[block]} {block.value}" for block in present)
    return "\n".join(["share of model 2", *lines, " " * 7 + "+" + "-" * width, " " * 8 + legend])


def tensor_table(plan: Plan) -> str:
    """One line per tensor: position, share of model 2, bytes, name."""
    lines = [" pos  share    dtype      read       write      tensor"]
    for row in plan.rows:
        position = "   -" if row.position is None else f"{row.position:4d}"
        share = "   -   " if row.ratio is None else f"{row.ratio:7.4f}"
        sizes = f"{size_text(row.read_bytes):>9}  {size_text(row.nbytes):>9}"
        told = f"  {row.settings}" if row.settings else ""
        lines.append(
            f"{position} {share}  {row.dtype.name:<9} {sizes}  {row.name} {_shape(row.shape)}"
            f"{_origin(row, plan.roles)}{told}"
        )
    return "\n".join(lines)


def _shape(shape: Sequence[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _origin(row: Row, roles: Sequence[str]) -> str:
    """How a row is computed, where that is not a plain blend of equal names."""
    models = {read.model for piece in row.pieces for read in piece.reads}
    names = {read.name for piece in row.pieces for read in piece.reads} - {row.name}
    if len(models) == 1:
        return f"  ({roles[models.pop()]} only{', ' + names.pop() if len(names) == 1 else ''})"
    return f"  (from {', '.join(sorted(names))})" if names else ""


def inspection_text(model: Inspection) -> str:
    """A model at a glance, then its tensors in order."""
    total = sum(spec.nbytes for spec in model.tensors)
    order = "module order" if model.order == "table" else "natural order of names"
    lines = [
        f"model:        {model.label}",
        f"architecture: {model.architecture}, {model.layers} layers, {len(model.tensors)} tensors in {order}",
        f"parameters:   {model.parameters:,} ({size_text(total)})",
        "dtypes:       " + ", ".join(f"{name} {size_text(size)}" for name, size in model.dtypes.items()),
        "blocks:       " + ", ".join(f"{block.value} {size_text(size)}" for block, size in model.blocks.items()),
        "ties:         " + (", ".join(f"{one} = {other}" for one, other in model.ties.items()) or "none"),
        "vocabulary:   " + (", ".join(f"{name} {rows} rows" for name, rows in model.vocabulary.items()) or "none"),
        *_remarks("odd", model.odd),
        "",
        " pos  dtype           size  tensor",
    ]
    for position, spec in enumerate(model.tensors):
        lines.append(
            f"{position:4d}  {spec.dtype.name:<9} {size_text(spec.nbytes):>10}  {spec.name} {_shape(spec.shape)}"
        )
    return "\n".join(lines)
