"""Every number of the 16-bit formats through decoders, encoders and blends, held to exact rational arithmetic.

Rational numbers are whole numbers over a common power of two here: as exact as fractions, and much faster.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from blockmerge import kernels
from blockmerge.dtypes import BF16, F16, F32, DType
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
