"""Which tensor of model 2 belongs to which of model 1, and with which ratios: ties, vocabularies, missing tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from blockmerge.architectures import Order, layer_of, module_order, vocabulary_tensors
from blockmerge.errors import BlockmergeError, MismatchError, RecipeError
from blockmerge.planning.checks import blendable, common_rows, explain_sizes, nothing_selected, tell_absent
from blockmerge.planning.gradients import ratios, selected
from blockmerge.planning.ties import Ties
from blockmerge.recipes import Arithmetic, Curve, OnMissing, Recipe
from blockmerge.sources import Source
from blockmerge.tensors import TensorSpec

__all__ = ["Pairing", "Step", "Target", "pair", "shape_summary"]


@dataclass(frozen=True, slots=True)
class Step:
    """One blend of a target: model 2's share and the tensor of model 2 that it is taken from."""

    ratio: float
    partner: TensorSpec


@dataclass(frozen=True, slots=True)
class Target:
    """One output tensor: model 1's tensor ``base``, blended with ``steps`` in turn over ``common`` leading rows.

    ``common`` is None where the shapes agree. ``ratio`` is the share shown to people, None if nothing is blended.
    """

    name: str
    base: TensorSpec
    position: int | None = None
    steps: tuple[Step, ...] = ()
    common: int | None = None

    @property
    def ratio(self) -> float | None:
        """What is model 2's in the end: steps compound."""
        if not self.steps:
            return None
        kept = 1.0
        for step in self.steps:
            kept *= 1.0 - step.ratio
        return self.steps[0].ratio if len(self.steps) == 1 else 1.0 - kept


@dataclass
class Pairing:
    """What :func:`pair` found: targets in module order, and what to say."""

    targets: list[Target] = field(default_factory=list[Target])
    problems: list[BlockmergeError] = field(default_factory=list[BlockmergeError])
    notes: list[str] = field(default_factory=list[str])
    warnings: list[str] = field(default_factory=list[str])
    order: str = "table"
    untied: bool = False


def pair(recipe: Recipe, first: Source, second: Source) -> Pairing:
    """Decide for each tensor of ``first`` what it is blended with."""
    return _Pairer(recipe, first, second).run()


def _formats(base: TensorSpec, first: Source, partner: TensorSpec, second: Source) -> str:
    found = f"{base.dtype} in {first.label}, {partner.dtype} in {second.label}"
    return f"{base.name}: {found}; numbers of two kinds do not blend"


class _ShapeError(MismatchError):
    """One tensor has two shapes; :func:`shape_summary` draws many of these together."""


class _Pairer:
    def __init__(self, recipe: Recipe, first: Source, second: Source) -> None:
        self.recipe, self.first, self.second = recipe, first, second
        self.orders: tuple[Order, Order] = (
            module_order(first.config, first.specs),
            module_order(second.config, second.specs),
        )
        self.vocabulary = set(vocabulary_tensors(self.orders[0].names))
        if recipe.arithmetic is not Arithmetic.EXACT:
            self.vocabulary &= {"model.embed_tokens.weight", "lm_head.weight"}
        self.found = Pairing(order=self.orders[0].source)
        self.ties = Ties(first, self.orders[0])
        self.other_ties = Ties(second, self.orders[1])
        self.found.notes += [*self.ties.notes, *self.other_ties.notes]

    def run(self) -> Pairing:
        order = self.orders[0]
        self.found.notes += order.notes
        shares = self._shares()
        self._check_layers()
        self._check_missing(shares)
        positions = {name: k for k, name in enumerate(order.names)}
        for name in order.names:
            if name in self.ties.names:
                continue
            group = sorted([name, *self.ties.aliases(name)], key=positions.__getitem__)
            if self._comes_apart(group, shares):
                self.found.untied = True
                self._add_each(group, name, shares, positions)
            else:
                self._add(name, name, self._steps(group, shares), positions[name], group)
        if self.recipe.arithmetic is Arithmetic.EXACT:  # the original never sees what loading drops
            self.found.targets += [Target(name, self.first.specs[name]) for name in order.ignored]
        self._sort(positions)
        return self.found

    def _sort(self, positions: dict[str, int]) -> None:
        last = len(positions)
        self.found.targets.sort(key=lambda target: positions.get(target.name, last))

    def _shares(self) -> list[dict[str, float]]:
        """For each curve, the ratio of each tensor that it covers."""
        names: Sequence[str] = self.orders[0].names
        free = list(names)
        shares: list[dict[str, float]] = []
        for curve in self.recipe.curves:
            covered = selected(curve.selection, names if self.recipe.overlapping else free)
            if not covered:
                self._nothing_covered(curve)
            shares.append(dict(zip(covered, ratios(curve.values, covered, self.recipe.by, names), strict=True)))
            taken = set(covered)
            free = [name for name in free if name not in taken]
            if len(curve.values) - 1 > len(covered) > 0 and self.recipe.by == "tensor":
                self.found.warnings.append(
                    f"{curve.origin}: {len(curve.values)} values for {len(covered)} tensors; each gets the last value"
                )
        if not self.recipe.overlapping:  # then a name has one ratio at most, and tied names do not compound
            shares = [{name: ratio for share in shares for name, ratio in share.items()}]
        return shares

    def _check_layers(self) -> None:
        """Ranges that end beyond the last layer; the original has none."""
        depth = 1 + max((layer for name in self.orders[0].names if (layer := layer_of(name)) is not None), default=-1)
        for start, stop in dict.fromkeys(c.selection.layers for c in self.recipe.curves if c.selection.layers):
            if stop > depth:
                self.found.problems.append(
                    RecipeError(f"layers: {start}:{stop} of {self.first.label} do not exist; it has {depth}, 0:{depth}")
                )

    def _nothing_covered(self, curve: Curve) -> None:
        message = nothing_selected(curve, self.orders[0].names)
        if self.recipe.arithmetic is Arithmetic.EXACT:
            self.found.problems.append(RecipeError(message))
        else:  # the original goes on in silence
            self.found.warnings.append(message)

    def _comes_apart(self, group: Sequence[str], shares: Sequence[dict[str, float]]) -> bool:
        """Whether model 1 ties what model 2 keeps apart; an exact merge that blends it then writes both."""
        partners = {partner.name for name in group if (partner := self.other_ties.spec(name))}
        blended = any(name in share for share in shares for name in group)
        return blended and len(partners) > 1 and self.recipe.arithmetic is Arithmetic.EXACT

    def _add_each(
        self, group: Sequence[str], stored: str, shares: list[dict[str, float]], positions: dict[str, int]
    ) -> None:
        self.found.notes.append(
            f"{' and '.join(group)} are one tensor in {self.first.label} and two in {self.second.label}: "
            "both are written, and config.json says so"
        )
        for name in group:
            self._add(name, stored, self._steps([name], shares), positions[name], [name])

    def _steps(self, group: Sequence[str], shares: list[dict[str, float]]) -> tuple[Step, ...]:
        """One step per curve that covers a name of ``group``; of several names the last one's ratio stands."""
        steps: list[Step] = []
        for share in shares:
            covering = [name for name in group if name in share]
            partner = self.other_ties.spec(covering[-1]) if covering else None
            if partner is not None:
                steps.append(Step(share[covering[-1]], partner))
        return tuple(steps)

    def _add(self, name: str, stored: str, steps: tuple[Step, ...], position: int, group: Sequence[str]) -> None:
        base = self.first.specs[stored]
        common: int | None = None
        for partner in dict.fromkeys(step.partner for step in steps):
            if blendable(base.dtype) and not blendable(partner.dtype):
                self.found.problems.append(MismatchError(_formats(base, self.first, partner, self.second)))
                return
            rows = common_rows((base, partner), by_token=not self.vocabulary.isdisjoint(group))
            if rows is None:
                self._shape_problem(base, partner)
                return
            if partner.shape != base.shape:
                common = min(common or rows, rows)
                self._vocabulary_note(base, partner)
        self.found.targets.append(Target(name, base, position, steps, common))

    def _shape_problem(self, base: TensorSpec, partner: TensorSpec) -> None:
        self.found.problems.append(
            _ShapeError(
                f"{base.name}: {list(base.shape)} in {self.first.label}, {list(partner.shape)} in {self.second.label}"
            )
        )

    def _vocabulary_note(self, base: TensorSpec, partner: TensorSpec) -> None:
        mine, other = base.shape[0], partner.shape[0]
        done = (
            f"model 1's last {mine - other} rows are kept as they are"
            if mine > other
            else f"model 2's last {other - mine} rows are left out"
        )
        self.found.notes.append(
            f"{base.name}: {mine} rows in {self.first.label}, {other} in {self.second.label}; {done}"
        )

    def _check_missing(self, shares: list[dict[str, float]]) -> None:
        covered = {name for share in shares for name in share}
        only_first = [name for name in self.orders[0].names if self.other_ties.spec(name) is None]
        needed = [name for name in only_first if name in covered]
        known = set(self.orders[0].names) | set(self.orders[0].ignored) | set(self.orders[1].ignored)
        only_second = [name for name in self.second.specs if name not in known]
        keep = self.recipe.on_missing is OnMissing.KEEP
        if only_first:
            between, tolerated = (self.first, self.second), keep or not needed
            self._tell_absent(only_first, between, "kept as they are", tolerated=tolerated)
        if only_second:  # the original goes on in silence
            between, tolerated = (self.second, self.first), keep or self.recipe.arithmetic is not Arithmetic.EXACT
            self._tell_absent(only_second, between, "left out", tolerated=tolerated)

    def _tell_absent(self, names: Sequence[str], between: tuple[Source, Source], done: str, *, tolerated: bool) -> None:
        tell_absent(self.found.notes, self.found.problems, names, between, done, tolerated=tolerated)


def shape_summary(pairing: Pairing, first: Source, second: Source) -> Iterator[BlockmergeError]:
    """The problems of ``pairing``, with many differing shapes drawn together and explained."""
    shapes = [problem for problem in pairing.problems if isinstance(problem, _ShapeError)]
    if not shapes:
        yield from pairing.problems
    else:  # tensors that are missing besides have the same cause
        shown = "; ".join(str(problem) for problem in shapes[:4])
        more = f"; and {len(shapes) - 4} more" if len(shapes) > 4 else ""
        yield MismatchError(f"{len(shapes)} shapes differ ({explain_sizes(first, second)}): {shown}{more}")
