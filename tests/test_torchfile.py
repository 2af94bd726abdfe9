"""Files of torch.save: equal to what safetensors gives, and refused, never run, when they ask for more than tensors."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pickle
import re
import shutil
import struct
import time
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import blockmerge
import models
from blockmerge import dtypes
from blockmerge.errors import FormatError, ModelError
from blockmerge.formats import archive, pickled
from blockmerge.formats.pickled import interpret
from blockmerge.formats.safetensors import Header
from blockmerge.formats.torchfile import read_header
from blockmerge.sources import LocalSource

CONFIG = '{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'
SENTINEL = "code-was-run"


@pytest.fixture(autouse=True)
def nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Every hostile pickle here tries to make a file; there must be none after any test."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / SENTINEL).exists()


def saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def read(data: bytes) -> Header:
    return read_header(io.BytesIO(data), len(data), "x.bin")


def refusal(data: bytes) -> str:
    """The line that refuses ``data``."""
    with pytest.raises(FormatError) as caught:
        read(data)
    text = str(caught.value)
    assert text.startswith("x.bin: ") and text.isprintable() and len(text) < 400
    return text


def elements(data: bytes, header: Header, name: str) -> bytes:
    start = header.offsets[name]
    return data[start : start + header.tensors[name].nbytes]


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_holds(data: bytes, expected: dict[str, torch.Tensor]) -> None:
    header = read(data)
    assert list(header.tensors) == list(expected)
    for name, tensor in expected.items():
        spec = header.tensors[name]
        assert (spec.dtype.name, spec.shape) == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        assert elements(data, header, name) == raw(tensor)


# ---- honest files ----------------------------------------------------------------------------------------------------

WHOLE = [name for name in dtypes._BY_NAME if dtypes.by_name(name).bits % 8 == 0]  # type: ignore[union-attr]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_all_dtypes_shapes_and_protocols(protocol: int) -> None:
    bits = torch.arange(48, dtype=torch.uint8).reshape(2, 24) % 2
    content = {name: bits.clone().view(getattr(torch, name)) for name in WHOLE}
    content |= {"none": torch.zeros(3, 0, 2), "scalar": torch.tensor(2.5), "one": torch.ones(1, 1, 1)}
    assert_holds(saved(content, pickle_protocol=protocol), content)


def test_the_modules_of_torch_with_their_versions_and_parameters() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    assert_holds(saved(module.state_dict()), dict(module.state_dict()))
    parameters = dict(module.named_parameters())
    assert_holds(saved(parameters), parameters)
    parameters["0.weight"].note = "kept by torch, no part of the values"  # type: ignore[attr-defined]
    assert_holds(saved(OrderedDict(parameters)), parameters)


def test_names_may_share_a_storage_and_begin_within_it() -> None:
    whole = torch.arange(12.0)
    content = {"whole": whole, "tied": whole, "tail": whole[5:], "rows": whole.view(3, 4)[1:], "empty": whole[12:]}
    content |= {"bytes": whole.to(torch.float8_e5m2)[3:], "wide": whole.to(torch.uint32).view(4, 3)[2]}
    data = saved(content)
    assert_holds(data, content)
    offsets = read(data).offsets
    assert offsets["whole"] == offsets["tied"] == offsets["tail"] - 20


def test_strides_of_dimensions_that_hold_one_row_mean_nothing() -> None:
    content = {"a": torch.arange(6.0).as_strided((1, 6), (7, 1)), "b": torch.arange(4.0).as_strided((4, 1), (1, 9))}
    assert_holds(saved(content), content)


@pytest.mark.parametrize(
    "strange",
    [torch.ones(2, 3).T, torch.ones(1, 3).expand(2, 3), torch.ones(6)[::2], torch.ones(4, 4)[:, :2]],
    ids=["transposed", "expanded", "stepped", "columns"],
)
def test_what_is_not_contiguous_is_refused_by_name(strange: torch.Tensor) -> None:
    assert "odd: is not contiguous (shape [" in refusal(saved({"a": torch.ones(2), "odd": strange}))
    assert "save it again after .contiguous()" in refusal(saved({"odd": strange}))


@pytest.mark.parametrize("key", ["state_dict", "model", "module"])
def test_the_weights_may_be_under_a_well_known_key(key: str) -> None:
    weights = {"w": torch.ones(2)}
    trainer = {"epoch": 3, "rate": 0.1, "names": ["a", ("b", None, True)], "optimizer": {0: {"step": torch.ones(9)}}}
    assert_holds(saved({**trainer, "big": -(2**70), key: weights}), weights)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a": torch.ones(2), "state_dict": {"w": torch.ones(2)}}, "state_dict is a dict, not a tensor"),
        ({"a": torch.ones(2), "epoch": 3}, "epoch is a int, not a tensor"),
        ({"epoch": 3, "weights": {"w": torch.ones(2)}}, "holds no dict of tensors"),
        ({}, "holds no dict of tensors"),
        ([torch.ones(2)], "holds no dict of tensors"),
        (torch.ones(2), "holds no dict of tensors"),
        ({1: torch.ones(2)}, "'1' is no name"),
        ({"": torch.ones(2)}, "'' is no name"),
        ({"a\nb": torch.ones(2)}, "is no name"),
        ({"a": torch.ones((1,) * 9)}, "has 9 dimensions"),
        ({("a",): torch.ones(2)}, "a dict whose key is a tuple"),
        ({"a": torch.tensor([1 + 2j]).conj()}, "describe no plain tensor"),
        ({"a": torch.ones(2, dtype=torch.complex128)}, "torch.ComplexDoubleStorage"),
        ({"a": torch.ones(2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"a": torch.ones(2, device="meta")}, "_rebuild_meta_tensor_no_storage"),
        ({"a": np.ones(2)}, "names 'numpy."),
        ({"a": b"bytes", "w": torch.ones(2)}, "names '_codecs.encode'"),
        ({"a": {1}, "w": torch.ones(2)}, "names '__builtin__.set'"),
        (torch.nn.Linear(2, 2), "names 'torch.nn.modules.linear.Linear'"),
    ],
)  # fmt: skip
def test_what_is_more_or_less_than_tensors_is_refused(content: object, text: str) -> None:
    assert text in refusal(saved(content))


def test_checksums_may_be_left_out_and_are_checked_otherwise() -> None:
    content = {"w": torch.ones(2)}
    torch.serialization.set_crc32_options(False)
    try:
        data = saved(content)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_holds(data, content)
    assert "fails its checksum" in refusal(saved(content).replace(b"w", b"v", 1))


def test_formats_of_the_past_say_what_to_do(tmp_path: Path) -> None:
    assert "before 1.6; load it with torch" in refusal(
        saved({"w": torch.ones(2)}, _use_new_zipfile_serialization=False)
    )
    tar = bytes(257) + b"ustar" + bytes(250)
    assert "before 1.6" in refusal(tar)
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    assert "TorchScript" in refusal((tmp_path / "script.pt").read_bytes())
    assert "no file of torch.save" in refusal(b"")
    assert "no file of torch.save" in refusal(b'{"a": 1}')


# ---- hostile pickles -------------------------------------------------------------------------------------------------


@dataclass
class Item:
    """A member of a zip file as bytes, with everything that may lie."""

    name: str
    data: bytes
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    local: bytes | None = None
    local_flags: int | None = None
    offset: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    disk: int = 0
    tail: bytes = b""


def zipped(*items: Item, before: bytes = b"", gap: bytes = b"", comment: bytes = b"", **end: int) -> bytes:
    """A zip file of ``items``; ``end`` overrides fields of its last record."""
    body, directory = before, b""
    for item in items:
        crc = zlib.crc32(item.data) if item.crc is None else item.crc
        size = len(item.data) if item.size is None else item.size
        name, at = item.name.encode("utf-8", "surrogateescape"), len(body) if item.offset is None else item.offset
        local = item.local if item.local is not None else name
        flags = item.flags if item.local_flags is None else item.local_flags
        body += struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, item.method, 0, 0, crc, len(item.data), size,
                            len(local), len(item.extra)) + local + item.extra + item.data + item.tail  # fmt: skip
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, item.flags, item.method, 0, 0, crc, len(item.data),
                                 size, len(name), len(item.extra), len(item.comment), item.disk, 0, 0, at)  # fmt: skip
        directory += name + item.extra + item.comment
    values = {"here": len(items), "count": len(items), "length": len(directory), "start": len(body + gap)} | end
    return body + gap + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *values.values(), len(comment)) + comment


def checkpoint(program: bytes, *more: Item) -> bytes:
    return zipped(Item("x/data.pkl", program), *more)


def storage(kind: str = "torch FloatStorage", key: str = "0", numel: bytes = b"K\2") -> bytes:
    """The opcodes of a storage of two numbers."""
    return b"(" + text("storage") + name(kind) + text(key) + text("cpu") + numel + b"tQ"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def name(dotted: str) -> bytes:
    module, _, attribute = dotted.partition(" ")
    return f"c{module}\n{attribute}\n".encode()


HOOKS = name("collections OrderedDict") + b")R"
DATA = Item("x/data/0", np.ones(2, np.float32).tobytes())


def tensor(
    made: bytes = storage(), offset: bytes = b"K\0", shape: bytes = b"K\2\x85", stride: bytes = b"K\1\x85",
    rest: bytes = b"\x89" + HOOKS, function: str = "torch._utils _rebuild_tensor_v2",
) -> bytes:  # fmt: skip
    return name(function) + b"(" + made + offset + shape + stride + rest + b"tR"


def state(*values: bytes) -> bytes:
    """A state dict of ``values``, named w0, w1 and so on."""
    return b"\x80\2}(" + b"".join(text(f"w{k}") + value for k, value in enumerate(values)) + b"u."


def test_the_honest_twin_of_the_hostile_files_is_read() -> None:
    data = checkpoint(state(tensor(), tensor(rest=b"", function="torch._utils _rebuild_tensor")), DATA)
    header = read(data)
    assert elements(data, header, "w0") == elements(data, header, "w1") == DATA.data


class Runs:
    """What pickle would run."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec])
def test_functions_are_never_called(protocol: int, function: Callable[..., Any]) -> None:
    argument = f"touch {SENTINEL}" if function is os.system else f"__import__('os').mkdir('{SENTINEL}')"
    program = pickle.dumps({"w": Runs(function, SENTINEL if function is os.mkdir else argument)}, protocol)
    message = refusal(checkpoint(program, DATA))
    assert f".{function.__name__}'" in message or protocol < 2


SYSTEM = name("posix system")
CALL = text(f"touch {SENTINEL}") + b"\x85"
TRICKS: dict[str, tuple[bytes, str]] = {
    "REDUCE": (SYSTEM + CALL + b"R", "names 'posix.system'"),
    "GLOBAL alone": (SYSTEM, "names 'posix.system'"),
    "STACK_GLOBAL": (text("posix") + text("system") + b"\x93" + CALL + b"R", "names 'posix.system'"),
    "STACK_GLOBAL with dots": (text("torch") + text("os.system") + b"\x93", "names 'torch.os.system'"),
    "STACK_GLOBAL without a name": (b"K\1" + text("system") + b"\x93", "names something without a name"),
    "a module of torch": (name("torch load"), "names 'torch.load'"),
    "a guise": (name("torch._utils _rebuild_tensor_v2.__globals__"), "__globals__'"),
    "control characters": (b"cos\x1b[2J\nsystem\n", r"names 'os\x1b[2J.system'"),
    "no end of a name": (b"c" + b"x" * 5000, "a name has no end"),
    "INST": (b"(" + text(f"touch {SENTINEL}") + b"iposix\nsystem\n", "the opcode INST"),
    "OBJ": (b"(" + name("torch FloatStorage") + b"o", "the opcode OBJ"),
    "NEWOBJ": (name("collections OrderedDict") + b")\x81", "the opcode NEWOBJ"),
    "NEWOBJ_EX": (name("collections OrderedDict") + b")}\x92", "the opcode NEWOBJ_EX"),
    "EXT1": (b"\x82\1", "the opcode EXT1"),
    "EXT4": (b"\x84\1\0\0\0", "the opcode EXT4"),
    "PERSID": (b"Pstorage\n", "the opcode PERSID"),
    "DUP": (b"N2", "the opcode DUP"),
    "a protocol of the future": (b"\x80\6", "the unknown protocol 6"),
    "no opcode": (b"\xff", "the opcode 0xff"),
    "BUILD of a dict": (b"}}b", "a BUILD of something else"),
    "BUILD of a tensor": (tensor() + b"}b", "a BUILD of something else"),
    "BUILD of a name": (name("torch._utils _rebuild_tensor") + b"}b", "a BUILD of something else"),
    "BUILD with slots": (HOOKS + b"N}\x86b", "a BUILD of something else"),
    "OrderedDict of something": (name("collections OrderedDict") + b"]\x85R", "describe no plain tensor"),
    "a call of a storage": (name("torch FloatStorage") + b")R", "calls something that is no function"),
    "a call of a text": (text("posix.system") + CALL + b"R", "calls something that is no function"),
    "a call with a list": (name("collections OrderedDict") + b"]R", "calls something that is no function"),
    "an item of a list": (b"]K\1K\1s", "no dict"),
    "an item of a tensor": (tensor() + text("k") + b"Ns", "no dict"),
    "half an item": (b"}(K\1u", "no dict"),
    "append to a tuple": (b")K\1a", "no list"),
    "append to a dict": (b"}(K\1e", "no list"),
    "twice one name": (b"}(" + text("a") + b"N" + text("a") + b"Nu", "the key 'a' twice"),
    "an unhashable key": (b"}]Ns", "key is a list"),
    "nothing on the stack": (b"R", "takes more than there is"),
    "below the mark": (b"}(u(a", "takes more than there is"),
    "no mark": (b"}ttt", "takes more than there is"),
    "a memo of nothing": (b"h\7", "recalls what it never kept"),
    "text that is not UTF-8": (b"X\2\0\0\0\xff\xff", "not UTF-8"),
    "a text of 16 EB": (b"\x8d" + b"\xff" * 8 + b"abc", "ends too early"),
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_of_the_stack_machine_are_refused(trick: str) -> None:
    program, message = TRICKS[trick]
    assert message in refusal(checkpoint(state(program), DATA))


LONG = b"\x8a\x09" + (2**64).to_bytes(9, "little")
SHAPES: dict[str, tuple[bytes, str]] = {
    "a list as storage id": (tensor(b"]Q"), "describes no storage"),
    "a short storage id": (tensor(text("storage") + b"\x85Q"), "describes no storage"),
    "another storage id": (tensor(storage().replace(b"storage", b"package")), "describes no storage"),
    "a dtype as storage": (tensor(storage("torch float32")), "torch.float32 is no storage"),
    "a function as storage": (tensor(storage("torch._utils _rebuild_tensor")), "is no storage"),
    "a text as storage": (tensor(storage().replace(name("torch FloatStorage"), text("f"))), "describes no storage"),
    "a number as key": (tensor(storage().replace(text("0"), b"K\0")), "describes no storage"),
    "a negative numel": (tensor(storage(numel=b"J\xfe\xff\xff\xff")), "describes no storage"),
    "a bool as numel": (tensor(storage(numel=b"\x88")), "describes no storage"),
    "a float as numel": (tensor(storage(numel=b"G@" + bytes(7))), "describes no storage"),
    "a numel of 2^64": (tensor(storage(numel=LONG)), "describes no storage"),
    "a numel too small": (tensor(storage(numel=b"K\1")), "8 bytes do not hold the 1 elements"),
    "a numel too large": (tensor(storage(numel=b"K\3")), "8 bytes do not hold the 3 elements"),
    "wider elements": (tensor(storage("torch DoubleStorage")), "8 bytes do not hold the 2 elements"),
    "a missing storage": (tensor(storage(key="1")), "storage '1' is not in the file"),
    "a storage elsewhere": (tensor(storage(key="../data.pkl")), "is not in the file"),
    "bytes without dtype": (tensor(storage("torch.storage UntypedStorage")), "describe no plain tensor"),
    "no storage": (tensor(b"N"), "describe no plain tensor"),
    "a negative offset": (tensor(offset=b"J\xff\xff\xff\xff"), "describe no plain tensor"),
    "a bool as offset": (tensor(offset=b"\x88"), "describe no plain tensor"),
    "an offset past the end": (tensor(offset=b"K\1"), "4 bytes past the end"),
    "a negative size": (tensor(shape=b"J\xff\xff\xff\xff\x85"), "describe no plain tensor"),
    "a list as shape": (tensor(shape=b"]"), "describe no plain tensor"),
    "a size of 2^64": (tensor(shape=LONG + b"\x85"), "describe no plain tensor"),
    "a shape past the end": (tensor(shape=b"K\3\x85"), "4 bytes past the end"),
    "a negative stride": (tensor(stride=b"J\xff\xff\xff\xff\x85"), "describe no plain tensor"),
    "a stride of 0": (tensor(stride=b"K\0\x85"), "not contiguous"),
    "too few strides": (tensor(stride=b")"), "describe no plain tensor"),
    "nested strides": (tensor(stride=b")\x85"), "describe no plain tensor"),
    "hooks": (tensor(rest=b"\x89}K\1Ns"), "describe no plain tensor"),
    "metadata": (tensor(rest=b"\x89" + HOOKS + b"}" + text("neg") + b"\x88s"), "describe no plain tensor"),
    "too few arguments": (tensor(rest=b""), "describe no plain tensor"),
    "too many arguments": (tensor(rest=b"\x89" + HOOKS + b"}N"), "describe no plain tensor"),
    "a parameter of a text": (name("torch._utils _rebuild_parameter") + text("w") + b"\x88" + HOOKS + b"\x87R",
                              "describe no plain tensor"),
    "typed bytes": (tensor(rest=b"\x89" + HOOKS + name("torch float32"), function="torch._utils _rebuild_tensor_v3"),
                    "describe no plain tensor"),
    "a function as dtype": (tensor(storage("torch.storage UntypedStorage", numel=b"K\x08"), function=
                            "torch._utils _rebuild_tensor_v3", rest=b"\x89" + HOOKS +
                            name("torch._utils _rebuild_tensor")), "describe no plain tensor"),
    "half a byte": (tensor(rest=name("torch float4_e2m1fn_x2")), "names 'torch.float4_e2m1fn_x2'"),
}  # fmt: skip


@pytest.mark.parametrize("trick", SHAPES)
def test_tensors_that_lie_are_refused(trick: str) -> None:
    program, message = SHAPES[trick]
    assert message in refusal(checkpoint(state(program), DATA))


def test_a_storage_described_twice_in_two_ways_is_refused() -> None:
    other = tensor(storage("torch IntStorage"))
    assert "describes storage '0' in two ways" in refusal(checkpoint(state(tensor(), other), DATA))


def test_a_pickle_ends_at_its_end() -> None:
    for program in (b"", b"\x80", b"\x80\2", b"}", b"(.", b".", b"NN.", b"}(.", b"}.."):
        assert "is not sound at byte" in refusal(checkpoint(program, DATA))


LONG_SHAPE = b"(" + b"K\1" * 300_000 + b"tq\0"
LONG_WORD = text("x" * 3_000_000) + b"q\0"
BOMBS = {
    "nested tuples": b")" + b"\x85" * 600_000,
    "nested lists": b"]" * 300_000 + b"a" * 299_999,
    "nested marks": b"(" * 300_000,
    "nested tuples as a key": b")" + b"\x85" * 300_000 + b"q\0}h\0Ns",
    "memo": b"N" + b"\x94" * 600_000,
    "doubling": b"]q\0" + b"h\0h\0\x86q\0" * 300_000,
    "a list in itself": b"]q\0h\0a",
    "a shape again and again": LONG_SHAPE + name("torch._utils _rebuild_tensor") + b"q\1" + storage() + b"q\2"
    + b"h\1(h\2K\0h\0h\0tR" * 50_000,
    "a name again and again": LONG_WORD + b"h\0h\0\x93" * 100_000,
    "a key again and again": LONG_WORD + b"(" + text("storage") + name("torch FloatStorage") + b"h\0" + text("cpu")
    + b"K\2tQ" * 10_000,
}  # fmt: skip
"""A few MB that Python's own pickle would take hours for, or crash on."""


@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_in_time(kind: str) -> None:
    data = checkpoint(b"\x80\2" + BOMBS[kind] + b".", DATA)
    start = time.perf_counter()
    refusal(data)
    assert time.perf_counter() - start < 6


# ---- hostile archives ------------------------------------------------------------------------------------------------

GOOD = Item("x/data.pkl", state(tensor()))
WEIGHTS = DATA.data


def descriptor(data: bytes, signature: bytes = b"PK\7\x08", code: str = "<3I", crc: int | None = None) -> bytes:
    return signature + struct.pack(code, zlib.crc32(data) if crc is None else crc, len(data), len(data))


@pytest.mark.parametrize("tail", [descriptor(WEIGHTS), descriptor(WEIGHTS, b""), descriptor(WEIGHTS, code="<I2Q")])
def test_all_forms_of_data_descriptors_are_read(tail: bytes) -> None:
    data = zipped(GOOD, Item("x/data/0", WEIGHTS, flags=8, tail=tail))
    assert elements(data, read(data), "w0") == WEIGHTS


def test_archives_of_other_writers_are_read_if_they_only_store() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as writer:
        for item in (GOOD, DATA):
            writer.writestr(item.name, item.data)
        with writer.open("x/version", "w", force_zip64=True) as entry:
            entry.write(b"3\n")
    data = file.getvalue()
    assert elements(data, read(data), "w0") == WEIGHTS


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "compressed": (zipped(GOOD, Item("x/data/0", zlib.compress(WEIGHTS)[2:-4], method=8)), "x/data/0 is compressed"),
    "a zip bomb": (zipped(GOOD, Item("x/data/0", b"x" * 8, size=1 << 31)), "8 bytes and said to have 2,147,483,648"),
    "encrypted": (zipped(GOOD, Item("x/data/0", WEIGHTS, flags=1)), "is encrypted"),
    "strange flags": (zipped(GOOD, Item("x/data/0", WEIGHTS, flags=0x40)), "unknown flags 0x40"),
    "twice one name": (zipped(GOOD, DATA, DATA), "two members have one name"),
    "twice one name in capitals": (zipped(GOOD, DATA, Item("x/DATA/0", WEIGHTS)), "two members have one name"),
    "two members on the same bytes": (zipped(GOOD, DATA, Item("x/y", WEIGHTS, offset=0)), "does not agree"),
    "a member inside another": (zipped(GOOD, Item("x/data/0", WEIGHTS, offset=60)), "does not agree"),
    "a header that names another": (zipped(GOOD, Item("x/data/0", WEIGHTS, local=b"x/data/1")), "does not agree"),
    "a header with other flags": (zipped(GOOD, Item("x/data/0", WEIGHTS, local_flags=8)), "does not agree"),
    "a start beyond the end": (zipped(GOOD, Item("x/data/0", WEIGHTS, offset=1 << 31)), "not followed"),
    "something between members": (zipped(Item("x/data.pkl", GOOD.data, tail=b"?"), DATA), "not followed by the next"),
    "a false descriptor": (zipped(GOOD, Item("x/data/0", WEIGHTS, flags=8, tail=descriptor(WEIGHTS, crc=1))), "not"),
    "something before the directory": (zipped(GOOD, DATA, gap=b"gap"), "not followed by the next"),
    "something before all": (zipped(GOOD, DATA, before=b"PK\3\4"), "before its first member"),
    "a comment": (zipped(GOOD, DATA, comment=b"hello"), "does not end with its directory"),
    "a comment of a member": (zipped(GOOD, Item("x/data/0", WEIGHTS, comment=b"hello")), "directory is not sound"),
    "a part on another disk": (zipped(GOOD, Item("x/data/0", WEIGHTS, disk=1)), "directory is not sound"),
    "a split archive": (zipped(GOOD, DATA, here=1), "split archive"),
    "one member too many": (zipped(GOOD, DATA, here=3, count=3), "ends too early"),
    "one member too few": (zipped(GOOD, DATA, here=1, count=1), "more members than it counts"),
    "a directory elsewhere": (zipped(GOOD, DATA, start=3), "not where it ends"),
    "a huge directory": (zipped(GOOD, DATA, length=4_000_000_000), "no checkpoint has as many"),
    "half an extra field": (zipped(GOOD, Item("x/data/0", WEIGHTS, extra=b"abc")), "extra field ends too early"),
    "a long extra field": (zipped(GOOD, Item("x/data/0", WEIGHTS, extra=b"ab\xff\0")), "extra field is not sound"),
    "zip64 without its field": (zipped(GOOD, Item("x/data/0", WEIGHTS, size=0xFFFFFFFF)), "zip64 field is missing"),
    "a name that is not UTF-8": (zipped(GOOD, Item("x/\udcff", WEIGHTS)), "not UTF-8"),
    "a name with a line break": (zipped(GOOD, Item("x/a\nb", WEIGHTS)), "is no name for a member"),
    "two folders": (zipped(GOOD, DATA, Item("y/data/1", WEIGHTS)), "not all in one folder"),
    "no pickle": (zipped(DATA), "without data.pkl"),
    "big-endian": (zipped(GOOD, DATA, Item("x/byteorder", b"big")), "byte order is b'big'"),
    "no byte order": (zipped(GOOD, DATA, Item("x/byteorder", b"?" * 99)), "99 bytes; more than 16"),
    "a damaged pickle": (zipped(Item("x/data.pkl", GOOD.data, crc=5), DATA), "fails its checksum"),
}  # fmt: skip


@pytest.mark.parametrize("trick", ARCHIVES)
def test_archives_that_lie_are_refused(trick: str) -> None:
    data, message = ARCHIVES[trick]
    assert re.search(message, refusal(data))


def test_numbers_of_members_and_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    assert "no checkpoint has as many" in refusal(zipped(GOOD, DATA))
    monkeypatch.setattr(archive, "MAX_MEMBERS", 2)
    read(zipped(GOOD, DATA))
    monkeypatch.setattr("blockmerge.formats.torchfile.MAX_PICKLE", len(GOOD.data) - 1)
    assert "are refused" in refusal(zipped(GOOD, DATA))
    monkeypatch.setattr(pickled, "MAX_STEPS", 10)
    with pytest.raises(FormatError, match="more than 10 opcodes"):
        interpret(GOOD.data, "x")


def test_members_beyond_four_gigabytes_are_found(tmp_path: Path) -> None:
    """The way torch writes them: zip64 fields only where they are needed, sizes of 0 before a descriptor."""
    size, path = (1 << 32) + 8, tmp_path / "large.bin"
    program = state(
        tensor(storage(numel=b"\x8a\5" + (size // 4).to_bytes(5, "little")), offset=b"J" + struct.pack("<i", 1 << 30))
    )
    first = zipped(Item("x/data.pkl", program))
    start = struct.unpack("<I", first[-6:-2])[0]
    extra = struct.pack("<2H2Q", 1, 16, size, size)
    with path.open("wb") as file:
        file.write(first[:start])
        file.write(struct.pack("<4s5H3I2H", b"PK\3\4", 0, 0x808, 0, 0, 0, 0, 0, 0, 8, 20) + b"x/data/0" + extra)
        data = file.tell()
        file.seek(data + size - 8)
        file.write(WEIGHTS + struct.pack("<4sI2Q", b"PK\7\x08", 9, size, size))
        late = file.tell()
        file.write(struct.pack("<4s5H3I2H", b"PK\3\4", 0, 0x808, 0, 0, 0, 0, 0, 0, 9, 0) + b"x/version")
        file.write(b"3\n" + descriptor(b"3\n"))
        at = file.tell()
        directory = first[start:-22] + struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, 0x808, 0, 0, 0, 9, 0xFFFFFFFF,
            0xFFFFFFFF, 8, 20, 0, 0, 0, 0, start) + b"x/data/0" + extra  # fmt: skip
        where = struct.pack("<2HQ", 1, 8, late)
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, 0x808, 0, 0, 0, zlib.crc32(b"3\n"), 2, 2, 9, 12, 0, 0,
            0, 0, 0xFFFFFFFF) + b"x/version" + where  # fmt: skip
        end = at + len(directory)
        file.write(directory + struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0, 45, 0, 0, 3, 3, len(directory), at))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 3, 3, len(directory), 0xFFFFFFFF, 0))
    with path.open("rb") as file:
        header = read_header(file, path.stat().st_size, "large")
        assert header.offsets["w0"] == data + size - 8
        file.seek(header.offsets["w0"])
        assert file.read(8) == WEIGHTS


def test_a_file_cut_anywhere_is_refused() -> None:
    data = saved({"a": torch.ones(2), "b": torch.zeros(3, dtype=torch.bfloat16)})
    for length in range(len(data)):
        refusal(data[:length])


# ---- mutations -------------------------------------------------------------------------------------------------------

SEEDS = {
    "v2": saved({"first": torch.arange(3.0), "second": torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))}),
    "v3": saved({"first": torch.ones(3).to(torch.float8_e4m3fn)}, pickle_protocol=4),
    "plain": checkpoint(state(tensor()), DATA),
}
changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "insert", "cut", "set"]), st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)
    ),
    min_size=1,
    max_size=4,
)


def changed(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for kind, position, value in edits:
        at = position % (len(data) + 1)
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << value[0] % 8)]) + data[at + 1 :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "cut":
            data = data[:at] + data[at + len(value) :]
        elif kind == "set":
            data = data[:at] + value + data[at + len(value) :]
    return data


def the_same_or_refused(seed: bytes, mutated: bytes) -> None:
    """Every tensor as in the seed (its bytes may differ, those have no checksum here), or the one error."""
    try:
        header = read(mutated)
    except FormatError as error:
        assert str(error).startswith("x.bin: ") and str(error).isprintable()
        return
    expected = read(seed)
    assert header.tensors == expected.tensors
    assert header.offsets == expected.offsets or len(mutated) != len(seed)
    assert all(header.offsets[name] + spec.nbytes <= len(mutated) for name, spec in header.tensors.items())


@given(st.sampled_from(sorted(SEEDS)), changes)
@settings(max_examples=1500, deadline=None)
def test_a_damaged_file_is_refused_or_reads_the_same(seed: str, edits: list[tuple[str, int, bytes]]) -> None:
    the_same_or_refused(SEEDS[seed], changed(SEEDS[seed], edits))


def repacked(program: bytes) -> bytes:
    return zipped(Item("x/data.pkl", program), DATA, Item("x/version", b"3\n"))


@given(changes, st.booleans())
@settings(max_examples=1500, deadline=None)
def test_a_damaged_pickle_with_a_good_checksum_is_refused_or_is_what_torch_reads(
    edits: list[tuple[str, int, bytes]], parameter: bool
) -> None:
    seed = tensor()
    if parameter:
        seed = name("torch._utils _rebuild_parameter") + seed + b"\x88" + HOOKS + b"\x87R"
    refused_or_as_torch_reads(repacked(changed(state(seed, tensor()), edits)))


def refused_or_as_torch_reads(data: bytes) -> None:
    """Tensors within their storage, the same as torch has if it reads the file at all, or the one error."""
    try:
        header = read(data)
    except FormatError as error:
        assert str(error).startswith("x.bin: ") and str(error).isprintable()
        return
    start = data.index(WEIGHTS)
    for found, spec in header.tensors.items():
        assert start <= header.offsets[found] <= header.offsets[found] + spec.nbytes <= start + len(WEIGHTS)
    with contextlib.suppress(pickle.UnpicklingError, RuntimeError, AttributeError):
        assert_holds(data, torch.load(io.BytesIO(data), weights_only=True))


@pytest.mark.soak
@given(st.sampled_from(sorted(SEEDS)), changes)
@settings(max_examples=50_000, deadline=None)
def test_many_damaged_files(seed: str, edits: list[tuple[str, int, bytes]]) -> None:
    the_same_or_refused(SEEDS[seed], changed(SEEDS[seed], edits))


@pytest.mark.soak
@given(changes)
@settings(max_examples=50_000, deadline=None)
def test_many_damaged_pickles(edits: list[tuple[str, int, bytes]]) -> None:
    refused_or_as_torch_reads(repacked(changed(state(tensor(), tensor()), edits)))


# ---- folders ---------------------------------------------------------------------------------------------------------


def pickled_twin(folder: Path, target: Path) -> Path:
    """The model of ``folder`` with its weights in files of torch.save, one for each of safetensors."""
    shutil.copytree(folder, target)
    for path in sorted(target.glob("*.safetensors")):
        torch.save(load_file(path), target / _renamed(path.name))
        path.unlink()
    index = target / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] = {key: _renamed(shard) for key, shard in content["weight_map"].items()}
        (target / "pytorch_model.bin.index.json").write_text(json.dumps(content))
        index.unlink()
    return target


def _renamed(shard: str) -> str:
    return "pytorch_" + shard.replace(".safetensors", ".bin")


@pytest.mark.parametrize("shards", [1, 3])
def test_a_merge_of_pickles_is_that_of_safetensors_byte_for_byte(tmp_path: Path, shards: int) -> None:
    first, second = (
        models.save(tmp_path / label, models.tensors(seed), shards=shards)
        for seed, label in ((1, "first"), (2, "second"))
    )
    bins = [pickled_twin(folder, tmp_path / "bin" / folder.name) for folder in (first, second)]
    blockmerge.merge(blockmerge.gradient(str(first), str(second), values=[0.2, 0.7]), tmp_path / "out")
    plan = blockmerge.plan(blockmerge.gradient(*map(str, bins), values=[0.2, 0.7]))
    assert any("pickles, read as data, without running them" in line for line in blockmerge.inspect(str(bins[0])).odd)
    blockmerge.merge(plan, tmp_path / "bin" / "out")
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "bin" / "out" / name).read_bytes()


def test_tied_matrices_in_one_storage_merge_as_the_tie_they_are(tmp_path: Path) -> None:
    outs = []
    for kind in ("safetensors", "pickle"):
        folders = []
        for seed in (1, 2):
            content = models.tensors(seed, tied=True)
            folder = models.save(tmp_path / kind / str(seed), content, tie_word_embeddings=True)
            if kind == "pickle":
                pickled_twin(folder, tmp_path / kind / f"bin{seed}")
                folder = tmp_path / kind / f"bin{seed}"
                weights = torch.load(folder / "pytorch_model.bin")
                weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
                torch.save(weights, folder / "pytorch_model.bin")
            folders.append(str(folder))
        blockmerge.merge(blockmerge.gradient(*folders, values=0.5), tmp_path / kind / "out")
        outs.append(models.read(tmp_path / kind / "out"))
    safe, pickles = outs
    assert all((pickles[key][1] == safe[key][1]).all() for key in safe)
    assert pickles.keys() - safe.keys() <= {"lm_head.weight"}


def save_folder(folder: Path, *names: str) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(CONFIG)
    for number, each in enumerate(names):
        if each.endswith(".safetensors"):
            save_file({each: torch.full((2,), float(number))}, folder / each)
        else:
            torch.save({each: torch.full((2,), float(number))}, folder / each)
    return folder


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        (["pytorch_model.bin", "other.bin", "optimizer.pt"], "pytorch_model.bin"),
        (["consolidated.00.pth"], "consolidated.00.pth"),
        (["last.ckpt"], "last.ckpt"),
        (["weights.pt"], "weights.pt"),
        (["weights.bin"], "weights.bin"),
    ],
)
def test_the_weights_of_a_folder_are_those_that_transformers_loads_or_the_only_ones(
    tmp_path: Path, names: list[str], chosen: str
) -> None:
    source = LocalSource(save_folder(tmp_path / "model", *names))
    assert list(source.specs) == [chosen]
    assert source.fingerprint().headers.keys() == {chosen}
    assert any("not read" in line for line in source.remarks) == (len(names) > 1)
    assert any("pickles, read as data" in line for line in source.remarks) == (not chosen.endswith(".safetensors"))
    source.close()


@pytest.mark.parametrize("names", [["a.pt", "b.pth"], ["a.bin", "model.fp16.safetensors"]])
def test_of_several_files_none_is_guessed(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(ModelError, match=r"holds none of model\.safetensors, .*, only "):
        LocalSource(save_folder(tmp_path / "model", *names))


@pytest.mark.parametrize("shard", ["../x.bin", "/etc/x.bin", ".x.bin", "x.safetensors", "bin", "x.BIN"])
def test_an_index_of_pickles_names_pickles_beside_it(tmp_path: Path, shard: str) -> None:
    folder = save_folder(tmp_path / "model", "x.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"x.bin": shard}}))
    with pytest.raises(FormatError, match=r"is no plain name of a \.bin file"):
        LocalSource(folder)


def test_the_fingerprint_follows_the_layout(tmp_path: Path) -> None:
    digests = set()
    for number, content in enumerate(({"a": torch.ones(2)}, {"b": torch.ones(2)}, {"a": torch.ones(3)})):
        folder = save_folder(tmp_path / str(number))
        torch.save(content, folder / "pytorch_model.bin")
        source = LocalSource(folder)
        digests.add(source.fingerprint().headers["pytorch_model.bin"])
        source.close()
    assert len(digests) == 3


def test_nothing_in_the_package_can_run_a_pickle() -> None:
    """But for kernels that numba compiled here, and for trials, where transformers loads safetensors only."""
    package = Path(blockmerge.__file__).parent
    for path in {*package.rglob("*.py")} - {package / "kernels" / "cache.py", package / "studio" / "trial.py"}:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "torch"} & set(modules), path
