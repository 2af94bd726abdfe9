"""The pieces of a SentencePiece model: a file in the wire format of protocol buffers, from strangers.

Only what names a token is read: field 1 of the message, each a piece with its text (1) and its type (3). The format is
that of https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blockmerge.errors import FormatError

__all__ = ["Piece", "read_pieces"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece; its id is its place. ``control`` ones (and the unknown one) never stand for text."""

    text: str
    control: bool
    user_defined: bool


def read_pieces(data: bytes, where: str, most: int) -> list[Piece]:
    """The pieces in ``data``, at most ``most`` of them; ``where`` names the file in errors.

    Raises :class:`FormatError` for anything that is not a SentencePiece model.
    """
    pieces: list[Piece] = []
    for number, value in _fields(data, where):
        if number != 1:
            continue
        if not isinstance(value, bytes):
            raise _broken(where, "a piece is no message")
        if len(pieces) == most:
            raise FormatError(f"{where}: has more than {most:,} pieces; this is no tokenizer of a model")
        pieces.append(_piece(value, where, len(pieces)))
    if not pieces:
        raise _broken(where, "it has no pieces")
    return pieces


def _piece(data: bytes, where: str, number: int) -> Piece:
    text, kind = b"", _NORMAL
    for field, value in _fields(data, where):
        if field == 1 and isinstance(value, bytes):
            text = value
        elif field == 3 and isinstance(value, int):
            kind = value
        elif field in (1, 3):
            raise _broken(where, f"piece {number} has a field of a wrong type")
    if not _NORMAL <= kind <= _BYTE:
        raise _broken(where, f"piece {number} is of the unknown type {kind}")
    try:
        return Piece(text.decode("utf-8"), kind in (_CONTROL, _UNKNOWN), kind == _USER_DEFINED)
    except UnicodeDecodeError as error:
        raise _broken(where, f"the text of piece {number} is not UTF-8") from error


def _fields(data: bytes, where: str) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of one message; fixed-size numbers, which nothing here needs, as bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at, where)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at, where)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(data, at, where)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise _broken(where, f"byte {at} starts a field of wire type {wire}")
        if length > len(data) - at:
            raise _broken(where, f"it ends inside field {number}")
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int, where: str) -> tuple[int, int]:
    """The number at ``at``, of at most ten bytes, and where the next thing starts."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _broken(where, "it ends inside a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _broken(where, f"byte {at} is inside a number of more than ten bytes")


def _broken(where: str, why: str) -> FormatError:
    return FormatError(f"{where}: is no SentencePiece model: {why}")
