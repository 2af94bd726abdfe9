"""Where every byte of the output goes: a pure function of names, shapes and dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from blockmerge.formats.safetensors import build_header
from blockmerge.planning.plan import Row, Shard
from blockmerge.tensors import TensorSpec

__all__ = ["lay_out"]

_METADATA = {"format": "pt"}
"""What transformers wants to see before it loads a safetensors file."""


def lay_out(rows: Sequence[Row], max_shard_size: int) -> tuple[tuple[Row, ...], tuple[Shard, ...]]:
    """Give each row its shard and offset. Rows keep their order across shards; the Hub's names are used.

    A shard is closed before the tensor that would take its weights over ``max_shard_size``; a tensor larger than that
    has a shard to itself. Within a shard wider elements come first, which keeps every tensor aligned.
    """
    groups = _grouped(rows, max_shard_size)
    placed: list[Row] = []
    shards: list[Shard] = []
    for number, group in enumerate(groups):
        group = sorted(group, key=lambda row: -row.dtype.bits)
        header = build_header((TensorSpec(row.name, row.dtype, row.shape) for row in group), _METADATA)
        offset = len(header)
        for row in group:
            placed.append(replace(row, shard=number, offset=offset))
            offset += row.nbytes
        shards.append(Shard(_name(number, len(groups)), header, offset))
    return tuple(placed), tuple(shards)


def _grouped(rows: Sequence[Row], max_shard_size: int) -> list[list[Row]]:
    groups: list[list[Row]] = [[]]
    size = 0
    for row in rows:
        if groups[-1] and size + row.nbytes > max_shard_size:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += row.nbytes
    return groups


def _name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number + 1:05d}-of-{count:05d}.safetensors"
