"""The table that a merge is. Plain data: nothing here reads or computes weights."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from blockmerge.architectures import Block
from blockmerge.dtypes import DType
from blockmerge.methods import Operation
from blockmerge.planning.explain import plan_text
from blockmerge.recipes import Recipe
from blockmerge.sources import Fingerprint, ModelLocation, SmallFile
from blockmerge.vocabularies import Vocabulary

__all__ = ["NUMERICS", "InputModel", "Piece", "Plan", "Read", "Row", "Shard"]

NUMERICS = 4
"""Version of the arithmetic; raised whenever the same plan would give other bytes."""


@dataclass(frozen=True, slots=True)
class Read:
    """One operand: the tensor ``name`` of model number ``model`` (from 0), at the same elements as the result."""

    model: int
    name: str
    dtype: DType


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a row's elements that are computed alike: ``count`` elements from ``first``."""

    first: int
    count: int
    reads: tuple[Read, ...]
    operation: Operation

    @property
    def read_bytes(self) -> int:
        """Bytes to read once."""
        return sum(self.count * read.dtype.bits // 8 for read in self.reads)


@dataclass(frozen=True, slots=True)
class Row:
    """One output tensor: what to read, what to compute, where the bytes go.

    ``ratio`` is model 2's share in a gradient; None where no curve covers the tensor. ``settings`` tells the numbers of
    any other method, and ``numbers`` holds them by parameter, one for each model or one for all. ``position`` counts in
    module order from 0; None for tensors that take none. ``offset`` is the first byte in shard number ``shard``.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    ratio: float | None
    position: int | None
    layer: int | None
    block: Block
    settings: str = ""
    numbers: tuple[tuple[str, tuple[float, ...]], ...] = ()
    shard: int = 0
    offset: int = 0

    @property
    def joined(self) -> Hashable | None:
        """What rows have in common that are measured together; None for a row by itself."""
        return next((key for piece in self.pieces if (key := piece.operation.joined) is not None), None)

    @property
    def passes(self) -> int:
        """How often it is read: to measure, and to compute."""
        return 1 + max((len(piece.operation.measures) for piece in self.pieces), default=0)

    @property
    def elements(self) -> int:
        """Number of elements."""
        return sum(piece.count for piece in self.pieces)

    @property
    def nbytes(self) -> int:
        """Bytes to write."""
        return self.elements * self.dtype.bits // 8

    @property
    def read_bytes(self) -> int:
        """Bytes to read, in all passes that are likely to be needed."""
        return sum(
            piece.read_bytes // part
            for piece in self.pieces
            for part in (1, *(each.part for each in piece.operation.measures if not each.spare))
        )


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file: its name, its first bytes (length and header), its whole size."""

    name: str
    header: bytes
    size: int


@dataclass(frozen=True, slots=True)
class InputModel:
    """A resolved input: a model at a ``location``, or the result of another ``plan`` of the same recipe.

    ``reference`` is what the recipe calls it, ``fingerprint`` which weights it had when planned, ``card`` what its card
    says about licence and language.
    """

    reference: str
    location: ModelLocation | None
    fingerprint: Fingerprint
    card: Mapping[str, Any]
    plan: Plan | None = None

    @property
    def label(self) -> str:
        """The Hub id, the folder's name, or the name of the stage."""
        return self.reference if self.location is None else self.location.name

    @property
    def published(self) -> str:
        """A name without a path: Hub id and commit, or the folder's name."""
        return self.reference if self.location is None else self.location.published

    @property
    def parts(self) -> tuple[ModelLocation, ...]:
        """Where its files are: those of a model, and of its adapter."""
        return () if self.location is None else self.location.parts

    @property
    def leaves(self) -> tuple[InputModel, ...]:
        """The models with weights of their own that it is made of: itself, or the inputs of its plan."""
        return (self,) if self.plan is None else self.plan.leaves


@dataclass(frozen=True)
class Plan:
    """Everything that a merge will do; see the fields. ``str(plan)`` prints it, :meth:`to_json` spells it out.

    ``order`` is ``table`` if the order of tensors is that of the architecture's modules, ``natural`` if it had to be
    guessed from names. ``vocabulary`` is the common one of all models, if rows go by token. ``warnings`` are
    differences that change meaning; ``notes`` are decisions worth knowing.
    """

    recipe: Recipe
    inputs: tuple[InputModel, ...]
    architecture: str
    order: str
    rows: tuple[Row, ...]
    shards: tuple[Shard, ...]
    files: Mapping[str, SmallFile]
    dtype: DType
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    vocabulary: Vocabulary | None = None

    @property
    def roles(self) -> tuple[str, ...]:
        """What each input is: ``base`` or ``model 1`` and so on."""
        bases, count = self.recipe.bases, itertools.count(1)
        return tuple("base" if k in bases else f"model {next(count)}" for k in range(len(self.inputs)))

    @property
    def leaves(self) -> tuple[InputModel, ...]:
        """All models that are read, those of stages too, each once."""
        found = [leaf for model in self.inputs for leaf in model.leaves]
        return tuple({leaf.reference: leaf for leaf in found}.values())

    @property
    def names(self) -> dict[str, str]:
        """What each model that the recipe calls by a reference is called elsewhere."""
        return {leaf.reference: leaf.published for leaf in self.leaves}

    @property
    def bytes_to_read(self) -> int:
        """Bytes of operands in all passes, those that stages compute included."""
        stages = sum(model.plan.bytes_to_read for model in self.inputs if model.plan is not None)
        return stages + sum(row.read_bytes for row in self.rows)

    @property
    def bytes_to_write(self) -> int:
        """Bytes on disk when done, weights and small files."""
        return sum(shard.size for shard in self.shards) + sum(file.size for file in self.files.values())

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of what decides the bytes of the weights: arithmetic, input headers, rows. Not of paths."""
        decisive: dict[str, object] = {
            "numerics": NUMERICS,
            "inputs": [dict(model.fingerprint.headers) for model in self.inputs],
            "rows": [_decisive(row) for row in self.rows],
        }
        if self.vocabulary is not None and not self.vocabulary.unchanged:
            decisive["vocabulary"] = self.vocabulary.digest()
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values, with one entry per tensor."""
        return {
            "digest": self.digest,
            "architecture": self.architecture,
            "order": self.order,
            "inputs": [model.published for model in self.inputs],
            "stages": {model.reference: model.plan.to_json() for model in self.inputs if model.plan is not None},
            "dtype": self.dtype.name,
            "bytes_to_read": self.bytes_to_read,
            "bytes_to_write": self.bytes_to_write,
            "shards": [{"name": shard.name, "size": shard.size} for shard in self.shards],
            "files": list(self.files),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
            "tensors": [_spelled(row, self.shards) for row in self.rows],
        }

    def __str__(self) -> str:
        return plan_text(self)

    def curve_rows(self) -> Iterator[Row]:
        """The rows with a place on the gradient's axis, in module order."""
        placed = (row for row in self.rows if row.position is not None)
        return iter(sorted(placed, key=lambda row: row.position or 0))


def _decisive(row: Row) -> list[object]:
    pieces = [
        [p.first, p.count, [[r.model, r.name, r.dtype.code] for r in p.reads], p.operation.numbers()]
        for p in row.pieces
    ]
    return [row.name, row.dtype.code, list(row.shape), pieces]


def _spelled(row: Row, shards: tuple[Shard, ...]) -> dict[str, Any]:
    return {
        "name": row.name,
        "position": row.position,
        "layer": row.layer,
        "block": row.block.value,
        "ratio": row.ratio,
        "settings": row.settings,
        "dtype": row.dtype.name,
        "shape": list(row.shape),
        "bytes_to_read": row.read_bytes,
        "bytes_to_write": row.nbytes,
        "shard": shards[row.shard].name,
        "offset": row.offset,
        "pieces": [
            {
                "first": piece.first,
                "count": piece.count,
                "reads": [{"model": r.model, "name": r.name, "dtype": r.dtype.name} for r in piece.reads],
                "operation": piece.operation.numbers(),
            }
            for piece in row.pieces
        ],
    }
