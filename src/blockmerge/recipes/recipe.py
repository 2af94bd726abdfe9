"""The normal form that every dialect ends in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from blockmerge.architectures import Block

__all__ = ["SHARD_SIZE", "Arithmetic", "Curve", "OnMissing", "Only", "Reading", "Recipe", "Selection", "Setting"]


class Arithmetic(StrEnum):
    """How numbers are blended."""

    EXACT = "exact"
    """Inputs decoded exactly, blended in float32 (float32 results in float64), rounded once."""
    ORIGINAL = "original"
    """Bit for bit BlockMerge_Gradient_Tensors.py: halved first, every step rounded to float16."""
    ORIGINAL_YAML = "original-yaml"
    """Bit for bit its YAML edition: blended in the loaded dtype, operation after operation, halved at the end."""


class Reading(StrEnum):
    """How a list of values is laid along the model."""

    TENSOR = "tensor"
    """Over the selected tensors in module order, as BlockMerge_Gradient does."""
    LAYER = "layer"
    """One value per layer, as mergekit does; what stands before the layers gets the first, what follows the last."""


class Only(StrEnum):
    """A coarse selection."""

    LAYERS = "layers"
    NON_LAYERS = "non-layers"


class OnMissing(StrEnum):
    """What to do with a tensor that only one model has."""

    ERROR = "error"
    KEEP = "keep"
    """Keep model 1's; leave out what only model 2 has."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tensors a curve covers: those that pass every condition given; an empty selection covers all.

    ``filters`` are substrings of names, any of which will do; ``layers`` is half-open; with ``literal_layers``,
    ``only`` looks for the word "layer" in the name, as the original does, instead of for a place in the stack.
    """

    block: Block | None = None
    only: Only | None = None
    filters: tuple[str, ...] = ()
    layers: tuple[int, int] | None = None
    literal_layers: bool = False


@dataclass(frozen=True, slots=True)
class Curve:
    """Values of model 2's share, laid along the tensors of a selection. ``origin`` says where a person wrote it."""

    values: tuple[float, ...]
    selection: Selection = Selection()
    origin: str = "--values"


SHARD_SIZE = 2_000_000_000
"""Bytes of weights in a file at most, unless a recipe says otherwise."""
Setting = tuple[Curve, ...]
"""The values of one parameter: for each tensor the first curve that selects it counts."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A merge in normal form.

    ``models`` are references (folders, Hub ids) in order, ``base`` is one more if the method wants one. The first of
    all, base before models, lends config, tokenizer and whatever no other model has.

    ``settings`` hold the numbers of the method for all models, ``model_settings`` those for each, which come first;
    ``options`` hold its flags and choices. ``seed`` decides random choices.

    The method ``gradient`` has its ``curves`` instead. Natively each tensor belongs to one curve at most; operations of
    a BlockMerge YAML may overlap, and then blend again what the one before them left (``overlapping``).

    ``dtype`` is a name like ``bfloat16``, or None for the first model's; ``max_shard_size`` is in bytes.
    """

    models: tuple[str, ...]
    curves: tuple[Curve, ...] = ()
    method: str = "gradient"
    base: str | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    model_settings: tuple[Mapping[str, Setting], ...] = ()
    options: Mapping[str, str | bool] = field(default_factory=dict[str, str | bool])
    seed: int = 0
    by: Reading = Reading.TENSOR
    arithmetic: Arithmetic = Arithmetic.EXACT
    dtype: str | None = None
    on_missing: OnMissing = OnMissing.ERROR
    max_shard_size: int = SHARD_SIZE
    overlapping: bool = False
    dialect: str = "native"
    output: str | None = field(default=None, compare=False)

    def common_words(self) -> dict[str, Any]:
        """What every native recipe may say about any method, as far as it differs from the defaults."""
        words = {
            "by": self.by.value if self.by is not Reading.TENSOR else None,
            "dtype": self.dtype,
            "on_missing": self.on_missing.value if self.on_missing is not OnMissing.ERROR else None,
            "max_shard_size": self.max_shard_size if self.max_shard_size != SHARD_SIZE else None,
        }
        return {word: value for word, value in words.items() if value is not None}

    @property
    def references(self) -> tuple[str, ...]:
        """All inputs, the one that lends config and tokenizer first."""
        return self.models if self.base is None else (self.base, *self.models)
