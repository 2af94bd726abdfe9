"""config.json of the result: the first model's, changed only where the result is something else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from blockmerge.architectures import layers_key, num_layers
from blockmerge.dtypes import DType
from blockmerge.sources import SmallFile, Source
from blockmerge.vocabularies import Vocabulary

__all__ = ["config_of", "spelled"]

_LAYER_LISTS: Final = {
    "mlp_only_layers",
    "attn_layer_indices",
    "full_attn_idxs",
    "attention_layers_idx",
    "cross_attention_layers",
}
"""Lists that hold the numbers of layers, where others hold an entry for each layer."""


def config_of(
    sources: Sequence[Source],
    *,
    dtype: DType,
    untied: bool,
    layers: Sequence[tuple[int, int]] | None,
    vocabulary: Vocabulary | None,
) -> dict[str, Any]:
    """The first model's config with what is different in the result.

    :param dtype: what most weights are stored in.
    :param untied: the result stores apart what the first model ties.
    :param layers: for each layer of the result the number of the model it is from and the layer there, if chosen anew.
    :param vocabulary: the common one, if a recipe asks for it.
    """
    config: dict[str, Any] = json.loads(json.dumps(dict(sources[0].config)))
    if config.get("dtype", config.get("torch_dtype")) != dtype.name:
        _set_dtype(config, dtype)
    if untied:
        config["tie_word_embeddings"] = False
    if layers is not None:
        _set_layers(config, sources, layers)
    if vocabulary is not None and not vocabulary.unchanged:
        _set_rows(config, vocabulary.size)
        _set_tokens(config, sources[vocabulary.source].config)
    return config


def spelled(config: Mapping[str, Any], first: Source) -> SmallFile:
    """The file: the first model's own bytes where nothing changed."""
    if dict(config) == dict(first.config) and (own := first.files.get("config.json")) is not None:
        return own
    return SmallFile.of(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _set_dtype(config: dict[str, Any], dtype: DType) -> None:
    """Under the key that is there; transformers reads both, older tools only ``torch_dtype``."""
    keys = [key for key in ("dtype", "torch_dtype") if key in config] or ["torch_dtype"]
    config.update(dict.fromkeys(keys, dtype.name))
    for part in config.values():
        if isinstance(part, Mapping) and ("dtype" in part or "torch_dtype" in part):
            _set_dtype(part, dtype)  # pyright: ignore[reportArgumentType, reportUnknownArgumentType]


def _set_rows(config: dict[str, Any], rows: int) -> None:
    """``vocab_size``, wherever a config that counts rows has it."""
    text = config.get("text_config")
    if isinstance(text, dict) and "vocab_size" in text:
        text["vocab_size"] = rows
    if "vocab_size" in config or not isinstance(text, dict):
        config["vocab_size"] = rows


def _set_tokens(config: dict[str, Any], lead: Mapping[str, Any]) -> None:
    """The numbers of special tokens, from the model whose tokenizer the result has."""
    for key in [key for key in {**config, **lead} if key.endswith("_token_id")]:
        config.pop(key, None)
        if key in lead:
            config[key] = lead[key]


def _set_layers(config: dict[str, Any], sources: Sequence[Source], layers: Sequence[tuple[int, int]]) -> None:
    """The number of layers, and every list that has an entry for each layer or holds numbers of layers."""
    key = layers_key(config) or "num_hidden_layers"
    inner, _, name = key.rpartition(".")
    target = cast("dict[str, Any]", config[inner]) if inner else config
    for listed in [listed for listed, value in target.items() if isinstance(value, list)]:
        own = [_list_in(source, inner, listed) for source in sources]
        if listed in _LAYER_LISTS:
            target[listed] = [k for k, (model, layer) in enumerate(layers) if layer in (own[model] or ())]
        elif all(_counts_layers(sources[model], own[model]) for model, _ in layers):
            target[listed] = [cast("list[Any]", own[model])[layer] for model, layer in layers]
    target[name] = len(layers)


def _list_in(source: Source, inner: str, name: str) -> list[Any] | None:
    part: Any = source.config.get(inner) if inner else source.config
    value: Any = cast("dict[str, Any]", part).get(name) if isinstance(part, Mapping) else None
    return cast("list[Any]", value) if isinstance(value, list) else None


def _counts_layers(source: Source, value: list[Any] | None) -> bool:
    """Whether a list has an entry for each layer of the model."""
    return value is not None and len(value) == num_layers(source.config)
