"""Which tensors the result has, and which tensor of each model goes into it: slices, stacked and renumbered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from blockmerge.architectures import Order, layer_of, stack_of, with_layer
from blockmerge.errors import BlockmergeError, MismatchError, RecipeError, listed, raise_all
from blockmerge.planning.checks import explain_sizes
from blockmerge.planning.modules import assigned
from blockmerge.recipes import Part, Reading, Recipe, Slice
from blockmerge.sources import Source

__all__ = ["Run", "Stack", "stack"]


@dataclass(frozen=True)
class Run:
    """The tensors of one slice, in module order.

    ``outputs`` are their names in the result; ``inputs`` has a list for each operand (base first), with the names of
    the same tensors there; ``places`` are positions on an axis along the slice, from 0 to 1. ``layers`` are those that
    the slice has in the result, half-open.
    """

    slice: Slice
    outputs: list[str]
    inputs: list[list[str]]
    places: list[float]
    layers: tuple[int, int]

    @property
    def operands(self) -> tuple[Part, ...]:
        """The parts, the base first."""
        return operands_of(self.slice)


@dataclass(frozen=True)
class Stack:
    """All runs of a recipe. ``sliced``: layers were chosen, repeated or renumbered, so the config has to follow."""

    runs: list[Run]
    sliced: bool

    @property
    def layers(self) -> list[tuple[int, int]]:
        """For each layer of the result: the model that leads its slice, and the layer there."""
        found: list[tuple[int, int]] = []
        for run in self.runs:
            lead = run.operands[0]
            start = lead.layers[0] if lead.layers is not None else 0
            found += [(lead.model, start + k) for k in range(run.layers[1] - run.layers[0])]
        return found


def operands_of(piece: Slice) -> tuple[Part, ...]:
    """The parts of a slice, the base first."""
    return piece.parts if piece.base is None else (piece.base, *piece.parts)


def stack(recipe: Recipe, sources: Sequence[Source], orders: Sequence[Order]) -> Stack:
    """Lay the slices of ``recipe`` one after the other.

    Raises :class:`RecipeError` or :class:`MismatchError`, all problems at once, if ranges of layers do not exist or do
    not fit each other, or tensors of a model belong to no module.
    """
    modules = list(dict.fromkeys(piece.module for piece in recipe.slices))
    owned = [assigned(modules, order.names) for order in orders]
    raise_all(_unassigned(owned[0][1], sources[0], modules))
    stacks = [
        _ModuleStack(list(pieces), sources, [found[module] for found, _ in owned], recipe.by)
        for module, pieces in groupby(recipe.slices, key=lambda piece: piece.module)
    ]
    raise_all(problem for one in stacks for problem in one.problems)
    return Stack([run for one in stacks for run in one.runs()], any(not one.whole for one in stacks))


def _unassigned(names: Sequence[str], source: Source, modules: Sequence[str]) -> Iterator[BlockmergeError]:
    if names:
        yield RecipeError(
            f"modules: {len(names)} tensors of {source.label} belong to none of {', '.join(modules)}: {listed(names)}; "
            "add a module for them, or one called default for the rest"
        )


class _ModuleStack:
    """The slices of one module; ``names`` are those of each model in it."""

    def __init__(
        self, pieces: Sequence[Slice], sources: Sequence[Source], names: Sequence[Sequence[str]], by: Reading
    ) -> None:
        self._pieces, self._sources, self._names, self._by = pieces, sources, names, by
        self._depths = [
            1 + max((layer for name in own if (layer := layer_of(name)) is not None), default=-1) for own in names
        ]
        self.problems: list[BlockmergeError] = [problem for piece in pieces for problem in self._unfit(piece)]
        self.whole = len(pieces) == 1 and all(
            self._range(part) == (0, self._depths[part.model]) for part in operands_of(pieces[0])
        )
        stacks = {stack_of(name) for name in names[0] if layer_of(name) is not None}
        if not self.whole and len(stacks) > 1:
            self.problems.append(
                RecipeError(
                    f"slices: {sources[0].label} has several stacks of layers ({listed(sorted(stacks))}); "
                    "only whole models merge"
                )
            )

    def _range(self, part: Part) -> tuple[int, int]:
        return part.layers or (0, self._depths[part.model])

    def _unfit(self, piece: Slice) -> Iterator[BlockmergeError]:
        """Ranges that a model does not have, or that differ in length within a slice."""
        operands = operands_of(piece)
        for part in operands:
            start, stop = self._range(part)
            label, depth = self._sources[part.model].label, self._depths[part.model]
            if part.layers is not None and not start < stop:
                yield RecipeError(
                    f"{part.origin}: layers {start}:{stop} of {label} are none; 0:20 means layers 0 to 19"
                )
            elif stop > depth:
                told = f"layers {start}:{stop} of {label} do not exist; it has {depth}, 0:{depth}"
                yield RecipeError(f"{part.origin}: {told}")
        lengths = {stop - start for start, stop in map(self._range, operands)}
        if len(lengths) > 1:
            if any(part.layers for part in operands):
                told = ", ".join(
                    f"{self._sources[part.model].label} {{}}:{{}}".format(*self._range(part)) for part in operands
                )
                origin = next(part.origin for part in operands if part.layers)
                yield RecipeError(f"{origin}: all models of a slice need as many layers: {told}")
            else:
                yield self._other_depth(operands)

    def _other_depth(self, operands: Sequence[Part]) -> BlockmergeError:
        lead = operands[0].model
        other = next(part.model for part in operands if self._depths[part.model] != self._depths[lead])
        first, second = self._sources[lead], self._sources[other]
        return MismatchError(
            f"{self._depths[lead]} layers in {first.label}, {self._depths[other]} in {second.label} "
            f"({explain_sizes(first, second)}); whole models merge only if they have as many, slices take parts of them"
        )

    def runs(self) -> Iterator[Run]:
        """One for each slice."""
        offset = 0
        for k, piece in enumerate(self._pieces):
            operands = operands_of(piece)
            ranges = [self._range(part) for part in operands]
            start, stop = ranges[0]
            names = list(self._chosen(operands[0].model, (start, stop), first=k == 0, last=k + 1 == len(self._pieces)))
            inputs = [[_moved(name, own - start) for name, _ in names] for own, _ in ranges]
            outputs = [_moved(name, offset - start) for name, _ in names]
            yield Run(piece, outputs, inputs, [place for _, place in names], (offset, offset + stop - start))
            offset += stop - start

    def _chosen(self, model: int, layers: tuple[int, int], *, first: bool, last: bool) -> Iterator[tuple[str, float]]:
        """The names that a slice takes of its leading model, each with its place on the axis of the slice."""
        start, stop = layers
        entered, after = False, 0.0 if self._by is Reading.MERGEKIT else 1.0
        for name in self._names[model]:
            layer = layer_of(name)
            if layer is None:
                if (last and entered) or (first and not entered):
                    yield name, after if entered else 0.0
                continue
            entered = True
            if start <= layer < stop:
                yield name, (layer - start) / (stop - start - 1) if stop - start > 1 else 1.0


def _moved(name: str, by: int) -> str:
    """The same tensor that many layers further on."""
    layer = layer_of(name)
    return name if layer is None or by == 0 else with_layer(name, layer + by)
