"""Rows for the methods that take any number of models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from blockmerge.architectures import Order, module_order, vocabulary_tensors
from blockmerge.errors import BlockmergeError, MismatchError, RecipeError, listed, raise_all
from blockmerge.methods import METHODS, Copy, Method
from blockmerge.planning.checks import blendable, explain_sizes
from blockmerge.planning.plan import Piece, Read
from blockmerge.planning.rows import Worked, make_row, pieces_of
from blockmerge.planning.settings import Settings
from blockmerge.planning.ties import Ties
from blockmerge.recipes import OnMissing, Recipe
from blockmerge.sources import Source
from blockmerge.tensors import TensorSpec

__all__ = ["combine"]


def combine(recipe: Recipe, sources: Sequence[Source]) -> Worked:
    """The rows of a merge by one of :data:`METHODS`.

    Raises :class:`RecipeError` or :class:`MismatchError`, all problems at once.
    """
    return _Combiner(recipe, METHODS[recipe.method], sources).run()


class _Combiner:
    def __init__(self, recipe: Recipe, method: Method, sources: Sequence[Source]) -> None:
        self.recipe, self.method, self.sources = recipe, method, sources
        self.orders: list[Order] = [module_order(source.config, source.specs) for source in sources]
        self.ties = [Ties(source, order) for source, order in zip(sources, self.orders, strict=True)]
        self.names = [name for name in self.orders[0].names if name not in self.ties[0].names]
        self.vocabulary = set(vocabulary_tensors(self.names))
        self.settings = Settings(recipe, method, self.orders[0].names)
        self.problems: list[BlockmergeError] = []
        self.missing: dict[int, list[str]] = {}
        self.refused: dict[str, list[str]] = {}
        self.worked = Worked(
            [],
            self.orders[0].source,
            notes=[*self.orders[0].notes, *(note for ties in self.ties for note in ties.notes)],
        )

    def run(self) -> Worked:
        positions = {name: k for k, name in enumerate(self.orders[0].names)}
        for name in self.names:
            self._check_ties(name)
            self._add(name, positions[name])
        for name in self.orders[0].ignored:
            self._add_copy(self.sources[0].specs[name], None)
        self._tell_missing()
        self.problems += [RecipeError(text) for text in self.settings.empty]
        self.problems += [
            RecipeError(f"{text} ({len(of)} tensors, first {of[0]})") for text, of in self.refused.items()
        ]
        raise_all(dict.fromkeys(self.problems))
        return self.worked

    def _check_ties(self, name: str) -> None:
        """A tensor that is one in the first model must be one in the others: no method joins a head to an embedding."""
        for alias in self.ties[0].aliases(name):
            for source, ties in zip(self.sources[1:], self.ties[1:], strict=True):
                if ties.spec(alias) != ties.spec(name):
                    self.problems.append(
                        MismatchError(
                            f"{alias} and {name} are one tensor in {self.sources[0].label}, two in {source.label}"
                        )
                    )

    def _add(self, name: str, position: int) -> None:
        base = self.sources[0].specs[name]
        partners = [ties.spec(name) for ties in self.ties[1:]]
        lacking = [number for number, partner in enumerate(partners, start=1) if partner is None]
        for number in lacking:
            self.missing.setdefault(number, []).append(name)
        if lacking or not blendable(base.dtype):
            self._add_copy(base, position)
            return
        operands = [base, *(partner for partner in partners if partner is not None)]
        if other := next((spec for spec in operands if not blendable(spec.dtype)), None):
            self.problems.append(
                MismatchError(f"{name}: {base.dtype} and {other.dtype}; numbers of two kinds do not merge")
            )
            return
        rows = self._common_rows(name, operands)
        if rows is not None:
            self._add_row(operands, position, rows)

    def _common_rows(self, name: str, operands: Sequence[TensorSpec]) -> int | None:
        """The leading rows that all operands have; None, and a problem, if their shapes differ in another way."""
        base = operands[0]
        whole = base.shape[0] if base.shape else 1
        differing = [k for k, spec in enumerate(operands) if spec.shape != base.shape]
        if not differing:
            return whole
        other = operands[differing[0]]
        if name not in self.vocabulary or any(spec.shape[1:] != base.shape[1:] for spec in operands):
            first, second = self.sources[0], self.sources[differing[0]]
            self.problems.append(
                MismatchError(
                    f"{name}: {list(base.shape)} in {first.label}, {list(other.shape)} in {second.label} "
                    f"({explain_sizes(first, second)})"
                )
            )
            return None
        common = min(spec.shape[0] for spec in operands)
        rest = base.shape[0] - common
        kept = f"; the last {rest} of {self.sources[0].label} are kept as they are" if rest else ""
        self.worked.notes.append(
            f"{name}: vocabularies differ; the {common} rows that all models have are merged{kept}"
        )
        return common

    def _add_row(self, operands: Sequence[TensorSpec], position: int, common: int) -> None:
        base = operands[0]
        key = int.from_bytes(hashlib.sha256(f"{self.recipe.seed}/{base.name}".encode()).digest()[:8], "little")
        shape = (common, *base.shape[1:]) if base.shape else ()
        try:
            operation = self.method.build(self.settings.call(base.name, key=key, shape=shape))
        except RecipeError as error:
            self.refused.setdefault(str(error), []).append(base.name)
            return
        reads = tuple(Read(number, spec.name, spec.dtype) for number, spec in enumerate(operands))
        self._append(base, pieces_of(base, common, reads, operation, Copy()), position)

    def _add_copy(self, base: TensorSpec, position: int | None) -> None:
        reads = (Read(0, base.name, base.dtype),)
        self._append(base, pieces_of(base, None, reads, Copy(), Copy()), position)

    def _append(self, base: TensorSpec, pieces: Sequence[Piece], position: int | None) -> None:
        self.worked.rows.append(make_row(self.recipe, base, pieces, position=position))

    def _tell_missing(self) -> None:
        """Tensors that some model lacks: kept as the first model has them, if the recipe says so."""
        found = [(names, self.sources[0], self.sources[number]) for number, names in sorted(self.missing.items())]
        known = {*self.orders[0].names, *(name for order in self.orders for name in order.ignored)}
        for source in self.sources[1:]:
            if more := [name for name in source.specs if name not in known]:
                found.append((more, source, self.sources[0]))
        for names, owner, other in found:
            text = f"{len(names)} tensors of {owner.label} are not in {other.label}: {listed(names)}"
            if self.recipe.on_missing is OnMissing.KEEP:
                self.worked.notes.append(f"{text}; {'kept as they are' if owner is self.sources[0] else 'left out'}")
            else:
                self.problems.append(MismatchError(f"{text}; on_missing: keep goes on without merging them"))
