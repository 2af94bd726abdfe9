"""Regenerate ``src/blockmerge/architectures/orders.json`` from the model classes of the installed transformers.

    python tools/make_order_tables.py                 write the table (ten minutes)
    python tools/make_order_tables.py NAME...         print the entries of these classes, write nothing

Every class is built on the meta device, where tensors have no storage, at its default depth; and again with one
setting of its configuration changed at a time, at a depth that still shows every kind of layer. What is kept is not
a list of names but a tree: for each module the order of its own tensors and of its child modules, with layers and
experts folded into ``*``. A tree learned from layers of every kind orders a model of any depth and any mix.

Some classes have towers from timm: without timm and torchvision they are reported as not built, as are classes whose
default configuration builds nothing and which have no entry among the repairs below.

The file holds names and nothing else:

    transformers   the release that it was made from
    model_types    model_type of config.json -> class of its causal language model
    ignored        patterns of names that no longer exist in any model: loading drops them
    renames        [pattern, replacement] that lead from names in old checkpoints to names of modules, for all classes
    architectures  class name ->
        order      the tree. A string lists a module's own tensors; an object its children in order, with the own
                   tensors under the key "", a lone child joined to its parent by a dot. A child that starts with
                   ``+`` exists in checkpoints only: loading fuses what is below it. "=Class a.b" stands for the
                   subtree a.b of another class. A list holds kinds of layers whose children come in other orders
        shared     modules whose tensors layers share, all stored with one of them
        base       path of the bare model, a prefix that its checkpoints may lack
        tied       name -> name whose storage it shares when tie_word_embeddings is on; ``tie`` is the default
        buffers    persistent buffers, folded
        ignored    patterns of names that loading drops silently
        renames    as above, for this class
        stack      path of the decoder's layers, and ``depth``, where config.json has their number
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
FAMILIES = (
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
)
# Combinations of any two models, a name for each expert, transcription, diffusion: no merged language models.
LEFT_OUT = {
    "DiffusionGemmaForBlockDiffusion",
    "EncoderDecoderModel",
    "Nemotron3_5TranscribeForConditionalGeneration",
    "NllbMoeForConditionalGeneration",
    "SwitchTransformersForConditionalGeneration",
    "VisionEncoderDecoderModel",
}


_ROPES = {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("full_attention", "sliding_attention")}

_INDEXER = {
    "indexer_n_heads": 4,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
}

# Where the default configuration of a class does not build a model.
REPAIRS: dict[str, dict[tuple[str | None, str], Any]] = {
    "AyaVisionForConditionalGeneration": {
        ("vision_config", "model_type"): "siglip_vision_model",
        ("vision_config", "num_attention_heads"): 16,
    },
    "ChameleonForConditionalGeneration": {(None, "vocabulary_map"): {"<image>": 4}},
    "CohereCompassForCausalLM": {(None, "rope_parameters"): _ROPES},
    "CohereCompassForConditionalGeneration": {("text_config", "rope_parameters"): _ROPES},
    "DeepseekOcr2ForConditionalGeneration": {
        ("text_config", "num_hidden_layers"): 12,
        ("text_config", "mlp_layer_types"): ["dense"] + ["sparse"] * 11,
        ("text_config", "n_routed_experts"): 8,
        ("text_config", "n_shared_experts"): 2,
        ("text_config", "num_experts_per_tok"): 2,
        ("text_config", "moe_intermediate_size"): 64,
    },
    "Dots1ForCausalLM": {(None, "n_routed_experts"): 4, (None, "n_shared_experts"): 1},
    "Emu3ForConditionalGeneration": {(None, "vocabulary_map"): {"<image>": 4}},
    "Gemma4UnifiedAssistantForCausalLM": {
        ("text_config", "model_type"): "gemma4_unified_text",
        ("text_config", "num_kv_shared_layers"): 4,
    },
    "Granite4VisionForConditionalGeneration": {
        (None, "deepstack_layer_map"): [(1, 2), (2, 3)],
        (None, "downsample_rate"): "1/4",
    },
    "HunYuanDenseV1ForCausalLM": {(None, "head_dim"): 128},
    "HunYuanMoEV1ForCausalLM": {(None, "head_dim"): 128},
    "HunYuanVLForConditionalGeneration": {("text_config", "head_dim"): 128},
    "Lfm2MoeForCausalLM": {(None, "layer_types"): ["conv", "full_attention"] * 16},
    "MinistralForCausalLM": {(None, "head_dim"): 128},
    "NemotronForCausalLM": {(None, "num_key_value_heads"): 8},
    "Qwen4ExpForCausalLM": {(None, key): value for key, value in _INDEXER.items()},
    "Qwen4ExpForConditionalGeneration": {("text_config", key): value for key, value in _INDEXER.items()},
    "ReformerModelWithLMHead": {(None, "is_decoder"): True},
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
LAYER_KINDS = """
    full_attention sliding_attention chunked_attention linear_attention compressed_attention indexed_attention
    attention mamba mamba2 hybrid conv recurrent moe mlp dense sparse
"""
# Words in the names of counts and sizes that decide which tensors exist.
_TELLING = re.compile(
    r"expert|shared|dense|lora|rank|freq|step|interval|every|offset|period|proj_dim|embed(ding)?_(size|dim)|per_layer"
    r"|mem_blocks|norm|bias|gate|latent"
)
# Buffers that models once stored and no longer have.
GONE = [r"rotary_emb\.inv_freq$", r"(^|\.)position_ids$", r"\.(attn|attention|self_attn)\.(masked_)?bias$"]
_COMMON = {*PretrainedConfig().to_dict(), "use_cache", "tie_word_embeddings", "is_decoder"}


# --- The tree -------------------------------------------------------------------------------------------------------


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

    def tree(self) -> Any:
        """The subtree as it is stored."""
        [own] = consistent(self.own)
        if not self.children:
            return " ".join(own)
        trees = {name: child.tree() for name, child in self.children.items()}
        kinds = [
            {**({"": " ".join(own)} if own else {}), **{name: trees[name] for name in order}}
            for order in consistent(self.below)
        ]
        return kinds[0] if len(kinds) == 1 else kinds


def fold(component: str) -> str:
    """``*`` for the index of a layer or an expert; the mark of a checkpoint's own layout stays."""
    return "+*" if component == "+0" else "*" if component.isdigit() else component


def folded_name(name: str) -> str:
    """A name with its indices folded."""
    return ".".join(map(fold, name.split(".")))


def linear(sequences: Iterable[Sequence[str]]) -> list[str] | None:
    """One order that agrees with all sequences, names that never met in order of appearance; None if there is none."""
    before: dict[str, set[str]] = {}
    for sequence in sequences:
        for position, name in enumerate(sequence):
            before.setdefault(name, set()).update(sequence[:position])
    order: list[str] = []
    while before:
        ready = next((name for name, earlier in before.items() if not earlier & before.keys()), None)
        if ready is None:
            return None
        order.append(ready)
        del before[ready]
    return order


def consistent(sequences: Iterable[Sequence[str]]) -> list[list[str]]:
    """As few orders as agree with all sequences; more than one where two kinds of layer disagree."""
    groups: list[list[Sequence[str]]] = []
    for sequence in sequences:
        group = next((group for group in groups if linear([*group, sequence]) is not None), None)
        if group is None:
            groups.append([sequence])
        else:
            group.append(sequence)
    return [linear(group) or [] for group in groups]


# --- Models of a class ----------------------------------------------------------------------------------------------

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
    if value is None and key.endswith("_config"):
        return ({},)
    return ()


def folded(model: PreTrainedModel) -> set[str]:
    """The names of the model's tensors with layers folded."""
    return {folded_name(name) for name in model.state_dict()}


def every_kind(cls: type[PreTrainedModel], model: PreTrainedModel) -> Changes:
    """Changes that show every kind of layer which the class knows, with as few layers as will do."""
    part = decoder_part(model.config)
    config = parts_of(model.config)[part]
    depth, settings = depth_key(config), config.to_dict()
    changes: Changes = {}
    for key, value in settings.items():
        if is_kinds(value):
            known = [kind for kind in LAYER_KINDS.split() if try_build(cls, {(part, key): [kind] * len(value)})]
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


def other_settings(config: PretrainedConfig) -> Iterator[tuple[str | None, str, Any]]:
    """(part, setting, other value) for everything in a configuration that may decide which tensors exist."""
    for part, inner in parts_of(config).items():
        for key, value in inner.to_dict().items():
            for other in other_values(key, value):
                yield part, key, other


def variants(cls: type[PreTrainedModel], model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Models with one other setting each; a setting that only adds tensors is kept for those that follow."""
    changes = every_kind(cls, model)
    current = try_build(cls, changes) or model
    yield current
    for _ in range(2):  # once more, for what a setting adds to a layer that a later one has added
        kept = len(changes)
        for part, key, other in other_settings(model.config):
            found = try_build(cls, {**changes, (part, key): other})
            if found is None:
                continue
            yield found
            if folded(found) > folded(current):
                changes[part, key], current = other, found
        if len(changes) < kept + 2:
            break


# --- What loading does to names -------------------------------------------------------------------------------------


def plain(pattern: str) -> str:
    """A pattern as the text that it matches; ``.*.`` stays, the place of an index."""
    return pattern.replace("\\", "")


def separate_experts(names: Sequence[str], transforms: Iterable[Any]) -> list[str]:
    """The names of the tensors, one per expert, that loading stacks into one; ``+0`` stands for every expert."""
    tails: dict[str, list[str]] = {}
    for transform in transforms:
        sources = [plain(source) for source in transform.source_patterns]
        target = plain(transform.target_patterns[0])
        if not all(".*." in source for source in sources):
            continue
        for name in names:
            if name.endswith(target):
                for source in sources:
                    head, tail = source.split(".*.", 1)
                    tails.setdefault(f"{name.removesuffix(target)}{head}", []).append(tail)
    # Inside an expert w1, w2, w3 come as numbered, others as they are stacked: both are the order of the modules
    # that held them before they were fused.
    return [
        f"{stem}.+0.{tail}"
        for stem, found in tails.items()
        for tail in (sorted(found) if all(re.match(r"w\d", tail) for tail in found) else found)
    ]


def renames(transforms: Iterable[Any]) -> list[list[str]]:
    """[pattern, replacement] for every conversion that leads from one name to one other, in order of application."""
    return [
        scoped(transform, source, transform.target_patterns[0])
        for transform in sorted(transforms, key=lambda one: isinstance(one, WeightConverter))
        if type(transform) in (WeightRenaming, PrefixChange, WeightConverter)  # others compute the name
        for source in transform.source_patterns
        if "*." not in source
    ]


def scoped(transform: Any, source: str, target: str) -> list[str]:
    """The pair, made to hold below the transform's own module only."""
    if source[-1].isalnum():
        source += r"(?!\w)"
    if transform.scope_prefix is None or not source.startswith("^"):
        return [source, target]
    base, scope = transform.base_model_prefix, transform.scope_prefix
    head = (rf"(?:{base}\.)?" if base else "") + (rf"{scope}\." if scope else "")
    return [f"^({head}){source[1:]}", r"\1" + target.replace(r"\1", r"\2")]


def ignored(model: PreTrainedModel) -> list[str]:
    """Patterns of names that loading drops silently, except those that hold for layers of one depth only."""
    patterns = model._keys_to_ignore_on_load_unexpected or ()
    return sorted(pattern for pattern in patterns if not re.search(r"layers\\?\.\d", pattern))


def ties(model: PreTrainedModel) -> tuple[dict[str, str], list[str]]:
    """Tied name -> its source, as far as no layer index is involved; and the modules that layers share."""
    model.config.tie_word_embeddings = True
    tied = model.get_expanded_tied_weights_keys(all_submodels=True)
    plain_ties = {target: source for target, source in tied.items() if "*" not in folded_name(target)}
    shared = {folded_name(target) for target in tied.keys() - plain_ties.keys()}
    modules = {re.sub(r"^(.*?\*\.\w+).*", r"\1", name) for name in shared}
    return dict(sorted(plain_ties.items())), sorted(modules)


def tail(cls: type[PreTrainedModel], model: PreTrainedModel) -> Any:
    """Which tensors the last layers have in checkpoints only, because they share those of an earlier layer."""
    part, key = decoder_part(model.config), "num_kv_shared_layers"
    config = parts_of(model.config)[part]
    sharing = try_build(cls, {(part, key): config.to_dict().get(key) or 10}) if hasattr(config, key) else None
    patterns = sharing._keys_to_ignore_on_load_unexpected if sharing else ()
    names = {match[1] for pattern in patterns or () if (match := re.search(r"layers\.\d+\.(\w+\.\w+)$", pattern))}
    if not names:
        return None
    return {"count": ".".join(filter(None, [part, key])), "default": getattr(config, key), "names": sorted(names)}


# --- One class ------------------------------------------------------------------------------------------------------


def owner(model: PreTrainedModel, path: str) -> PreTrainedModel:
    """The model that a module belongs to: the nearest one above it."""
    while path:
        path = path.rpartition(".")[0]
        module = model.get_submodule(path)
        if isinstance(module, PreTrainedModel):
            return module
    return model


def stack(cls: type[PreTrainedModel], model: PreTrainedModel) -> dict[str, Any]:
    """Where the decoder's layers are and where config.json has their number, if there is one such place.

    Tensors of layers beyond that number are dropped, so a model of another depth must bear it out: some decoders
    that can be used without their encoder call the encoder's number of layers their own.
    """
    part = decoder_part(model.config)
    config = parts_of(model.config)[part]
    key = depth_key(config)
    paths = [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and key and len(module) == getattr(config, key)
        if owner(model, path).config is config
    ]
    if key is None or len(paths) != 1:
        return {}
    now = getattr(config, key)
    others = ((depth, try_build(cls, {(part, key): depth})) for depth in (3, now - 1, now + 1, 2 * now))
    depth, other = next(((depth, other) for depth, other in others if other), (0, model))
    if len(other.get_submodule(paths[0])) != depth:
        return {}
    return {"stack": paths[0], "depth": ".".join(filter(None, [part, key]))}


def exchangeable_text(model: PreTrainedModel) -> Any:
    """[path, model_type] of a language model that is chosen by config.json and comes from another family."""
    part = decoder_part(model.config)
    config = parts_of(model.config)[part]
    for path, module in model.named_modules():
        if part and path and isinstance(module, PreTrainedModel) and module.config is config:
            own_family = type(module).__module__ == type(model).__module__
            return None if own_family or hasattr(module, "lm_head") else [path, config.model_type]
    return None


def describe(cls: type[PreTrainedModel]) -> dict[str, Any]:
    """The entry of a class.

    Raises:
        Exception: whatever keeps the default configuration from building a model.
    """
    model = build(cls, {})
    root, buffers = Node(), set[str]()
    for observed in (model, *variants(cls, model)):
        names = list(observed.state_dict())
        extra = separate_experts(names, get_model_conversion_mapping(observed, add_legacy=False))
        root.observe([name.split(".") for name in [*names, *extra]])
        buffers |= {folded_name(name) for name, _ in observed.named_buffers() if name in names}
    tie = bool(getattr(model.config, "tie_word_embeddings", False) or model.all_tied_weights_keys)
    entry: dict[str, Any] = {
        "tie": tie,
        **stack(cls, model),
        "tail": tail(cls, model),
        "text": exchangeable_text(model),
    }
    entry["base"] = cls.base_model_prefix if hasattr(model, cls.base_model_prefix or " ") else None
    entry["ignored"] = ignored(model)
    entry["renames"] = renames(get_model_conversion_mapping(model, add_legacy=False))
    entry["buffers"] = sorted(buffers)
    entry["tied"], entry["shared"] = ties(model)
    entry["order"] = root.tree()
    return {key: value for key, value in entry.items() if value not in (None, [], {}, False)}


# --- The file -------------------------------------------------------------------------------------------------------


def classes() -> tuple[dict[str, type[PreTrainedModel]], dict[str, str]]:
    """The classes by name, and model_type -> the class that stands for it; causal language models come first."""
    found: dict[str, type[PreTrainedModel]] = {}
    model_types: dict[str, str] = {}
    for family in FAMILIES:
        mapping = getattr(modeling_auto, family)
        for config_class in mapping:
            listed = mapping[config_class]
            for cls in listed if isinstance(listed, tuple) else (listed,):
                if cls.__name__ in LEFT_OUT:
                    continue
                found.setdefault(cls.__name__, cls)
                model_types.setdefault(config_class.model_type, cls.__name__)
    return found, model_types


def share(entries: dict[str, dict[str, Any]]) -> None:
    """Replace each large subtree that another class has too by a reference to it."""
    seen: dict[str, str] = {}

    def visit(tree: Any, path: str, name: str) -> Any:
        if not isinstance(tree, dict):
            return tree
        text = json.dumps(tree)
        if text in seen:
            return seen[text]
        if len(text) > 90:
            seen[text] = f"={name} {path}".rstrip()
        short: dict[str, Any] = {}
        for key, child in tree.items():
            joined = key
            while isinstance(child, dict) and len(child) == 1:
                [(last, child)] = child.items()
                joined = f"{joined}.{last}"
            short[joined] = visit(child, f"{path}.{joined}".lstrip("."), name)
        return short

    for name in sorted(entries, key=lambda name: (name != "LlamaForCausalLM", name)):
        entries[name]["order"] = visit(entries[name]["order"], "", name)


def render(value: Any, indent: str = "") -> str:
    """JSON that breaks lines where a module, a pair or an entry begins, so that a change shows where it is."""
    text, inner = json.dumps(value), indent + " "
    if len(text) + len(indent) < 116 or not isinstance(value, dict | list):
        return text
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + render(child, inner) for child in value) + f"\n{indent}]"
    rows = (f"{inner}{json.dumps(key)}: {render(child, inner)}" for key, child in value.items())
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def make(names: Iterable[str] = ()) -> dict[str, Any]:
    """The table of all classes, or of those named, without references; reports what cannot be built."""
    found, model_types = classes()
    entries: dict[str, dict[str, Any]] = {}
    for name in sorted(names or found):
        try:
            entries[name] = describe(found[name])
        except Exception as error:
            print(f"{name}: not built: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
    return {
        "transformers": transformers.__version__,
        "ignored": GONE,
        "renames": renames(get_checkpoint_conversion_mapping("legacy")),
        "model_types": {key: name for key, name in sorted(model_types.items()) if name in entries},
        "architectures": entries,
    }


def main() -> None:
    """Write the table, or print some entries."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="print the entries of these classes, write nothing")
    names = parser.parse_args().names
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    table = make(names)
    share(table["architectures"])
    text = render(table) + "\n"
    if names:
        print(text)
    else:
        TABLE.write_text(text, encoding="utf-8")
        print(f"{len(table['architectures'])} classes, {len(text)} bytes")


if __name__ == "__main__":
    main()
