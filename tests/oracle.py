"""What the original merges, computed the slow way: whole models in memory, through torch and transformers.

Two editions of BlockMerge_Gradient exist. The command-line one casts both models to float16 and blends once; the YAML
one blends in the dtype the models load in, operation after operation, and casts to float16 at the end. Both blend
`(1 - r) * model1 + r * model2` with one ratio r per selected tensor, in the order of model 1's state dict.

Everything that decides bits is left to torch and transformers themselves (loading, ties, casts, sharding), and nothing
here shares code with the package, so that an agreement of the two means something. Only the weights, config.json and
generation_config.json are written; copying the tokenizer's files is not the oracle's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

Tensors = dict[str, torch.Tensor]

# The only names whose first dimension may differ between the two models.
VOCABULARY_NAMES = frozenset({"lm_head.weight", "model.embed_tokens.weight"})


def original_gradient(
    model1: Path,
    model2: Path,
    out: Path,
    gradient_values: Sequence[float],
    *,
    layer_only: bool = False,
    no_layers: bool = False,
    custom_filter: str | None = None,
    max_shard_size: int | str = "2GB",
) -> Tensors:
    """Merge as the command-line edition does and return the tensors it saved.

    A list of one value divides by zero and an empty one has no last value: both are the original's own errors.
    """
    first, second = _load(model1).half(), _load(model2).half()
    _blend(first, second, gradient_values, _select(first, layer_only, no_layers, custom_filter))
    return _save(first, out, max_shard_size)


def original_operations(config: dict[str, Any]) -> Tensors:
    """Merge as the YAML edition does, given what its YAML file holds, and return the tensors it saved."""
    first, second = _load(config["model_path1"]), _load(config["model_path2"])
    for operation in config["operations"]:
        values = operation["gradient_values"]
        names = _select(
            first, operation.get("layer_only", False), operation.get("no_layers", False), operation.get("filter")
        )
        _blend(first, second, [*values, *values] if len(values) == 1 else values, names)
    return _save(first.half(), config["output_model_path"], config.get("max_shard_size", "2GB"))


def gradient_ratios(gradient_values: Sequence[float], count: int) -> list[float]:
    """Model 2's share for each of `count` tensors.

    Sections are equally long and both ends of each are included, so an inner value appears twice; the tensors that do
    not fill a section get the last value, as the number it is in the list (an int stays an int).
    """
    length = count // (len(gradient_values) - 1)
    ratios = [ratio for ends in pairwise(gradient_values) for ratio in np.linspace(*ends, length)]
    return ratios + [gradient_values[-1] for _ in range(count - len(ratios))]


def select_names(
    names: Iterable[str], layer_only: bool = False, no_layers: bool = False, part: str | None = None
) -> list[str]:
    """The names the options leave, in order; `layer_only` wins over `no_layers`, an empty filter is none."""
    chosen = list(names)
    if layer_only:
        chosen = [name for name in chosen if "layer" in name]
    elif no_layers:
        chosen = [name for name in chosen if "layer" not in name]
    return [name for name in chosen if part in name] if part else chosen


def _load(folder: str | Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


def _select(model: PreTrainedModel, layer_only: bool, no_layers: bool, part: str | None) -> list[str]:
    return select_names(model.state_dict(), layer_only, no_layers, part)


@torch.no_grad()
def _blend(first: PreTrainedModel, second: PreTrainedModel, gradient_values: Sequence[float], names: list[str]) -> None:
    """Blend the named tensors of `second` into `first`.

    All results are computed from the old values before any is stored. Tied names share storage, so storing them in
    state-dict order lets the last one stand; `load_state_dict` casts a promoted result back to the model's dtype.
    """
    ours, theirs = first.state_dict(), second.state_dict()
    ratios = gradient_ratios(gradient_values, len(names))
    blended = {name: _mix(name, ours[name], theirs[name], ratio) for name, ratio in zip(names, ratios, strict=True)}
    first.load_state_dict(ours | blended)


def _mix(name: str, ours: torch.Tensor, theirs: torch.Tensor, ratio: float) -> torch.Tensor:
    if name not in VOCABULARY_NAMES:
        return _weighted_sum(ours, theirs, ratio)
    rows = min(len(ours), len(theirs))
    common = _weighted_sum(ours[:rows], theirs[:rows], ratio)
    return torch.cat([common.to(ours.dtype), ours[rows:]])


def _weighted_sum(ours: torch.Tensor, theirs: torch.Tensor, ratio: float) -> torch.Tensor:
    # Three torch operations, each rounding once to the dtype of its result: never one fused expression.
    return (1 - ratio) * ours + ratio * theirs


def _save(model: PreTrainedModel, out: str | Path, max_shard_size: int | str) -> Tensors:
    model.save_pretrained(out, max_shard_size=max_shard_size)
    files = sorted(Path(out).glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
