"""What part of a language model a tensor belongs to, read from its name alone.

The names are those of all classes in the table of architectures; other models name their parts alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Final

__all__ = ["Block", "block_of", "fold_indices", "layer_of", "stack_of", "vocabulary_tensors", "with_layer"]


class Block(StrEnum):
    """The parts of a model that a gradient may address; the values are what the user writes."""

    EMBEDDINGS = "embeddings"
    ATTENTION = "attention"
    MLP = "mlp"
    NORMS = "norms"
    HEAD = "head"
    OTHER = "other"


# Patterns of whole names, in lower case.
_APART: Final = re.compile(
    r"vision|visual|image|audio|video|speech|acoustic|protein|vqmodel|token2wav|talker|multi_?modal|qformer|aligner"
    r"|embed_tokens_extend|connector|perceiver|projector|query_tokens|(?:^|\.)(?:mm_|mtp|patch)"
)
_NORM: Final = re.compile(
    r"(?<!prelayer)(?<!\.norm_attn_)norm(?!_attn_norm)|(?:^|\.)(?:pre_)?ln(?:[_.\d]|$)|_ln(?:\.|$)"
)
_LAYER: Final = re.compile(
    r"(?:^|\.)(?:layers?|h|blocks?|(?:de|en)coder_layers|attentions|ffns|layer_norm[12])\.(0|[1-9][0-9]{0,5})(?:\.|$)"
)
_NOT_BY_TOKEN: Final = re.compile(
    r"wpe|position|token_type|segment|lang_|task_type|dense|transform\.|project(?!ion\.(?:weight|bias))|map_inputs"
    r"|relative|centroids|token_ordering|hidden_mapping"
)
# Components of names outside the layers.
_HEAD: Final = re.compile(
    r"(?:generator_)?lm_heads?|(?:embed|proj)_out|(?:un)?embed_head|head|output|output_projection|pred_layer|lm_loss"
    r"|generator_predictions|cls|unembed|score|classifier"
)
_EMBEDDING: Final = re.compile(r".*(?<!un)embed.*|wte|wpe|shared|w")
# Components of names inside a layer; the first one that says anything decides.
_KINDS: Final = (
    ("other", re.compile(r".*(?:mamba|ssm).*|conv|.*short_conv.*|rg_lru|[sm]lstm.*|altup")),
    (
        "attention",
        re.compile(
            r".*(?:attn|attention).*|(?:q|k|v|o|qkv|kv|query|key|value)_(?:lin|(?:[ab]_)?proj)|query_key_value|kda.*"
        ),
    ),
    (
        "mlp",
        re.compile(
            r".*(?:mlp|ffn|feed_?forward|expert|moe|router|densereludense|channel_mix|h_to_4h|4h_to_h).*"
            r"|gate|ff|fc\d?|fc_in|fc_out|lin\d|intermediate|output|w[123]|wi|wo|wi_\d"
            r"|(?:gate|up|down|gate_up|fc\d_latent)_proj"
        ),
    ),
)
_INDEX: Final = re.compile(r"(?<=\.)(?:0|[1-9][0-9]{0,5})(?=\.)")


def block_of(name: str) -> Block:
    """The block of a tensor.

    Norms are norms wherever they are, inside attention too. Sequence mixers that are not attention (mamba, gated
    convolutions, recurrences) are OTHER, and so is everything outside the language model: vision and audio towers
    with their projectors, heads for multi-token prediction.
    """
    return _block_of(fold_indices(name.lower()))


def fold_indices(name: str) -> str:
    """A name with the index of every layer and expert made 0: a model has few of these."""
    return _INDEX.sub("0", name)


@lru_cache(maxsize=1024)
def _block_of(name: str) -> Block:
    """As :func:`block_of`, for folded names in lower case."""
    if _APART.search(name):
        return Block.OTHER
    if _NORM.search(name):
        return Block.NORMS
    layer = _LAYER.search(name)
    if layer is None:
        return _outside_layers(name.split("."))
    for part in name[layer.start() :].split("."):
        for kind, pattern in _KINDS:
            if pattern.fullmatch(part):
                return Block(kind)
    return Block.OTHER


def _outside_layers(parts: list[str]) -> Block:
    if any(map(_HEAD.fullmatch, parts)) or parts[:-1] == ["decoder"]:
        return Block.HEAD
    if any(map(_EMBEDDING.fullmatch, parts)):
        return Block.EMBEDDINGS
    return Block.OTHER


def layer_of(name: str) -> int | None:
    """The number of the layer of the language model that a tensor belongs to, from 0; None outside the layers.

    ``model.layers.7.mlp.experts.3.up_proj.weight`` and ``transformer.h.7.ln_1.bias`` are in layer 7. Encoder and
    decoder of one model count alike. Layers of vision and audio towers are none of the language model's: None.
    """
    layer = _LAYER.search(name)
    return None if layer is None or _APART.search(name.lower()) else int(layer[1])


def with_layer(name: str, number: int) -> str:
    """The name of the same tensor in layer ``number``; ``name`` is one for which :func:`layer_of` gives a layer."""
    layer = _LAYER.search(name)
    return name if layer is None else f"{name[: layer.start(1)]}{number}{name[layer.end(1) :]}"


def stack_of(name: str) -> str:
    """What stands before the layer in a name: ``model.layers.7.input_layernorm.weight`` is in ``model.layers``."""
    layer = _LAYER.search(name)
    return name if layer is None else name[: layer.start(1) - 1]


def vocabulary_tensors(names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names``, in their order, with one row per token: embedding and head matrices, biases of heads."""
    return tuple(name for name in names if _by_token(name))


def _by_token(name: str) -> bool:
    return block_of(name) in (Block.EMBEDDINGS, Block.HEAD) and not _NOT_BY_TOKEN.search(name.lower())
