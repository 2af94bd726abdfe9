"""The normal form that every dialect ends in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from blockmerge.architectures import Block
from blockmerge.vocabularies import TokenizerChoice

__all__ = [
    "SHARD_SIZE",
    "Arithmetic",
    "Curve",
    "OnMissing",
    "Only",
    "Part",
    "Reading",
    "Recipe",
    "Selection",
    "Setting",
    "Slice",
]


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
    MERGEKIT = "mergekit-0.1.5"
    """As ``layer``, but what follows the layers (final norm, head) gets the first value too: mergekit 0.1.5's bug."""


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
"""The values of one parameter: for each tensor the first curve that selects it counts. A flag is 1 or 0."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a slice takes of one model: number ``model`` of the recipe's, its ``layers`` (half-open; None: all).

    ``settings`` are the method's numbers and flags for this model; they go before those of the slice. ``origin`` says
    where a person wrote the layers.
    """

    model: int
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    layers: tuple[int, int] | None = None
    origin: str = field(default="slices", compare=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of layers of the result, made of as many layers of each of its ``parts`` and of the ``base``.

    Tensors before the layers belong to the first slice, those after them to the last. ``module`` names the part of a
    composite model whose layers these are (``text_decoder``, ``vision_tower`` ...); empty means the whole model.
    """

    parts: tuple[Part, ...]
    base: Part | None = None
    settings: Mapping[str, Setting] = field(default_factory=dict[str, Setting])
    module: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A merge in normal form.

    ``models`` are the references of all inputs (folders, Hub ids, names of ``stages``), each once. The first lends
    config, tokenizer and whatever no other model has; it is the base, if there is one.

    The method ``gradient`` blends two models by ``curves``. Natively each tensor belongs to one curve at most;
    operations of a BlockMerge YAML may overlap, and then blend again what the one before them left (``overlapping``).

    All other methods merge ``slices``, mostly a single one of whole models; ``choices`` hold what the method lets
    choose by name, ``seed`` decides random choices.

    ``tokenizer`` says which tokens the result has and where their rows come from (None: the first model's, row by row);
    ``chat_template`` is a template, the name of a known one, or ``auto`` for the one that most models have.

    ``dtype`` is a name like ``bfloat16``, or None for the first model's; ``max_shard_size`` is in bytes. ``stages`` are
    merges whose results this one and other stages take as inputs, by name, each after those that it needs.
    """

    models: tuple[str, ...]
    curves: tuple[Curve, ...] = ()
    method: str = "gradient"
    slices: tuple[Slice, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict[str, str])
    seed: int = 0
    by: Reading = Reading.TENSOR
    arithmetic: Arithmetic = Arithmetic.EXACT
    dtype: str | None = None
    on_missing: OnMissing = OnMissing.ERROR
    tokenizer: TokenizerChoice | None = None
    chat_template: str | None = None
    max_shard_size: int = SHARD_SIZE
    overlapping: bool = False
    dialect: str = "native"
    output: str | None = field(default=None, compare=False)
    stages: Mapping[str, Recipe] = field(default_factory=dict[str, "Recipe"])

    def with_models(self, place: Callable[[str], str]) -> Recipe:
        """This recipe, and its stages, with other references for models that are no stages."""

        def renamed(one: Recipe) -> Recipe:
            return replace(one, models=tuple(name if name in self.stages else place(name) for name in one.models))

        return replace(renamed(self), stages={name: renamed(stage) for name, stage in self.stages.items()})

    @property
    def bases(self) -> frozenset[int]:
        """Numbers of the models that are a base and nothing else."""
        found = {piece.base.model for piece in self.slices if piece.base is not None}
        return frozenset(found - {part.model for piece in self.slices for part in piece.parts})
