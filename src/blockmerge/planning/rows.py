"""Rows before they have a place: what every method makes its table of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blockmerge import dtypes
from blockmerge.architectures import block_of, layer_of
from blockmerge.dtypes import F16, DType
from blockmerge.methods import Operation
from blockmerge.planning.checks import blendable
from blockmerge.planning.plan import Piece, Read, Row
from blockmerge.recipes import Arithmetic, Recipe
from blockmerge.tensors import TensorSpec

__all__ = ["Worked", "make_row", "output_dtype", "pieces_of"]


@dataclass
class Worked:
    """Rows without their places, and what is to be said about them.

    ``untied``: the result stores apart what the first model ties. ``layers`` names, for each layer of a result whose
    layers were chosen anew, the model that it was taken from and the layer there; None if they are the first model's.
    """

    rows: list[Row]
    order: str
    warnings: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    untied: bool = False
    layers: list[tuple[int, int]] | None = None


def output_dtype(recipe: Recipe, stored: DType) -> DType:
    """What a tensor that is ``stored`` so in the first model becomes: float64 is never written, integers stay."""
    if not blendable(stored):
        return stored
    if recipe.arithmetic is not Arithmetic.EXACT:
        return F16
    chosen = dtypes.by_name(recipe.dtype or "") or stored
    return dtypes.F32 if chosen == dtypes.F64 else chosen


def make_row(
    recipe: Recipe,
    base: TensorSpec,
    pieces: Sequence[Piece],
    *,
    name: str | None = None,
    position: int | None = None,
    ratio: float | None = None,
    settings: str = "",
    numbers: tuple[tuple[str, tuple[float, ...]], ...] = (),
) -> Row:
    """The row of the leading model's tensor ``base``, written under ``name`` if that is another one."""
    name = name or base.name
    dtype = output_dtype(recipe, base.result_dtype)
    return Row(
        name, dtype, base.shape, tuple(pieces), ratio, position, layer_of(name), block_of(name), settings, numbers
    )


def pieces_of(
    base: TensorSpec, common: int | None, reads: Sequence[Read], operation: Operation, kept: Operation
) -> list[Piece]:
    """``operation`` on the ``common`` leading rows of ``base`` (None: on all of it), and ``kept`` on the rest.

    ``reads`` are the operands, that of ``base`` first wherever something is kept.
    """
    whole = base.elements
    merged = whole if common is None or not base.shape else whole // max(base.shape[0], 1) * common
    pieces = [Piece(0, merged, tuple(reads), operation)] if merged else []
    if merged < whole:
        pieces.append(Piece(merged, whole - merged, tuple(reads[:1]), kept))
    return pieces
