"""The order in which a gradient meets the tensors of a checkpoint: that of the modules, as ``state_dict()`` lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from blockmerge.architectures.blocks import Block, block_of, fold_indices, layer_of, vocabulary_tensors
from blockmerge.architectures.tables import (
    MAX_NAME,
    Architecture,
    Place,
    architecture_of,
    declared_class,
    number_at,
)

__all__ = ["Order", "layers_key", "missing", "module_name", "module_order", "num_layers", "prefix_of", "with_prefix"]


@dataclass(frozen=True)
class Order:
    """Which tensors of a model take a position, and in which order.

    ``names`` are the given names that take one, in order, and among them the tied names that the checkpoint leaves
    out: the module has them, so they count.

    ``tied`` maps a name to the one whose storage it shares; both are in ``names``. Normally the value is stored and
    the key is not. Where the checkpoint stores both, the pair is listed all the same, as the class declares it:
    whether such tensors are one is for their bytes to tell, since loading ties them only if they are equal.

    ``ignored`` are the given names that loading drops, in natural order: they take no position.

    ``source`` says whether the order is that of the table of architectures or the natural one.

    ``notes`` are sentences for the user: why the order is natural, or what takes no position or one too many.
    """

    names: tuple[str, ...]
    tied: Mapping[str, str]
    ignored: tuple[str, ...]
    source: Literal["table", "natural"]
    notes: tuple[str, ...]


def module_order(config: Mapping[str, Any], names: Iterable[str]) -> Order:
    """Order the tensors ``names`` of a checkpoint as the modules of its model have them.

    ``config`` is a parsed config.json; nothing in it is taken for granted. The class is ``architectures[0]``, else
    the one of ``model_type``. A checkpoint may spell its names as the bare model does (without ``model.``) or as
    older releases did; the names returned are the checkpoint's own. Where it stores apart what the module fuses, as
    the weights of single experts, each tensor takes a position at the module's place.

    An unknown class, or a single name that the class does not have, makes the whole order natural, and the notes
    say so: embeddings, other tensors outside the layers, layers by number, final norm, head.

    The result does not depend on the order of ``names``.
    """
    given = sorted(set(names))
    architecture = architecture_of(config)
    if architecture is None:
        return _without_table(config, given)
    places = {name: architecture.place(name) for name in given}
    dropped = _dropped(architecture, config, places)
    unknown = [name for name, place in places.items() if place is None and name not in dropped]
    found = {name: place for name, place in places.items() if place is not None and name not in dropped}
    tied = _tie(architecture, config, found)
    order = _natural([*found, *unknown]) if unknown else _by_place(architecture, found)
    ignored = _natural(dropped)
    notes = tuple(_notes(architecture, order, found, ignored))
    return Order(order, tied, ignored, "natural" if unknown else "table", notes)


def module_name(config: Mapping[str, Any], name: str) -> str:
    """The name that the loaded model gives to the tensor ``name`` of a checkpoint.

    It is ``name`` itself where the class is not in the table or has one tensor for several stored ones.
    """
    architecture = architecture_of(config)
    place = None if architecture is None else architecture.place(name)
    return name if place is None or place.separate else place.name


def prefix_of(config: Mapping[str, Any], *, like: Mapping[str, Any] | None = None) -> str:
    """What the class puts before the names of its bare model, such as ``model.``; empty if it is not in the table.

    Empty too for a class that is not the one of the config ``like``.
    """
    architecture = architecture_of(config)
    if architecture is None or not architecture.base:
        return ""
    other = architecture if like is None else architecture_of(like)
    return f"{architecture.base}." if other is not None and other.name == architecture.name else ""


def with_prefix(config: Mapping[str, Any], name: str) -> str:
    """``name`` with the prefix of the bare model, if that is where the class has the tensor."""
    architecture, prefix = architecture_of(config), prefix_of(config)
    place = None if architecture is None or name.startswith(prefix) else architecture.place(name)
    return prefix + name if place is not None and place.name.startswith(prefix) else name


def missing(config: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """What a model with the tensors ``names`` lacks of what its config.json promises: whole layers, an untied head.

    Tensors within a layer are not looked at: which of them a class has, biases and norms, is for its config to say.
    """
    stored = list(names)
    layers = {layer for name in stored if (layer := layer_of(name)) is not None}
    lacking = [f"layer {layer}" for layer in range(num_layers(config) or 0) if layer not in layers] if layers else []
    architecture = architecture_of(config)
    if architecture is None or _has_no_head(config, architecture):
        return lacking
    stated = config.get("tie_word_embeddings")
    if not (stated if isinstance(stated, bool) else architecture.tie):
        places = {place.name for name in stored if (place := architecture.place(name)) is not None}
        lacking += [head for head, source in architecture.tied.items() if source in places and head not in places]
    return lacking


def num_layers(config: Mapping[str, Any]) -> int | None:
    """The number of layers of the language model that a parsed config.json states; None if it states none."""
    key = layers_key(config)
    return None if key is None else number_at(config, key)


def layers_key(config: Mapping[str, Any]) -> str | None:
    """Where a config.json states that number, as ``a.b`` for the key b inside a; None if it states none."""
    architecture = architecture_of(config)
    keys = [inner + key for inner in ("", "text_config.") for key in _LAYER_KEYS]
    if architecture is not None and architecture.depth:
        keys = [architecture.depth]
    return next((key for key in keys if number_at(config, key) is not None), None)


_LAYER_KEYS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


# --- By the table ---------------------------------------------------------------------------------------------------

_LANGUAGE_MODEL: Final = re.compile(r"CausalLM|LMHead|ConditionalGeneration")


def _by_place(architecture: Architecture, found: Mapping[str, Place]) -> tuple[str, ...]:
    """The names by place, by name where the module has one tensor for several."""
    if architecture.kinds:
        siblings: dict[str, set[str]] = {}
        for place in found.values():
            parts = place.name.split(".")
            for depth, part in enumerate(parts[:-1]):
                siblings.setdefault(".".join(parts[:depth]), set()).add(part)
        found = {name: architecture.place(place.name, siblings) or place for name, place in found.items()}
    return tuple(name for _, name in sorted((place.key, name) for name, place in found.items()))


def _dropped(architecture: Architecture, config: Mapping[str, Any], places: Mapping[str, Place | None]) -> set[str]:
    """The names that loading drops: those it knows to be left over, and those of layers that the model lacks."""
    depth = num_layers(config) if architecture.depth else None
    first, tail = _tail(architecture, config, depth)
    dropped: set[str] = set()
    for name, place in places.items():
        if place is None and len(name) <= MAX_NAME and architecture.ignored.search(name):
            dropped.add(name)
        elif depth is not None:
            layer, rest = architecture.layer(place.name if place else name)
            if layer >= depth or (layer >= first and rest.startswith(tail)):
                dropped.add(name)
    return dropped


def _tail(architecture: Architecture, config: Mapping[str, Any], depth: int | None) -> tuple[int, tuple[str, ...]]:
    """The first of the last layers that share tensors of an earlier one, and the prefixes of what they lack."""
    if depth is None or not architecture.tail:
        return 0, ()
    stated = number_at(config, architecture.tail["count"])
    first = depth - (architecture.tail["default"] if stated is None else stated)
    # Without a layer before them there is nothing to share.
    return (first, tuple(f"{module}." for module in architecture.tail["names"])) if first > 0 else (0, ())


def _tie(architecture: Architecture, config: Mapping[str, Any], found: dict[str, Place]) -> dict[str, str]:
    """The tied names, and ``found`` extended by those that the checkpoint leaves out."""
    stated = config.get("tie_word_embeddings")
    if not (stated if isinstance(stated, bool) else architecture.tie) or _has_no_head(config, architecture):
        return {}
    ends = {*architecture.tied, *architecture.tied.values()}
    stored = {place.name: name for name, place in found.items() if place.name in ends}
    tied: dict[str, str] = {}
    for target, source in architecture.tied.items():
        for absent, present in ((target, source), (source, target)):
            if present in stored:
                tied[stored.get(absent, absent)] = stored[present]
                place = architecture.place(absent)
                if absent not in stored and place is not None:
                    found[absent] = place
                break
    return tied


def _has_no_head(config: Mapping[str, Any], architecture: Architecture) -> bool:
    """Whether config.json names a relative of the class that predicts no tokens, such as the bare model."""
    name = declared_class(config)
    return name is not None and name != architecture.name and _LANGUAGE_MODEL.search(name) is None


def _notes(
    architecture: Architecture, order: Sequence[str], found: Mapping[str, Place], ignored: Sequence[str]
) -> Iterator[str]:
    """What the user should hear of an order."""
    strange = [name for name in order if name not in found]
    if strange:
        yield f"{_such_as(strange)} not in the modules of {architecture.name}: the order is natural"
    keys: dict[tuple[int, ...], str] = {}
    found = {name: found[name] for name in order if name in found}
    apart = [name for name, place in found.items() if place.separate or keys.setdefault(place.key, name) != name]
    if apart:
        yield f"{_such_as(apart)} stored apart, fused on loading: each takes a position of its own"
    if ignored:
        yield f"{_such_as(ignored)} dropped on loading: no position"
    if architecture.shared:
        modules = ", ".join(architecture.shared)
        yield f"layers share {modules}: what is stored once has one position, where it is stored"


# --- Without it -----------------------------------------------------------------------------------------------------

_GONE: Final = re.compile(r"rotary_emb\.inv_freq$|\.masked_bias$")
_DIGITS: Final = re.compile(r"([0-9]+)")


def _without_table(config: Mapping[str, Any], given: list[str]) -> Order:
    """The order of a model whose class the table does not know."""
    name = declared_class(config)
    what = f"the class {_quoted(name)} is not in the table" if name else "config.json names no class of the table"
    notes = [f"{what} of architectures: tensors are in natural order"]
    dropped = [name for name in given if _GONE.search(name)]
    kept = [name for name in given if not _GONE.search(name)]
    tied: dict[str, str] = {}
    if config.get("tie_word_embeddings") is True:
        vocabulary = vocabulary_tensors(kept)
        if len(vocabulary) == 1 and block_of(vocabulary[0]) is Block.EMBEDDINGS:
            tied["lm_head.weight"] = vocabulary[0]
            notes.append(f"lm_head.weight is taken to be tied to {_quoted(vocabulary[0])} and has a position")
    return Order(_natural([*kept, *tied]), tied, _natural(dropped), "natural", tuple(notes))


def _natural(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=_natural_key))


def _natural_key(name: str) -> tuple[Any, ...]:
    """Sorts embeddings first, then others outside the layers, layers, norms and head; numbers by their value."""
    parts: list[Any] = _DIGITS.split(name)
    parts[1::2] = map(_value, parts[1::2])
    return _rank(fold_indices(name)), parts, name


@lru_cache(maxsize=1024)
def _value(digits: str) -> tuple[int, str]:
    """Digits as something that sorts by their value, however many there are."""
    significant = digits.lstrip("0")
    return len(significant), significant


@lru_cache(maxsize=1024)
def _rank(name: str) -> int:
    """The group of a name whose indices are folded."""
    if layer_of(name) is not None:
        return 2
    block = block_of(name)
    if block is Block.NORMS:
        return 0 if "embed" in name else 3
    return {Block.EMBEDDINGS: 0, Block.HEAD: 4}.get(block, 1)


# --- Words ----------------------------------------------------------------------------------------------------------


def _such_as(names: Sequence[str]) -> str:
    """The first of the names, how many more there are, and the verb."""
    return f"{_quoted(names[0])} is" if len(names) == 1 else f"{_quoted(names[0])} and {len(names) - 1} more are"


def _quoted(name: str) -> str:
    """A name from a file, on one line and of bounded length."""
    return repr(name if len(name) <= 100 else f"{name[:97]}...")
