"""Recipes, configs, cards, tokenizers and adapters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attack import MERGE, PLAN, attack, save_json

from blockmerge.dtypes import F32
from blockmerge.formats.safetensors import build_header
from blockmerge.tensors import TensorSpec

__all__: list[str] = []

TOKENS = "method: gradient\nmodels: [first, second]\nvalues: [0.5]\ntokenizer: union\n"
ADAPTER = ("gradient", "first", "second+adapter", "out", "--values", "0.5", "--quiet")


def recipe(folder: Path, text: str) -> None:
    (folder / "recipe.yaml").write_text(text, "utf-8")


def config(folder: Path, **changes: Any) -> None:
    path = folder / "second" / "config.json"
    save_json(path, {**json.loads(path.read_text("utf-8")), **changes})


@attack("a config of 900 lists within each other")
def deep_config(folder: Path) -> None:
    path = folder / "second" / "config.json"
    path.write_text('{"a":' + "[" * 900 + "]" * 900 + "}", "utf-8")


@attack("a config that writes to the terminal")
def config_escape(folder: Path) -> None:
    config(folder, architectures=["\x1b[2J"])


@attack("a config with half of a surrogate pair, which no file can hold")
def config_surrogate(folder: Path) -> None:
    config(folder, model_type="\udc80")


@attack("a config with an infinite number of layers")
def config_infinite(folder: Path) -> None:
    config(folder, num_hidden_layers=float("inf"))


@attack("a recipe whose aliases grow to ten billion values", PLAN)
def bomb(folder: Path) -> None:
    lists = ["&a0 [x, x, x, x, x, x, x, x, x, x]"]
    lists += [f"&a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10)]
    text = "merge_method: linear\nmodels: [{model: first}, {model: second}]\ndtype: bfloat16\nparameters: {weight: "
    recipe(folder, f"{text}[{', '.join(lists)}]}}")


@attack("a recipe that runs code", PLAN)
def code(folder: Path) -> None:
    recipe(folder, "method: gradient\nmodels: [first, second]\nvalues: !!python/object/apply:os.system ['touch owned']")


@attack("a recipe of 100,000 brackets", PLAN)
def deep_recipe(folder: Path) -> None:
    recipe(folder, "values: " + "[" * 100_000)


@attack("a recipe of a gigabyte", PLAN)
def long_recipe(folder: Path) -> None:
    recipe(folder, "")
    with (folder / "recipe.yaml").open("r+b") as file:
        file.truncate(10**9)


@attack("a recipe with a number of 100,000 digits", PLAN)
def digits_recipe(folder: Path) -> None:
    recipe(folder, "method: gradient\nmodels: [first, second]\nvalues: [" + "9" * 100_000 + "]")


@attack("a recipe with half of a surrogate pair", MERGE)
def surrogate_recipe(folder: Path) -> None:
    recipe(folder, 'method: gradient\nmodels: [first, second]\nvalues: [0.5]\nfilters: ["\\ud800"]')


@attack("a recipe with a character that does not exist", MERGE)
def character_recipe(folder: Path) -> None:
    recipe(folder, 'method: gradient\nmodels: [first, second]\nvalues: [0.5]\nfilters: ["\\UFFFFFFFF"]')


@attack("a recipe that stacks 10^15 layers", PLAN)
def layers(folder: Path) -> None:
    recipe(
        folder,
        "merge_method: passthrough\nslices: [{sources: [{model: first, layer_range: [0, 1000000000000000]}]}]\n",
    )


@attack("a card with aliases that grow without bound")
def card(folder: Path) -> None:
    lines = ["a0: &a0 [x]", *(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, 10))]
    text = "---\n" + "\n".join(lines) + "\nlicense: *a9\n---\n"
    (folder / "second" / "README.md").write_text(text, "utf-8")


@attack("a tokenizer of 900 lists within each other", MERGE)
def deep_tokenizer(folder: Path) -> None:
    recipe(folder, TOKENS)
    text = '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ' + "[" * 900 + "]" * 900 + "}}"
    (folder / "second" / "tokenizer.json").write_text(text, "utf-8")


@attack("a token with an id that would take a terabyte", MERGE)
def token(folder: Path) -> None:
    recipe(folder, TOKENS)
    save_json(folder / "second" / "tokenizer.json", {"model": {"type": "BPE", "vocab": {"a": 10**12}, "merges": []}})


@attack("a SentencePiece model that ends inside a piece", MERGE)
def pieces(folder: Path) -> None:
    recipe(folder, TOKENS)
    (folder / "second" / "tokenizer.json").unlink()
    (folder / "second" / "tokenizer.model").write_bytes(b"\x0a\xff\xff\xff\xff\x0f")


def adapter(folder: Path, **options: Any) -> None:
    (folder / "adapter").mkdir()
    save_json(folder / "adapter" / "adapter_config.json", {"peft_type": "LORA", "r": 8, "lora_alpha": 8, **options})
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    specs = [TensorSpec(f"{module}.lora_{part}.weight", F32, shape) for part, shape in (("A", (8, 96)), ("B", (96, 8)))]
    weights = build_header(specs, {}) + bytes(2 * 8 * 96 * 4)
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(weights)


@attack("an adapter with a regular expression that never ends", ADAPTER)
def pattern(folder: Path) -> None:
    adapter(folder, rank_pattern={"(a+)+b": 8})


@attack("an adapter with a regular expression that takes minutes", ADAPTER)
def slow_pattern(folder: Path) -> None:
    adapter(folder, rank_pattern={".*" * 12 + "b": 8})


@attack("an adapter of rank 10^12", ADAPTER)
def rank(folder: Path) -> None:
    adapter(folder, r=10**12)
