"""Models whose tensors differ in name by the prefix of the bare model alone: ``model.layers.0`` and ``layers.0``."""

from __future__ import annotations

from collections.abc import Sequence

from blockmerge.architectures import prefix_of, with_prefix
from blockmerge.sources import RespelledSource, Source

__all__ = ["alike", "told"]


def alike(sources: Sequence[Source]) -> list[Source]:
    """``sources``, with the names of tensors as the first spells them.

    Where it has the prefix of its architecture and another model of that lacks it throughout, as one that was saved
    from AutoModel, or the other way round, the other is read under the first one's names, and as its class.
    """
    first = sources[0]
    return [first, *(_like(first, other) for other in sources[1:])]


def told(sources: Sequence[Source]) -> list[str]:
    """A note for each model that :func:`alike` reads under other names."""
    first = sources[0]
    return [
        f"tensors are named with {prefix_of(first.config)} in one of {first.label} and {other.label}, "
        "without it in the other; they are paired all the same"
        for other in sources[1:]
        if isinstance(other, RespelledSource)
    ]


def _like(first: Source, other: Source) -> Source:
    prefix = prefix_of(first.config)
    if not prefix or prefix_of(other.config, like=first.config) != prefix:
        return other
    has = [any(name.startswith(prefix) for name in source.specs) for source in (first, other)]
    if has[0] == has[1]:
        return other
    names = {with_prefix(first.config, name) if has[0] else name.removeprefix(prefix): name for name in other.specs}
    if names.keys() == other.specs.keys() or len(names) < len(other.specs):
        return other
    stated = {"architectures": first.config["architectures"]} if "architectures" in first.config else {}
    return RespelledSource(other, names, {**other.config, **stated})
