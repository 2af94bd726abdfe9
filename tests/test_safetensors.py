"""The safetensors header: golden bytes, what is refused, and agreement with the format's own library."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from blockmerge.dtypes import BF16, F32, by_code
from blockmerge.errors import FormatError
from blockmerge.formats.safetensors import build_header, parse_header, read_header
from blockmerge.tensors import TensorSpec

GOLDEN = (
    b"\x90\x00\x00\x00\x00\x00\x00\x00"
    b'{"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}}  '
)


def file_of(header: Any, data: bytes = b"", raw: bytes | None = None) -> bytes:
    """A file with this header (JSON or raw text) and data."""
    text = raw if raw is not None else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read(content: bytes):
    return read_header(io.BytesIO(content), len(content), "x.safetensors")


def entry(first: int, last: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [last - first] if shape is None else shape, "data_offsets": [first, last]}


def test_a_header_has_exactly_these_bytes() -> None:
    built = build_header([TensorSpec("w", F32, (2,)), TensorSpec("b", BF16, (1, 2))], {"format": "pt"})
    assert built == GOLDEN
    parsed = parse_header(GOLDEN[8:], len(GOLDEN) + 12, "golden")
    assert parsed.tensors == {"w": TensorSpec("w", F32, (2,)), "b": TensorSpec("b", BF16, (1, 2))}
    assert parsed.offsets == {"w": len(GOLDEN), "b": len(GOLDEN) + 8}
    assert parsed.metadata == {"format": "pt"}


HOSTILE = {
    "empty file": (b"", "too few"),
    "length past the end": (struct.pack("<Q", 1000) + b"{}", "truncated"),
    "absurd length": (struct.pack("<Q", 1 << 40) + b"{}", "no file of a model"),
    "leading space": (file_of(None, raw=b" {}"), "does not start with"),
    "tab padding": (file_of(None, raw=b"{}\t"), "padded"),
    "broken JSON": (file_of(None, raw=b'{"a":}'), "not valid JSON"),
    "not UTF-8": (file_of(None, raw=b'{"\xff":1}'), "UTF-8"),
    "deep nesting": (file_of(None, raw=b'{"a":' + b"[" * 200000 + b"}"), "JSON"),
    "a list": (file_of(None, raw=b"[]"), "does not start with"),
    "duplicate name": (
        file_of(None, b"\0", raw=b'{"a":%s,"a":%s}' % ((json.dumps(entry(0, 1)).encode(),) * 2)),
        "twice",
    ),
    "duplicate field": (
        file_of(None, b"\0", raw=b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}'),
        "twice",
    ),
    "unknown field": (file_of({"a": {**entry(0, 1), "x": 1}}, b"\0"), "needs exactly"),
    "metadata null": (file_of({"__metadata__": None}), "__metadata__"),
    "metadata number": (file_of({"__metadata__": {"a": 1}}), "__metadata__"),
    "empty name": (file_of({"": entry(0, 1)}, b"\0"), "no name"),
    "name with NUL": (file_of({"a\0b": entry(0, 1)}, b"\0"), "no name"),
    "name with newline": (file_of({"a\nb": entry(0, 1)}, b"\0"), "no name"),
    "endless name": (file_of({"a" * 2000: entry(0, 1)}, b"\0"), "no name"),
    "unknown dtype": (file_of({"a": entry(0, 1, "u8")}, b"\0"), "unknown dtype"),
    "negative shape": (file_of({"a": entry(0, 1, shape=[-1])}, b"\0"), "whole numbers"),
    "float shape": (file_of({"a": {**entry(0, 1), "shape": [1.0]}}, b"\0"), "whole numbers"),
    "bool shape": (file_of({"a": {**entry(0, 1), "shape": [True]}}, b"\0"), "whole numbers"),
    "overflowing shape": (file_of({"a": entry(0, 1, shape=[0, 2**63, 4])}, b"\0"), "no file holds"),
    "rank nine": (file_of({"a": entry(0, 1, shape=[1] * 9)}, b"\0"), "at most 8"),
    "half a byte": (file_of({"a": entry(0, 1, "F4", [1])}, b"\0"), "no file holds"),
    "three offsets": (file_of({"a": {**entry(0, 1), "data_offsets": [0, 1, 2]}}, b"\0"), "data_offsets"),
    "descending offsets": (file_of({"a": {**entry(0, 1), "data_offsets": [1, 0]}}, b"\0"), "data_offsets"),
    "size and shape differ": (file_of({"a": entry(0, 2, "F32", [1])}, b"\0\0"), "do not hold"),
    "gap": (file_of({"a": entry(0, 1), "b": entry(2, 3)}, b"\0\0\0"), "gap"),
    "overlap": (file_of({"a": entry(0, 2), "b": entry(1, 3)}, b"\0\0\0"), "overlaps"),
    "too many tensors": (
        file_of({f"t{k}": entry(0, 0) for k in range(100_001)}),
        "declares 100,001 tensors; more than 100,000 are refused",
    ),
    "too many values": (file_of(None, raw=b'{"a":[' + b"0," * 1_000_000 + b"0]}"), "more than 1,000,000 values"),
    "too long": (struct.pack("<Q", 32_000_001) + b"{}" + b" " * 31_999_999, "claims a header of 32,000,001 bytes"),
    "short of data": (file_of({"a": entry(0, 4)}, b"\0"), "3 bytes short"),
    "trailing bytes": (file_of({"a": entry(0, 1)}, b"\0\0"), "1 bytes follow"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers_are_refused_in_one_line(what: str) -> None:
    content, expected = HOSTILE[what]
    with pytest.raises(FormatError, match=expected) as caught:
        read(content)
    assert str(caught.value).startswith("x.safetensors: ")
    assert "\n" not in str(caught.value)


def test_every_truncation_of_a_good_file_is_refused() -> None:
    content = GOLDEN + bytes(12)
    read(content)
    for length in range(len(content)):
        with pytest.raises(FormatError):
            read(content[:length])


@pytest.mark.parametrize("padding", range(9))
def test_trailing_spaces_are_fine(padding: int) -> None:
    raw = json.dumps({"a": entry(0, 1)}).encode() + b" " * padding
    assert read(file_of(None, b"\7", raw=raw)).offsets["a"] == 8 + len(raw)


def test_a_header_may_be_as_long_as_that_and_no_longer() -> None:
    raw = json.dumps({"a": entry(0, 1)}).encode()
    assert read(file_of(None, b"\7", raw=raw.ljust(32_000_000))).offsets["a"] == 32_000_008
    with pytest.raises(FormatError, match="claims a header"):
        read(file_of(None, b"\7", raw=raw.ljust(32_000_001)))


@pytest.mark.parametrize("length", [*range(99_993, 100_002)])
def test_no_length_is_special(length: int) -> None:
    raw = json.dumps({"a": entry(0, 1)}).encode().ljust(length)
    assert read(file_of(None, b"\7", raw=raw)).offsets["a"] == 8 + length


names = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=12)
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(
    st.dictionaries(
        names, st.tuples(st.sampled_from(["BF16", "F16", "F32", "I64", "BOOL", "F8_E4M3"]), shapes), max_size=6
    )
)
def test_what_we_build_the_library_reads(tmp_path_factory: pytest.TempPathFactory, layout: dict[str, Any]) -> None:
    specs = [TensorSpec(name, by_code(code), shape) for name, (code, shape) in layout.items() if name.isprintable()]  # type: ignore[arg-type]
    specs = [spec for spec in specs if spec.name != "__metadata__"]
    header = build_header(specs, {"format": "pt"})
    content = header + bytes(sum(spec.nbytes for spec in specs))
    seen = dict(safetensors.deserialize(content))
    assert {name: (view["dtype"], tuple(view["shape"])) for name, view in seen.items()} == {
        spec.name: (spec.dtype.code, spec.shape) for spec in specs
    }
    assert set(read(content).tensors) == set(seen)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**64) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
near_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["U8", "F32", "F4", "x"]) | json_values,
        "shape": st.lists(st.integers(0, 3), max_size=2) | json_values,
        "data_offsets": st.lists(st.integers(0, 12), min_size=2, max_size=2) | json_values,
    }
)


@settings(max_examples=400)
@given(st.dictionaries(st.text(max_size=3), near_entries | json_values, max_size=3), st.binary(max_size=12))
def test_what_we_accept_the_library_accepts(header: dict[str, Any], data: bytes) -> None:
    content = file_of(header, data)
    try:
        ours = read(content)
    except FormatError:
        return
    theirs = dict(safetensors.deserialize(content))
    assert {name: tuple(view["shape"]) for name, view in theirs.items()} == {
        name: spec.shape for name, spec in ours.tensors.items()
    }


def test_offsets_agree_with_the_library_on_its_own_files(tmp_path: Path) -> None:
    arrays = {f"t{k}": np.full((k, 3), k, np.float32) for k in range(5)} | {"i": np.arange(7)}
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(arrays, path)
    content = path.read_bytes()
    header = read(content)
    for name, array in arrays.items():
        start = header.offsets[name]
        assert content[start : start + header.tensors[name].nbytes] == array.tobytes()
