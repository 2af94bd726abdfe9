"""Between encoded elements and numbers: the only place that knows how a bfloat16 or a float16 is spelled.

``decode`` and ``decode_wide`` give float32 and float64, always exactly. ``encode(value, like)`` rounds once, to nearest
with ties to even, to the encoding of ``like``; overflow gives infinity and every NaN the canonical quiet one.
``finite(element)`` looks at an encoded element. All are chosen by type while compiling, so loops over them vectorise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

from blockmerge.kernels.cache import inner

__all__ = ["apart", "decode", "decode_wide", "encode", "finite", "magnitude", "number", "only", "rounded"]

_U16, _I16, _U32, _F32, _F64 = np.uint16, np.int16, np.uint32, np.float32, np.float64


def _half_in_hardware() -> bool:
    """Whether the processor that numba compiles for converts float16 itself."""
    triple, _, features = cpu_target.target_context.codegen().magic_tuple()
    return "+f16c" in features or triple.startswith(("aarch64", "arm64"))


HALF_IN_HARDWARE: bool = _half_in_hardware()
"""Without it LLVM would call a library routine that numba does not link; the integer form below gives the same bits."""


def _bitcast(source: Any, target: Any) -> Any:
    """An intrinsic that reinterprets the bits of one numba type as another."""

    @intrinsic
    def cast(_context: Any, _value: Any) -> Any:
        def build(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(target))

        return target(source), build

    return cast


float32_bits = _bitcast(types.float32, types.uint32)
bits_float32 = _bitcast(types.uint32, types.float32)
float64_bits = _bitcast(types.float64, types.uint64)
bits_float64 = _bitcast(types.uint64, types.float64)


@inner
def magnitude(value):
    """The bits of the size of a float32: as integers, they ascend with it.

    All NaNs are the same one, behind infinity: what bits one has may depend on how a loop is vectorised.
    """
    return np.uint32(min(np.uint32(float32_bits(value) & _U32(0x7FFFFFFF)), _U32(0x7F800001)))


@inner
def only(value, stays):
    """A float ``value`` if it ``stays``, else zero.

    The zero that is added keeps LLVM from storing some lanes of a vector only, which many processors do one by one.
    """
    return (value if stays else np.float32(0)) + np.float32(0)


@intrinsic
def _half_to_float32(_context: Any, _value: Any) -> Any:
    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), build


@intrinsic
def _float32_to_half(_context: Any, _value: Any) -> Any:
    def build(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.int16(types.float32), build


def decode(element):
    """The float32 that ``element`` stands for. Types: uint16 (bfloat16), int16 (float16), float32."""
    raise NotImplementedError


def decode_wide(element):
    """The float64 that ``element`` stands for. Types: as :func:`decode`, and float64."""
    raise NotImplementedError


def number(element, like):
    """The number that ``element`` stands for, as a float of the type of ``like``."""
    raise NotImplementedError


def apart(a, b):
    """How far two elements of one format are apart, ``a - b``: float32, rounded once."""
    raise NotImplementedError


def encode(value, like):
    """``value`` (float32 or float64) rounded once to the encoding of ``like``."""
    raise NotImplementedError


def finite(element):
    """Whether ``element`` is neither NaN nor infinite."""
    raise NotImplementedError


def rounded(value, like):
    """A float32 ``value`` rounded to the format of ``like`` and back."""
    raise NotImplementedError


@overload(decode)
def _decode(element):
    if element == types.uint16:
        return lambda element: bits_float32(_U32(element) << _U32(16))
    if element == types.int16:
        return _half_decoder()
    if element == types.float32:
        return lambda element: element
    return None


def _half_decoder() -> Any:
    if HALF_IN_HARDWARE:
        return lambda element: _half_to_float32(element)

    def by_integers(element):
        magnitude = (_U32(element) & _U32(0x7FFF)) << _U32(13)
        scaled = bits_float32(magnitude) * _F32(2.0**112)  # moves the exponent's bias; right for subnormals too
        bits = float32_bits(scaled)
        if magnitude >= _U32(0x0F800000):  # infinity or NaN
            bits = magnitude | _U32(0x7F800000)
        return bits_float32(bits | ((_U32(element) & _U32(0x8000)) << _U32(16)))

    return by_integers


@overload(decode_wide)
def _decode_wide(element):
    if element == types.float64:
        return lambda element: element
    if element in (types.uint16, types.int16, types.float32):
        return lambda element: _F64(decode(element))
    return None


@overload(number)
def _number(element, like):
    if like == types.float64:
        return lambda element, like: decode_wide(element)
    if like == types.float32 and element == types.float64:
        return lambda element, like: _F32(element)
    return lambda element, like: decode(element)


@overload(apart)
def _apart(a, b):
    if a == types.float64:
        return lambda a, b: _F32(a - b)
    return lambda a, b: decode(a) - decode(b)


@overload(encode)
def _encode(value, like):
    if value == types.float64 and like in (types.uint16, types.int16):
        return lambda value, like: encode(_odd_float32(value), like)
    if like == types.uint16:
        return _encode_bfloat16
    if like == types.int16:
        return _encode_half_in_hardware if HALF_IN_HARDWARE else _encode_half_by_integers
    if like == types.float32:
        return lambda value, like: _F32(value)
    if like == types.float64:
        return lambda value, like: _F64(value)
    return None


def _encode_bfloat16(value, like):
    bits = float32_bits(value)
    rounded = (bits + _U32(0x7FFF) + ((bits >> _U32(16)) & _U32(1))) >> _U32(16)
    if value != value:
        rounded = _U32(0x7FC0)
    return _U16(rounded)


def _encode_half_in_hardware(value, like):
    half = _float32_to_half(value)
    if half & _I16(0x7FFF) > _I16(0x7C00):
        half = _I16(0x7E00)
    return half


def _encode_half_by_integers(value, like):
    bits = float32_bits(value)
    magnitude = bits & _U32(0x7FFFFFFF)
    half = (magnitude - _U32(0x38000000) + _U32(0xFFF) + ((magnitude >> _U32(13)) & _U32(1))) >> _U32(13)
    if magnitude < _U32(0x38800000):  # subnormal: adding 1/2 leaves the float32 unit at 2**-24, that of float16
        half = float32_bits(bits_float32(magnitude) + _F32(0.5)) - _U32(0x3F000000)
    if magnitude >= _U32(0x477FF000):  # 65520 and above
        half = _U32(0x7C00)
    half |= (bits >> _U32(16)) & _U32(0x8000)
    if magnitude > _U32(0x7F800000):
        half = _U32(0x7E00)
    return _I16(half)


def _odd_float32(value):
    """A float64 rounded to odd in float32, so that a second rounding to 16 bits is as good as a direct one."""
    raise NotImplementedError


@overload(_odd_float32)
def _round_to_odd(value):
    if value != types.float64:
        return None

    def to_odd(value):
        near = _F32(value)
        bits = float32_bits(near)
        back = _F64(near)
        if back != value and bits & _U32(1) == _U32(0):
            # step to the odd neighbour on the side of the exact value; infinity steps back to the largest finite
            bits = bits - _U32(1) if abs(back) > abs(value) else bits + _U32(1)
        if value != value:
            bits = _U32(0x7FC00000)
        return bits_float32(bits)

    return to_odd


@overload(finite)
def _finite(element):
    if element == types.uint16:
        return lambda element: (element & _U16(0x7F80)) != _U16(0x7F80)
    if element == types.int16:
        return lambda element: (element & _I16(0x7C00)) != _I16(0x7C00)
    if element == types.float32:
        return lambda element: (float32_bits(element) & _U32(0x7F800000)) != _U32(0x7F800000)
    if element == types.float64:
        return lambda element: (float64_bits(element) >> np.uint64(52)) & np.uint64(0x7FF) != np.uint64(0x7FF)
    return None


@overload(rounded)
def _rounded(value, like):
    if like == types.float32:
        return lambda value, like: value
    return lambda value, like: decode(encode(value, like))
