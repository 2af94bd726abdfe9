"""Headers of safetensors files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from attack import attack, header

__all__: list[str] = []


def u8(first: int, last: int, **more: Any) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [last - first], "data_offsets": [first, last], **more}


@attack("a header that claims 2^62 bytes")
def endless(folder: Path) -> None:
    header(folder, b"{}", length=2**62)


@attack("a header of 100 MB")
def long(folder: Path) -> None:
    header(folder, b"{", length=100_000_000)
    os.truncate(folder / "second" / "model.safetensors", 100_000_008)


@attack("200,000 tensors")
def many(folder: Path) -> None:
    header(folder, {f"t{k}": u8(k, k + 1) for k in range(200_000)}, data=200_000)


@attack("99,999 tensors, as many as are read")
def most(folder: Path) -> None:
    header(folder, {f"t{k}": u8(k, k + 1) for k in range(99_999)}, data=99_999)


@attack("metadata of as many values as are read")
def notes(folder: Path) -> None:
    header(folder, {"__metadata__": {f"{k:x}": "" for k in range(999_000)}, "a": u8(0, 1)}, data=1)


@attack("a name of 30 MB that takes four times as much in memory")
def wide(folder: Path) -> None:
    header(folder, '{"\U0001f600'.encode() + b"a" * 30_000_000 + b'":{}}')


@attack("ten million empty lists")
def lists(folder: Path) -> None:
    header(folder, b'{"a":[' + b"[]," * 10_000_000 + b"[]]}")


@attack("a number of a million digits")
def digits(folder: Path) -> None:
    header(folder, b'{"a":{"dtype":"U8","shape":[' + b"9" * 1_000_000 + b'],"data_offsets":[0,1]}}', data=1)


@attack("900 lists within each other")
def deep(folder: Path) -> None:
    header(folder, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}")


@attack("one name twice, which two readers read differently")
def twice(folder: Path) -> None:
    header(folder, b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],'
           b'"data_offsets":[0,1]}}', data=1)  # fmt: skip


@attack("two tensors that share bytes")
def overlap(folder: Path) -> None:
    header(folder, {"a": u8(0, 8), "b": u8(4, 12)}, data=12)


@attack("bytes between tensors that belong to none")
def gap(folder: Path) -> None:
    header(folder, {"a": u8(0, 8), "b": u8(64, 72)}, data=72)


@attack("a second file behind the last tensor")
def polyglot(folder: Path) -> None:
    header(folder, {"a": u8(0, 8)}, data=8 + 22)


@attack("a header that starts with a space")
def space(folder: Path) -> None:
    header(folder, b" {}")


@attack("a field that the format does not have")
def field(folder: Path) -> None:
    header(folder, {"a": u8(0, 1, code="import os")}, data=1)


@attack("metadata that is null")
def metadata(folder: Path) -> None:
    header(folder, {"__metadata__": None})


@attack("a name that clears the terminal")
def escape(folder: Path) -> None:
    header(folder, {"\x1b[2J\x1b[31mowned": u8(0, 1)}, data=1)


@attack("a name that reverses what is read")
def reverse(folder: Path) -> None:
    header(folder, {"weight\u202egnp.exe": u8(0, 1)}, data=1)


@attack("a name with half of a surrogate pair")
def surrogate(folder: Path) -> None:
    header(folder, {"\ud800": u8(0, 1)}, data=1)


@attack("a name that is a path")
def traversal(folder: Path) -> None:
    header(folder, {"../../../etc/passwd": u8(0, 1)}, data=1)


@attack("a shape whose product overflows")
def product(folder: Path) -> None:
    header(folder, {"a": u8(0, 1, shape=[2**32, 2**32])}, data=1)


@attack("a huge shape with a zero in it")
def zero(folder: Path) -> None:
    header(folder, {"a": u8(0, 0, shape=[0, 2**62, 4])})


@attack("a shape of true")
def flag(folder: Path) -> None:
    header(folder, {"a": u8(0, 1, shape=[True])}, data=1)


@attack("weights cut by one byte")
def cut(folder: Path) -> None:
    path = folder / "second" / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1)
