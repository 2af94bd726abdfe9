"""Computing one block of a row: read, compute, check.

A block is computed tile by tile, in buffers that stay in a thread's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from blockmerge.errors import NonFiniteError
from blockmerge.execution.work import RowWork, Tile, granules, tiles
from blockmerge.planning import Piece, Row
from blockmerge.sources import Source

__all__ = ["TILE", "Buffers", "Computed", "Computer", "place_of"]

TILE = 1 << 20
"""Bytes of output computed at once: a whole block, so that threads seldom take turns at the interpreter."""


class Computed(NamedTuple):
    """Bytes of a row from ``first_byte`` on, and how many bytes were read for them. Good until the next one."""

    first_byte: int
    data: memoryview
    read: int


class Computer:
    """Computes from what ``sources`` hold. ``nonfinite`` collects the names of tensors with values not finite."""

    def __init__(self, sources: Sequence[Source], *, allow_nonfinite: bool, tile: int = TILE) -> None:
        self._sources, self._allow_nonfinite, self._tile = sources, allow_nonfinite, tile
        self.nonfinite: set[str] = set()

    def measure(self, work: RowWork, number: int, block: int, buffers: Buffers) -> int:
        """Let pass ``number`` look at the granules of a block; returns the bytes read.

        Raises :class:`NonFiniteError`, as :meth:`compute` does.
        """
        from blockmerge.kernels import nonfinite

        row, read = work.row, 0
        for granule in granules(row, block):
            piece, measure = row.pieces[granule.piece], work.measuring(number, granule.piece)
            if measure is not None:
                tile = granule.start(measure.part)
                operands = self._operands(piece, tile, buffers)
                checked = piece.operation.strict and work.checking(number, granule.piece)
                if checked and any(map(nonfinite, operands)):
                    self._bad_value(row, piece, tile, operands)  # statistics would carry it all over the tensor
                work.observe(measure, tile, operands)
                read += _counted(piece, tile)
        return read

    def compute(self, work: RowWork, block: int, buffers: Buffers) -> Iterator[Computed]:
        """The bytes of a block, part by part."""
        row, size = work.row, work.row.dtype.itemsize
        for tile in tiles(row, block, self._tile):
            piece = row.pieces[tile.piece]
            operands = self._operands(piece, tile, buffers)
            result = buffers.result(tile.count * size)
            elements = result.view(row.dtype.storage)
            bad = work.runs[tile.piece](operands, elements, tile.first)
            if bad and piece.operation.strict:
                self._bad_value(row, piece, tile, operands, elements)
            kept = result[tile.skipped * size : (tile.skipped + tile.kept) * size]
            yield Computed((tile.first + tile.skipped) * size, kept.data, _counted(piece, tile))

    def _operands(self, piece: Piece, tile: Tile, buffers: Buffers) -> Sequence[NDArray[Any]]:
        """What the piece reads for a tile: one array (operands, elements), if all have one format."""
        dtypes, count = [read.dtype for read in piece.reads], tile.count
        if len(set(dtypes)) == 1:
            room = buffers.operand(0, len(dtypes) * count * dtypes[0].itemsize)
            operands: Any = room.view(dtypes[0].storage).reshape(len(dtypes), count)
        else:
            rooms = (buffers.operand(number, count * dtype.itemsize) for number, dtype in enumerate(dtypes))
            operands = [room.view(dtype.storage) for room, dtype in zip(rooms, dtypes, strict=True)]
        for read, operand in zip(piece.reads, operands, strict=True):
            self._sources[read.model].read_into(read.name, tile.first, count, operand.view(np.uint8).data)
        return operands

    def _bad_value(
        self,
        row: Row,
        piece: Piece,
        tile: Tile,
        operands: Sequence[NDArray[Any]],
        result: NDArray[Any] | None = None,
    ) -> None:
        self.nonfinite.add(row.name)
        if not self._allow_nonfinite:
            raise self._nonfinite(row, piece, tile, operands, result)

    def _nonfinite(
        self,
        row: Row,
        piece: Piece,
        tile: Tile,
        operands: Sequence[NDArray[Any]],
        result: NDArray[Any] | None,
    ) -> NonFiniteError:
        """An error that names model, tensor and place of the first bad value, that of an operand if one has it."""
        from blockmerge.kernels import first_nonfinite

        for operand, read in zip(operands, piece.reads, strict=True):
            if (at := first_nonfinite(operand)) >= 0:
                label, place = self._sources[read.model].label, place_of(tile.first + at, row.shape)
                return NonFiniteError(
                    f"{label}: {read.name}{place} is not finite; the checkpoint is damaged (--allow-nonfinite goes on)"
                )
        place = place_of(tile.first + (0 if result is None else first_nonfinite(result)), row.shape)
        return NonFiniteError(
            f"{row.name}{place} overflows {row.dtype}; choose a wider --dtype (or --allow-nonfinite to write infinity)"
        )


def _counted(piece: Piece, tile: Tile) -> int:
    """The bytes that count as read for a tile: a row in two blocks counts once."""
    return sum(tile.kept * read.dtype.itemsize for read in piece.reads)


def place_of(index: int, shape: Sequence[int]) -> list[int]:
    """The indices of flat element ``index`` in an array of ``shape``."""
    place: list[int] = []
    for size in reversed(shape):
        index, inside = divmod(index, size)
        place.append(inside)
    return place[::-1]


class Buffers:
    """The memory of one thread, grown to the largest tile and then used again and again."""

    def __init__(self) -> None:
        self._result: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._operands: list[NDArray[np.uint8]] = []

    def result(self, count: int) -> NDArray[np.uint8]:
        """``count`` bytes to compute into."""
        if self._result.size < count:
            self._result = _whole_pages(count)
        return self._result[:count]

    def operand(self, number: int, count: int) -> NDArray[np.uint8]:
        """``count`` bytes to read operand ``number`` into."""
        while len(self._operands) <= number:
            self._operands.append(np.empty(0, np.uint8))
        if self._operands[number].size < count:
            self._operands[number] = _whole_pages(count)
        return self._operands[number][:count]


def _whole_pages(count: int) -> NDArray[np.uint8]:
    """``count`` bytes from the start of a page on.

    Where the system copies with ``rep movsb``, some processors (AMD's Zen 3 and 4) take far longer if the target is a
    few bytes further inside a page than the source.
    """
    room = np.empty(count + _PAGE, np.uint8)
    start = -room.ctypes.data % _PAGE
    return room[start : start + count]


_PAGE = 4096
