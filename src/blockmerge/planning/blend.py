"""Rows for a gradient: two models, tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence

from blockmerge import dtypes
from blockmerge.dtypes import F16, DType
from blockmerge.errors import RecipeError, raise_all
from blockmerge.methods import Copy, Lerp, Operation, Original
from blockmerge.planning.checks import blendable
from blockmerge.planning.pairing import Step, Target, pair, shape_summary
from blockmerge.planning.plan import Read, Row
from blockmerge.planning.rows import Worked, make_row, pieces_of
from blockmerge.recipes import Arithmetic, Recipe
from blockmerge.sources import Source

__all__ = ["blend"]


def blend(recipe: Recipe, sources: Sequence[Source]) -> Worked:
    """The rows of a gradient. Raises :class:`RecipeError` or :class:`MismatchError`, all problems at once."""
    first, second = sources
    pairing = pair(recipe, first, second)
    raise_all(shape_summary(pairing, first, second))
    make = _Rows(recipe, (first, second))
    rows = [make.row(target) for target in pairing.targets]
    return Worked(rows, pairing.order, pairing.warnings, pairing.notes, untied=pairing.untied)


class _Rows:
    """Turns targets of a gradient into rows."""

    def __init__(self, recipe: Recipe, sources: tuple[Source, Source]) -> None:
        self.recipe = recipe
        loads = [_load_dtype(source) for source in sources]
        self.load = (loads[0], loads[1])
        stored = {spec.dtype for source in sources for spec in source.specs.values()}
        if recipe.arithmetic is not Arithmetic.EXACT and dtypes.F64 in {*loads, *stored}:
            raise RecipeError("arithmetic: the original's is not defined for float64 models; use --arithmetic exact")

    def row(self, target: Target) -> Row:
        """The row of one target, without its place in a shard."""
        spec = target.base
        base = Read(0, spec.name, spec.dtype)
        kept = self._kept() if blendable(spec.dtype) else Copy()
        if target.ratio is None or not blendable(spec.dtype):
            pieces = pieces_of(spec, None, (base,), kept, kept)
        else:
            pieces = pieces_of(spec, target.common, *self._blend(base, target.steps, target.ratio), kept)
        return make_row(self.recipe, spec, pieces, name=target.name, position=target.position, ratio=target.ratio)

    def _kept(self) -> Operation:
        """What happens to elements that are model 1's alone; the original halves them like all others."""
        if self.recipe.arithmetic is Arithmetic.EXACT:
            return Copy()
        return Original(steps=(), load=self.load, work=self.load)

    def _blend(self, base: Read, steps: Sequence[Step], ratio: float) -> tuple[tuple[Read, ...], Operation]:
        partners = list(dict.fromkeys(step.partner for step in steps))
        others = tuple(Read(1, partner.name, partner.dtype) for partner in partners)
        if self.recipe.arithmetic is not Arithmetic.EXACT:
            halves = self.recipe.arithmetic is Arithmetic.ORIGINAL
            return (base, *others), Original(
                steps=tuple((step.ratio, 1 + partners.index(step.partner)) for step in steps),
                load=self.load,
                work=(F16, F16) if halves else self.load,
            )
        if ratio == 0.0:
            return (base,), Copy()
        if ratio == 1.0:
            return others, Copy()
        return (base, *others), Lerp(ratio)


def _load_dtype(source: Source) -> DType:
    """The dtype in which transformers loads a model: the config's, else that of the first weight by file and name."""
    for key in ("dtype", "torch_dtype"):
        named = source.config.get(key)
        dtype = dtypes.by_name(named) if isinstance(named, str) else None
        if dtype is not None and blendable(dtype):
            return dtype
    return next((spec.dtype for spec in source.specs.values() if blendable(spec.dtype)), dtypes.F32)
