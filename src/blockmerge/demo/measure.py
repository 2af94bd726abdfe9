"""What a merge did to a model: its loss on held-out text of two kinds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from blockmerge.demo.forward import Floats, encode, loss
from blockmerge.dtypes import BF16
from blockmerge.sources import LocalSource

__all__ = ["KINDS", "MODELS", "losses", "weights_of"]

_HERE = Path(__file__).parent
KINDS = ("code", "prose")
MODELS = {kind: _HERE / "models" / kind for kind in KINDS}
"""The two models that ship with the package: one base, finetuned on each kind of text."""


def losses(model: Path, kinds: Iterable[str] = KINDS) -> dict[str, float]:
    """Mean cross entropy, in nats per byte, of the model in folder ``model`` on held-out text of each kind."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    weights = weights_of(model)
    texts = {kind: (_HERE / "text" / f"{kind}.txt").read_text(encoding="utf-8") for kind in kinds}
    return {kind: loss(weights, config, encode(text)) for kind, text in texts.items()}


def weights_of(model: Path) -> dict[str, Floats]:
    """All weights of a bfloat16 model as float32."""
    source = LocalSource(model)
    weights: dict[str, Floats] = {}
    for name, spec in source.specs.items():
        if spec.dtype != BF16:
            raise ValueError(f"{name}: the demo reads bfloat16 only")
        stored = np.empty(spec.elements, np.uint16)
        source.read_into(name, 0, spec.elements, stored.data.cast("B"))
        weights[name] = (stored.astype(np.uint32) << 16).view(np.float32).reshape(spec.shape)
    source.close()
    return weights
