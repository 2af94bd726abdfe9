"""The dialect of mergekit: its YAML files as they are.

    merge_method: ties
    base_model: org/base
    models:
      - model: org/code
        parameters: {weight: 1.0, density: [1, 0.7, 0.1]}
      - model: org/prose
        parameters: {weight: [{filter: mlp, value: 0.5}, {value: 0}], density: 0.5}
    parameters: {normalize: true}
    dtype: float16

They mean what mergekit's documents say. Where mergekit 0.1.5 computes something else, its documents win, unless the
file says ``variant: mergekit-0.1.5``; docs/recipes.md lists the differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from blockmerge import dtypes
from blockmerge.methods import METHODS, Method
from blockmerge.recipes import tokens
from blockmerge.recipes.document import Document, Node
from blockmerge.recipes.mergekit_methods import BASELESS, HARMLESS, METHOD_PARAMETERS, REPAIRED
from blockmerge.recipes.methods import INPUTS, check_count, check_layers, check_required, chosen, gathered
from blockmerge.recipes.recipe import Curve, Part, Reading, Recipe, Setting, Slice
from blockmerge.recipes.references import References
from blockmerge.recipes.settings import Settings, joined, read_setting
from blockmerge.vocabularies import TokenizerChoice, TokenSource

__all__ = ["KEYS", "MODEL_KEYS", "MODULE_KEYS", "SLICE_KEYS", "SOURCE_KEYS", "VARIANTS", "read"]

KEYS = {
    "merge_method": True,
    **dict.fromkeys(("name", *INPUTS, "base_model", "parameters", "dtype", "out_dtype"), False),
    **dict.fromkeys(("tokenizer_source", "tokenizer", "chat_template", "variant"), False),
}
MODEL_KEYS = {"model": True, "parameters": False}
SOURCE_KEYS = {"model": True, "layer_range": True, "parameters": False}
SLICE_KEYS = {"sources": True, "base_model": False, "parameters": False}
MODULE_KEYS = {"models": False, "slices": False, "parameters": False}
VARIANTS = ("documented", Reading.MERGEKIT.value)
_GONE = {
    "input_model_parameters": "is gone from mergekit; give each model its parameters: "
    "models: [{model: ..., parameters: {...}}]",
    "residual_weight": "has no effect in mergekit 0.1.5; take it out",
}


class _Source(NamedTuple):
    """A model's own settings, its layers, and where these stand."""

    settings: Settings
    layers: tuple[int, int] | None
    origin: str


@dataclass(frozen=True, slots=True)
class _Level:
    """What holds around a list of models: the base, if one is named, and the settings given so far."""

    method: Method
    references: References
    base: str | None = None
    settings: Settings = field(default_factory=dict[str, Setting])
    module: str = ""

    @property
    def wants_base(self) -> bool:
        """Whether the base is more to the method than the lender of config and tokenizer."""
        return self.base is not None and self.method.name not in BASELESS

    def within(self, fields: Mapping[str, Node], module: str = "") -> _Level:
        """The level inside this one that ``fields`` describe."""
        return replace(
            self,
            base=_reference(fields["base_model"]) if "base_model" in fields else self.base,
            settings=joined(_settings(fields.get("parameters"), self.method), self.settings),
            module=module or self.module,
        )


def read(document: Document) -> Recipe:
    """The recipe that ``document`` holds. Raises :class:`RecipeError`, or several at once."""
    root = document.root
    fields = _fields(root, KEYS)
    method = _method(fields)
    exact = "variant" in fields and chosen(fields["variant"], VARIANTS) == Reading.MERGEKIT
    if method is None:
        _check_keys(fields)
        document.check()
        raise AssertionError("a recipe without a method is a problem")
    references = References()
    level = _Level(method, references).within(fields)
    pieces = _pieces(root, fields, level)
    pieces = [replace(piece, settings=joined(piece.settings, _defaults(method))) for piece in pieces]
    check_required(root, pieces, method)
    recipe = Recipe(
        models=(),
        method=method.name,
        slices=tuple(pieces),
        choices=_variant(method, exact=exact),
        by=Reading.MERGEKIT if exact else Reading.LAYER,
        dtype=_dtype(fields),
        tokenizer=_tokenizer(fields, references),
        chat_template=fields["chat_template"].text() if "chat_template" in fields else None,
        dialect="mergekit",
    )
    document.check()
    return replace(recipe, models=tuple(references.names))


def _fields(node: Node, known: Mapping[str, bool]) -> dict[str, Node]:
    """The entries of a mapping; what is given as nothing counts as not given, and what is gone is explained."""
    fields = node.fields(known, _GONE)
    for key in [key for key, value in fields.items() if value.is_null]:
        if known[key]:
            fields[key].problem("is empty")
        del fields[key]
    return fields


def _check_keys(fields: Mapping[str, Node]) -> None:
    """What can be said about a recipe whose method is not known."""
    for item in fields["models"].items() if "models" in fields else ():
        _model(item, MODEL_KEYS)
    for item in fields["slices"].items() if "slices" in fields else ():
        _fields(item, SLICE_KEYS)
    _dtype(fields)


def _method(fields: Mapping[str, Node]) -> Method | None:
    known = [name for name in METHOD_PARAMETERS if name in METHODS]
    return METHODS.get(chosen(fields["merge_method"], known)) if "merge_method" in fields else None


def _reference(node: Node) -> str:
    """A model as one text: ``path@revision+lora@revision``; mergekit also takes the pieces as a mapping."""
    if not node.is_mapping:
        return node.text()
    fields = _fields(node, {"model": True, "lora": False, "override_architecture": False})
    if "override_architecture" in fields:
        fields["override_architecture"].problem("cannot be overridden: layers are found by the names of tensors")
    return "+".join(_path(fields[key]) for key in ("model", "lora") if key in fields)


def _path(node: Node) -> str:
    if not node.is_mapping:
        return node.text()
    fields = _fields(node, {"path": True, "revision": False})
    return "@".join(fields[key].text() for key in ("path", "revision") if key in fields)


def _pieces(node: Node, fields: Mapping[str, Node], level: _Level) -> list[Slice]:
    """The slices that one of ``models``, ``slices`` and ``modules`` in ``fields`` describes."""
    if level.base is not None and not level.references.names:
        level.references.number(level.base)
    return gathered(
        node,
        fields,
        models=lambda inputs: _slice(inputs, MODEL_KEYS, level),
        slices=lambda item: _sliced(item, level),
        modules=lambda name, item: _module(name, item, level),
        inside=bool(level.module),
    )


def _model(node: Node, keys: Mapping[str, bool]) -> dict[str, Node]:
    if node.is_mapping:
        return _fields(node, keys)
    node.problem("needs keys and values, like {model: org/name}")
    return {}


def _sliced(node: Node, level: _Level) -> list[Slice]:
    fields = _fields(node, SLICE_KEYS)
    return [_slice(fields["sources"], SOURCE_KEYS, level.within(fields))] if "sources" in fields else []


def _module(name: str, node: Node, level: _Level) -> list[Slice]:
    fields = _fields(node, MODULE_KEYS)
    return _pieces(node, fields, level.within(fields, name))


def _sources(node: Node, keys: Mapping[str, bool], method: Method) -> dict[str, _Source]:
    """The models in a list, each with its own settings and its layers."""
    found: dict[str, _Source] = {}
    for item in node.items():
        fields = _model(item, keys)
        if not item.is_mapping:
            found[item.where] = _Source({}, None, "")  # counts as a model
            continue
        reference = _reference(fields["model"]) if "model" in fields else ""
        if reference in found:
            item.problem(f"{reference} is given twice")
        own, layers = _settings(fields.get("parameters"), method, own=True), fields.get("layer_range")
        place = item.place if layers is None else layers.place
        found[reference] = _Source(own, None if layers is None else _layers(layers), place)
    return found


def _slice(node: Node, keys: Mapping[str, bool], level: _Level) -> Slice:
    """One slice of whole models or of layers. The base, where a method has one, may stand among its models."""
    method, settings = level.method, level.settings
    found = _sources(node, keys, method)
    if not level.references.names and found:
        level.references.number(next(iter(found)))
    if level.wants_base and level.base not in found and keys is SOURCE_KEYS:
        node.problem(f"{level.base} is the base and must be one of the sources, with its layers")
    base = _base(node, found, level)
    parts = [
        Part(level.references.number(reference), *source)
        for reference, source in found.items()
        if base is None or reference != level.base
    ]
    check_layers(node, [*parts, *([] if base is None else [base])])
    if method.name == "slerp" and base is not None:  # ours goes from the first model to the second
        parts, base = [base, *parts], None
    if method.name == "passthrough" and len(parts) == 1:  # ours has one scale, as there is one model
        settings = joined(parts[0].settings, settings)
        parts = [replace(parts[0], settings={})]
    check_count(node, method, len(parts))
    return Slice(tuple(parts), base, settings, level.module)


def _base(node: Node, found: Mapping[str, _Source], level: _Level) -> Part | None:
    if level.base is not None and level.wants_base:
        own = found.get(level.base, _Source({}, None, ""))
        return Part(level.references.number(level.base), {}, own.layers, own.origin)
    if level.method.base == "required" or level.method.name == "slerp":
        node.problem(f"{level.method.name} needs a base_model")
    return None


def _layers(node: Node) -> tuple[int, int] | None:
    ends = [item.whole() for item in node.items()]
    if len(ends) != 2 or not 0 <= ends[0] < ends[1]:
        node.problem(f"{ends} is no range of layers; [0, 20] means layers 0 to 19")
        return None
    return ends[0], ends[1]


def _settings(node: Node | None, method: Method, *, own: bool = False) -> dict[str, Setting]:
    """The settings in ``node``; those of one model, if they are its ``own``."""
    if node is None:
        return {}
    scopes = METHOD_PARAMETERS[method.name]
    known = {name: False for name in scopes if method.parameter(name) is not None}
    harmless = HARMLESS.get(method.name, ())
    fields = node.fields(
        known | dict.fromkeys(harmless, False), shown=known, why=f"{method.name} has no such parameter"
    )
    settings: dict[str, Setting] = {}
    for name, value in fields.items():
        parameter = method.parameter(name)
        if parameter is None or value.is_null:
            continue
        if own and scopes[name].shared:
            value.problem(f"{name} holds for all models; give it under the parameters of the recipe or the slice")
        settings[name] = read_setting(value, parameter, blocks=False)
    return settings


def _defaults(method: Method) -> dict[str, Setting]:
    """mergekit's defaults where ours are others."""
    found: dict[str, Setting] = {}
    for name, scope in METHOD_PARAMETERS[method.name].items():
        parameter = method.parameter(name)
        if parameter is not None and scope.default is not None and scope.default != parameter.default:
            found[name] = (Curve((float(scope.default),), origin="mergekit's default"),)
    return found


def _variant(method: Method, *, exact: bool) -> dict[str, str]:
    """The choice of mergekit's way where it is documented, or where its every bit is wanted."""
    parameter = method.parameter("variant")
    wanted = parameter is not None and "mergekit" in parameter.choices and (exact or method.name not in REPAIRED)
    return {"variant": "mergekit"} if wanted else {}


def _dtype(fields: Mapping[str, Node]) -> str | None:
    names = [_dtype_name(fields[key]) for key in ("out_dtype", "dtype") if key in fields]
    return names[0] if names else None


def _dtype_name(node: Node) -> str:
    name = node.text().removeprefix("torch.")
    if dtypes.by_name(name) not in dtypes.OUTPUT_DTYPES:
        node.problem(f"{name!r} cannot be written; choose bfloat16, float16 or float32")
    return name


def _tokenizer(fields: Mapping[str, Node], references: References) -> TokenizerChoice | None:
    source, full = fields.get("tokenizer_source"), fields.get("tokenizer")
    if source is not None and full is not None:
        source.problem("and tokenizer exclude each other; put it into tokenizer: {source: ...}")
    if full is not None:
        return tokens.read_tokenizer(full, references, _row)
    return None if source is None else tokens.chosen_in(source, _reference(source), references)


def _row(node: Node, references: References) -> TokenSource:
    """Where the row of a token comes from: a model, or a mapping with a ``kind``."""
    if "kind" not in node:
        return TokenSource(references.number(_reference(node)))
    fields = _fields(node, {"kind": True, "model": False, "token": False, "token_id": False})
    kind = chosen(fields["kind"], ("model_token", "zero")) if "kind" in fields else ""
    if kind != "model_token":
        return TokenSource(zero=True)
    if "model" not in fields or not ("token" in fields or "token_id" in fields):
        node.problem("needs a model, and a token or a token_id")
    reference = _reference(fields["model"]) if "model" in fields else ""
    return tokens.row_of_token(node, fields, references.number(reference))
