"""Tiny checkpoints on disk for tests: honest ones by architecture, then helpers that make them strange.

Weights come from a seeded generator, never from torch's global one, so a test changes nothing for the next.
Models are built on the meta device: only names and shapes are wanted of them, and that takes milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

INDEX = "model.safetensors.index.json"
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"
GPT2_EMBEDDING = "transformer.wte.weight"


# ---- architectures ---------------------------------------------------------------------------------------------------


def make_llama(
    folder: Path,
    *,
    seed: int,
    layers: int = 3,
    hidden: int = 32,
    vocab: int = 64,
    tied: bool = False,
    dtype: str = "bfloat16",
    config_dtype: str | None = None,
    shard_size: int | str | None = None,
    scale: float = 0.5,
    **config: Any,
) -> Path:
    """Llama with grouped-query attention: 9 tensors a layer and 3 around them."""
    settings = transformers.LlamaConfig(**_decoder(layers, hidden, vocab, tied) | config)
    return make(settings, folder, seed=seed, dtype=dtype, config_dtype=config_dtype, shard_size=shard_size, scale=scale)


def make_qwen2(
    folder: Path, *, seed: int, layers: int = 2, hidden: int = 32, vocab: int = 64, tied: bool = True, **options: Any
) -> Path:
    """Qwen2: Llama with biases on q, k and v, small sizes tied."""
    return make(transformers.Qwen2Config(**_decoder(layers, hidden, vocab, tied)), folder, seed=seed, **options)


def make_gemma2(
    folder: Path, *, seed: int, layers: int = 2, hidden: int = 32, vocab: int = 64, tied: bool = True, **options: Any
) -> Path:
    """Gemma 2: four norms a layer, always tied in practice."""
    settings = transformers.Gemma2Config(**_decoder(layers, hidden, vocab, tied) | {"head_dim": 8})
    return make(settings, folder, seed=seed, **options)


def make_gpt2(
    folder: Path, *, seed: int, layers: int = 2, hidden: int = 32, vocab: int = 64, tied: bool = True, **options: Any
) -> Path:
    """GPT-2: Conv1D weights (input first), biases everywhere, and no "layer" in any name."""
    settings = transformers.GPT2Config(
        n_layer=layers,
        n_embd=hidden,
        n_head=4,
        n_positions=32,
        vocab_size=vocab,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
    )
    return make(settings, folder, seed=seed, **options)


def make_mixtral(
    folder: Path, *, seed: int, layers: int = 2, hidden: int = 32, vocab: int = 64, experts: int = 4, **options: Any
) -> Path:
    """Mixtral: one tensor per expert on disk, one per layer in the loaded model."""
    sizes = _decoder(layers, hidden, vocab, tied=False)
    settings = transformers.MixtralConfig(**sizes, num_local_experts=experts, num_experts_per_tok=2)
    return make(settings, folder, seed=seed, **options)


def _decoder(layers: int, hidden: int, vocab: int, tied: bool) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": hidden + 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }


def make(
    settings: transformers.PreTrainedConfig,
    folder: Path,
    *,
    seed: int,
    dtype: str = "bfloat16",
    config_dtype: str | None = None,
    shard_size: int | str | None = None,
    scale: float = 0.5,
) -> Path:
    """Save a model of any architecture with random weights.

    `config_dtype` is what config.json says when that differs from the file; `shard_size` is bytes or "20KB".
    """
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(settings)
    weights = _random_weights(model, seed, getattr(torch, dtype), scale)
    model.save_pretrained(folder, state_dict=weights, max_shard_size=shard_size or "1GB")
    edit_config(folder, dtype=config_dtype or dtype)
    return Path(folder)


def _random_weights(model: transformers.PreTrainedModel, seed: int, dtype: torch.dtype, scale: float) -> Tensors:
    tied = set(model.all_tied_weights_keys)
    random = torch.Generator().manual_seed(seed)
    weights: Tensors = {}
    for name, tensor in model.state_dict().items():
        if name in tied:
            continue
        values = torch.randn(tensor.shape, generator=random) * scale
        # Norms sit around one in real models; a test of weighted sums should meet that magnitude too.
        weights[name] = (values + 1 if "norm" in name or ".ln_" in name else values).to(dtype)
    return weights


# ---- the files beside the weights ------------------------------------------------------------------------------------


def edit_config(folder: Path, *, drop: tuple[str, ...] = (), file: str = "config.json", **changes: Any) -> None:
    """Change keys of config.json, or remove those in `drop`."""
    path = Path(folder) / file
    config = json.loads(path.read_text("utf-8")) | changes
    for key in drop:
        config.pop(key, None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def add_tokenizer(folder: Path, *, vocab: int = 64) -> Path:
    """Write the files a chat model carries beside its weights: a tokenizer of whole words, a template, a card."""
    folder = Path(folder)
    for name, content in _tokenizer_files(vocab).items():
        text = content if isinstance(content, str) else json.dumps(content, indent=2) + "\n"
        (folder / name).write_text(text, "utf-8")
    return folder


def _tokenizer_files(vocab: int) -> dict[str, Any]:
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    words = [*special.values(), *(f"word{i}" for i in range(len(special), vocab))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": i, "content": token, **flags} for i, token in enumerate(special.values())]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"},
    }
    return {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32, **special},
        "special_tokens_map.json": special,
        "chat_template.jinja": "{% for message in messages %}{{ message.content }} {% endfor %}",
        "README.md": "---\nlicense: apache-2.0\nlanguage:\n- en\ntags:\n- test\n---\n# A tiny model\n",
    }


# ---- strange checkpoints ---------------------------------------------------------------------------------------------


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in shard order."""
    return sorted(Path(folder).glob("*.safetensors"))


def read_tensors(folder: Path) -> Tensors:
    """Every stored tensor of a checkpoint by name."""
    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


@contextmanager
def editing(folder: Path) -> Iterator[Tensors]:
    """Give the stored tensors as a dict; what it holds at the end becomes the checkpoint, as one file."""
    tensors = read_tensors(folder)
    yield tensors
    for file in (*weight_files(folder), Path(folder) / INDEX):
        file.unlink(missing_ok=True)
    # Storage may be shared by two names here; safetensors wants every tensor to own its bytes.
    owned = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(owned, Path(folder) / "model.safetensors", metadata={"format": "pt"})


def add_tensors(folder: Path, extra: Mapping[str, torch.Tensor]) -> None:
    """Store tensors the architecture may not know, or replace ones it does."""
    with editing(folder) as tensors:
        tensors.update(extra)


def remove_tensors(folder: Path, *names: str) -> None:
    """Forget tensors that ought to be there."""
    with editing(folder) as tensors:
        for name in names:
            del tensors[name]


def rename_tensors(folder: Path, rename: Callable[[str], str]) -> None:
    """Store every tensor under `rename(name)`, for instance without its prefix."""
    with editing(folder) as tensors:
        renamed = {rename(name): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)


def cast_tensors(folder: Path, dtypes: Mapping[str, str]) -> None:
    """Store the tensors whose names contain a key of `dtypes` in that dtype: a file of mixed dtypes."""
    with editing(folder) as tensors:
        for part, dtype in dtypes.items():
            for name in tensors:
                if part in name:
                    tensors[name] = tensors[name].to(getattr(torch, dtype))


def set_values(folder: Path, name: str, values: Mapping[int, float]) -> None:
    """Write values (NaN, infinities, minus zero) at flat positions of one tensor."""
    with editing(folder) as tensors:
        flat = tensors[name].reshape(-1)
        for index, value in values.items():
            flat[index] = value
        tensors[name] = flat.reshape(tensors[name].shape)


def fill(folder: Path, value: float) -> Path:
    """Make every stored weight the same number: blending zeros with ones then shows the ratios themselves."""
    with editing(folder) as tensors:
        for tensor in tensors.values():
            tensor.fill_(value)
    return Path(folder)


def store_head(folder: Path, *, equal: bool, embedding: str = EMBEDDING, head: str = HEAD) -> None:
    """Store the head beside the embedding it is tied to: the same values, or different ones."""
    with editing(folder) as tensors:
        tensors[head] = tensors[embedding] if equal else tensors[embedding].flip(0) * 0.5


def add_inv_freq(folder: Path, *, layers: int = 3, size: int = 4) -> None:
    """Store the rotary frequencies that checkpoints of 2023 carried in each layer."""
    frequencies = 1.0 / 10000 ** (torch.arange(size) / size)
    add_tensors(folder, {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": frequencies for i in range(layers)})
