"""Reading a list of values along a model: which ratio each tensor gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from blockmerge.architectures import block_of, layer_of
from blockmerge.recipes import Only, Reading, Selection

__all__ = ["by_layer", "by_tensor", "interpolated", "ratios", "selected", "selects"]


def ratios(values: Sequence[float], names: Sequence[str], by: Reading, model: Sequence[str]) -> list[float]:
    """The value for each of the selected ``names``; these and all names of the ``model`` stand in module order."""
    if by is not Reading.TENSOR:
        first = next((k for k, name in enumerate(model) if layer_of(name) is not None), len(model))
        before = set(model[:first])
        first_for_all = by is Reading.MERGEKIT
        return by_layer(values, [layer_of(name) for name in names], [name in before or first_for_all for name in names])
    return by_tensor(values, len(names))


def by_tensor(values: Sequence[float], count: int) -> list[float]:
    """BlockMerge_Gradient's reading over ``count`` tensors, to the letter.

    Each of the ``len(values) - 1`` sections takes ``count // sections`` tensors and runs from its first value to its
    last, both included; tensors that are left over get the last value. With more sections than tensors that is all of
    them. A single value is a constant.
    """
    sections = len(values) - 1
    if sections == 0:
        return [float(values[0])] * count
    each = count // sections
    found: list[float] = []
    for first, last in pairwise(values):
        found += np.linspace(first, last, each).tolist()
    return found + [float(values[-1])] * (count - len(found))


def by_layer(values: Sequence[float], layers: Sequence[int | None], before: Sequence[bool]) -> list[float]:
    """mergekit's reading: the k-th of n layers stands at ``k / (n - 1)``, values are interpolated linearly.

    ``layers`` gives each tensor's layer; of those with none the ones that stand ``before`` the layers get the first
    value (embeddings), the others the last (final norm, head).
    """
    present = sorted({layer for layer in layers if layer is not None})
    position = {layer: k / (len(present) - 1) if len(present) > 1 else 1.0 for k, layer in enumerate(present)}
    places = [
        float(not early) if layer is None else position[layer] for layer, early in zip(layers, before, strict=True)
    ]
    return [interpolated(values, place) for place in places]


def interpolated(values: Sequence[float], position: float) -> float:
    """The polyline through ``values`` at ``position`` in [0, 1], exact at its knots."""
    at = position * (len(values) - 1)
    knot = min(int(at), len(values) - 1)
    rest = at - knot
    return float(values[knot]) if rest == 0 else (1 - rest) * values[knot] + rest * values[knot + 1]


def selects(selection: Selection, name: str) -> bool:
    """Whether ``selection`` covers the tensor ``name``."""
    if selection.block is not None and block_of(name) is not selection.block:
        return False
    if selection.filters and not any(text in name for text in selection.filters):
        return False
    if selection.layers is not None and not _within(selection.layers, layer_of(name)):
        return False
    if selection.only is None:
        return True
    in_layers = "layer" in name if selection.literal_layers else layer_of(name) is not None
    return in_layers is (selection.only is Only.LAYERS)


def _within(layers: tuple[int, int], layer: int | None) -> bool:
    return layer is not None and layers[0] <= layer < layers[1]


def selected(selection: Selection, names: Iterable[str]) -> list[str]:
    """The covered ones of ``names``, in their order."""
    return [name for name in names if selects(selection, name)]
