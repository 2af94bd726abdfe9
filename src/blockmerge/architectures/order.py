"""The order in which a gradient meets the tensors of a checkpoint: that of the modules, as ``state_dict()`` lists them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from blockmerge.architectures.blocks import Block, block_of, layer_of, vocabulary_tensors
from blockmerge.architectures.tables import Architecture, Place, architecture_of, number_at

__all__ = ["Order", "module_order", "natural_key", "num_layers"]


@dataclass(frozen=True)
class Order:
    """Which tensors of a model take a position, and in which order.

    ``names`` are the given names that take one, in order, and with them the tied names that the checkpoint leaves
    out: the module has them, so they count. ``tied`` maps a name to the one whose storage it shares; both are in
    ``names``. Normally the key is not stored and the value is. If the checkpoint stores both, the pair is listed
    all the same (target to source, as the class declares it): equal tensors are one tensor, unequal ones are not
    tied, which only their bytes can tell. ``ignored`` are the given names that loading drops: no position.
    ``source`` says whether the order comes from the table of architectures or is the natural one. ``notes`` are
    sentences for the user: why the order is natural, what takes no position, what counts otherwise than expected.
    """

    names: tuple[str, ...]
    tied: Mapping[str, str]
    ignored: tuple[str, ...]
    source: Literal["table", "natural"]
    notes: tuple[str, ...]


def module_order(config: Mapping[str, Any], names: Iterable[str]) -> Order:
    """Order the tensors ``names`` of a checkpoint as the modules of the model have them.

    ``config`` is a parsed config.json and may hold anything. The class is its ``architectures[0]``, else the one of
    its ``model_type``. A checkpoint may spell its names as the bare model does (without ``model.``) or as an older
    release of the model did; the names returned are the checkpoint's. An unknown class, or one name that its class
    does not have, makes the whole order natural: embeddings, other tensors outside the layers, layers by number,
    final norm, head. The notes then say so. The result does not depend on the order of ``names``.
    """
    given = sorted(set(names))
    architecture = architecture_of(config)
    if architecture is None:
        return _natural_unknown(config, given)
    depth = num_layers(config)
    places = {name: architecture.place(name) for name in given}
    dropped = {name for name, place in places.items() if _is_dropped(architecture, config, depth, name, place)}
    unknown = [name for name in given if places[name] is None and name not in dropped]
    found = {name: place for name, place in places.items() if place is not None and name not in dropped}
    tied, inserted = _ties(architecture, config, found)
    found |= inserted
    notes = _notes(architecture, depth, found, dropped)
    if unknown:
        why = f"{_such_as(unknown)} not in the modules of {architecture.name}: tensors are taken in natural order"
        order = sorted([*found, *unknown], key=natural_key)
        return Order(tuple(order), tied, tuple(sorted(dropped, key=natural_key)), "natural", (why, *notes))
    order = _in_order(architecture, found)
    return Order(tuple(order), tied, tuple(sorted(dropped, key=natural_key)), "table", notes)


def num_layers(config: Mapping[str, Any]) -> int | None:
    """The number of layers of the language model that config.json states; None if it states none."""
    architecture = architecture_of(config)
    if architecture is not None and architecture.depth:
        return number_at(config, architecture.depth)
    for inner in ((), ("text_config",)):
        for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
            number = number_at(config, (*inner, key))
            if number is not None:
                return number
    return None


# --- With the table -----------------------------------------------------------------------------------------------


def _in_order(architecture: Architecture, found: Mapping[str, Place]) -> list[str]:
    """The names by place; where several were one tensor of the module, by name."""
    siblings: dict[str, set[str]] = {}
    if architecture.has_kinds:
        for place in found.values():
            *path, _ = place.name.split(".")
            for depth, part in enumerate(path):
                siblings.setdefault(".".join(path[:depth]), set()).add(part)
        found = {name: architecture.place(name, siblings) or place for name, place in found.items()}
    return [name for *_, name in sorted((place.key, place.rank, name) for name, place in found.items())]


def _is_dropped(
    architecture: Architecture, config: Mapping[str, Any], depth: int | None, name: str, place: Place | None
) -> bool:
    """Whether loading drops a tensor: by its name, or because it belongs to a layer that the model does not have."""
    if place is None:
        spelling = name
        if len(name) <= 512 and architecture.ignored.search(name):
            return True
    else:
        spelling = place.name
    layer, rest = _layer_in(architecture.stack, spelling)
    if layer is None or depth is None:
        return False
    if layer >= depth:
        return True
    tail = architecture.tail
    if not tail:
        return False
    count = number_at(config, tail["count"])
    first = depth - (tail["default"] if count is None else count)
    return layer >= first and any(rest.startswith(f"{module}.") for module in tail["names"])
