"""Which tensors of two models are compared with each other: read from headers, and a few bytes for ties."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from blockmerge.architectures import Block, Order, block_of, layer_of, module_order, vocabulary_tensors
from blockmerge.errors import BlockmergeError, MismatchError, listed, raise_all
from blockmerge.planning.checks import architecture, blendable, common_rows, explain_sizes, unusable
from blockmerge.planning.spelling import told
from blockmerge.planning.ties import Ties
from blockmerge.sources import Source
from blockmerge.tensors import TensorSpec

__all__ = ["Pair", "Pairs", "pair_up"]


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor of model 1 and one of model 2 that have the place ``name`` in the model.

    ``position`` counts in module order from 0. Compared are the elements of ``shape``: those of both, or the rows
    that both vocabularies have.
    """

    name: str
    position: int
    first: TensorSpec
    second: TensorSpec
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """Number of elements that are compared."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes to read of both."""
        return self.elements * (self.first.dtype.itemsize + self.second.dtype.itemsize)

    @property
    def layer(self) -> int | None:
        """The layer, None outside the stack."""
        return layer_of(self.name)

    @property
    def block(self) -> Block:
        """The block."""
        return block_of(self.name)

    @property
    def numeric(self) -> bool:
        """Whether differences are numbers; else elements are equal or not."""
        return blendable(self.first.dtype)


@dataclass
class Pairs:
    """What :func:`pair_up` found. ``unlike`` are tensors that cannot be compared, each with the reason."""

    order: str
    pairs: list[Pair] = field(default_factory=list[Pair])
    only_first: list[str] = field(default_factory=list[str])
    only_second: list[str] = field(default_factory=list[str])
    unlike: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])


def pair_up(first: Source, second: Source) -> Pairs:
    """Pair the tensors of two models by name, in the module order of model 1, through their ties.

    Raises :class:`ModelError` if a model is quantised, :class:`MismatchError` if no tensor can be compared.
    """
    raise_all([*unusable(first), *unusable(second)])
    orders = [module_order(source.config, source.specs) for source in (first, second)]
    ties = [Ties(source, order) for source, order in zip((first, second), orders, strict=True)]
    found = Pairs(orders[0].source, notes=list(_notes(first, second, orders, ties)))
    vocabulary = set(vocabulary_tensors(orders[0].names))
    seen: set[tuple[str, str]] = set()
    for position, name in enumerate(orders[0].names):
        one, other = ties[0].spec(name), ties[1].spec(name)
        if one is None or other is None:
            found.only_first += [name] if name in first.specs else []
        elif (one.name, other.name) not in seen:
            seen.add((one.name, other.name))
            _add(found, name, position, one, other, by_token=name in vocabulary)
    known = {*orders[0].names, *orders[0].ignored}
    found.only_second = [name for name in orders[1].names if name not in known and name in second.specs]
    if not found.pairs:
        raise _nothing_common(found, first, second)
    return found


def _add(found: Pairs, name: str, position: int, one: TensorSpec, other: TensorSpec, *, by_token: bool) -> None:
    rows, shape = common_rows((one, other), by_token=by_token), one.shape
    if _kind(one) != _kind(other):
        found.unlike[name] = f"{one.dtype} and {other.dtype} are numbers of two kinds"
        return
    if rows is None:
        found.unlike[name] = f"shapes {list(one.shape)} and {list(other.shape)}"
        return
    if one.shape != other.shape:
        shape = (rows, *shape[1:])
        found.notes.append(
            f"{name}: vocabularies differ, {one.shape[0]} and {other.shape[0]} rows; "
            f"the {rows} rows that both have are compared"
        )
    found.pairs.append(Pair(name, position, one, other, shape))


def _kind(spec: TensorSpec) -> str:
    if blendable(spec.dtype):
        return "real"
    return "complex" if spec.dtype.storage == "complex64" else "whole"


def _notes(first: Source, second: Source, orders: list[Order], ties: list[Ties]) -> Iterator[str]:
    one, other = architecture(first), architecture(second)
    if one != other:
        yield f"{first.label} is a {one}, {second.label} a {other}; tensors are compared by name"
    yield from told((first, second))
    notes = [*orders[0].notes, *orders[1].notes, *ties[0].notes, *ties[1].notes]
    yield from dict.fromkeys(notes)


def _nothing_common(found: Pairs, first: Source, second: Source) -> BlockmergeError:
    if found.unlike:
        texts = [f"{name}: {reason}" for name, reason in found.unlike.items()]
        return MismatchError(
            f"{first.label} and {second.label} have no tensor that can be compared "
            f"({explain_sizes(first, second)}): {listed(texts, 3)}"
        )
    return MismatchError(
        f"{first.label} and {second.label} have no tensor in common: {listed(found.only_first, 2)} against "
        f"{listed(found.only_second, 2)}"
    )
