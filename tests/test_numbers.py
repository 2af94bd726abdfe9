"""Every number of the 16-bit formats through decoders, encoders and blends, held to exact rational arithmetic.

Rational numbers are whole numbers over a common power of two here: as exact as fractions, and much faster.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import blockmerge
import models
from blockmerge import kernels
from blockmerge.dtypes import BF16, F16, F32, DType, by_code
from blockmerge.formats.float8 import to_bfloat16
from blockmerge.kernels import reference, sums

RATIOS = (0.0, 1e-30, 1e-5, 0.1, 0.2, 0.25, 1 / 3, 0.4999999, 0.5, 0.50000001, 0.6, 0.75, 0.9, 1 - 1e-5, 1.0)
FORMATS = {BF16: (8, 7), F16: (5, 10), F32: (8, 23)}
"""Bits of the exponent and of the fraction."""
SCALE = 320
"""Numbers times 2 to this power are whole, products of float32 and float64 ones too."""


def all_values(dtype: DType) -> np.ndarray:
    """All 65,536 encodings of a 16-bit format."""
    return np.arange(65536, dtype=np.uint16).view(dtype.storage)


def exact(code: int, exponent_bits: int, fraction_bits: int) -> Fraction | None:
    """The number that ``code`` spells by the definition of its format; None if it is none."""
    sign, rest = divmod(code, 1 << (exponent_bits + fraction_bits))
    exponent, fraction = divmod(rest, 1 << fraction_bits)
    bias = (1 << (exponent_bits - 1)) - 1
    if exponent == (1 << exponent_bits) - 1:
        return None
    whole = fraction if exponent == 0 else fraction + (1 << fraction_bits)
    return (-1) ** sign * whole * Fraction(2) ** (max(exponent, 1) - bias - fraction_bits)


def scaled(values: np.ndarray) -> np.ndarray:
    """Finite float64 numbers times 2 to the power ``SCALE``, as Python's whole numbers."""
    fraction, exponent = np.frexp(values)
    whole = np.ldexp(fraction, 53).astype(np.int64).astype(object)
    shift = (exponent + (SCALE - 53)).astype(object)
    assert (shift >= 0).all()
    return whole << shift


def units(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Of each number of ``dtype`` the distance to the next larger one in magnitude, scaled."""
    exponent_bits, fraction_bits = FORMATS[dtype]
    low = 2 - (1 << (exponent_bits - 1))
    exponent = np.maximum(np.frexp(values)[1] - 1, low) - fraction_bits
    return np.full(values.shape, 1, object) << (exponent + SCALE).astype(object)


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_every_encoding_is_decoded_to_the_number_that_it_spells(dtype: DType) -> None:
    codes = all_values(dtype)
    narrow, wide = np.empty(65536, np.float32), np.empty(65536, np.float64)
    sums.numbers(codes, narrow)
    sums.numbers(codes, wide)
    for code, value in enumerate(wide.tolist()):
        expected = exact(code, *FORMATS[dtype])
        if expected is None:
            infinite = code & ((1 << FORMATS[dtype][1]) - 1) == 0
            assert (abs(value) == np.inf) if infinite else value != value
        else:
            assert Fraction(value) == expected
            assert np.signbit(value) == (code >= 32768)
    assert np.array_equal(narrow, wide, equal_nan=True)
    assert np.array_equal(np.signbit(narrow), np.signbit(wide))
    assert np.array_equal(wide, reference.decode(codes, dtype), equal_nan=True)
    assert kernels.nonfinite(codes)
    finite = codes[np.isfinite(wide)]
    assert finite.size == 65536 - 2 * (1 << FORMATS[dtype][1])
    assert not kernels.nonfinite(finite)


@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("out", [BF16, F16])
def test_every_number_is_encoded_to_the_nearest_and_to_the_even_of_two(dtype: DType, out: DType) -> None:
    """Numbers of ``dtype``, the middles between those of ``out``, and what is beside these."""
    values = reference.decode(all_values(out), out)
    values = np.unique(values[np.isfinite(values)])
    middles = (values[:-1] + values[1:]) / 2
    beside = [np.nextafter(middles, -np.inf), middles, np.nextafter(middles, np.inf), values]
    with np.errstate(over="ignore"):
        numbers = np.concatenate([reference.decode(all_values(dtype), dtype), *beside])
    numbers = numbers[np.isfinite(numbers)]
    code = np.empty(numbers.size, out.storage)
    kernels.convert(numbers, code)
    got = reference.decode(code, out)
    assert np.array_equal(code, reference.encode(numbers, out))
    limit = np.abs(values).max() + (values[-1] - values[-2]) / 2
    assert (np.isinf(got) == (np.abs(numbers) >= limit)).all()
    inside = np.isfinite(got)
    at = np.searchsorted(values, got[inside])
    error = abs(scaled(numbers[inside]) - scaled(got[inside]))
    for neighbour in (values[np.maximum(at - 1, 0)], values[np.minimum(at + 1, values.size - 1)]):
        other = abs(scaled(numbers[inside]) - scaled(neighbour))
        assert ((error < other) | (neighbour == got[inside]) | (error == other) & (code[inside] % 2 == 0)).all()


@pytest.mark.parametrize("ratio", [0.3, 0.7, *(pytest.param(ratio, marks=pytest.mark.soak) for ratio in RATIOS)])
@pytest.mark.parametrize("a", [BF16, F16])
@pytest.mark.parametrize("b", [BF16, F16])
def test_blends_are_the_defined_steps_and_within_the_bound_of_the_exact_result(
    a: DType, b: DType, ratio: float
) -> None:
    """``docs/numbers.md`` promises half a unit of the output, and (|a| + |b|) 2**-22 besides."""
    x = all_values(a)
    y = np.random.default_rng(round(ratio * 1e6)).permutation(all_values(b))
    result: dict[DType, np.ndarray] = {}
    for out in (BF16, F16, F32):
        got = np.empty(65536, out.storage)
        precision = np.float64 if out == F32 else np.float32
        bad = kernels.lerp(x, y, got, precision(ratio), precision(1.0 - ratio))
        twin = reference.lerp_wide if out == F32 else reference.lerp
        result[out] = reference.decode(got, out)
        expected = twin(x, a, y, b, out, ratio)
        assert np.array_equal(result[out], reference.decode(expected, out), equal_nan=True)
        assert np.array_equal(np.signbit(result[out]), np.signbit(reference.decode(expected, out)))
        assert bad == (not np.isfinite(result[out]).all())
    left, right = reference.decode(x, a), reference.decode(y, b)
    with np.errstate(all="ignore"):
        near = np.isfinite(left) & np.isfinite(right) & (np.abs(left - right) < 2.0**127)
    one, two, share = scaled(left[near]), scaled(right[near]), scaled(np.array([ratio]))[0]
    blended = ((1 << SCALE) - share) * one + share * two  # scaled twice
    for out, precise in ((BF16, 22), (F16, 22), (F32, 51)):
        got = result[out][near]
        inside = np.isfinite(got)
        error = abs((scaled(got[inside]) << SCALE) - blended[inside])
        slack = ((abs(one) + abs(two))[inside] << (SCALE - precise)) + (1 << (2 * SCALE - 149))
        assert (error <= (units(got[inside], out) << (SCALE - 1)) + slack).all()
        assert inside.all() or out == F16


FLOAT8 = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E4M3FNUZ": "float8_e4m3fnuz",
          "F8_E5M2FNUZ": "float8_e5m2fnuz"}  # fmt: skip


def float8(code: str) -> DType:
    found = by_code(code)
    assert found is not None
    return found


@pytest.mark.parametrize(("code", "exponent_bits", "lowest"), [("F8_E4M3", 4, -9), ("F8_E5M2", 5, -16)])
def test_every_float8_is_the_number_that_it_spells(code: str, exponent_bits: int, lowest: int) -> None:
    out = np.empty(256, np.uint16)
    to_bfloat16(np.arange(256, dtype=np.uint8), float8(code), out)
    values = reference.decode(out, BF16)
    for spelled, value in enumerate(values.tolist()):
        magnitude = spelled & 0x7F
        if code == "F8_E5M2" and magnitude >= 0x7C:
            assert abs(value) == np.inf if magnitude == 0x7C else value != value
        elif code == "F8_E4M3" and magnitude == 0x7F:
            assert value != value
        else:
            exponent, fraction = divmod(magnitude, 1 << (7 - exponent_bits))
            whole = fraction + (exponent > 0) * (1 << (7 - exponent_bits))
            assert abs(Fraction(value)) == whole * Fraction(2) ** (max(exponent, 1) - 1 + lowest)
            assert np.signbit(value) == (spelled >= 0x80)


@pytest.mark.parametrize("code", FLOAT8)
def test_every_float8_is_what_torch_takes_it_for(code: str) -> None:
    torch = pytest.importorskip("torch")
    codes, out = np.arange(256, dtype=np.uint8), np.empty(256, np.uint16)
    to_bfloat16(codes, float8(code), out)
    expected = torch.from_numpy(codes).view(getattr(torch, FLOAT8[code])).float().numpy()
    assert np.array_equal(reference.decode(out, BF16), expected, equal_nan=True)
    assert np.array_equal(np.signbit(reference.decode(out, BF16)), np.signbit(expected) & ~np.isnan(expected))


@pytest.mark.parametrize("one", FLOAT8)
@pytest.mark.parametrize("other", ["F8_E4M3", "F8_E5M2", "BF16", "F16"])
def test_models_of_float8_blend_as_the_numbers_they_hold(tmp_path: Path, one: str, other: str) -> None:
    """All pairs of two formats of 8 bits, in a tensor of several blocks."""
    stored: list[tuple[DType, np.ndarray]] = []
    for code in (one, other):
        out = np.empty(256, np.uint16)
        if code.startswith("F8"):
            to_bfloat16(np.arange(256, dtype=np.uint8), float8(code), out)
            codes = np.flatnonzero(np.isfinite(reference.decode(out, BF16))).astype(np.uint8)
        else:
            codes = reference.encode(np.linspace(-2, 2, 250), float8(code))
        stored.append((float8(code), codes))
    shape = (12, stored[0][1].size, stored[1][1].size)
    arrays = [np.broadcast_to(stored[0][1][:, None], shape), np.broadcast_to(stored[1][1], shape)]
    kinds = [dtype for dtype, _ in stored]
    paths = [
        str(models.save(tmp_path / name, {"a.weight": (dtype, array)}, {"model_type": "none"}))
        for name, dtype, array in zip(("one", "other"), kinds, arrays, strict=True)
    ]
    plan = blockmerge.plan(blockmerge.gradient(*paths, values=0.3))
    assert plan.dtype == BF16
    blockmerge.merge(plan, tmp_path / "out")
    numbers = []
    for dtype, array in zip(kinds, arrays, strict=True):
        wide = np.empty(array.size, np.uint16)
        if dtype.bits == 8:
            to_bfloat16(array.reshape(-1), dtype, wide)
        numbers.append((wide, BF16) if dtype.bits == 8 else (array.reshape(-1), dtype))
    expected = reference.lerp(*numbers[0], *numbers[1], BF16, 0.3)
    assert np.array_equal(models.read(tmp_path / "out")["a.weight"][1].reshape(-1), expected)
    assert blockmerge.verify(tmp_path / "out", inputs=True).differing == ()
    assert any("is read as bfloat16" in line for line in blockmerge.inspect(paths[0]).odd)
