"""Native recipes of the methods that take any number of models.

method: task_arithmetic
base: org/base
models:
  - {model: org/code, weight: 0.6}
  - {model: org/prose, weight: [0.2, 0.8]}          # a gradient
  - {model: org/chat, weight: {attention: 0.3, all: 0.5}}
lambda: 1.1                                         # settings of the method
by: layer                                           # ... and the keys of every recipe

Instead of ``models``, ``slices`` build the result from runs of layers, and ``modules`` hold either for each part of a
composite model. What an inner level says comes before what an outer one says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from blockmerge.methods import METHODS, Method, Parameter
from blockmerge.recipes import common
from blockmerge.recipes.document import Document, Node
from blockmerge.recipes.recipe import Part, Recipe, Setting, Slice
from blockmerge.recipes.references import References
from blockmerge.recipes.settings import Settings, joined, read_settings, spelled
from blockmerge.recipes.values import parse_layers, unknown

__all__ = ["INPUTS", "KEYS", "check_count", "check_layers", "chosen", "gathered", "read", "to_dict"]

KEYS = ("method", "base", "donor", "seed", *common.KEYS)
"""Keys that every recipe of these methods may have."""
INPUTS = ("models", "slices", "modules")
"""... and those of which it has one."""


@dataclass(frozen=True, slots=True)
class _Level:
    """What holds around a list of models: the base, if one is named, and the settings given so far."""

    method: Method
    references: References
    base: Node | None = None
    settings: Settings = field(default_factory=dict[str, Setting])
    module: str = ""

    @property
    def own(self) -> list[str]:
        """Parameters that may be set at any level."""
        return [parameter.name for parameter in self.method.parameters if parameter.kind != "choice"]

    def within(self, fields: Mapping[str, Node], module: str | None = None) -> _Level:
        """The level inside this one that ``fields`` describe."""
        if "base" in fields and self.method.base == "none":
            fields["base"].problem(f"{self.method.name} has no base")
            fields = {key: node for key, node in fields.items() if key != "base"}
        return replace(
            self,
            base=fields.get("base", self.base),
            settings=joined(read_settings(fields, self.method.parameters), self.settings),
            module=self.module if module is None else module,
        )


def read(document: Document, method: Method) -> Recipe:
    """The recipe that ``document`` holds for ``method``. Raises :class:`RecipeError`, or several at once."""
    own = [parameter.name for parameter in method.parameters]
    fields = document.root.fields(dict.fromkeys((*KEYS, *INPUTS, *own), False))
    references = References()
    if "donor" in fields:
        references.number(fields["donor"].text())
    if "base" in fields and method.base != "none" and not fields["base"].is_mapping:
        references.number(fields["base"].text())
    pieces = _pieces(document.root, fields, _Level(method, references).within(fields), layered=False)
    if not document.problems:  # what is misspelt is not missing besides
        check_required(document.root, pieces, method)
    recipe = Recipe(
        models=(),
        method=method.name,
        slices=tuple(pieces),
        choices=_choices(fields, method),
        seed=fields["seed"].whole() if "seed" in fields else 0,
        **common.read(fields, references),
    )
    document.check()
    return replace(recipe, models=tuple(references.names))


def _pieces(node: Node, fields: Mapping[str, Node], level: _Level, *, layered: bool) -> list[Slice]:
    return gathered(
        node,
        fields,
        models=lambda inputs: _slice(node, inputs, level, layered=layered),
        slices=lambda item: _sliced(item, level),
        modules=lambda name, item: _module(name, item, level),
        inside=bool(level.module),
    )


def gathered(
    node: Node,
    fields: Mapping[str, Node],
    *,
    models: Callable[[Node], Slice],
    slices: Callable[[Node], Sequence[Slice]],
    modules: Callable[[str, Node], Sequence[Slice]],
    inside: bool,
) -> list[Slice]:
    """The slices that one of ``models``, ``slices`` and ``modules`` in ``fields`` describes, each read by its function.

    ``inside`` a module there are no others.
    """
    given = [key for key in INPUTS if key in fields]
    if len(given) != 1:
        others = "slices" if inside else "slices or modules"
        node.problem(f"{' and '.join(given)} exclude each other" if given else f"models is missing (or {others})")
    found: list[Slice] = []
    if "models" in fields:
        found.append(models(fields["models"]))
    if "slices" in fields:
        found += [piece for item in fields["slices"].items() for piece in slices(item)]
    if "modules" in fields:
        found += [piece for name, item in fields["modules"].pairs() for piece in modules(name, item)]
    if not found and not node.has_problems:
        fields[given[0]].problem("is empty")
    return found


def _sliced(node: Node, level: _Level) -> list[Slice]:
    fields = node.fields({"models": True, **dict.fromkeys(("base", *level.own), False)})
    return _pieces(node, fields, level.within(fields), layered=True) if "models" in fields else []


def _module(name: str, node: Node, level: _Level) -> list[Slice]:
    fields = node.fields(dict.fromkeys(("models", "slices", "base", *level.own), False))
    return _pieces(node, fields, level.within(fields, name), layered=False)


def _slice(node: Node, inputs: Node, level: _Level, *, layered: bool) -> Slice:
    """One slice of ``inputs``, a list of models; their layers may be named if it is ``layered``."""
    base = None if level.base is None else _part(level.base, level, (), layered=layered)
    if base is None and level.method.base == "required":
        node.problem("base is missing")
    own = [p for p in level.method.parameters if p.per_model and p.kind != "choice"]
    items = inputs.items()
    parts = [_part(item, level, own, layered=layered) for item in items]
    if base is not None and base.layers is None:
        ranges = {part.layers for part in parts}
        if len(ranges) == 1:
            base = replace(base, layers=parts[0].layers, origin=parts[0].origin)
        elif ranges:
            node.problem("needs the layers of the base too: base: {model: ..., layers: ...}")
    check_count(inputs, level.method, len(parts))
    check_layers(inputs, [*parts, *([] if base is None else [base])])
    return Slice(tuple(parts), base, level.settings, level.module)


def _part(node: Node, level: _Level, own: Sequence[Parameter], *, layered: bool) -> Part:
    if not node.is_mapping:
        return Part(level.references.number(node.text()))
    keys = [parameter.name for parameter in own] + (["layers"] if layered else [])
    fields = node.fields({"model": True, **dict.fromkeys(keys, False)})
    reference = fields["model"].text() if "model" in fields else ""
    number, layers = level.references.number(reference), fields.get("layers")
    return Part(number, read_settings(fields, own), _layers(layers), node.place if layers is None else layers.place)


def _layers(node: Node | None) -> tuple[int, int] | None:
    return None if node is None else node.attempt(lambda: parse_layers(node.text(), node.where), None)


def check_count(node: Node, method: Method, count: int) -> None:
    """Whether ``method`` takes ``count`` models besides the base."""
    low, high = method.models
    if not low <= count <= (high or count):
        wanted = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
        noun = "model" if wanted == "1" else "models"
        node.problem(
            f"{method.name} takes {wanted} {noun}{' beside the base' * (method.base == 'required')}, not {count}"
        )


def check_required(root: Node, pieces: Sequence[Slice], method: Method) -> None:
    """Note parameters without a default that some model is not given."""
    for parameter in [parameter for parameter in method.parameters if parameter.default is None]:
        name = parameter.name
        if any(
            name not in piece.settings and not all(name in part.settings for part in piece.parts) for piece in pieces
        ):
            root.problem(f"{method.name} needs {name}{', for each model or for all' * parameter.per_model}")


def check_layers(node: Node, parts: Sequence[Part]) -> None:
    """Whether all ``parts`` of a slice have as many layers, as far as they say."""
    counts = [part.layers[1] - part.layers[0] for part in parts if part.layers is not None]
    if len(set(counts)) > 1:
        node.problem(f"takes {' and '.join(map(str, counts))} layers of its models; a slice needs as many of each")


def _choices(fields: Mapping[str, Node], method: Method) -> dict[str, str]:
    return {
        parameter.name: chosen(fields[parameter.name], parameter.choices)
        for parameter in method.parameters
        if parameter.kind == "choice" and parameter.name in fields
    }


def chosen(node: Node, choices: Sequence[str]) -> str:
    """The text in ``node``, one of ``choices``."""
    text = node.text()
    if text not in choices:
        node.problem(unknown(text, choices))
    return text


def to_dict(recipe: Recipe, models: Sequence[str]) -> dict[str, Any]:
    """``recipe`` in the words of this dialect, without defaults; ``models`` stand for its inputs."""
    method = METHODS[recipe.method]
    first = recipe.slices[0].base or recipe.slices[0].parts[0]
    modules = {name: list(pieces) for name, pieces in groupby(recipe.slices, lambda piece: piece.module)}
    entries: dict[str, Any] = {
        "method": recipe.method,
        "donor": models[0] if first.model else None,
        **_spelled_inputs(modules, method, models),
        **recipe.choices,
        "seed": recipe.seed or None,
        **common.spelled(recipe, models),
    }
    return {key: value for key, value in entries.items() if value is not None}


def _spelled_inputs(modules: Mapping[str, list[Slice]], method: Method, models: Sequence[str]) -> dict[str, Any]:
    if set(modules) == {""}:
        return _spelled_slices(modules[""], method, models)
    return {"modules": {name: _spelled_slices(pieces, method, models) for name, pieces in modules.items()}}


def _spelled_slices(pieces: Sequence[Slice], method: Method, models: Sequence[str]) -> dict[str, Any]:
    if len(pieces) == 1 and all(part.layers is None for part in _inputs(pieces[0])):
        return _spelled_slice(pieces[0], method, models)
    return {"slices": [_spelled_slice(piece, method, models) for piece in pieces]}


def _inputs(piece: Slice) -> Iterator[Part]:
    if piece.base is not None:
        yield piece.base
    yield from piece.parts


def _spelled_slice(piece: Slice, method: Method, models: Sequence[str]) -> dict[str, Any]:
    base = {} if piece.base is None else {"base": _spelled_part(piece.base, method, models)}
    parts = [_spelled_part(part, method, models) for part in piece.parts]
    return {**base, "models": parts, **spelled(piece.settings, method)}


def _spelled_part(part: Part, method: Method, models: Sequence[str]) -> str | dict[str, Any]:
    layers = {} if part.layers is None else {"layers": "{}:{}".format(*part.layers)}
    words = {**layers, **spelled(part.settings, method)}
    return {"model": models[part.model], **words} if words else models[part.model]
