"""The data in a pickle of torch.save, read by an interpreter of our own.

A pickle is a program for a small stack machine, and Python's runs whatever function it names. This one knows the
opcodes that dicts, lists, numbers and tensors need, and no others; the names in a pickle are compared with a short list
and never looked up. Nothing is imported, called or given attributes, so there is nothing to escape from.
The opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from blockmerge import dtypes
from blockmerge.dtypes import DType
from blockmerge.errors import FormatError

__all__ = ["REMEDY", "Storage", "StoredTensor", "interpret"]

MAX_STEPS = 3_000_000
"""Opcodes, some thirty for a tensor. Each makes at most one object and one entry of the memo, so it bounds both."""
MAX_WORD = 200
"""Characters of a name or a storage's key, and numbers of a shape: what is recalled often must be short."""
REMEDY: Final = "load it with torch >= 2.6 (weights_only=True) and save_file its tensors as safetensors"

_STORAGES: Final = {
    "torch.BFloat16Storage": "BF16", "torch.HalfStorage": "F16", "torch.FloatStorage": "F32",
    "torch.DoubleStorage": "F64", "torch.BoolStorage": "BOOL", "torch.ByteStorage": "U8", "torch.CharStorage": "I8",
    "torch.ShortStorage": "I16", "torch.IntStorage": "I32", "torch.LongStorage": "I64",
    "torch.ComplexFloatStorage": "C64",
}  # fmt: skip
_UNTYPED: Final = ("torch.storage.UntypedStorage", "torch.UntypedStorage")
"""Storages of bytes; the tensors over them bring their dtypes."""
_REFUSED: Final = {
    "0": "POP", "1": "POP_MARK", "2": "DUP", "B": "BINBYTES", "C": "SHORT_BINBYTES", "F": "FLOAT",
    "I": "INT", "L": "LONG", "P": "PERSID", "S": "STRING", "T": "BINSTRING", "U": "SHORT_BINSTRING", "V": "UNICODE",
    "d": "DICT", "g": "GET", "i": "INST", "l": "LIST", "o": "OBJ", "p": "PUT", "\x81": "NEWOBJ", "\x82": "EXT1",
    "\x83": "EXT2", "\x84": "EXT4", "\x8b": "LONG4", "\x8e": "BINBYTES8", "\x8f": "EMPTY_SET", "\x90": "ADDITEMS",
    "\x91": "FROZENSET", "\x92": "NEWOBJ_EX", "\x96": "BYTEARRAY8", "\x97": "NEXT_BUFFER", "\x98": "READONLY_BUFFER",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a tensor's elements are: ``numel`` elements of ``dtype`` (None: bytes) in the archive's ``data/key``."""

    dtype: DType | None
    key: str
    numel: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a pickle describes it, not checked against its storage: offset and strides count elements."""

    storage: Storage
    dtype: DType
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Name:
    """A name from the list; only a name, whatever it means to others."""

    text: str


def interpret(data: bytes, where: str) -> object:
    """What the pickle ``data`` describes; ``where`` names it in errors.

    It is made of dict, OrderedDict, list, tuple, str, int, float, bool, None and :class:`StoredTensor`, or of names of
    dtypes, which mean nothing here. Lists may hold themselves. Raises :class:`FormatError` for anything else.
    """
    return _Interpreter(data, where).run()


class _Interpreter:
    """The stack machine: ``stack`` holds objects since the last mark, ``outer`` the stacks before it."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.at = 0
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> object:
        for _ in range(MAX_STEPS):
            code = chr(self.take(1)[0])
            if code == ".":
                return self.result()
            step = _STEPS.get(code)
            if step is None:
                name = _REFUSED.get(code, f"{ord(code):#04x}")
                raise self.refused(f"has the opcode {name}, which no tensor needs; {REMEDY}")
            step(self)
        raise self.refused(f"has more than {MAX_STEPS:,} opcodes; no state dict needs as many")

    def result(self) -> object:
        if self.outer or len(self.stack) != 1 or self.at != len(self.data):
            raise self.broken("it stops before its end")
        return self.stack[0]

    def refused(self, why: str) -> FormatError:
        return FormatError(f"{self.where}: its pickle {why}")

    def broken(self, why: str) -> FormatError:
        return self.refused(f"is not sound at byte {self.at:,}: {why}")

    # ---- bytes -------------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            raise self.broken("it ends too early")
        self.at += count
        return taken

    def number(self, code: str) -> Any:
        """The next number, of the format that :mod:`struct` calls ``code``."""
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + MAX_WORD)
        if end < 0:
            raise self.broken("a name has no end")
        return self.text(end - self.at + 1)[:-1]

    def text(self, count: int) -> str:
        try:
            return self.take(count).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.broken("a text is not UTF-8") from error

    def protocol(self) -> None:
        version = self.number("<B")
        if not 2 <= version <= 5:
            raise self.refused(f"has the unknown protocol {version}")

    # ---- stack and memo ----------------------------------------------------------------------------------------------

    def push(self, value: object) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise self.broken("it takes more than there is")
        return self.stack.pop()

    def mark(self) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        """The objects since the last mark."""
        if not self.outer:
            raise self.broken("it takes more than there is")
        items, self.stack = self.stack, self.outer.pop()
        return items

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def put(self, index: int) -> None:
        value = self.pop()
        self.memo[index] = value
        self.push(value)

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise self.broken("it recalls what it never kept")
        self.push(self.memo[index])

    # ---- containers --------------------------------------------------------------------------------------------------

    def append(self, items: list[Any]) -> None:
        target = self.pop()
        if not isinstance(target, list):
            raise self.broken("it appends to something that is no list")
        cast("list[Any]", target).extend(items)
        self.push(cast("list[Any]", target))

    def set_items(self, items: list[Any]) -> None:
        """Fill a dict. Keys are texts or whole numbers: hashing a tuple would follow it to any depth."""
        target = self.pop()
        if not isinstance(target, dict) or len(items) % 2:
            raise self.broken("it sets items of something that is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int):
                raise self.refused(f"has a dict whose key is a {type(key).__name__}; {REMEDY}")
            if key in target:
                raise self.refused(f"has the key {str(key)[:80]!r} twice; it is corrupt or made to deceive")
            target[key] = value
        self.push(cast("dict[Any, Any]", target))

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def build(self) -> None:
        """Attributes: of an OrderedDict they are left out (those of a module are the versions of its parts)."""
        state, target = self.pop(), self.pop()
        if not isinstance(target, OrderedDict) or not isinstance(state, dict):
            raise self.refused(f"has a BUILD of something else than an OrderedDict; {REMEDY}")
        self.push(cast("dict[Any, Any]", target))

    # ---- names and tensors -------------------------------------------------------------------------------------------

    def name(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str) or max(len(module), len(name)) > MAX_WORD:
            raise self.broken("it names something without a name")
        text = f"{module}.{name}"
        if not (text in _STORAGES or text in _UNTYPED or text in _FUNCTIONS or _dtype(text)):
            raise self.refused(f"names {text[:120]!r}, and only tensors and plain data are read; {REMEDY}")
        self.push(_Name(text))

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        self.name(module, name)

    def storage(self) -> None:
        """The persistent id on the stack: ('storage', type, key, location, number of elements)."""
        pid = self.pop()
        match pid:
            case ("storage", _Name(text), str(key), str(), numel) if (
                type(pid) is tuple and _natural(numel) and len(key) <= MAX_WORD
            ):
                code = _STORAGES.get(text)
                if code is None and text not in _UNTYPED:
                    raise self.broken(f"{text} is no storage")
            case _:
                raise self.broken("a persistent id describes no storage")
        found = Storage(dtypes.by_code(code) if code else None, key, numel)
        if self.storages.setdefault(key, found) != found:
            raise self.refused(f"describes storage {key[:80]!r} in two ways")
        self.push(found)

    def reduce(self) -> None:
        """A call in name only: of the few functions that make a tensor, and of OrderedDict."""
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple) or function.text not in _FUNCTIONS:
            raise self.broken("it calls something that is no function")
        made = _FUNCTIONS[function.text](cast("tuple[Any, ...]", arguments))
        if made is None:
            raise self.refused(f"has a call of {function.text} with arguments that describe no plain tensor; {REMEDY}")
        self.push(made)


def _dtype(text: str) -> DType | None:
    """The dtype that torch calls ``text``, if its elements fill bytes."""
    dtype = dtypes.by_name(text) if text.startswith("torch.") else None
    return dtype if dtype is not None and dtype.bits % 8 == 0 else None


# ---- what the functions make; None for arguments that torch.save never writes ----------------------------------------


def _ordered_dict(arguments: tuple[Any, ...]) -> OrderedDict[Any, Any] | None:
    return None if arguments else OrderedDict()


def _tensor(arguments: tuple[Any, ...]) -> StoredTensor | None:
    """storage, offset, shape, strides; the dtype is that of the storage."""
    storage = arguments[0] if len(arguments) == 4 else None
    if not isinstance(storage, Storage) or storage.dtype is None:
        return None
    return _described(storage, storage.dtype, *arguments[1:])


def _tensor_v2(arguments: tuple[Any, ...]) -> StoredTensor | None:
    """The same, requires_grad, backward hooks, and perhaps metadata."""
    return _tensor(arguments[:4]) if len(arguments) in (6, 7) and _plain(*arguments[4:]) else None


def _tensor_v3(arguments: tuple[Any, ...]) -> StoredTensor | None:
    """As before, with the dtype after the hooks, over a storage of bytes."""
    if len(arguments) not in (7, 8) or not _plain(*arguments[4:6], *arguments[7:]):
        return None
    storage, dtype = arguments[0], arguments[6]
    if not isinstance(storage, Storage) or storage.dtype is not None or not isinstance(dtype, _Name):
        return None
    found = _dtype(dtype.text)
    return None if found is None else _described(storage, found, *arguments[1:4])


def _parameter(arguments: tuple[Any, ...]) -> StoredTensor | None:
    """A tensor, requires_grad, backward hooks, and perhaps attributes, which are left out."""
    tensor = arguments[0] if 3 <= len(arguments) <= 4 and _plain(*arguments[1:3]) else None
    return tensor if isinstance(tensor, StoredTensor) else None


def _natural(number: object) -> bool:
    """Whether it is a whole number from zero up, as sizes and offsets are (a bool is no number here)."""
    return type(number) is int and 0 <= number < 2**63


def _naturals(value: object) -> bool:
    if not isinstance(value, tuple):
        return False
    numbers = cast("tuple[object, ...]", value)
    return len(numbers) <= MAX_WORD and all(_natural(number) for number in numbers)


def _plain(requires_grad: object, hooks: object, metadata: object = None) -> bool:
    """Whether nothing changes the values: metadata may say that they are conjugated or negated when read."""
    no_hooks = isinstance(hooks, dict) and not hooks
    return isinstance(requires_grad, bool) and no_hooks and (metadata is None or metadata == {})


def _described(storage: Storage, dtype: DType, offset: Any, shape: Any, strides: Any) -> StoredTensor | None:
    if not _natural(offset) or not _naturals(shape) or not _naturals(strides) or len(shape) != len(strides):
        return None
    return StoredTensor(storage, dtype, offset, shape, strides)


_FUNCTIONS: Final[dict[str, Callable[[tuple[Any, ...]], object]]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}

_STEPS: Final[dict[str, Callable[[_Interpreter], object]]] = {
    "\x80": _Interpreter.protocol,
    "\x95": lambda at: at.take(8),  # FRAME
    "(": _Interpreter.mark,
    "N": lambda at: at.push(None),
    "\x88": lambda at: at.push(True),
    "\x89": lambda at: at.push(False),
    "K": lambda at: at.push(at.number("<B")),  # BININT1
    "M": lambda at: at.push(at.number("<H")),  # BININT2
    "J": lambda at: at.push(at.number("<i")),  # BININT
    "\x8a": lambda at: at.push(int.from_bytes(at.take(at.number("<B")), "little", signed=True)),  # LONG1
    "G": lambda at: at.push(at.number(">d")),  # BINFLOAT
    "\x8c": lambda at: at.push(at.text(at.number("<B"))),  # SHORT_BINUNICODE
    "X": lambda at: at.push(at.text(at.number("<I"))),  # BINUNICODE
    "\x8d": lambda at: at.push(at.text(at.number("<Q"))),  # BINUNICODE8
    ")": lambda at: at.push(()),
    "\x85": lambda at: at.tuple_of(1),
    "\x86": lambda at: at.tuple_of(2),
    "\x87": lambda at: at.tuple_of(3),
    "t": lambda at: at.push(tuple(at.pop_mark())),
    "]": lambda at: at.push([]),
    "a": lambda at: at.append([at.pop()]),
    "e": lambda at: at.append(at.pop_mark()),
    "}": lambda at: at.push(cast("dict[Any, Any]", {})),
    "s": _Interpreter.set_item,
    "u": lambda at: at.set_items(at.pop_mark()),
    "q": lambda at: at.put(at.number("<B")),  # BINPUT
    "r": lambda at: at.put(at.number("<I")),  # LONG_BINPUT
    "\x94": lambda at: at.put(len(at.memo)),  # MEMOIZE
    "h": lambda at: at.get(at.number("<B")),  # BINGET
    "j": lambda at: at.get(at.number("<I")),  # LONG_BINGET
    "c": lambda at: at.name(at.line(), at.line()),  # GLOBAL
    "\x93": _Interpreter.stack_name,
    "Q": _Interpreter.storage,  # BINPERSID
    "R": _Interpreter.reduce,
    "b": _Interpreter.build,
}
