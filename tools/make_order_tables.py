"""Regenerate ``src/blockmerge/architectures/orders.json`` from the model classes of the installed transformers.

    python tools/make_order_tables.py                 write the table (some minutes)
    python tools/make_order_tables.py NAME...         print the entries of these classes, write nothing

Every class is built on the meta device, where tensors have no storage, at its default depth; and again with one
setting of its configuration changed at a time, at a depth that still shows every kind of layer. What is kept is not
a list of names but a tree: for each module the order of its own tensors and of its child modules, with layers and
experts folded into ``*``. A tree learned from layers of every kind orders a model of any depth and any mix.

The file holds names and nothing else:

    transformers   the release that it was made from
    model_types    model_type of config.json -> class of its causal language model
    ignored        patterns of names that no longer exist in any model: loading drops them
    renames        [pattern, replacement] that lead from names in old checkpoints to names of modules, for all classes
    architectures  class name ->
        order      the tree. A string lists a module's own tensors; an object its children in order, with the own
                   tensors under the key "". A child that starts with ``+`` exists in checkpoints only: loading fuses
                   what is below it. "=Class a.b" stands for the subtree a.b of another class
        base       path of the bare model, a prefix that its checkpoints may lack
        tied       name -> name whose storage it shares when tie_word_embeddings is on; ``tie`` is the default
        buffers    persistent buffers, folded
        ignored    patterns of names that loading drops silently
        renames    as above, for this class
        stack      path of the decoder's layers, and ``depth``, the keys that lead to their number in config.json
        tail       tensors of the last N layers that loading drops, N being a setting of config.json
        text       [path, model_type] of a language model that config.json may exchange for another
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange, WeightConverter, WeightRenaming
from transformers.models.auto import modeling_auto

TABLE = Path(__file__).parents[1] / "src" / "blockmerge" / "architectures" / "orders.json"
CAUSAL = "MODEL_FOR_CAUSAL_LM_MAPPING"
FAMILIES = (
    CAUSAL,
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
    "MODEL_FOR_MULTIMODAL_LM_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
)

_ROPES = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}

_INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 64,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
}

# Where the default configuration of a class does not build a model.
REPAIRS: dict[str, dict[tuple[str | None, str], Any]] = {
    "CohereCompassForCausalLM": {(None, "rope_parameters"): _ROPES},
    "CohereCompassForConditionalGeneration": {("text_config", "rope_parameters"): _ROPES},
    "Dots1ForCausalLM": {(None, "n_routed_experts"): 4, (None, "n_shared_experts"): 1},
    "HunYuanDenseV1ForCausalLM": {(None, "head_dim"): 128},
    "HunYuanMoEV1ForCausalLM": {(None, "head_dim"): 128},
    "HunYuanVLForConditionalGeneration": {("text_config", "head_dim"): 128},
    "Lfm2MoeForCausalLM": {(None, "layer_types"): ["conv", "full_attention"] * 16},
    "MinistralForCausalLM": {(None, "head_dim"): 128},
    "NemotronForCausalLM": {(None, "num_key_value_heads"): 8},
    "Qwen4ExpForCausalLM": {(None, key): value for key, value in _INDEXER.items()},
    "Qwen4ExpForConditionalGeneration": {("text_config", key): value for key, value in _INDEXER.items()},
}

# Settings whose name does not tell what else they may be.
CHOICES: dict[str, tuple[Any, ...]] = {
    "attn_layer_indices": ([1],),
    "mlp_only_layers": ([0],),
    "norm_type": ("layer_norm", "rms_norm"),
    "num_ln_in_parallel_attn": (1, 2),
    "ple_layer_ids": ([0, 1],),
    "position_embedding_type": ("absolute", "relative_key", "alibi"),
    "topk_method": ("greedy", "group_limited_greedy", "noaux_tc"),
}
# What a list with one word per layer may hold; a class refuses what it does not know.
LAYER_KINDS = (
    "full_attention sliding_attention chunked_attention linear_attention compressed_attention indexed_attention "
    "attention mamba mamba2 hybrid conv recurrent moe mlp dense sparse"
).split()
# Words in the names of counts and sizes that decide which tensors exist.
_TELLING = re.compile(
    r"expert|shared|dense|lora|rank|freq|step|interval|every|offset|period|proj_dim|embed(ding)?_(size|dim)|per_layer"
    r"|mem_blocks|norm|bias|gate|latent"
)
_COMMON = {*PretrainedConfig().to_dict(), "use_cache", "tie_word_embeddings", "is_decoder"}


# --- The tree ---------------------------------------------------------------------------------------------------


class Node:
    """A module as all its observations show it: sequences of its own tensors and of its children."""

    def __init__(self) -> None:
        self.own: dict[tuple[str, ...], None] = {}
        self.below: dict[tuple[str, ...], None] = {}
        self.children: dict[str, Node] = {}

    def observe(self, names: Iterable[Sequence[str]]) -> None:
        """Learn from the names below this module, split at dots, in the order of ``state_dict()``."""
        own: list[str] = []
        groups: dict[str, list[Sequence[str]]] = {}
        for head, *rest in names:
            if rest:
                groups.setdefault(head, []).append(rest)
            else:
                own.append(head)
        self.own[tuple(own)] = None
        self.below[tuple(dict.fromkeys(fold(head) for head in groups))] = None
        for head, rests in groups.items():
            self.children.setdefault(fold(head), Node()).observe(rests)

    def tree(self, where: str) -> Any:
        """The subtree as it is stored."""
        own = " ".join(linearise(self.own, where))
        if not self.children:
            return own
        below = {name: self.children[name].tree(f"{where}.{name}") for name in linearise(self.below, where)}
        return {"": own, **below} if own else below


def fold(component: str) -> str:
    """``*`` for the index of a layer or an expert."""
    return "*" if component.isdigit() else component


def linearise(sequences: Iterable[Sequence[str]], where: str) -> list[str]:
    """One order that agrees with all observed ones; what never met keeps the order of appearance."""
    before: dict[str, set[str]] = {}
    for sequence in sequences:
        for position, name in enumerate(sequence):
            before.setdefault(name, set()).update(sequence[:position])
    order: list[str] = []
    while before:
        ready = next((name for name, earlier in before.items() if not earlier & before.keys()), None)
        if ready is None:
            raise ValueError(f"{where}: observed orders contradict each other: {sorted(before)}")
        order.append(ready)
        del before[ready]
    return order


# --- Models of a class ------------------------------------------------------------------------------------------

Changes = dict[tuple[str | None, str], Any]
"""(part of the configuration, setting) -> value; the part is None for the configuration itself."""


def build(cls: type[PreTrainedModel], changes: Changes) -> PreTrainedModel:
    """The model of a configuration that differs from the default by ``changes`` (and repairs), without storage."""
    settings: dict[str, Any] = {}
    for (part, key), value in {**REPAIRS.get(cls.__name__, {}), **changes}.items():
        (settings if part is None else settings.setdefault(part, {}))[key] = value
    config = cls.config_class(**settings)
    if cls.__name__ == "DbrxForCausalLM":  # the class reads a setting that its configuration lacks
        config.attn_config.rope_theta = 1e4
    with torch.device("meta"):
        return cls(config)


def try_build(cls: type[PreTrainedModel], changes: Changes) -> PreTrainedModel | None:
    """As :func:`build`; None where the class refuses the configuration."""
    try:
        return build(cls, changes)
    except Exception:  # of many kinds: settings are combined here that were never meant to be
        return None


def parts_of(config: PretrainedConfig) -> dict[str | None, PretrainedConfig]:
    """The configuration under None, and those inside it under their keys."""
    inner = {key: getattr(config, key, None) for key in config.sub_configs}
    return {None: config, **{key: part for key, part in inner.items() if isinstance(part, PretrainedConfig)}}


def decoder_part(config: PretrainedConfig) -> str | None:
    """Where the settings of the language model stand."""
    return next((key for key in ("text_config", "thinker_config") if key in parts_of(config)), None)


def depth_key(config: PretrainedConfig) -> str | None:
    """How the configuration spells the number of layers."""
    key = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    return key if isinstance(config.to_dict().get(key), int) else None


def is_kinds(value: Any) -> bool:
    """Whether a setting says in a word what each layer is."""
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)


def other_values(key: str, value: Any) -> Sequence[Any]:
    """What else a setting may be, if it may decide which tensors exist."""
    if key in _COMMON or is_kinds(value):
        return ()
    if key in CHOICES:
        return CHOICES[key]
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int) and _TELLING.search(key):
        return (0, 1, 2 * value, None)
    if value is None and _TELLING.search(key):
        return (8, True)
    return ()


def folded(model: PreTrainedModel) -> set[str]:
    """The names of the model's tensors with layers folded."""
    return {".".join(map(fold, name.split("."))) for name in model.state_dict()}


def every_kind(cls: type[PreTrainedModel], model: PreTrainedModel) -> Changes:
    """Changes that show every kind of layer which the class knows, with as few layers as will do."""
    part = decoder_part(model.config)
    config = parts_of(model.config)[part]
    depth, settings = depth_key(config), config.to_dict()
    changes: Changes = {}
    for key, value in settings.items():
        if is_kinds(value):
            known = [kind for kind in LAYER_KINDS if try_build(cls, {(part, key): [kind] * len(value)})]
            changes[part, key] = list(dict.fromkeys([*value, *known]))
    layers = max((len(kinds) for kinds in changes.values()), default=2)
    wanted = folded(model)
    while depth and layers < settings[depth]:
        for (_, key), kinds in changes.items():
            changes[part, key] = (kinds + settings[key])[:layers]
        fewer = {**changes, (part, depth): layers}
        found = try_build(cls, fewer)
        if found and folded(found) >= wanted:
            return fewer
        layers *= 2
    return {}


def variants(cls: type[PreTrainedModel], model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Models with other settings, one more at a time; a setting that only adds tensors is kept for those that follow."""
    changes = every_kind(cls, model)
    current = try_build(cls, changes) or model
    yield current
    for _ in range(2):  # once more, for what a setting adds to a layer that another one has added
        kept = len(changes)
        for part, config in parts_of(model.config).items():
            for key, other in ((key, other) for key, value in config.to_dict().items() for other in other_values(key, value)):
                found = try_build(cls, {**changes, (part, key): other})
                if found is None:
                    continue
                yield found
                if folded(found) > folded(current):
                    changes[part, key], current = other, found
        if len(changes) < kept + 2:
            break


# --- What loading does to names ---------------------------------------------------------------------------------


def separate_experts(names: Sequence[str], transforms: Iterable[Any]) -> list[list[str]]:
    """For tensors that loading stacks from one per expert, the names of these, expert 0 standing for all."""
    found: dict[str, list[str]] = {}
    for transform in transforms:
        sources = [unescape(source).replace("*..", "*.") for source in transform.source_patterns]
        if not all(".*." in source for source in sources):
            continue
        target = unescape(transform.target_patterns[0])
        for name in names:
            if name.endswith(target):
                stem = name.removesuffix(target)
                for source in sources:
                    head, tail = source.split(".*.", 1)
                    found.setdefault(f"{stem}{head}.", []).append(tail)
    return [[f"{stem}+0.{tail}" for tail in module_order(tails)] for stem, tails in found.items()]


def module_order(tails: list[str]) -> list[str]:
    """The order inside one expert: w1, w2, w3 where the tensors are numbered, else the order of the conversion."""
    return sorted(tails) if all(re.match(r"w\d", tail) for tail in tails) else tails


def unescape(pattern: str) -> str:
    """A pattern without metacharacters as the text that it matches; ``*`` stays."""
    return pattern.replace("\\", "").lstrip("^")


def renames(transforms: Iterable[Any]) -> list[list[str]]:
    """[pattern, replacement] for every conversion that leads from one name to one other."""
    pairs: list[list[str]] = []
    for transform in sorted(transforms, key=lambda one: isinstance(one, WeightConverter)):
        if type(transform) not in (WeightRenaming, PrefixChange, WeightConverter):
            continue  # computes the new name
        for source in transform.source_patterns:
            if "*." not in source:
                pairs.append(scoped(transform, source, transform.target_patterns[0]))
    return pairs


def scoped(transform: Any, source: str, target: str) -> list[str]:
    """The pair, made to hold below the transform's own module only."""
    if source[-1].isalnum():
        source += r"(?!\w)"
    if transform.scope_prefix is None or not source.startswith("^"):
        return [source, target]
    base, scope = (f"{re.escape(prefix)}\\." if prefix else "" for prefix in
                   (transform.base_model_prefix, transform.scope_prefix))
    head = f"(?:{base})?{scope}" if base else scope
    return [f"^({head}){source[1:]}", "\\1" + target.replace("\\1", "\\2")]
