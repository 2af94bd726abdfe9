"""Rows for the methods that take any number of models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from blockmerge.architectures import Order, layer_of, module_order, vocabulary_tensors
from blockmerge.errors import BlockmergeError, MismatchError, RecipeError, listed, raise_all
from blockmerge.methods import METHODS, Call, Copy, Method
from blockmerge.planning.checks import blendable, common_rows, explain_sizes, nothing_selected, tell_absent
from blockmerge.planning.plan import Piece, Read
from blockmerge.planning.rows import Worked, make_row, pieces_of
from blockmerge.planning.settings import Settings
from blockmerge.planning.stack import Run, stack
from blockmerge.planning.ties import Ties
from blockmerge.recipes import Curve, OnMissing, Recipe
from blockmerge.sources import Source
from blockmerge.tensors import TensorSpec

__all__ = ["combine"]

Numbers = tuple[tuple[str, tuple[float, ...]], ...]


def combine(recipe: Recipe, sources: Sequence[Source]) -> Worked:
    """The rows of a merge by one of :data:`METHODS`.

    Raises :class:`RecipeError` or :class:`MismatchError`, all problems at once.
    """
    return _Combiner(recipe, METHODS[recipe.method], sources).run()


@dataclass
class _Found:
    """What is told once for many tensors: by its text, the tensors that it is true of."""

    missing: dict[tuple[int, int], list[str]] = field(default_factory=dict[tuple[int, int], list[str]])
    refused: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    shapes: dict[tuple[int, int], list[str]] = field(default_factory=dict[tuple[int, int], list[str]])
    problems: list[BlockmergeError] = field(default_factory=list[BlockmergeError])


class _Combiner:
    def __init__(self, recipe: Recipe, method: Method, sources: Sequence[Source]) -> None:
        self.recipe, self.method, self.sources = recipe, method, sources
        self.orders: list[Order] = [module_order(source.config, source.specs) for source in sources]
        self.ties = [Ties(source, order) for source, order in zip(sources, self.orders, strict=True)]
        self.stack = stack(recipe, sources, self.orders)
        self.homes = {name: k for k, run in enumerate(self.stack.runs) for name in run.outputs}
        self.vocabulary = set(vocabulary_tensors(self.homes))
        self.found = _Found()
        self.matched: dict[Curve, bool] = {}
        self.used: list[set[str]] = [set() for _ in sources]
        notes = [*self.orders[0].notes, *(note for ties in self.ties for note in ties.notes)]
        self.worked = Worked([], self.orders[0].source, notes=notes)

    def run(self) -> Worked:
        position = 0
        for run in self.stack.runs:
            settings = Settings(self.recipe, self.method, run, self.matched)
            for k in range(len(run.outputs)):
                if not self._stays_tied(run, k):
                    self._add(run, settings, k, position)
                position += 1
        for name in self.orders[0].ignored if not self.stack.sliced else ():
            self._add_copy(self.sources[0].specs[name], 0, name, None)
        if self.stack.sliced:
            self.worked.layers = self.stack.layers
            self.worked.notes += self._layer_map()
        self._tell()
        return self.worked

    # --- Which tensors there are -----------------------------------------------------------------------------------

    def _stays_tied(self, run: Run, k: int) -> bool:
        """Whether a name shares the storage of another one in all models, so that one tensor is written for both."""
        name = run.outputs[k]
        stored = self.ties[0].names.get(name)
        if stored is None or self.homes.get(stored) != self.homes[name]:
            if stored is not None:
                self._untie(name, stored)
            return False
        at = run.outputs.index(stored)
        for part, inputs in zip(run.operands, run.inputs, strict=True):
            ties = self.ties[part.model]
            if ties.spec(inputs[k]) != ties.spec(inputs[at]):
                self._untie(name, stored)
                return False
        return True

    def _untie(self, name: str, stored: str) -> None:
        self.worked.untied = True
        self.worked.notes.append(
            f"{name} and {stored} are one tensor in {self.sources[0].label}, but not in all that goes into the result: "
            "both are written, and config.json says so"
        )

    def _add(self, run: Run, settings: Settings, k: int, position: int) -> None:
        found: list[tuple[int, TensorSpec]] = []
        for part, inputs in zip(run.operands, run.inputs, strict=True):
            spec = self.ties[part.model].spec(inputs[k])
            if spec is None:
                self.found.missing.setdefault((run.operands[0].model, part.model), []).append(run.inputs[0][k])
            else:
                found.append((part.model, spec))
                self.used[part.model].add(spec.name)
        (model, base), name = found[0], run.outputs[k]  # the leading model has it: names are its own
        if len(found) < len(run.operands) or not blendable(base.dtype):
            self._add_copy(base, model, name, position)
            return
        if other := next((spec for _, spec in found if not blendable(spec.dtype)), None):
            self.found.problems.append(
                MismatchError(f"{name}: {base.dtype} and {other.dtype}; numbers of two kinds do not merge")
            )
            return
        rows = self._common_rows(name, found)
        if rows is not None:
            self._add_merged(name, found, settings, k, position, rows)

    def _add_merged(
        self, name: str, found: Sequence[tuple[int, TensorSpec]], settings: Settings, k: int, position: int, rows: int
    ) -> None:
        base = found[0][1]
        key = int.from_bytes(hashlib.sha256(f"{self.recipe.seed}/{name}".encode()).digest()[:8], "little")
        try:
            call = settings.call(k, key=key, shape=(rows, *base.shape[1:]) if base.shape else ())
            operation = self.method.build(call)
        except RecipeError as error:
            self.found.refused.setdefault(settings.located(str(error)), []).append(name)
            return
        reads = tuple(Read(model, spec.name, spec.dtype) for model, spec in found)
        pieces = pieces_of(base, rows, reads, operation, Copy())
        self._append(base, pieces, name, position, _shown(call, self.method), _numbers(call, self.method))

    def _add_copy(self, base: TensorSpec, model: int, name: str, position: int | None) -> None:
        reads = (Read(model, base.name, base.dtype),)
        self._append(base, pieces_of(base, None, reads, Copy(), Copy()), name, position)

    def _append(
        self,
        base: TensorSpec,
        pieces: Sequence[Piece],
        name: str,
        position: int | None,
        shown: str = "",
        numbers: Numbers = (),
    ) -> None:
        self.worked.rows.append(
            make_row(self.recipe, base, pieces, name=name, position=position, settings=shown, numbers=numbers)
        )

    # --- Whether they fit ------------------------------------------------------------------------------------------

    def _common_rows(self, name: str, operands: Sequence[tuple[int, TensorSpec]]) -> int | None:
        """The leading rows that all operands have; None, and a problem, if their shapes differ in another way."""
        lead, base = operands[0]
        common = common_rows([spec for _, spec in operands], by_token=name in self.vocabulary)
        differing = [(model, spec) for model, spec in operands if spec.shape != base.shape]
        if not differing:
            return common
        if common is None:
            model, other = differing[0]
            text = f"{name}: {list(base.shape)} and {list(other.shape)}"
            self.found.shapes.setdefault((lead, model), []).append(text)
            return None
        rest = base.shape[0] - common
        kept = f"; the last {rest} of {self.sources[lead].label} are kept as they are" if rest else ""
        self.worked.notes.append(
            f"{name}: vocabularies differ; the {common} rows that all models have are merged{kept} "
            "(tokenizer: union goes by token instead)"
        )
        return common

    # --- What is said ----------------------------------------------------------------------------------------------

    def _layer_map(self) -> list[str]:
        """Which layers of which models are where in the result, a line for each slice that has layers."""
        lines: list[str] = []
        for run in self.stack.runs:
            first, stop = run.layers
            at = next((k for k, name in enumerate(run.outputs) if layer_of(name) is not None), None)
            if at is None:
                continue
            origins: list[str] = []
            for part, inputs in zip(run.operands, run.inputs, strict=True):
                start = layer_of(inputs[at]) or 0
                origins.append(f"{_span(start, start + stop - first)} of {self.sources[part.model].label}")
            lines.append(f"layers {_span(first, stop)}: {', '.join(origins)}")
        return lines

    def _tell(self) -> None:
        """Raise everything that is wrong, or note what is left out."""
        self._tell_missing()
        for curve in (curve for curve, matched in self.matched.items() if not matched):
            text = nothing_selected(curve, [name for run in self.stack.runs for name in run.outputs])
            if self.recipe.dialect == "mergekit":
                self.worked.warnings.append(text)
            else:
                self.found.problems.append(RecipeError(text))
        self.found.problems += [
            RecipeError(f"{text} ({len(of)} tensors, first {of[0]})") for text, of in self.found.refused.items()
        ]
        for (lead, model), texts in self.found.shapes.items():
            first, second = self.sources[lead], self.sources[model]
            self.found.problems.append(
                MismatchError(
                    f"{len(texts)} shapes differ between {first.label} and {second.label} "
                    f"({explain_sizes(first, second)}): {listed(texts, 4)}"
                )
            )
        raise_all(dict.fromkeys(self.found.problems))

    def _tell_missing(self) -> None:
        """Tensors that some model lacks: kept as the leading model has them, if the recipe says so."""
        keep = self.recipe.on_missing is OnMissing.KEEP
        for (lead, model), names in sorted(self.found.missing.items()):
            self._tell_one(names, (lead, model), "kept as they are", keep=keep)
        for model, names in sorted(self._unused().items()):
            self._tell_one(names, (model, 0), "left out", keep=keep)

    def _tell_one(self, names: Sequence[str], between: tuple[int, int], done: str, *, keep: bool) -> None:
        owner, other = (self.sources[model] for model in between)
        tell_absent(self.worked.notes, self.found.problems, names, (owner, other), done, tolerated=keep)

    def _unused(self) -> dict[int, list[str]]:
        """Tensors that a model has in the layers which a merged slice takes of it, and that go nowhere."""
        found: dict[int, list[str]] = {}
        for run in (run for run in self.stack.runs if len(run.operands) > 1):
            for part, inputs in zip(run.operands, run.inputs, strict=True):
                taken = {layer_of(name) for name in inputs}
                known = {*self.used[part.model], *self.orders[0].names, *self.orders[part.model].ignored}
                found.setdefault(part.model, []).extend(
                    name
                    for name in self.orders[part.model].names
                    if name in self.sources[part.model].specs and name not in known and layer_of(name) in taken
                )
        return {model: list(dict.fromkeys(names)) for model, names in found.items() if names}


def _span(start: int, stop: int) -> str:
    return str(start) if stop - start == 1 else f"{start} to {stop - 1}"


def _shown(call: Call, method: Method) -> str:
    """The numbers of a call that are not the defaults, for people."""
    texts = [f"{name} {_short(call.each(name))}" for name in call.per_model]
    for parameter in method.parameters:
        value = call.values.get(parameter.name)
        if value is not None and value != parameter.default and parameter.kind == "number":
            texts.append(f"{parameter.name} {float(value):.4g}")
    return ", ".join(texts)


def _numbers(call: Call, method: Method) -> Numbers:
    """All numbers of a call by parameter: one for each model, or one for all."""
    found: dict[str, tuple[float, ...]] = {name: tuple(call.each(name)) for name in call.per_model}
    for parameter in method.parameters:
        value = call.values.get(parameter.name)
        if value is not None and parameter.kind == "number":
            found[parameter.name] = (float(value),)
    return tuple(found.items())


def _short(values: Sequence[float]) -> str:
    texts = [f"{value:.4g}" for value in values]
    return texts[0] if len(set(texts)) == 1 else "/".join(texts)
