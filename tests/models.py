"""Tiny models without torch, and what a merge of them must be, in float64."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from blockmerge.dtypes import BF16, DType
from blockmerge.formats.safetensors import build_header
from blockmerge.kernels import reference
from blockmerge.sources import LocalSource
from blockmerge.tensors import TensorSpec

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
Tensors = dict[str, tuple[DType, np.ndarray]]


def tensors(seed: int, *, vocab: int = 40, layers: int = 2, dtype: DType = BF16, tied: bool = False) -> Tensors:
    """The tensors of a Llama with hidden size 16, in module order."""
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, 16)}
    for layer in range(layers):
        inside = {
            "self_attn.q_proj": (16, 16), "self_attn.k_proj": (8, 16), "self_attn.v_proj": (8, 16),
            "self_attn.o_proj": (16, 16), "mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16), "mlp.down_proj": (16, 24),
            "input_layernorm": (16,), "post_attention_layernorm": (16,),
        }  # fmt: skip
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in inside.items()}
    shapes["model.norm.weight"] = (16,)
    if not tied:
        shapes["lm_head.weight"] = (vocab, 16)
    return {name: (dtype, reference.encode(random.normal(0, 0.05, shape), dtype)) for name, shape in shapes.items()}


def save(
    folder: Path, content: Tensors, config: dict[str, Any] | None = None, *, shards: int = 1, **changes: Any
) -> Path:
    """Write a model folder; ``changes`` go into its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**(CONFIG if config is None else config), **changes}))
    names = list(content)
    groups = [names[k::shards] for k in range(shards)]
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        file = "model.safetensors" if shards == 1 else f"model-{number:05d}-of-{shards:05d}.safetensors"
        write_file(folder / file, {name: content[name] for name in group})
        weight_map |= dict.fromkeys(group, file)
    if shards > 1:
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_file(path: Path, content: Tensors) -> None:
    """One safetensors file."""
    specs = [TensorSpec(name, dtype, tuple(array.shape)) for name, (dtype, array) in content.items()]
    data = b"".join(np.ascontiguousarray(array).tobytes() for _, array in content.values())
    path.write_bytes(build_header(specs, {"format": "pt"}) + data)


def read(folder: Path) -> Tensors:
    """All tensors of a model folder."""
    source = LocalSource(folder)
    found: Tensors = {}
    for name, spec in source.specs.items():
        buffer = bytearray(spec.nbytes)
        source.read_into(name, 0, spec.elements, memoryview(buffer))
        found[name] = (spec.dtype, np.frombuffer(bytes(buffer), spec.dtype.storage).reshape(spec.shape))
    source.close()
    return found


def add_tokenizer(folder: Path) -> None:
    """The small files beside the weights, contents free."""
    (folder / "tokenizer.json").write_text('{"version": "1.0"}')
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ x }}"}')
    (folder / "special_tokens_map.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text('{"bos_token_id": 1}')
    (folder / "modeling_own.py").write_text("raise SystemExit('code was run')")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage:\n- en\n---\nA model.\n")


def copy(folder: Path, target: Path) -> Path:
    """A copy of a model folder."""
    shutil.copytree(folder, target)
    return target
