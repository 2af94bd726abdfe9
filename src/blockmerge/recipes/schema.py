"""JSON Schema of the recipes, made from the declarations, so that an editor knows every word and what it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import isfinite
from typing import Any

from blockmerge.dtypes import OUTPUT_DTYPES
from blockmerge.methods import METHODS, Method, Parameter
from blockmerge.recipes import blockmerge, mergekit
from blockmerge.recipes.mergekit_methods import HARMLESS, METHOD_PARAMETERS
from blockmerge.recipes.methods import INPUTS
from blockmerge.recipes.recipe import Arithmetic, Only, OnMissing, Reading
from blockmerge.recipes.settings import BLOCKS
from blockmerge.recipes.stages import NAME

__all__ = ["DIALECTS", "schema"]

Schema = dict[str, Any]
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_SCIENTIFIC: Schema = {"type": "string", "pattern": r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"}
"""1e-5, which YAML 1.1 takes for text."""
_WHOLE: Schema = {"type": "integer"}
_DTYPES = sorted(dtype.name for dtype in OUTPUT_DTYPES)


class _Definitions:
    """What several places of a schema refer to, by name."""

    def __init__(self) -> None:
        self.known: Schema = {}

    def ref(self, name: str, what: Schema) -> Schema:
        """A reference to ``what``, which is kept under ``name``, or another one if that is taken by something else."""
        free = name
        number = 1
        while self.known.setdefault(free, what) != what:
            number += 1
            free = f"{name}-{number}"
        return {"$ref": f"#/$defs/{free}"}


def schema(dialect: str | None = None) -> Schema:
    """The JSON Schema (draft 2020-12) of one of :data:`DIALECTS`, or of any recipe."""
    defs = _Definitions()
    body = DIALECTS[dialect](defs) if dialect is not None else _any(defs)
    title = "Recipes of Blockmerge" + (f", dialect {dialect}" if dialect else "")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **body, "$defs": defs.known}


def _any(defs: _Definitions) -> Schema:
    choice = _if_has("model_path1", _blockmerge(defs), _native(defs))
    return _if_has("merge_method", _mergekit(defs), choice)


def _if_has(key: str, then: Schema, otherwise: Schema) -> Schema:
    return {"type": "object", "if": {"required": [key]}, "then": then, "else": otherwise}


def _object(properties: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    needed = list(required)
    closed: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return closed | ({"required": needed} if needed else {})


def _enum(choices: type[StrEnum], default: StrEnum) -> Schema:
    return {"enum": [choice.value for choice in choices], "default": default.value}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def _or_list(items: Schema) -> Schema:
    return {"anyOf": [items, _list(items)]}


def _about(what: Schema, text: str) -> Schema:
    return {**what, "description": text}


# --- settings of methods


def _value(parameter: Parameter) -> Schema:
    if parameter.kind == "flag":
        return {"enum": [True, False, 0, 1]}
    bounds = {"minimum": parameter.low, "maximum": parameter.high}
    return {"anyOf": [{"type": "number", **{k: v for k, v in bounds.items() if isfinite(v)}}, _SCIENTIFIC]}


def _setting(defs: _Definitions, parameter: Parameter, *, blocks: bool) -> Schema:
    """A number or flag, a list of them, or entries for parts of the model."""
    if parameter.kind == "choice":
        found: Schema = {"enum": list(parameter.choices)}
    else:
        values = defs.ref(f"{parameter.name}.values", _or_list(_value(parameter)))
        filters = _or_list(_TEXT) if blocks else {"type": ["string", "null"]}
        parts = {"filter": filters} | ({"block": {"enum": list(BLOCKS)}} if blocks else {})
        entry = _object({"value": values, **parts}, ["value"])
        by_block = [_object(dict.fromkeys(("all", *BLOCKS), values)) | {"minProperties": 1}] if blocks else []
        found = {"anyOf": [values, entry, _list(entry), *by_block]}
    default = {} if parameter.default is None else {"default": parameter.default}
    what = {**found, **default, "description": parameter.help}
    return defs.ref(parameter.name if blocks else f"mergekit.{parameter.name}", what)


# --- native


def _native(defs: _Definitions) -> Schema:
    defs.ref("method.gradient", _gradient(defs))
    for method in METHODS.values():
        defs.ref(f"method.{method.name}", _method(defs, method))
    summaries = {"gradient": "Blend two models by a gradient."} | {m.name: m.summary for m in METHODS.values()}
    return _by_method("method", summaries)


def _by_method(key: str, summaries: Mapping[str, str]) -> Schema:
    """An object whose key names its method, and with that the schema that holds."""
    named = [{"const": name, "description": summary} for name, summary in summaries.items()]
    rules = [
        {
            "if": {"properties": {key: {"const": name}}, "required": [key]},
            "then": {"$ref": f"#/$defs/{key}.{name}"},
        }
        for name in summaries
    ]
    return {"type": "object", "required": [key], "properties": {key: {"oneOf": named}}, "allOf": rules}


def _common(defs: _Definitions) -> dict[str, Schema]:
    words: dict[str, Schema] = {
        "name": _about({**_TEXT, "pattern": NAME}, "What other documents of the file call the result."),
        "by": _about(_enum(Reading, Reading.TENSOR), "How a list of values is laid along the model."),
        "dtype": _about({"enum": _DTYPES}, "What the result is stored in; default the first model's."),
        "on_missing": _about(_enum(OnMissing, OnMissing.ERROR), "Tensors that not all models have."),
        "max_shard_size": _about({"type": ["string", "integer"]}, "Weight files of at most this size, such as 2GB."),
        "tokenizer": _tokenizer({"anyOf": [_TEXT, _row(_TEXT)]}, _TEXT),
        "chat_template": _about(_TEXT, "auto, the name of a known one, or a template."),
    }
    return {word: defs.ref(word, what) for word, what in words.items()}


def _row(model: Schema) -> Schema:
    return _object({"model": model, "token": _TEXT, "token_id": {**_WHOLE, "minimum": 0}}, ["model"])


def _tokenizer(row: Schema, model: Schema) -> Schema:
    token = _object({"source": row, "force": _FLAG})
    full = _object(
        {
            "source": _about(model, "union, base, or a model."),
            "tokens": {"type": ["object", "null"], "additionalProperties": token},
            "pad_to_multiple_of": {"type": ["integer", "null"], "minimum": 1},
        }
    )
    return _about({"anyOf": [_TEXT, full]}, "Whose tokens the result has: union, base, or a model.")


def _gradient(defs: _Definitions) -> Schema:
    numbers = _or_list({"anyOf": [{"type": "number"}, _SCIENTIFIC]})
    curves = _object(dict.fromkeys(("all", *BLOCKS), numbers))
    properties: dict[str, Schema] = {
        "method": {"const": "gradient"},
        "models": {"type": "array", "items": _TEXT, "minItems": 2, "maxItems": 2},
        "values": _about({"anyOf": [*numbers["anyOf"], curves]}, "Model 2's share along the model."),
        "only": _about({"enum": [choice.value for choice in Only]}, "Blend only inside, or outside, the layers."),
        "filters": _about(_or_list(_TEXT), "Blend only tensors with one of these texts in their name."),
        "layers": _layers(),
        "arithmetic": {"enum": [choice.value for choice in Arithmetic], "default": "exact"},
        **_common(defs),
    }
    return _object(properties, ("method", "models", "values"))


def _layers() -> Schema:
    return _about({"type": ["string", "integer"]}, "Layers from and up to, but without, such as 0:20.")


def _method(defs: _Definitions, method: Method) -> Schema:
    settings = {p.name: _setting(defs, p, blocks=True) for p in method.parameters}
    shared = {p.name: settings[p.name] for p in method.parameters if p.kind != "choice"}
    each = {p.name: settings[p.name] for p in method.parameters if p.kind != "choice" and p.per_model}
    whole = defs.ref("model", _part(each, layered=False))
    layered = defs.ref("layers", _part(each, layered=True))
    base = {"base": defs.ref("base", _part({}, layered=True))} if method.base != "none" else {}
    piece = defs.ref("slice", _object({"models": _models(method, layered), **base, **shared}, ["models"]))
    inner = {"models": _models(method, whole), "slices": _list(piece), **base, **shared}
    module = defs.ref("module", _object(inner) | _one_of(("models", "slices")))
    properties: dict[str, Schema] = {
        "method": {"const": method.name},
        "donor": _about(_TEXT, "The model that lends config and tokenizer; default the base, or the first."),
        **inner,
        "modules": {"type": "object", "additionalProperties": module, "minProperties": 1},
        **settings,
        "seed": _about(_WHOLE, "Decides random choices."),
        **_common(defs),
    }
    return _object(properties, ["method"]) | _one_of(("models", "slices", "modules"))


def _one_of(keys: Sequence[str]) -> Schema:
    return {"oneOf": [{"required": [key]} for key in keys]}


def _models(method: Method, part: Schema) -> Schema:
    low, high = method.models
    return {"type": "array", "items": part, "minItems": low} | ({} if high is None else {"maxItems": high})


def _part(settings: Mapping[str, Schema], *, layered: bool) -> Schema:
    layers = {"layers": _layers()} if layered else {}
    return {"anyOf": [_TEXT, _object({"model": _TEXT, **layers, **settings}, ["model"])]}


# --- mergekit


def _mergekit(defs: _Definitions) -> Schema:
    methods = [METHODS[name] for name in METHOD_PARAMETERS if name in METHODS]
    path = _object({"path": _TEXT, "revision": {"type": ["string", "null"]}}, ["path"])
    either = {"anyOf": [_TEXT, path]}
    model = defs.ref("reference", {"anyOf": [_TEXT, _object({"model": either, "lora": _maybe(either)}, ["model"])]})
    known = _mergekit_words(defs, model)
    for method in methods:
        defs.ref(f"merge_method.{method.name}", _merge(defs, method, dict(known)))
    return _by_method("merge_method", {method.name: method.summary for method in methods})


def _mergekit_words(defs: _Definitions, model: Schema) -> dict[str, Schema]:
    """The keys that mean the same for all methods."""
    layers: Schema = {"type": "array", "items": {**_WHOLE, "minimum": 0}, "minItems": 2, "maxItems": 2}
    dtype = defs.ref("mergekit.dtype", _maybe({"enum": [*_DTYPES, *(f"torch.{name}" for name in _DTYPES)]}))
    other = _row(model)
    other["properties"] = {"kind": {"const": "model_token"}, **other["properties"]}
    row = {"anyOf": [model, _object({"kind": {"const": "zero"}}, ["kind"]), other, {"type": "null"}]}
    return {
        "model": model,
        "base_model": _maybe(model),
        "layer_range": _about(layers, "Layers from and up to, but without."),
        "name": _common(defs)["name"],
        "dtype": dtype,
        "out_dtype": dtype,
        "tokenizer_source": _maybe(model),
        "tokenizer": defs.ref("mergekit.tokenizer", _maybe(_tokenizer(row, _TEXT))),
        "chat_template": _maybe(_common(defs)["chat_template"]),
        "variant": {"enum": list(mergekit.VARIANTS)},
    }


def _merge(defs: _Definitions, method: Method, known: dict[str, Schema]) -> Schema:
    harmless: dict[str, Schema] = {name: {"description": "Changes nothing."} for name in HARMLESS.get(method.name, ())}
    scopes = METHOD_PARAMETERS[method.name]
    settings = {p.name: _setting(defs, p, blocks=False) for p in method.parameters if p.name in scopes}
    own = {name: setting for name, setting in settings.items() if not scopes[name].shared}

    def described(keys: Mapping[str, bool], given: Mapping[str, Schema] = settings) -> Schema:
        parameters = defs.ref("parameters", _maybe(_object({**given, **harmless})))
        words = {**known, "parameters": parameters}
        return _object({key: words[key] for key in keys}, [key for key, needed in keys.items() if needed])

    known["merge_method"] = {"const": method.name}
    known["models"] = _maybe(_list(defs.ref("mergekit.model", described(mergekit.MODEL_KEYS, own))))
    known["sources"] = _list(defs.ref("source", described(mergekit.SOURCE_KEYS, own)))
    known["slices"] = _maybe(_list(defs.ref("mergekit.slice", described(mergekit.SLICE_KEYS))))
    module = defs.ref("mergekit.module", described(mergekit.MODULE_KEYS))
    known["modules"] = _maybe({"type": "object", "additionalProperties": module})
    return described(mergekit.KEYS) | {"anyOf": [{"required": [key]} for key in INPUTS]}


def _maybe(what: Schema) -> Schema:
    return {"anyOf": [what, {"type": "null"}]}


# --- BlockMerge_Gradient


def _blockmerge(defs: _Definitions) -> Schema:
    operation: dict[str, Schema] = {
        "operation": _TEXT,
        "filter": {"type": ["string", "null"]},
        "layer_only": _FLAG,
        "no_layers": _FLAG,
        "gradient_values": _about(_or_list({"type": "number"}), "Model 2's share along the tensors."),
    }
    known: dict[str, Schema] = {
        "name": _common(defs)["name"],
        "model_path1": _TEXT,
        "model_path2": _TEXT,
        "output_model_path": _TEXT,
        "max_shard_size": {"type": ["string", "integer"]},
        "operations": _list(_object(operation, ["gradient_values"])),
    }
    return _object(known, [key for key, needed in blockmerge.KEYS.items() if needed])


DIALECTS = {"native": _native, "mergekit": _mergekit, "blockmerge": _blockmerge}
"""What makes the schema of each dialect."""
