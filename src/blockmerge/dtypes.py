"""The number formats that checkpoints hold, under the names that each neighbour uses for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["BF16", "F16", "F32", "F64", "OUTPUT_DTYPES", "DType", "by_code", "by_name"]


@dataclass(frozen=True, slots=True)
class DType:
    """One element format.

    ``code`` is the safetensors spelling, ``name`` the one of torch and config.json, ``bits`` the size of an
    element (below 8 for packed formats), ``storage`` the numpy dtype its bytes are viewed as: bfloat16 travels as
    uint16 and float16 as int16, so that a kernel can tell them apart by type alone.
    """

    code: str
    name: str
    bits: int
    storage: str
    floating: bool = False

    @property
    def itemsize(self) -> int:
        """Bytes of an element; only whole-byte formats have one."""
        if self.bits % 8:
            raise ValueError(f"{self.name} packs {self.bits} bits per element")
        return self.bits // 8

    def __str__(self) -> str:
        return self.name


BF16: Final = DType("BF16", "bfloat16", 16, "uint16", floating=True)
F16: Final = DType("F16", "float16", 16, "int16", floating=True)
F32: Final = DType("F32", "float32", 32, "float32", floating=True)
F64: Final = DType("F64", "float64", 64, "float64", floating=True)

_ALL: Final = (
    BF16,
    F16,
    F32,
    F64,
    DType("BOOL", "bool", 8, "uint8"),
    DType("U8", "uint8", 8, "uint8"),
    DType("I8", "int8", 8, "int8"),
    DType("U16", "uint16", 16, "uint16"),
    DType("I16", "int16", 16, "int16"),
    DType("U32", "uint32", 32, "uint32"),
    DType("I32", "int32", 32, "int32"),
    DType("U64", "uint64", 64, "uint64"),
    DType("I64", "int64", 64, "int64"),
    DType("C64", "complex64", 64, "complex64"),
    DType("F8_E4M3", "float8_e4m3fn", 8, "uint8", floating=True),
    DType("F8_E5M2", "float8_e5m2", 8, "uint8", floating=True),
    DType("F8_E4M3FNUZ", "float8_e4m3fnuz", 8, "uint8", floating=True),
    DType("F8_E5M2FNUZ", "float8_e5m2fnuz", 8, "uint8", floating=True),
    DType("F8_E8M0", "float8_e8m0fnu", 8, "uint8", floating=True),
    DType("F6_E2M3", "float6_e2m3fn", 6, "uint8", floating=True),
    DType("F6_E3M2", "float6_e3m2fn", 6, "uint8", floating=True),
    DType("F4", "float4_e2m1fn_x2", 4, "uint8", floating=True),
)
_BY_CODE: Final = {dtype.code: dtype for dtype in _ALL}
_BY_NAME: Final = {dtype.name: dtype for dtype in _ALL}

OUTPUT_DTYPES: Final = (BF16, F16, F32)
"""What a merged model may be stored in; also what a blend can read, together with float64."""


def by_code(code: str) -> DType | None:
    """The format that a safetensors header calls ``code``, or None."""
    return _BY_CODE.get(code)


def by_name(name: str) -> DType | None:
    """The format that torch and config.json call ``name``, or None."""
    return _BY_NAME.get(name.removeprefix("torch."))
