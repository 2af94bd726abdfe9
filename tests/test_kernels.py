"""The kernels against their slow float64 twins, against torch, and against exact rational arithmetic."""

from __future__ import annotations

import itertools
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numba
import numpy as np
import pytest

from blockmerge import kernels
from blockmerge.dtypes import BF16, F16, F32, F64, DType
from blockmerge.kernels import cache, dots, erase, ranks, reference, scores, select, softmax, sums, thin, variance
from blockmerge.kernels import chance as chances
from blockmerge.kernels.approach import approach

RATIOS = (0.3, 0.5, 0.7, 1e-5, 1 - 1e-5, 1.3, -0.2)
PAIRS = list(itertools.product((BF16, F16, F32), repeat=2))


def all_values(dtype: DType) -> np.ndarray:
    """All 65,536 encodings of a 16-bit format."""
    return np.arange(65536, dtype=np.uint16).view(dtype.storage)


def sample(dtype: DType, count: int, seed: int) -> np.ndarray:
    """Every kind of value: all encodings of 16-bit formats; normal, huge, tiny and special numbers for wide ones."""
    random = np.random.default_rng(seed)
    if dtype.bits == 16:
        return random.permutation(count).astype(np.uint16).view(dtype.storage)
    values = random.normal(0, 1, count) * 10.0 ** random.integers(-44, 38, count)
    values[:8] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, 65519.99, 65520.0]
    with np.errstate(over="ignore"):
        return values.astype(dtype.storage)


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal bits; any NaN of a wide format equals any other."""
    if one.dtype.kind == "f":
        return bool(((one == other) & (np.signbit(one) == np.signbit(other)) | (np.isnan(one) & np.isnan(other))).all())
    return bool((one == other).all())


@pytest.mark.parametrize("dtype", [BF16, F16])
@pytest.mark.parametrize("out", [BF16, F16, F32])
def test_convert_agrees_with_the_reference_on_every_encoding(dtype: DType, out: DType) -> None:
    result = np.empty(65536, out.storage)
    kernels.convert(all_values(dtype), result)
    assert same(result, reference.convert(all_values(dtype), dtype, out))


@pytest.mark.parametrize("out", [BF16, F16])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_convert_rounds_wide_values_once_and_to_even(dtype: DType, out: DType) -> None:
    exact = reference.decode(all_values(out), out)
    exact = np.sort(exact[np.isfinite(exact)])
    middles = (exact[:-1] + exact[1:]) / 2  # every tie there is
    beside = np.concatenate([middles, np.nextafter(middles, np.inf), np.nextafter(middles, -np.inf), exact])
    values = beside.astype(dtype.storage)
    result = np.empty(values.size, out.storage)
    kernels.convert(values, result)
    assert same(result, reference.convert(values, dtype, out))


@pytest.mark.parametrize("out", [BF16, F16])
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_lerp_agrees_with_the_reference_bit_for_bit(a: DType, b: DType, out: DType) -> None:
    x, y, result = sample(a, 70001, 1), sample(b, 70001, 2), np.empty(70001, out.storage)
    for ratio in RATIOS:
        bad = kernels.lerp(x, y, result, np.float32(ratio), np.float32(1 - ratio))
        expected = reference.lerp(x, a, y, b, out, ratio)
        assert same(result, expected)
        assert bad == (not np.isfinite(reference.decode(expected, out)).all())


@pytest.mark.parametrize(("a", "b", "out"), [(F32, F32, F32), (BF16, F16, F32), (F64, BF16, BF16), (F32, F64, F16)])
def test_lerp_in_float64_agrees_with_the_reference_bit_for_bit(a: DType, b: DType, out: DType) -> None:
    x, y, result = sample(a, 70001, 3), sample(b, 70001, 4), np.empty(70001, out.storage)
    for ratio in RATIOS:
        kernels.lerp(x, y, result, np.float64(ratio), np.float64(1 - ratio))
        assert same(result, reference.lerp_wide(x, a, y, b, out, ratio))


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_blending_a_model_with_itself_gives_itself(dtype: DType) -> None:
    x = all_values(dtype)
    x = x[np.isfinite(reference.decode(x, dtype))]
    result = np.empty_like(x)
    for ratio in (ratio for ratio in RATIOS if 0 <= ratio <= 1):
        assert not kernels.lerp(x, x, result, np.float32(ratio), np.float32(1 - ratio))
        assert (result == x).all()


def test_lerp_is_within_half_a_unit_and_a_little_of_the_exact_rational_result() -> None:
    random = np.random.default_rng(5)
    x, y = (reference.encode(random.normal(0, 0.02, 2000), BF16) for _ in range(2))
    result = np.empty_like(x)
    kernels.lerp(x, y, result, np.float32(0.3), np.float32(0.7))
    share = Fraction(float(np.float32(0.3)))
    got = reference.decode(result, BF16)
    for a, b, value in zip(reference.decode(x, BF16), reference.decode(y, BF16), got, strict=True):
        exact = (1 - share) * Fraction(float(a)) + share * Fraction(float(b))
        unit = Fraction(2) ** (int(np.frexp(value)[1]) - 8)
        assert abs(Fraction(float(value)) - exact) <= unit * Fraction(51, 100) + Fraction(2) ** -32


@pytest.mark.parametrize("work", [F16, BF16, F32])
@pytest.mark.parametrize("load", [F16, BF16, F32])
def test_original_is_what_torch_computes(load: DType, work: DType) -> None:
    torch = pytest.importorskip("torch")
    a, b, result = sample(load, 70001, 6), sample(load, 70001, 7), np.empty(70001, np.int16)
    like = {dtype: np.dtype(dtype.storage).type(0) for dtype in (BF16, F16, F32)}
    loaded = [_torch(torch, values, load).to(getattr(torch, work.name)) for values in (a, b)]
    for ratio in np.linspace(0.0, 1.0, 7):
        shares = np.float32(1 - ratio), np.float32(ratio)
        kernels.original(a, b, result, like[load], like[load], like[work], like[work], like[work], *shares)
        expected = ((1 - ratio) * loaded[0] + ratio * loaded[1]).half().view(torch.int16).numpy()
        nan = np.isnan(expected.view(np.float16))
        assert (np.isnan(result.view(np.float16)) == nan).all()
        assert (result == expected)[~nan].all()
        twin = reference.original(
            reference.decode(a, load), reference.decode(b, load), load=(load, load), work=(work, work), work_sum=work,
            ratio=float(ratio),
        )  # fmt: skip
        assert (result == reference.encode(twin, F16)).all()


def test_original_promotes_a_mixed_pair_as_torch_does() -> None:
    torch = pytest.importorskip("torch")
    a, b, result = sample(BF16, 70001, 8), sample(F16, 70001, 9), np.empty(70001, np.int16)
    bf16, f16, f32 = np.uint16(0), np.int16(0), np.float32(0)
    kernels.original(a, b, result, bf16, f16, bf16, f16, f32, np.float32(0.6), np.float32(0.4))
    mixed = np.float64(0.6) * _torch(torch, a, BF16) + np.float64(0.4) * _torch(torch, b, F16)
    expected = mixed.bfloat16().half().view(torch.int16).numpy()
    nan = np.isnan(expected.view(np.float16))
    assert (result == expected)[~nan].all()


def _torch(torch, values: np.ndarray, dtype: DType):
    carrier = np.int16 if dtype.bits == 16 else np.float32
    return torch.from_numpy(values.view(carrier).copy()).view(getattr(torch, dtype.name))


@pytest.mark.parametrize("dtype", [BF16, F16, F32, F64])
def test_nonfinite_values_are_found_wherever_they_stand(dtype: DType) -> None:
    values = reference.encode(np.linspace(-1, 1, 100), dtype)
    assert not kernels.nonfinite(values)
    assert kernels.first_nonfinite(values) == -1
    for place, what in ((0, np.nan), (57, np.inf), (99, -np.inf)):
        damaged = values.copy()
        damaged[place] = reference.encode(np.array([what]), dtype)[0]
        assert kernels.nonfinite(damaged)
        assert kernels.first_nonfinite(damaged) == place


def test_float16_without_hardware_support_gives_the_same_bits() -> None:
    script = (
        "import hashlib, numpy as np\n"
        "from blockmerge import kernels\n"
        "from blockmerge.kernels import bits\n"
        "h = hashlib.sha256()\n"
        "a = np.arange(65536, dtype=np.uint16)\n"
        "for x in (a, a.view(np.int16)):\n"
        "    for kind in (np.int16, np.float32):\n"
        "        out = np.empty(a.size, kind)\n"
        "        kernels.convert(x, out)\n"
        "        h.update(np.nan_to_num(out, nan=7.0).tobytes() if kind is np.float32 else out.tobytes())\n"
        "print(bits.HALF_IN_HARDWARE, h.hexdigest())\n"
    )
    printed = []
    for name in ("", "generic"):
        env = {**os.environ, "BLOCKMERGE_CACHE": os.devnull, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
        if not name:
            env = {**os.environ}
        printed.append(
            subprocess.run([sys.executable, "-c", script], env=env, check=True, capture_output=True, text=True)
        )
    (_, fast), (half, slow) = (run.stdout.split() for run in printed)
    assert fast == slow
    assert half == "False"


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_approach_is_a_step_that_ends_at_its_aim(dtype: DType) -> None:
    x, y = sample(dtype, 70001, 10), sample(dtype, 70001, 11)
    result = np.empty_like(x)
    for most in (0.0, 1e-3, 0.5, 1e30):
        assert approach(x, y, result, np.float32(most))
        a, b = reference.decode(x, dtype), reference.decode(y, dtype)
        step = float(np.float32(most))
        with np.errstate(all="ignore"):
            apart = reference.rounded(b - a, F32)
            expected = np.where(np.abs(apart) <= step, b, reference.rounded(a + np.copysign(step, apart), F32))
        got, finite = reference.decode(result, dtype), np.isfinite(a) & np.isfinite(b)
        assert same(result[finite], reference.encode(np.where(apart == 0, a, expected), dtype)[finite])
        assert not np.isfinite(got[~finite]).any()


def test_sums_of_rows_are_good_to_the_last_digits_wherever_they_are_cut() -> None:
    random = np.random.default_rng(12)
    base = random.normal(0, 1, (5, 1003)) * [[1e-9], [1e-3], [1.0], [50.0], [150.0]]
    model = base + random.normal(0, 1, base.shape) * [[1e-9], [1e-6], [0.1], [30.0], [100.0]]
    for cut in (1003, 700):
        found = np.zeros((5, 3))
        for first in range(0, base.size, cut):
            parts = (values.reshape(-1)[first : first + cut] for values in (base, model))
            softmax.row_sums(*parts, first, 1003, found[first // 1003 :])
        e, d = np.exp(np.clip(model, -300, 300)), model - base
        for column, terms in enumerate((e, e * d, e * np.expm1(np.clip(-d, -300, 300)))):
            assert (np.abs(found[:, column] - terms.sum(1)) <= 1e-13 * np.abs(terms).sum(1)).all()


def chance(first: int, count: int, key: int) -> np.ndarray:
    """The stream that decides what is kept, as uint64, in numpy."""
    with np.errstate(over="ignore"):
        z = np.uint64(key) + (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(
            0x9E3779B97F4A7C15
        )
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def hashes(first: int, count: int, key: int) -> np.ndarray:
    """The 31 bits of each element, in numpy: the lower half of its index, hashed with a key for the upper half."""
    index = np.arange(first, first + count, dtype=np.uint64)
    keys = np.array([chance(int(high), 1, key)[0] for high in index >> np.uint64(32)])
    x = (index ^ keys).astype(np.uint32)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> 17)) * np.uint32(0xED5AD4BB)
        x = (x ^ (x >> 11)) + (keys >> np.uint64(32)).astype(np.uint32)
        x = x * np.uint32(0xAC4C1B51)
        x = (x ^ (x >> 15)) * np.uint32(0x31848BAB)
    return ((x ^ (x >> 14)) >> 1).astype(np.int64)


@pytest.mark.parametrize("first", [0, 1, 30, 77, (1 << 32) - 5, (7 << 32) - 2047, 5 << 32])
@pytest.mark.parametrize("count", [1, 2, 2047, 2048])
def test_hashes_are_what_they_say_wherever_they_start(first: int, count: int) -> None:
    found = np.empty(count, np.uint32)
    chances.hashes(first, np.uint64(5), found)
    assert (found == hashes(first, count, 5)).all()


def by_rank(values: np.ndarray, row: int, ends: tuple[float, float], first: int, factors: np.ndarray | None) -> None:
    """Thin ``values`` in place by rank, row by row, with key 5; fill ``factors`` if there are some."""
    kind = thin.ByRank if factors is None else thin.ByRankRescaled
    way = kind(np.array([ends]), np.array([5], np.uint64), ranks.ranking(row), row)
    if factors is None:
        thin.thin_all(values.reshape(1, -1), way, first)
        return
    room = thin.room_of(way, factors)
    for start in range(0, values.size, row):
        thin_some(way, values[start : start + row], start, first + start, room)
        factors[start : start + row] = room.factors


@numba.njit
def marked(marks, size, places):  # type: ignore[no-untyped-def]
    return select.marked(marks, size, places)


@numba.njit
def l1(values):  # type: ignore[no-untyped-def]
    running = dots.lanes(1)
    dots.add_sizes(values, running[0])
    return dots.joined(running[0])


@numba.njit
def thin_some(way, values, start, first, room):  # type: ignore[no-untyped-def]
    thin.thin(way, 0, values, start, first, room)


@pytest.mark.parametrize("row", [1, 2, 37, 64, 148])
@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_keeping_by_rank_is_what_it_says(row: int, precision: type) -> None:
    random = np.random.default_rng(row)
    values = random.integers(-9, 9, 37 * 64).astype(np.float32)  # many equal magnitudes
    kept, factors = values.copy(), np.empty(values.size, precision)
    by_rank(kept, row, (0.2, 0.7), 1000, factors)
    rows = np.abs(values).reshape(-1, row)
    smaller = (rows[:, None, :] < rows[:, :, None]).sum(2)
    equal = (rows[:, None, :] == rows[:, :, None]).sum(2)
    chance_ = 0.2 + 0.5 * (smaller + (equal - 1) / 2) / (row - 1) if row > 1 else np.full(rows.shape, 0.45)
    assert np.allclose(factors, 1 / chance_.reshape(-1), rtol=1e-6)
    drawn = hashes(1000, values.size, 5) / 2**31
    assert (kept == np.where(drawn < chance_.reshape(-1), values, 0)).all()


@pytest.mark.parametrize("kind", ["normal", "few", "constant", "wide", "zeros", "one octave", "a zero row"])
@pytest.mark.parametrize("row", [1, 2, 61, 896, 4097])
def test_ranks_from_buckets_are_those_from_sorting(row: int, kind: str) -> None:
    random = np.random.default_rng(row)
    values = random.normal(0, 1, row * 4).astype(np.float32)
    values = {
        "normal": values,
        "few": np.round(values, 1),
        "constant": np.full_like(values, -0.3),
        "wide": values * np.exp2(random.integers(-120, 20, values.size)).astype(np.float32),
        "zeros": np.where(random.random(values.size) < 0.8, 0, values),
        "one octave": 1 + np.abs(values) / 100,
        "a zero row": np.where(np.arange(values.size) < row, 0, values),
    }[kind].astype(np.float32)
    sorted_ = values.copy()
    by_rank(sorted_, row, (0.35, 0.65), 77, np.empty(values.size))
    by_rank(values, row, (0.35, 0.65), 77, None)
    assert (values.view(np.uint32) == sorted_.view(np.uint32)).all()


@pytest.mark.parametrize(("low", "high"), [(3, 7), (0, 8), (5, 5), (2, 200)])
@pytest.mark.parametrize(("low_kept", "high_kept"), [(0, 0), (7, 1), (1, 400), (400, 9)])
@pytest.mark.parametrize("most", [9, 99])
def test_keeping_between_magnitudes_is_what_it_says(
    low: int, high: int, low_kept: int, high_kept: int, most: int
) -> None:
    values = np.random.default_rng(low).integers(-most, most, 5001).astype(np.float32)
    sizes, kept = np.abs(values), values.copy()
    ties = [int((sizes == bound).sum()) for bound in (low, high)]
    pairs = [(count, min(wanted, count)) for count, wanted in zip(ties, (low_kept, high_kept), strict=True)]
    bounds = [np.array([bound], np.float32).view(np.uint32) for bound in (low, high)]
    way = thin.Between(*bounds, np.array([[pairs]]), 1 << 16, np.array([6], np.uint64), *select.marks_and_places())
    thin.thin_all(kept.reshape(1, -1), way, 30)
    assert (kept[(sizes > low) & (sizes < high)] == values[(sizes > low) & (sizes < high)]).all()
    assert not kept[(sizes < low) | (sizes > high)].any()
    assert ((kept == values) | (kept == 0)).all()
    for bound, (_, wanted) in {high: pairs[1], low: pairs[0]}.items():
        if bound:
            assert (kept[sizes == bound] != 0).sum() == wanted


@pytest.mark.parametrize("every", [1, 3, 40])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_each_of_equal_magnitudes_has_the_same_chance_to_stay(every: int, part: float) -> None:
    size, seeds = 3 * 2048 + 77, 1000
    values = np.where(np.arange(size) % every, 0.5, 1.0).astype(np.float32)
    equal = values == 1
    count = int(equal.sum())
    wanted, bounds = int(part * count), np.array([0x3F800000], np.uint32)
    often, whole = np.zeros(size), np.array([[[[count, wanted], [0, 0]]]])
    for seed in range(seeds):
        way = thin.Between(
            bounds,
            bounds + np.uint32(1),
            whole.copy(),
            1 << 16,
            np.array([seed], np.uint64),
            *select.marks_and_places(),
        )
        kept = values.copy().reshape(1, -1)
        thin.thin_all(kept, way, 5)
        assert np.count_nonzero(kept) == wanted
        often += kept[0] != 0
    share = wanted / count
    deviations = (often[equal] - seeds * share) / math.sqrt(seeds * share * (1 - share))
    assert np.abs(deviations).max() < 5.5
    assert abs(np.mean(deviations**2) - 1) < 0.05 + 4 * math.sqrt(2 / count)
    assert all(abs(part.mean()) * math.sqrt(part.size) < 4.5 for part in np.array_split(deviations, 7))


def test_what_is_not_a_number_stays_where_there_is_no_upper_bound() -> None:
    values = np.array([0x3F800000, 0x3F800000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x40000000], np.uint32)
    low, high, ties = (np.array(part) for part in ([0x3F800000], [0x7FFFFFFF], [[[[2, 1], [0, 0]]]]))
    bounds = low.astype(np.uint32), high.astype(np.uint32)
    way = thin.Between(*bounds, ties, 1 << 16, np.array([6], np.uint64), *select.marks_and_places())
    kept = values.view(np.float32).copy().reshape(1, -1)
    thin.thin_all(kept, way, 0)
    assert np.isnan(kept[0, 2:5]).all()
    assert kept[0, 5] == 2
    assert sorted(kept[0, :2].tolist()) == [0, 1]


@pytest.mark.parametrize("room", [5001, 40])
def test_counts_of_magnitudes_are_what_they_say(room: int) -> None:
    values = np.round(np.random.default_rng(3).normal(0, 1, 5001), 2).astype(np.float32)
    values[:9] = np.nan, -np.nan, np.inf, 0, -0.0, 1e-45, 0.5, -0.5, 0.75
    bits = np.minimum(values.view(np.uint32) & 0x7FFFFFFF, 0x7F800001).astype(np.int64)
    half, three_quarters = (int(np.float32(value).view(np.uint32)) for value in (0.5, 0.75))
    lows, highs = np.array(
        [(-1, 1 << 31), (half, half + 1), (half, three_quarters), (three_quarters, 1 << 31)]
    ).T.copy()
    operands, scoring = np.stack([np.zeros_like(values), values, -values]), scores.Difference()
    numbers, counts = np.array([0, 0, 1, 1]), np.zeros((3, 4, select.COLUMNS), np.int64)
    between, places = np.zeros((2, 4, room), np.uint32)
    select.count_between(scoring, operands, 0, numbers, lows, highs, 2048, counts, between, places)
    for k, (low, high) in enumerate(zip(lows, highs, strict=True)):
        inside = np.flatnonzero((bits > low) & (bits < high))
        for chunk, found in enumerate(counts[:, k]):
            own = bits[2048 * chunk : 2048 * (chunk + 1)]
            expected = [own < low, own == low, (own > low) & (own < high), own == high, own == 0, own >= 0]
            assert found.tolist() == [part.sum() for part in expected]
        if inside.size <= room:
            assert (places[k, : inside.size] == inside).all()
            assert (between[k, : inside.size] == bits[inside]).all()


def test_histograms_of_magnitudes_are_what_they_say() -> None:
    values = np.random.default_rng(3).normal(0, 1, 5001).astype(np.float32)
    values[:6] = np.nan, np.inf, 0, -0.0, 1e-45, -1e-45
    bits = np.minimum(values.view(np.uint32) & 0x7FFFFFFF, 0x7F800001).astype(np.int64)
    operands, scoring = np.stack([np.zeros_like(values), values]), scores.Difference()
    upper, lower = np.zeros((1, select.UPPER + 1), np.int64), np.zeros((2, select.LOWER), np.int64)
    uppers = np.array([0, int(bits[9]) // select.LOWER])
    select.upper_histogram(scoring, operands, 0, upper)
    select.lower_histogram(scoring, operands, 0, np.array([0, 0]), uppers, lower)
    assert (upper[0, :-1] == np.bincount(bits // select.LOWER, minlength=select.UPPER)).all()
    assert upper[0, -1] == 2
    for found, own in zip(lower, uppers, strict=True):
        inside = bits[bits // select.LOWER == own] % select.LOWER
        assert (found == np.bincount(inside, minlength=select.LOWER)).all()


@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("size", [1, 7, 8, 2041, 2048])
def test_marks_are_found_where_they_are(size: int, density: float) -> None:
    marks = (np.random.default_rng(size).random(size + 8) < density).astype(np.uint8)
    places = np.empty((2, size + 8), np.uint64)
    found = places[0, : int(marked(marks, size, places))]
    assert (found == np.flatnonzero(marks[:size])).all()


@pytest.mark.parametrize("ends", [(2500, 4000), (2500, 2500), (None, 100), (300, None), (None, None)])
def test_squares_by_variance_are_what_they_say(ends: tuple[int | None, int | None]) -> None:
    random = np.random.default_rng(4)
    operands = np.concatenate([np.zeros((1, 5000)), np.round(random.normal(0, 1, (3, 5000)), 1)]).astype(np.float32)
    scored = np.empty(5000, np.float32)
    variance.variances(operands, 0, scored)
    bits, squares = scored.view(np.uint32).astype(np.int64), np.zeros((3, 3))
    low, high = (end if at is None else int(np.sort(bits)[at]) for at, end in zip(ends, (-1, 1 << 31), strict=True))
    erase.add_squares(operands, low, high, squares, np.float64(0))
    for found, inside in zip(squares, (bits == low, bits == high, bits > high), strict=True):
        assert np.allclose(found, (operands[1:, inside].astype(float) ** 2).sum(axis=1), rtol=1e-12)


def test_sums_by_rows_and_columns_are_what_they_say() -> None:
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (3, 5 * 21))
    grams = np.empty((5, 3, 3))
    dots.grams(x, 21, grams)
    rows = x.reshape(3, 5, 21)
    assert np.allclose(grams, np.einsum("irc,jrc->rij", rows, rows), rtol=1e-13)
    products = np.zeros((3, 3, 21))
    dots.add_products(x, 21, products)
    upper = np.triu_indices(3)
    assert np.allclose(products[upper], np.einsum("irc,jrc->ijc", rows, rows)[upper], rtol=1e-13)
    assert np.isclose(l1(x[0]), np.abs(x[0]).sum(), rtol=1e-14)
    shares, total = random.normal(0, 1, 21), np.zeros(70)
    sums.add_columns(total, x[1][30:100], shares, 30 % 21)
    assert (total == shares[np.arange(30, 100) % 21] * x[1][30:100]).all()
    total[:] = 0.0
    sums.add_rows(total, x[1][:70], shares[:5], 14)
    assert (total == np.repeat(shares[:5], 14) * x[1][:70]).all()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "garbage": lambda content: b"\x80garbage" * 9,
    "a hole": lambda content: content[: len(content) // 2] + bytes(64) + content[len(content) // 2 + 64 :],
}


@pytest.mark.parametrize("kind", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, kind: str) -> None:
    monkeypatch.setattr(cache, "_FOLDER", tmp_path)
    values = np.array([0, 1, 2, np.inf, 4], np.float32)
    assert cache.kernel(kernels.first_nonfinite.py_func)(values) == 3
    [path] = tmp_path.rglob(kind)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    again = cache.kernel(kernels.first_nonfinite.py_func)
    assert again(values) == 3
    assert sum(again.stats.cache_misses.values()) == 1
    healed = cache.kernel(kernels.first_nonfinite.py_func)
    assert healed(values) == 3
    assert sum(healed.stats.cache_hits.values()) == 1


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_FOLDER", tmp_path)
    compiled = cache.kernel(kernels.first_nonfinite.py_func)
    shutil.rmtree(tmp_path)
    tmp_path.touch()
    assert compiled(np.array([0, 1, 2, np.inf, 4], np.float32)) == 3


def test_old_kernels_are_removed_when_new_ones_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKMERGE_CACHE", str(tmp_path))
    old, recent = tmp_path / "kernels-1", tmp_path / "kernels-2"
    for folder in (old, recent):
        (folder / "inner").mkdir(parents=True)
    os.utime(old, (0, 0))
    found = cache._usable_folder()
    assert found is not None
    assert sorted(tmp_path.iterdir()) == sorted([recent, found])
    os.utime(recent, (0, 0))
    assert cache._usable_folder() == found
    assert recent.exists()  # only where new ones come


def test_no_kernel_reaches_beyond_its_arrays(tmp_path: Path) -> None:
    """Compiled code does not look; so all methods run once more, compiled to look."""
    chosen = "equal_models or treats_equal or wherever or exactly_so_many"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", chosen]
    looking = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "BLOCKMERGE_CACHE": str(tmp_path)}
    file = Path(__file__).with_name("test_methods.py")
    found = subprocess.run([*command, str(file)], env=looking, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-3000:]
