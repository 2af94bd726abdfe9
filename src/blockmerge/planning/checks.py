"""Whether two models can be blended at all, and what about them differs in meaning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from blockmerge import dtypes
from blockmerge.errors import BlockmergeError, MismatchError, ModelError, listed
from blockmerge.formats.jsonfile import parse_object
from blockmerge.recipes import Curve
from blockmerge.sources import SmallFile, Source
from blockmerge.tensors import TensorSpec

__all__ = [
    "architecture",
    "blendable",
    "common_rows",
    "differences",
    "explain_sizes",
    "incompatible",
    "nothing_selected",
    "tell_absent",
    "unusable",
]

_QUANTISED_SUFFIXES: Final = (
    ".weight_scale", ".weight_scale_inv", ".qweight", ".qzeros", ".absmax", ".quant_map", ".SCB", "_scales",
    ".weight_packed", ".input_scale", ".scale_weight", "scaled_fp8",
)  # fmt: skip
_IGNORED_KEYS: Final = {
    "_name_or_path", "_attn_implementation_autoset", "architectures", "dtype", "model_type", "tie_word_embeddings",
    "torch_dtype", "transformers_version", "use_cache", "vocab_size",
}  # fmt: skip
"""Differences in these say nothing, or are handled where they matter."""
_SIZES: Final = {
    "hidden_size": "width", "n_embd": "width", "num_hidden_layers": "layers", "n_layer": "layers",
    "intermediate_size": "MLP width", "num_attention_heads": "heads", "num_key_value_heads": "key-value heads",
    "num_local_experts": "experts", "num_experts": "experts",
}  # fmt: skip
_NEVER: Final = object()


def common_rows(specs: Sequence[TensorSpec], *, by_token: bool) -> int | None:
    """The leading rows that all of ``specs`` have; None if their shapes differ in another way.

    Only tensors with a row for each token (``by_token``) may have more of them in one model than in another.
    """
    shapes = [spec.shape for spec in specs]
    if len(set(shapes)) > 1 and not (by_token and all(shapes) and len({shape[1:] for shape in shapes}) == 1):
        return None
    return min(shape[0] if shape else 1 for shape in shapes)


def architecture(source: Source) -> str:
    """The class name in config.json, or its model_type, or ``unknown``."""
    named: object = source.config.get("architectures")
    first = named[0] if isinstance(named, list) and named else source.config.get("model_type")  # pyright: ignore[reportUnknownVariableType]
    return first if isinstance(first, str) and first.isidentifier() else "unknown"


def unusable(source: Source) -> Iterator[BlockmergeError]:
    """Why ``source`` alone cannot be merged: quantised, or in a format that no blend reads."""
    if reason := _quantisation(source):
        yield ModelError(
            f"{source.label}: is quantised ({reason}); blending its codes would give garbage. "
            "Use the unquantised checkpoint, or load it with transformers, dequantise and save"
        )
        return
    packed = [spec for spec in source.specs.values() if spec.dtype.floating and spec.dtype.bits < 16]
    if packed:
        yield ModelError(
            f"{source.label}: {packed[0].name} is {packed[0].dtype}; blends read float8 and 16, 32 and 64 bits"
        )


def _quantisation(source: Source) -> str | None:
    settings: object = source.config.get("quantization_config")
    if isinstance(settings, Mapping):
        return f"config.json says {settings.get('quant_method', 'so')}"  # pyright: ignore[reportUnknownMemberType]
    marked = next((name for name in source.specs if name.endswith(_QUANTISED_SUFFIXES)), None)
    if marked is None:
        marked = min(_scales_of_float8(source), default=None)
    return f"it holds {marked}" if marked else None


def _scales_of_float8(source: Source) -> Iterator[str]:
    """Tensors beside weights of 8 bits that tell by what these are to be multiplied."""
    weights = {name for name, spec in source.specs.items() if spec.home is not None and spec.home.bits == 8}
    modules = {name.rpartition(".")[0] for name in weights}
    for name in source.specs.keys() - weights:
        module, _, last = name.rpartition(".")
        if "scale" in last and module in modules:
            yield name


def incompatible(first: Source, second: Source) -> Iterator[BlockmergeError]:
    """Why the two do not go together as architectures."""
    one, two = architecture(first), architecture(second)
    if one != two:
        yield MismatchError(
            f"{first.label} is a {one}, {second.label} a {two}; only finetunes of one architecture can be blended"
        )


def explain_sizes(first: Source, second: Source) -> str:
    """The nearest explanation for shapes that differ: which sizes in the configs do."""
    found = [
        f"{first.config[key]} {word} against {second.config[key]}"
        for key, word in _SIZES.items()
        if key in first.config and key in second.config and first.config[key] != second.config[key]
    ]
    if found:
        return f"{second.label} is another size of the family: " + ", ".join(found)
    return "the configs agree in size, so one checkpoint does not match its own config"


def tell_absent(
    notes: list[str],
    problems: list[BlockmergeError],
    names: Sequence[str],
    between: tuple[Source, Source],
    done: str,
    *,
    tolerated: bool,
) -> None:
    """Note, or if that is not ``tolerated`` refuse, tensors of the first of two models that the second lacks.

    ``done`` is what becomes of them.
    """
    owner, other = between
    counted = f"{len(names)} tensors of {owner.label} are" if len(names) != 1 else f"a tensor of {owner.label} is"
    text = f"{counted} not in {other.label}: {listed(names)}"
    if tolerated:
        notes.append(f"{text}; {done}")
    else:
        problems.append(MismatchError(f"{text}; on_missing: keep (--on-missing keep) goes on without merging them"))


def differences(first: Source, second: Source, *, by_token: bool = False) -> Iterator[str]:
    """Settings that differ and change what a model does, a line each. Model 1's stand.

    ``by_token``: tokenizers are joined, and what differs between them is told elsewhere.
    """
    one, two = _flat(first.config), _flat(second.config)
    for key in sorted(one.keys() | two.keys()):
        a, b = one.get(key, _NEVER), two.get(key, _NEVER)
        if key.rpartition(".")[2] in _IGNORED_KEYS or a == b or (_NEVER in (a, b) and (a or b) is None):
            continue
        yield f"config: {key} is {_shown(a)} in {first.label}, {_shown(b)} in {second.label}; model 1's stands"
    if not by_token:
        yield from _tokenizer_differences(first, second)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config as dotted keys."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and len(prefix) < 100:
            found |= _flat(value, f"{prefix}{key}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            found[prefix + key] = value
    return found


def _shown(value: object) -> str:
    if value is _NEVER:
        return "absent"
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _tokenizer_differences(first: Source, second: Source) -> Iterator[str]:
    for names, what in (
        (("tokenizer.json", "tokenizer.model", "vocab.json"), "tokenizers differ; rows are blended by their number"),
        (("chat_template.jinja",), "chat templates differ"),
        (("special_tokens_map.json",), "special tokens differ"),
    ):
        name = next((name for name in names if name in first.files), None)
        if name and name in second.files and _digest(first.files[name]) != _digest(second.files[name]):
            yield f"{name}: the {what}; model 1's stands"
    if (one := _inline_template(first)) != (two := _inline_template(second)) and None not in (one, two):
        yield "tokenizer_config.json: the chat templates differ; model 1's stands"


def _digest(file: SmallFile) -> str | None:
    try:
        return hashlib.sha256(file.read()).hexdigest()
    except ModelError:
        return None


def _inline_template(source: Source) -> object:
    try:
        file = source.files.get("tokenizer_config.json")
        return None if file is None else parse_object(file.read(), "tokenizer_config.json").get("chat_template")
    except ModelError:
        return None


def blendable(dtype: dtypes.DType) -> bool:
    """Whether a blend can read it; everything else is copied from model 1."""
    return dtype in (*dtypes.OUTPUT_DTYPES, dtypes.F64)


def nothing_selected(curve: Curve, names: Sequence[str]) -> str:
    """That ``curve`` selects none of the tensors ``names``, with the words in them that are nearest to its filters."""
    parts = dict.fromkeys(part for name in names for part in name.split("."))
    near = [match for text in curve.selection.filters for match in get_close_matches(text, parts, 1)]
    hint = f"did you mean {listed(near)}?" if near else "`blockmerge inspect` lists them"
    return f"{_condition(curve)}: selects none of the {len(names)} tensors; {hint}"


def _condition(curve: Curve) -> str:
    """Where a curve was written, and what a tensor has to be to be covered by it."""
    selection = curve.selection
    filters = f" with {' or '.join(map(repr, selection.filters))} in their names" if selection.filters else ""
    only = f" of {selection.only.value}" if selection.only else ""
    layers = " in layers {}:{}".format(*selection.layers) if selection.layers else ""
    told = f"{only}{layers}{filters}"
    return f"{curve.origin}, for tensors{told}" if told else curve.origin
