"""Agreement with PEFT: a model with its adapter computes what the model does that Blockmerge reads from the two.

pip install --no-deps peft accelerate
pytest -m peers tests/test_peft.py
"""

from __future__ import annotations

import warnings
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml

import blockmerge
import checkpoints
import models
from blockmerge.dtypes import F32
from blockmerge.sources import locate, open_model

NEEDED = all(find_spec(name) for name in ("peft", "accelerate"))
pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not NEEDED, reason="needs peft: pip install --no-deps peft accelerate"),
    pytest.mark.filterwarnings("ignore"),
]
IDS = torch.arange(1, 20)[None]
SOME = ["q_proj", "up_proj"]
SAVED = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}
PATTERNS = {
    "rank_pattern": {"layers.0.self_attn.q_proj": 2, r".*\.1\..*up_proj": 6}, "alpha_pattern": {"q_proj": 5},
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("llama", {"target_modules": "all-linear"}),
    "rslora": ("llama", {"target_modules": SOME, "use_rslora": True, "lora_alpha": 3}),
    "dora": ("llama", {"target_modules": "all-linear", "use_dora": True}),
    "patterns": ("llama", {"target_modules": SOME, **PATTERNS}),
    "patterns and rslora": ("llama", {"target_modules": SOME, "use_rslora": True, **PATTERNS}),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "embedding with dora": ("llama", {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True}),
    "modules_to_save": ("llama", SAVED),
    "head": ("llama", {"target_modules": ["lm_head"]}),
    "bias": ("qwen2", {"target_modules": ["q_proj"], "bias": "all"}),
    "bias of some": ("qwen2", {"target_modules": ["q_proj"], "bias": "lora_only"}),
    "gpt2": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"]}),
    "gpt2 with dora": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True}),
    "gpt2 embedding": ("gpt2", {"target_modules": ["wte", "c_attn"]}),
}
TIED: dict[str, dict[str, Any]] = {
    "embedding": {"target_modules": ["embed_tokens"]},
    "head": {"target_modules": ["lm_head"]},
    "both": {"target_modules": ["lm_head", "embed_tokens"]},
    "saved embedding": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "saved head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "both tied": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "saved and tied": {**SAVED, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
}


def adapted(folder: Path, make: Any, options: dict[str, Any]) -> Any:
    """A tiny model with an adapter that does something; both are saved in ``folder``."""
    import peft

    base = make(folder / "base", seed=1, dtype="float32")
    torch.manual_seed(0)
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_pretrained(base), peft.LoraConfig(**{"r": 4, **options})
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder / "adapter")
    return model.eval()


def read(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with closing(open_model(locate(f"{folder / 'base'}+{folder / 'adapter'}"))) as source:
        found = {}
        for name, spec in source.specs.items():
            assert spec.dtype == F32
            array = np.empty(spec.shape, np.float32)
            source.read_into(name, 0, spec.elements, memoryview(array.reshape(-1).view(np.uint8)))
            found[name] = array
        return found, dict(source.config)


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_that_peft_merges(tmp_path: Path, case: str) -> None:
    architecture, options = CASES[case]
    make = getattr(checkpoints, f"make_{architecture}")
    settings = {} if architecture == "llama" else {"tied": "embedding" not in case}
    model = adapted(tmp_path, lambda *place, **how: make(*place, **how, **settings), options)
    ours, _ = read(tmp_path)
    theirs = {name: tensor.numpy() for name, tensor in model.merge_and_unload().state_dict().items()}
    assert ours.keys() <= theirs.keys() and theirs.keys() - ours.keys() <= {"lm_head.weight"}
    for name, array in ours.items():
        assert np.abs(array - theirs[name]).max() <= 1e-6 * np.abs(theirs[name]).max(), name


@pytest.mark.parametrize("case", TIED)
def test_tied_models_compute_what_they_did_before_they_were_merged(tmp_path: Path, case: str) -> None:
    """peft's own merge adds to the one matrix that head and embedding share, so it is no measure here."""
    make = checkpoints.make_llama
    model = adapted(tmp_path, lambda *place, **how: make(*place, tied=True, **how), TIED[case])
    arrays, config = read(tmp_path)
    models.save(tmp_path / "merged", {name: (F32, array) for name, array in arrays.items()}, config)
    with warnings.catch_warnings(), torch.no_grad():
        merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        wanted, found = model(IDS).logits, merged(IDS).logits
    assert (wanted - found).abs().max() <= 2e-5 * wanted.abs().max()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
def test_peft_reads_what_was_extracted(tmp_path: Path, architecture: str) -> None:
    import peft

    make = getattr(checkpoints, f"make_{architecture}")
    base = make(tmp_path / "base", seed=1, dtype="float32", tied=False)
    random = torch.Generator().manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            linear = tensor.ndim == 2 and (".layers." in name or ".h." in name)
            if linear or name.endswith("embed_tokens.weight"):
                tensor.add_(torch.randn(tensor.shape, generator=random) * 0.05)
    model.save_pretrained(tmp_path / "finetune")
    blockmerge.extract_lora(tmp_path / "finetune", base, tmp_path / "out", rank=99, save_embeddings=True)
    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        found = peft.PeftModel.from_pretrained(plain, tmp_path / "out").eval()(IDS).logits
        wanted = model.eval()(IDS).logits
    assert (wanted - found).abs().max() <= 2e-5 * wanted.abs().max()


# --- Merging task vectors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "breadcrumbs"])
def test_task_vectors_are_merged_as_peft_merges_them(tmp_path: Path, method: str) -> None:
    """PEFT averages agreeing vectors by their number, so weights are equal here; its pruning is our breadcrumbs."""
    from peft.utils import merge_utils

    random = np.random.default_rng(3)
    base = random.normal(0, 1, (64, 96)).astype(np.float32)
    fine = [(base + random.normal(0, 0.1, base.shape)).astype(np.float32) for _ in range(3)]
    paths = [
        str(models.save(tmp_path / f"m{k}", {"a.weight": (F32, array)}, {"model_type": "none"}))
        for k, array in enumerate((base, *fine))
    ]
    recipe: dict[str, Any] = {"method": method, "base": paths[0], "models": paths[1:], "weight": 1.0}
    recipe |= {"task_arithmetic": {}, "ties": {"density": 0.3}, "breadcrumbs": {"density": 0.3, "gamma": 0}}[method]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    blockmerge.merge(tmp_path / "recipe.yaml", tmp_path / "out")
    vectors, weights = [torch.from_numpy(array - base) for array in fine], torch.ones(3)
    expected = {
        "task_arithmetic": lambda: merge_utils.task_arithmetic(vectors, weights),
        "ties": lambda: merge_utils.ties(vectors, weights, 0.3),
        "breadcrumbs": lambda: merge_utils.magnitude_prune(vectors, weights, 0.3),
    }[method]()
    got = models.read(tmp_path / "out")["a.weight"][1]
    assert np.abs(got - (base + expected.numpy())).max() < 1e-6
