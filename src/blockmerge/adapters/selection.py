"""What an adapter of a finetune has to hold: read from headers, and from weights only until they differ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from blockmerge.architectures import Block, block_of, layer_of, module_name, module_order
from blockmerge.errors import BlockmergeError, MismatchError, RecipeError, listed, raise_all
from blockmerge.planning.checks import blendable, explain_sizes, incompatible, unusable
from blockmerge.sources import Source

__all__ = ["Matrix", "Selection", "differences", "select"]

_CHUNK = 1 << 20
_INPUTS_FIRST = {"gpt2", "openai-gpt", "imagegpt"}
"""Models that store the weight of a layer with its inputs first."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The weight ``name`` of a linear layer, ``shape`` as stored; ``module`` is its path in the loaded model."""

    name: str
    module: str
    shape: tuple[int, int]
    rank: int


@dataclass
class Selection:
    """What an adapter will hold: ``matrices`` as products, ``whole`` tensors (name to module) as they are.

    ``unchanged`` counts linear layers that are the same in both; ``uncovered`` names tensors that differ and that the
    adapter leaves as they are in the base. ``targets`` and ``saved`` are modules as PEFT's options name them.
    """

    rank: int
    inputs_first: bool
    matrices: list[Matrix] = field(default_factory=list[Matrix])
    whole: dict[str, str] = field(default_factory=dict[str, str])
    unchanged: list[str] = field(default_factory=list[str])
    uncovered: list[str] = field(default_factory=list[str])
    targets: list[str] = field(default_factory=list[str])

    @property
    def saved(self) -> list[str]:
        """Modules whose weights are kept whole."""
        return sorted(self.whole.values())


def select(
    model: Source,
    base: Source,
    *,
    rank: int,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    save_embeddings: bool = False,
) -> Selection:
    """Look for what differs between ``model`` and ``base``; see :func:`blockmerge.extract_lora`.

    Raises :class:`ModelError`, :class:`MismatchError` or :class:`RecipeError`, all problems at once.
    """
    raise_all([*unusable(model), *unusable(base), *incompatible(base, model)])
    raise_all(_misfits(model, base, save_embeddings=save_embeddings))
    selection = Selection(rank, base.config.get("model_type") in _INPUTS_FIRST)
    layers = 0
    for name in _names(model):
        spec = model.specs[name]
        linear = _is_linear(name, spec.shape)
        chosen = (not include or any(text in name for text in include)) and not any(text in name for text in exclude)
        layers += linear and chosen
        if not _differs(model, base, name):
            if linear:
                selection.unchanged.append(name)
            continue
        module = module_name(base.config, name).removesuffix(".weight")
        if linear and chosen:
            shape = (spec.shape[0], spec.shape[1])
            selection.matrices.append(Matrix(name, module, shape, min(rank, *shape)))
        elif save_embeddings and _is_vocabulary(name):
            selection.whole[name] = module
        else:
            selection.uncovered.append(name)
    selection.uncovered += [name for name in _names(base) if name not in model.specs]
    if not layers:
        raise RecipeError("include and exclude leave no linear layer to extract; see the names with blockmerge inspect")
    if not selection.matrices and not selection.whole:
        raise MismatchError(f"{model.label}: no linear layer chosen differs from {base.label}; nothing to extract")
    selection.targets = _targets(selection, base)
    return selection


def _names(source: Source) -> list[str]:
    """The stored tensors that count, in module order."""
    return [name for name in module_order(source.config, source.specs).names if name in source.specs]


def _is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Whether it is the weight of a linear layer inside the stack."""
    return (
        len(shape) == 2
        and name.endswith(".weight")
        and layer_of(name) is not None
        and block_of(name) is not Block.NORMS
    )


def _is_vocabulary(name: str) -> bool:
    return name.endswith(".weight") and block_of(name) in (Block.EMBEDDINGS, Block.HEAD)


def _misfits(model: Source, base: Source, *, save_embeddings: bool) -> Iterator[BlockmergeError]:
    """Why no adapter of ``base`` makes ``model``. A head may be stored in one and tied in the other."""
    for one, other in ((model, base), (base, model)):
        lacking = [name for name in _names(other) if name not in one.specs and block_of(name) is not Block.HEAD]
        if lacking:
            yield MismatchError(f"{one.label}: lacks {len(lacking)} tensors of {other.label}: {listed(lacking)}")
    for name in _names(model):
        spec, other = model.specs[name], base.specs.get(name)
        if other is None or spec.shape == other.shape:
            continue
        text = f"{name}: {list(spec.shape)} in {model.label}, {list(other.shape)} in {base.label}"
        if not _is_vocabulary(name) or spec.shape[1:] != other.shape[1:]:
            yield MismatchError(f"{text} ({explain_sizes(base, model)})")
        elif not save_embeddings:
            yield MismatchError(f"{text}: the vocabularies differ; --save-embeddings stores them whole")


def _targets(selection: Selection, base: Source) -> list[str]:
    """The modules with products: by their last names, if that means these and no others; else by their paths."""
    paths = {matrix.module for matrix in selection.matrices}
    short = {path.rpartition(".")[2] for path in paths}
    meant = {
        module
        for name, spec in base.specs.items()
        if len(spec.shape) == 2
        and (module := module_name(base.config, name).removesuffix(".weight")).split(".")[-1] in short
    }
    return sorted(short if meant == paths else paths)


def differences(model: Source, base: Source, name: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """``model`` minus ``base`` in float32, in runs of elements, each with the number of its first one."""
    from blockmerge.kernels import sums

    for first, one, other in _runs(model, base, name):
        values = np.empty(one.size, np.float32)
        sums.difference(one, other, values)
        yield first, values


def _differs(model: Source, base: Source, name: str) -> bool:
    """Whether a tensor has other numbers in ``model`` than in ``base``; reads until it has."""
    if name not in base.specs or model.specs[name].shape != base.specs[name].shape:
        return True
    one, other = model.specs[name].dtype, base.specs[name].dtype
    if one == other:
        return any(a.tobytes() != b.tobytes() for _, a, b in _runs(model, base, name))
    if not blendable(one) or not blendable(other):
        return True
    return any(values.any() for _, values in differences(model, base, name))


def _runs(model: Source, base: Source, name: str) -> Iterator[tuple[int, NDArray[np.generic], NDArray[np.generic]]]:
    """Both models' encoded elements, a run at a time."""
    elements = model.specs[name].elements
    for first in range(0, elements, _CHUNK):
        count = min(_CHUNK, elements - first)
        yield first, _read(model, name, first, count), _read(base, name, first, count)


def _read(source: Source, name: str, first: int, count: int) -> NDArray[np.generic]:
    dtype = source.specs[name].dtype
    buffer = bytearray(count * dtype.itemsize)
    source.read_into(name, first, count, memoryview(buffer))
    return np.frombuffer(buffer, dtype.storage)
