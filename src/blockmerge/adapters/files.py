"""The small files of an adapter: its options, as PEFT reads them, and its card."""

from __future__ import annotations

import json
from typing import Any

from blockmerge.adapters.result import Extracted
from blockmerge.adapters.selection import Selection
from blockmerge.formats.yamltext import yaml_text
from blockmerge.planning import InputModel
from blockmerge.sources import SmallFile

__all__ = ["small_files"]


def small_files(selection: Selection, result: Extracted, model: InputModel, base: InputModel) -> dict[str, SmallFile]:
    """adapter_config.json and README.md. They hold no time and no path."""
    contents = {"README.md": _card(result, model, base), "adapter_config.json": _options(selection, base)}
    return {name: SmallFile.of(text) for name, text in contents.items()}


def _options(selection: Selection, base: InputModel) -> str:
    """LoRA with alpha = rank, so that products are added as they are."""
    own_ranks = {matrix.module: matrix.rank for matrix in selection.matrices if matrix.rank != selection.rank}
    options: dict[str, Any] = {
        "alpha_pattern": own_ranks,
        "base_model_name_or_path": base.parts[0].label,
        "bias": "none",
        "fan_in_fan_out": selection.inputs_first,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": selection.rank,
        "lora_dropout": 0.0,
        "modules_to_save": [path.rpartition(".")[2] for path in selection.saved] or None,
        "peft_type": "LORA",
        "r": selection.rank,
        "rank_pattern": own_ranks,
        "revision": base.parts[0].revision,
        "target_modules": selection.targets,
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(options, indent=2) + "\n"


def _card(result: Extracted, model: InputModel, base: InputModel) -> str:
    entries: dict[str, Any] = {
        "base_model": base.parts[0].label,
        "base_model_relation": "adapter",
        "library_name": "peft",
        **{
            key: model.card[key] for key in ("license", "license_name", "license_link", "language") if key in model.card
        },
        "tags": ["blockmerge", "lora"],
    }
    front = yaml_text(entries, width=1000, flow=False)
    lines = [
        f"---\n{front}---",
        f"# {model.label} as an adapter",
        f"A LoRA adapter of rank {result.rank} that turns `{base.published}` into an approximation of "
        f"`{model.published}`, extracted with [Blockmerge](https://pypi.org/project/blockmerge/). It keeps "
        f"{result.kept:.2%} of what changed in {len(result.layers)} linear layers, measured by the squared Frobenius "
        "norm of the difference.",
    ]
    if result.whole:
        lines.append("Kept whole: " + ", ".join(f"`{name}`" for name in result.whole) + ".")
    if result.uncovered:
        lines.append(f"{len(result.uncovered)} other tensors differ between the models and stay the base's.")
    return "\n\n".join(lines) + "\n"
