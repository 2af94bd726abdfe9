"""The kinds of recipes that mergekit's repository shows, and models of their architecture for them.

Every example of its folder and its documents is here, written anew with short names: 13B Llamas have 40 layers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import models
from blockmerge.dtypes import F32

LAYERS = 40
ROWS = 24
"""More than any model has tokens, as many models have it."""
WORDS = ["<unk>", *"abcdefghijkl"]
TOKENS = {
    "base": WORDS,
    "a": WORDS,
    "chatml": [*WORDS, "<|im_start|>", "<|im_end|>"],
    "llama3": [*WORDS, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>"],
}
"""The tokens of each model, in the order of their rows; those that begin with <| were added to the tokenizer."""
CONFIG = {
    **models.CONFIG, "num_hidden_layers": LAYERS, "torch_dtype": "float32", "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64, "vocab_size": ROWS,
}  # fmt: skip


def _weighted(**of: float) -> list[dict[str, Any]]:
    return [{"model": name, "parameters": {"weight": weight}} for name, weight in of.items()]


def _tokens(**choice: Any) -> dict[str, Any]:
    models = _weighted(a=0.5, chatml=0.3, llama3=0.2)
    return {"merge_method": "linear", "base_model": "a", "models": models, "dtype": "float16", **choice}


EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "arcee_fusion": [
        {
            "models": [{"model": "a"}, {"model": "chatml"}],
            "merge_method": "arcee_fusion",
            "base_model": "a",
            "dtype": "bfloat16",
        }
    ],
    "bio-merge": [
        {
            "models": [
                {"model": "a", "parameters": {"density": 0.5, "weight": 0.5}},
                {"model": "chatml", "parameters": {"density": 0.5, "weight": 0.5}},
            ],
            "merge_method": "ties",
            "base_model": "base",
            "parameters": {"normalize": False, "int8_mask": True},
            "dtype": "float16",
        }
    ],
    "gradient-slerp": [
        {
            "slices": [
                {"sources": [{"model": "a", "layer_range": [0, 40]}, {"model": "chatml", "layer_range": [0, 40]}]}
            ],
            "merge_method": "slerp",
            "base_model": "a",
            "parameters": {
                "t": [
                    {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
                    {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
                    {"value": 0.5},
                ]
            },
            "dtype": "float16",
        }
    ],
    "linear": [{"models": _weighted(a=1.0, chatml=0.3, llama3=0.5), "merge_method": "linear", "dtype": "float16"}],
    "44 layers": [
        {
            "slices": [
                {"sources": [{"model": "a", "layer_range": [0, 24]}]},
                {"sources": [{"model": "chatml", "layer_range": [20, 40]}]},
            ],
            "merge_method": "passthrough",
            "dtype": "float16",
        }
    ],
    "ties": [
        {
            "models": [
                {"model": "a", "parameters": {"density": [1, 0.7, 0.1], "weight": 1.0}},
                {"model": "chatml", "parameters": {"density": 0.5, "weight": [0, 0.3, 0.7, 1]}},
                {
                    "model": "llama3",
                    "parameters": {"density": 0.33, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0}]},
                },
            ],
            "merge_method": "ties",
            "base_model": "base",
            "parameters": {"normalize": True, "int8_mask": True},
            "dtype": "float16",
        }
    ],
    "multi": [
        {
            "name": "first-merge",
            "merge_method": "linear",
            "models": [{"model": "base"}, {"model": "a"}],
            "parameters": {"weight": 0.5},
        },
        {
            "name": "second-merge",
            "merge_method": "slerp",
            "base_model": "first-merge",
            "models": [{"model": "chatml"}],
            "parameters": {"t": 0.5},
        },
        {
            "merge_method": "dare_ties",
            "base_model": "base",
            "models": [
                {"model": "second-merge", "parameters": {"density": 0.6, "weight": 0.5}},
                {"model": "llama3", "parameters": {"density": 0.8, "weight": 0.5}},
            ],
        },
    ],
    "tokens from everywhere": [
        _tokens(
            tokenizer={
                "source": "union",
                "tokens": {
                    "<|im_start|>": {"source": "chatml"},
                    "<|eot_id|>": {"source": "llama3", "force": True},
                    "<|renamed|>": {"source": {"kind": "model_token", "model": "chatml", "token": "<|im_end|>"}},
                    "<|numbered|>": {"source": {"kind": "model_token", "model": "llama3", "token_id": 3}},
                    "<|unused|>": {"source": {"kind": "zero"}},
                },
                "pad_to_multiple_of": None,
            }
        )
    ],
    "ChatML and Llama 3": [
        _tokens(
            tokenizer={
                "source": "union",
                "tokens": {
                    "<|im_start|>": {"source": "chatml"},
                    "<|im_end|>": {"source": "chatml"},
                    "<|start_header_id|>": {"source": "llama3", "force": True},
                    "<|end_header_id|>": {"source": "llama3", "force": True},
                    "<|eot_id|>": {"source": "llama3", "force": True},
                },
            }
        )
    ],
    "tokens of the base": [_tokens(tokenizer_source="base")],
    "tokens of a model": [_tokens(tokenizer_source="llama3")],
    "union by the older key": [_tokens(tokenizer_source="union", chat_template="auto")],
    "padded": [_tokens(tokenizer={"source": "union", "pad_to_multiple_of": 32}, chat_template="chatml")],
}
"""By name, the documents of a file."""


def prepare(folder: Path) -> None:
    """The models, each in a folder of its name."""
    for seed, (name, tokens) in enumerate(TOKENS.items()):
        content = {
            tensor: (F32, np.asarray(value))
            for tensor, (_, value) in models.tensors(seed, vocab=ROWS, layers=LAYERS, dtype=F32).items()
        }
        add_tokenizer(models.save(folder / name, content, CONFIG), tokens)


def add_tokenizer(folder: Path, tokens: list[str]) -> None:
    """A tokenizer of whole words, as transformers loads it."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ids = {token: number for number, token in enumerate(tokens)}
    words = {token: number for token, number in ids.items() if not token.startswith("<|")}
    document = {
        "version": "1.0",
        **dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder")),
        "pre_tokenizer": {"type": "Whitespace"},
        "added_tokens": [{"id": ids[token], "content": token, **flags} for token in tokens if token[0] == "<"],
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, "unk_token": "<unk>"}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text("{{ messages }}")


def token_ids(folder: Path) -> dict[str, int]:
    """The row of each token that a model's tokenizer.json knows."""
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {entry["content"]: entry["id"] for entry in document["added_tokens"]}
    return document["model"]["vocab"] | added


def written(documents: list[dict[str, Any]], folder: Path, **changes: Any) -> str:
    """The text of a file whose models are those in ``folder``; ``changes`` go into every document."""

    def placed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {inner: placed(entry, inner) for inner, entry in value.items()}
        if isinstance(value, list):
            return [placed(entry, key) for entry in value]
        named = key in ("model", "base_model", "source", "tokenizer_source") and value in TOKENS
        if named and not (key == "tokenizer_source" and value == "base"):
            return str(folder / value)
        return value

    return yaml.safe_dump_all([{**placed(document), **changes} for document in documents], sort_keys=False)
