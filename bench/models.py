"""Models for benchmarks: the layout of a Llama, random weights, any size; streamed to disk without torch."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from blockmerge.dtypes import BF16, DType
from blockmerge.formats.safetensors import build_header
from blockmerge.tensors import TensorSpec

HIDDEN, MLP, VOCABULARY = 2048, 8192, 32000
_CHUNK = 1 << 22


def config(layers: int) -> dict[str, object]:
    """A config that transformers and mergekit accept."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": layers,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def tensors(layers: int, dtype: DType = BF16) -> list[TensorSpec]:
    """All tensors in module order."""
    square, wide, tall, norm = (HIDDEN, HIDDEN), (MLP, HIDDEN), (HIDDEN, MLP), (HIDDEN,)
    inside = {
        "self_attn.q_proj": square, "self_attn.k_proj": square, "self_attn.v_proj": square, "self_attn.o_proj": square,
        "mlp.gate_proj": wide, "mlp.up_proj": wide, "mlp.down_proj": tall,
        "input_layernorm": norm, "post_attention_layernorm": norm,
    }  # fmt: skip
    return [
        TensorSpec("model.embed_tokens.weight", dtype, (VOCABULARY, HIDDEN)),
        *(
            TensorSpec(f"model.layers.{layer}.{name}.weight", dtype, shape)
            for layer in range(layers)
            for name, shape in inside.items()
        ),
        TensorSpec("model.norm.weight", dtype, norm),
        TensorSpec("lm_head.weight", dtype, (VOCABULARY, HIDDEN)),
    ]


def layers_for(gigabytes: float) -> int:
    """The number of layers that comes nearest to a size in GB (1e9 bytes of bfloat16)."""
    per_layer = sum(spec.nbytes for spec in tensors(2)) - sum(spec.nbytes for spec in tensors(1))
    outside = sum(spec.nbytes for spec in tensors(0))
    return max(1, round((gigabytes * 1e9 - outside) / per_layer))


def make_model(folder: Path, gigabytes: float, seed: int, shard_bytes: int = 2_000_000_000, sparse: bool = False) -> None:
    """Write a model; with ``sparse`` its weights are holes in the files, for planning only."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = layers_for(gigabytes)
    (folder / "config.json").write_text(json.dumps(config(layers), indent=2))
    groups: list[list[TensorSpec]] = [[]]
    for spec in tensors(layers):
        if groups[-1] and sum(s.nbytes for s in groups[-1]) + spec.nbytes > shard_bytes:
            groups.append([])
        groups[-1].append(spec)
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors" if len(groups) > 1 else "model.safetensors"
        _write_shard(folder / name, group, np.random.default_rng([seed, number]), sparse)
        weight_map |= dict.fromkeys((spec.name for spec in group), name)
    if len(groups) > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_shard(path: Path, group: list[TensorSpec], random: np.random.Generator, sparse: bool) -> None:
    size = sum(spec.nbytes for spec in group)
    with path.open("wb") as file:
        file.write(build_header(group, {"format": "pt"}))
        if sparse:
            file.truncate(file.tell() + size)
            return
        pool = random.normal(0, 0.02, _CHUNK + 4096).astype(np.float32).view(np.uint32) >> 16
        pool = pool.astype(np.uint16)
        left = size // 2
        while left:  # the same values, each time from another place: random enough, and quick
            start = int(random.integers(0, 4096))
            chunk = pool[start : start + min(left, _CHUNK)]
            file.write(chunk.tobytes())
            left -= len(chunk)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=2.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sparse", action="store_true")
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.gb, arguments.seed, sparse=arguments.sparse)


if __name__ == "__main__":
    main()
