"""Models for benchmarks: the layout of a Llama, random weights, any size; streamed to disk without torch."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import BF16
from blockmerge.formats.safetensors import build_header
from blockmerge.tensors import TensorSpec

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Layout:
    """The sizes of a Llama."""

    layers: int
    hidden: int = 2048
    mlp: int = 8192
    vocabulary: int = 32000
    heads: int = 16
    kv_heads: int = 16

    def config(self) -> dict[str, object]:
        """A config that transformers and mergekit accept."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "bos_token_id": 1,
            "eos_token_id": 2,
        }

    def tensors(self) -> list[TensorSpec]:
        """All tensors in module order, as bfloat16."""
        hidden, keys = self.hidden, self.hidden * self.kv_heads // self.heads
        inside = {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (self.mlp, hidden),
            "mlp.up_proj": (self.mlp, hidden),
            "mlp.down_proj": (hidden, self.mlp),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }
        layers = [
            TensorSpec(f"model.layers.{layer}.{name}.weight", BF16, shape)
            for layer in range(self.layers)
            for name, shape in inside.items()
        ]
        rows = (self.vocabulary, hidden)
        ends = TensorSpec("model.norm.weight", BF16, (hidden,)), TensorSpec("lm_head.weight", BF16, rows)
        return [TensorSpec("model.embed_tokens.weight", BF16, rows), *layers, *ends]


LLAMA_405B = Layout(layers=126, hidden=16384, mlp=53248, vocabulary=128256, heads=128, kv_heads=8)


def layout_of(gigabytes: float) -> Layout:
    """The layout that comes nearest to a size in GB (1e9 bytes)."""
    none, one = (sum(spec.nbytes for spec in Layout(count).tensors()) for count in (0, 1))
    return Layout(max(1, round((gigabytes * 1e9 - none) / (one - none))))


def make_model(
    folder: Path,
    layout: Layout,
    seed: int,
    *,
    shard_bytes: int = 2_000_000_000,
    sparse: bool = False,
    noise: float = 0.0,
    noise_seed: int = 0,
) -> None:
    """Write a model; with ``sparse`` its weights are holes in the files, for planning only.

    With ``noise`` it is a finetune of the model of that ``seed``: each weight has moved by a random number with this
    standard deviation, and is rounded again. Weights have one of 0.02.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(layout.config(), indent=2))
    groups: list[list[TensorSpec]] = [[]]
    for spec in layout.tensors():
        if groups[-1] and sum(s.nbytes for s in groups[-1]) + spec.nbytes > shard_bytes:
            groups.append([])
        groups[-1].append(spec)
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors" if len(groups) > 1 else "model.safetensors"
        moved = noise, np.random.default_rng([noise_seed, number, 1])
        _write_shard(folder / name, group, np.random.default_rng([seed, number]), sparse, *moved)
        weight_map |= dict.fromkeys((spec.name for spec in group), name)
    if len(groups) > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _write_shard(
    path: Path,
    group: list[TensorSpec],
    random: np.random.Generator,
    sparse: bool,
    noise: float,
    moving: np.random.Generator,
) -> None:
    size = sum(spec.nbytes for spec in group)
    with path.open("wb") as file:
        file.write(build_header(group, {"format": "pt"}))
        if sparse:
            file.truncate(file.tell() + size)
            return
        weights, moves, left = _normal(random, 0.02), _normal(moving, noise), size // 2
        while left:
            count = min(left, _CHUNK)
            values = _bfloat16(next(weights))[:count]
            if noise:
                values = _bfloat16((values.astype(np.uint32) << 16).view(np.float32) + next(moves)[:count])
            file.write(values.tobytes())
            left -= count


def _normal(random: np.random.Generator, deviation: float) -> Iterator[NDArray[np.float32]]:
    """The same values, each time from another place: random enough, and quick."""
    pool = random.normal(0, deviation, _CHUNK + 4096).astype(np.float32)
    while True:
        start = int(random.integers(0, 4096))
        yield pool[start : start + _CHUNK]


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Finite values, rounded."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=2.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sparse", action="store_true")
    arguments = parser.parse_args()
    make_model(arguments.folder, layout_of(arguments.gb), arguments.seed, sparse=arguments.sparse)


if __name__ == "__main__":
    main()
