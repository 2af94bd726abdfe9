"""One row in the table below buys a method the whole suite: what every merge must keep, whatever its equation."""

from __future__ import annotations

import errno
import gc
import hashlib
import itertools
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
import yaml

import blockmerge
import models
from blockmerge.dtypes import BF16, F16, F32, F64, DType
from blockmerge.execution import executor
from blockmerge.execution.work import RowWork
from blockmerge.kernels import reference, scores
from blockmerge.methods import METHODS, between, ranking, sampling, span, thinning
from blockmerge.methods.operations import GRANULE, Whole

Floats = np.ndarray


@dataclass(frozen=True)
class Case:
    """How a method is called in the suite, and its equation in float64 on flat tensors (base first, if it has one).

    ``lines``: the equation holds for each ``row`` or ``column`` of a tensor alone.
    """

    method: str
    count: int
    expected: Any
    settings: dict[str, Any] = field(default_factory=dict)
    per_model: dict[str, list[Any]] = field(default_factory=dict)
    base: bool = False
    label: str = ""
    lines: str = ""

    @property
    def selecting(self) -> bool:
        """Whether rounding of the inputs may change what it chooses."""
        return self.method in SELECTING or "select_topk" in self.settings

    @property
    def id(self) -> str:
        base = "+base" if self.base and METHODS[self.method].base == "optional" else ""
        return self.method + base + ("-" + self.label if self.label else "")

    def expect(self, values: list[Floats]) -> Floats:
        """The equation on shaped tensors, line by line if it is so; flat."""
        if not self.lines or values[0].ndim < 2:
            return self.expected([v.reshape(-1) for v in values])
        if self.lines == "row":
            rows = [v.reshape(-1, v.shape[-1]) for v in values]
            return np.concatenate([self.expected([v[r] for v in rows]) for r in range(len(rows[0]))])
        columns = [v.reshape(len(v), -1) for v in values]
        found = [self.expected([v[:, c] for v in columns]) for c in range(columns[0].shape[1])]
        return np.stack(found, axis=1).reshape(-1)


def _linear(x: list[Floats]) -> Floats:
    return (0.2 * x[0] + 0.5 * x[1] + 0.9 * x[2]) / 1.6


def _task_arithmetic(x: list[Floats]) -> Floats:
    return x[0] + 1.5 * (0.4 * (x[1] - x[0]) - 0.2 * (x[2] - x[0]))


def _slerp(a: Floats, b: Floats, t: float) -> Floats:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    if norms == 0:
        return (1 - t) * a + t * b
    u, v = a / np.linalg.norm(a), b / np.linalg.norm(b)
    angle = 2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))  # Kahan: exact for small angles
    if np.sin(angle) < 1e-6:
        return (1 - t) * a + t * b
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def _multislerp(x: list[Floats]) -> Floats:
    weights = np.array([0.3, 0.3, 0.9]) / 1.5
    lengths = np.array([np.linalg.norm(v) for v in x])
    if not lengths.any():
        return np.zeros_like(x[0])
    units = [v / n if n else v for v, n in zip(x, lengths, strict=True)]
    centre = sum(w * u for w, u in zip(weights, units, strict=True))
    centre = centre / np.linalg.norm(centre)
    tangent = sum(w * (u - (u @ centre) * centre) for w, u in zip(weights, units, strict=True))
    step = np.linalg.norm(tangent)
    return (np.cos(step) * centre + np.sinc(step / np.pi) * tangent) * (weights @ lengths)


def _karcher(x: list[Floats]) -> Floats:
    lengths = [np.linalg.norm(v) for v in x]
    if not any(lengths):
        return x[0]
    units = [v / n for v, n in zip(x, lengths, strict=True)]
    mean = sum(units) / np.linalg.norm(sum(units))
    for _ in range(200):
        logs = [(u - (u @ mean) * mean) for u in units]
        logs = [
            0 * log if u @ mean < 0 and np.linalg.norm(log) < 1e-6 else log for log, u in zip(logs, units, strict=True)
        ]
        angles = [np.arctan2(np.linalg.norm(log), u @ mean) for log, u in zip(logs, units, strict=True)]
        step = sum(a / max(np.linalg.norm(log), 1e-300) * log for a, log in zip(angles, logs, strict=True)) / len(x)
        size = np.linalg.norm(step)
        mean = np.cos(size) * mean + np.sinc(size / np.pi) * step
        mean /= np.linalg.norm(mean)
    return mean * np.mean(lengths)


def _model_stock(x: list[Floats]) -> Floats:
    deltas = [v - x[0] for v in x[1:]]
    units = [d / (np.linalg.norm(d) or 1.0) for d in deltas]
    cosine = np.mean([units[i] @ units[j] for i in range(3) for j in range(i)])
    ratio = 3 * cosine / (1 + 2 * cosine) if cosine > 0 else 0.0
    return x[0] + ratio * sum(deltas) / 3


def _geometric_median(x: list[Floats]) -> Floats:
    point = sum(x) / len(x)
    for _ in range(3000):
        pulls = np.array([1 / max(np.linalg.norm(v - point), 1e-300) for v in x])
        point = sum(p * v for p, v in zip(pulls, x, strict=True)) / pulls.sum() if np.isfinite(pulls).all() else point
    return point


def _top(delta: Floats, density: float, gamma: float = 0.0) -> Floats:
    """The kept part by a stable sort, where no two magnitudes are equal."""
    size = delta.size
    largest = min(int(gamma * size), size - 1)
    kept = min(max(int(density * size), 1), size - largest) if density > 0 else 0
    order = np.argsort(np.abs(delta.astype(np.float32)), kind="stable")
    mask = np.zeros(size)
    mask[order[size - largest - kept : size - largest]] = 1
    return delta * mask


def _agreeing(deltas: list[Floats], weights: list[float], *, normalize: bool) -> Floats:
    weighted = np.array([w * d for w, d in zip(weights, deltas, strict=True)])
    agree = np.sign(weighted) == np.sign(weighted.sum(0))
    agree &= weighted != 0
    total = (weighted * agree).sum(0)
    share = (np.array(weights)[:, None] * agree).sum(0)
    return total / np.where(np.abs(share) > 1e-8, share, 1) if normalize else total


def _ties(x: list[Floats]) -> Floats:
    deltas = [_top(v - x[0], d) for v, d in zip(x[1:], (0.3, 0.5, 0.01), strict=True)]
    return x[0] + 0.9 * _agreeing(deltas, [0.5, 0.3, 0.8], normalize=True)


def _rescaled(delta: Floats, kept: Floats) -> Floats:
    return kept * (np.abs(delta).sum() / (np.abs(kept).sum() or 1))


def _ties_rescaled(x: list[Floats]) -> Floats:
    deltas = [v - x[0] for v in x[1:]]
    kept = [_rescaled(d, _top(d, density)) for d, density in zip(deltas, (0.3, 0.5, 0.01), strict=True)]
    return x[0] + 0.9 * _agreeing(kept, [0.5, 0.3, 0.8], normalize=True)


def _crowded(delta: Floats, density: float, gamma: float) -> Floats:
    """What mergekit's breadcrumbs keeps, where density and gamma are more than there is."""
    size = delta.size
    kept, largest = int(density * size), int(gamma * size)
    start = max(size - kept - largest, 0)
    order = np.argsort(np.abs(delta.astype(np.float32)), kind="stable")
    mask = np.zeros(size)
    mask[order[start : start + kept]] = 1
    return delta * mask


def _breadcrumbs_crowded(x: list[Floats]) -> Floats:
    deltas = [v - x[0] for v in x[1:]]
    kept = [_rescaled(d, _crowded(d, k, g)) for d, k, g in zip(deltas, (0.7, 0.9), (0.5, 0.02), strict=True)]
    return x[0] + 0.7 * kept[0] + 0.4 * kept[1]


def _breadcrumbs(x: list[Floats]) -> Floats:
    deltas = [_top(v - x[0], d, g) for v, d, g in zip(x[1:], (0.5, 0.9), (0.1, 0.02), strict=True)]
    return x[0] + 0.7 * deltas[0] + 0.4 * deltas[1]


def _breadcrumbs_ties(x: list[Floats]) -> Floats:
    deltas = [_top(v - x[0], d, g) for v, d, g in zip(x[1:], (0.5, 0.9), (0.1, 0.02), strict=True)]
    return x[0] + _agreeing(deltas, [0.7, 0.4], normalize=False)


def _nearswap(x: list[Floats]) -> Floats:
    apart = np.abs(x[1] - x[0])
    share = np.minimum(0.008 / np.where(apart > 0, apart, 1), 1)
    return share * x[1] + (1 - share) * x[0]


def _ram(x: list[Floats], r: float = 0.0, alpha: float = 0.0) -> Floats:
    deltas = np.array(x[1:]) - x[0]
    changed = np.abs(deltas) > 0.004
    users = changed.sum(0)
    alone, shared = changed & (users == 1), changed & (users > 1)
    ratio = shared.sum(1) / np.maximum(alone.sum(1), 1)
    factor = 1 + r * np.minimum(ratio, alpha)
    return x[0] + (deltas * (alone * factor[:, None] + shared / np.maximum(users, 1))).sum(0)


def _sce(x: list[Floats], topk: float = 1.0) -> Floats:
    deltas = np.array(x[1:]) - x[0]
    if topk < 1:
        spread = deltas.astype(np.float32).astype(float).var(0)
        kept = np.argsort(spread, kind="stable")[spread.size - int(topk * np.count_nonzero(spread)) :]
        deltas = deltas * np.isin(np.arange(spread.size), kept)
    squares = (deltas**2).sum(1)
    weights = squares / squares.sum() if squares.any() else np.full(len(deltas), 1 / len(deltas))
    agree = (np.sign(deltas) == np.sign(deltas.sum(0))) & (deltas != 0)
    shares = weights[:, None] * agree
    return x[0] + (shares * deltas).sum(0) / np.where(agree.any(0), shares.sum(0), 1)


def _consensus(x: list[Floats], joined: Floats) -> Floats:
    factors = np.array([0.4, 0.8, 0.6])[:, None]
    deltas = np.array(x[1:]) - x[0]
    used = (np.abs(deltas) >= factors * np.abs(joined - deltas)).sum(0) >= 2
    return x[0] + 0.7 * joined * used


def _consensus_ta(x: list[Floats]) -> Floats:
    return _consensus(x, 0.5 * (x[1] - x[0]) + 0.3 * (x[2] - x[0]) + 0.8 * (x[3] - x[0]))


def _consensus_ties(x: list[Floats]) -> Floats:
    deltas = [_top(v - x[0], d) for v, d in zip(x[1:], (0.3, 0.5, 0.9), strict=True)]
    return _consensus(x, _agreeing(deltas, [0.5, 0.3, 0.8], normalize=False))


def _log_softmax(x: Floats) -> Floats:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _arcee_fusion(x: list[Floats]) -> Floats:
    shape = next(shape for shape in SHAPES.values() if int(np.prod(shape)) == x[0].size)  # (1,) for () is the same
    base, model = (np.atleast_1d(v.reshape(shape)) for v in x)
    p, q = _log_softmax(model), _log_softmax(base)
    score = np.abs(model - base) * (np.exp(p) * (p - q)).sum(-1, keepdims=True) * (shape[-1] > 1)
    low, middle, high = (np.sort(score.reshape(-1))[int(q * (score.size - 1))] for q in (0.25, 0.5, 0.75))
    return np.where(score >= middle + 1.5 * (high - low), model, base).reshape(-1)


_USE = {"weight": [0.5, 0.3, 0.8], "tall_lambda": [0.4, 0.8, 0.6]}

CASES = [
    Case("arcee_fusion", 1, _arcee_fusion, base=True),
    Case("consensus_ta", 3, _consensus_ta, {"lambda": 0.7}, _USE, base=True),
    Case("consensus_ties", 3, _consensus_ties, {"lambda": 0.7}, {**_USE, "density": [0.3, 0.5, 0.9]}, base=True),
    Case("nearswap", 1, _nearswap, {"t": 0.008}, base=True),
    Case("ram", 3, _ram, {"epsilon": 0.004}, base=True),
    Case(
        "ramplus_tl",
        3,
        lambda x: _ram(x, 0.4, 0.9),
        {"epsilon": 0.004, "r": 0.4, "alpha": 0.9},
        base=True,
    ),
    Case("sce", 3, _sce, base=True),
    Case("sce", 3, lambda x: _sce(x, 0.3), {"select_topk": 0.3}, base=True, label="+topk"),
    Case("ties", 3, _ties, {"lambda": 0.9}, {"weight": [0.5, 0.3, 0.8], "density": [0.3, 0.5, 0.01]}, base=True),
    Case(
        "breadcrumbs",
        2,
        _breadcrumbs,
        {},
        {"weight": [0.7, 0.4], "density": [0.5, 0.9], "gamma": [0.1, 0.02]},
        base=True,
    ),
    Case(
        "breadcrumbs_ties",
        2,
        _breadcrumbs_ties,
        {},
        {"weight": [0.7, 0.4], "density": [0.5, 0.9], "gamma": [0.1, 0.02]},
        base=True,
    ),
    Case("dare_linear", 2, None, {}, {"weight": [0.7, 0.4], "density": [0.5, 0.9]}, base=True),
    Case("dare_ties", 3, None, {"lambda": 0.5}, {"weight": [0.7, 0.4, 1], "density": [0.5, 0.9, 1]}, base=True),
    Case(
        "ties",
        3,
        _ties_rescaled,
        {"lambda": 0.9, "rescale": True},
        {"weight": [0.5, 0.3, 0.8], "density": [0.3, 0.5, 0.01]},
        base=True,
        label="rescale",
    ),
    Case(
        "breadcrumbs",
        2,
        _breadcrumbs_crowded,
        {"variant": "mergekit", "rescale": True},
        {"weight": [0.7, 0.4], "density": [0.7, 0.9], "gamma": [0.5, 0.02]},
        base=True,
        label="mergekit",
    ),
    Case(
        "dare_ties",
        2,
        None,
        {"variant": "mergekit"},
        {"weight": [0.7, 0.4], "density": [0.5, 0.9]},
        base=True,
        label="mergekit",
    ),
    Case("della", 3, None, {}, {"weight": [0.7, 0.4, 1], "density": [0.5, 0.7, 1]}, base=True),
    Case("della_linear", 2, None, {}, {"weight": [0.7, 0.4], "density": [0.5, 0.8], "epsilon": [0.3, 0]}, base=True),
    Case(
        "della",
        2,
        None,
        {"variant": "mergekit"},
        {"weight": [0.7, 0.4], "density": [0.5, 0.3]},
        base=True,
        label="mergekit",
    ),
    Case("linear", 3, _linear, per_model={"weight": [0.2, 0.5, 0.9]}),
    Case("passthrough", 1, lambda x: 0.7 * x[0], {"scale": 0.7}),
    Case("task_arithmetic", 2, _task_arithmetic, {"lambda": 1.5}, per_model={"weight": [0.4, -0.2]}, base=True),
    Case("slerp", 2, lambda x: _slerp(x[0], x[1], 0.3), {"t": 0.3}),
    Case("nuslerp", 2, lambda x: _slerp(x[0], x[1], 0.75), per_model={"weight": [0.5, 1.5]}),
    Case(
        "nuslerp",
        2,
        lambda x: x[0] + _slerp(x[1] - x[0], x[2] - x[0], 0.25),
        per_model={"weight": [1.5, 0.5]},
        base=True,
    ),
    Case(
        "nuslerp",
        2,
        lambda x: _slerp(x[0], x[1], 0.75),
        {"nuslerp_flatten": False},
        per_model={"weight": [0.5, 1.5]},
        label="rows",
        lines="row",
    ),
    Case(
        "nuslerp",
        2,
        lambda x: x[0] + _slerp(x[1] - x[0], x[2] - x[0], 0.25),
        {"nuslerp_flatten": False},
        per_model={"weight": [1.5, 0.5]},
        base=True,
        label="rows",
        lines="row",
    ),
    Case(
        "nuslerp",
        2,
        lambda x: _slerp(x[0], x[1], 0.75),
        {"nuslerp_flatten": False, "nuslerp_row_wise": True},
        per_model={"weight": [0.5, 1.5]},
        label="columns",
        lines="column",
    ),
    Case("multislerp", 3, _multislerp, per_model={"weight": [0.3, 0.3, 0.9]}),
    Case(
        "multislerp",
        3,
        lambda x: x[0] + _multislerp([v - x[0] for v in x[1:]]),
        per_model={"weight": [0.3, 0.3, 0.9]},
        base=True,
    ),
    Case("karcher", 3, _karcher, {"max_iter": 200, "tol": 1e-12}),
    Case("model_stock", 3, _model_stock, base=True),
    Case("model_stock", 3, _model_stock, {"filter_wise": True}, base=True, label="filters", lines="row"),
    Case("geometric_median", 4, _geometric_median, {"max_iter": 3000, "tol": 1e-12}),
]
SELECTING = {"arcee_fusion", "consensus_ties", "ties", "breadcrumbs", "breadcrumbs_ties"}
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def write(folder: Path, number: int, tensors: models.Tensors) -> str:
    return str(models.save(folder / f"m{number}", tensors, {"model_type": "none"}))


def recipe_of(case: Case, paths: list[str], **more: Any) -> dict[str, Any]:
    base, rest = (paths[0], paths[1:]) if case.base else (None, paths)
    own = [{name: values[k] for name, values in case.per_model.items()} for k in range(len(rest))]
    recipe = {
        "method": case.method,
        "models": [{"model": path, **own[k]} if own[k] else path for k, path in enumerate(rest)],
    }
    return recipe | ({"base": base} if base else {}) | case.settings | more


def merge(folder: Path, recipe: dict[str, Any], name: str = "out", **how: Any) -> models.Tensors:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    blockmerge.merge(blockmerge.plan(folder / "recipe.yaml"), folder / name, **how)
    return models.read(folder / name)


def near(seed: int, count: int, shape: tuple[int, ...], dtype: DType) -> list[Floats]:
    """Siblings: one random tensor and small changes of it, as finetunes are."""
    random = np.random.default_rng(seed)
    root = random.normal(0, 0.05, shape)
    return [reference.encode(root + random.normal(0, 0.01, shape), dtype) for _ in range(count)]


SHAPES = {
    "a.weight": (37, 53),
    "b.weight": (64,),
    "c.weight": (1,),
    "d.weight": (5, 1),
    "e.weight": (),
    "f.weight": (3, 5, 7),
}


def siblings(case: Case, dtype: DType) -> list[models.Tensors]:
    total = case.count + case.base
    values = {name: near(k, total, shape, dtype) for k, (name, shape) in enumerate(SHAPES.items())}
    return [{name: (dtype, found[k]) for name, found in values.items()} for k in range(total)]


@each
@pytest.mark.parametrize("dtype", [F32, BF16, F16, F64])
def test_it_computes_its_equation(tmp_path: Path, case: Case, dtype: DType) -> None:
    if case.expected is None or (case.selecting and dtype in (BF16, F16)):
        pytest.skip("its choices are tested below")
    inputs = siblings(case, dtype)
    out = merge(tmp_path, recipe_of(case, [write(tmp_path, k, tensors) for k, tensors in enumerate(inputs)]))
    for name, (out_dtype, got) in out.items():
        values = [reference.decode(tensors[name][1], dtype) for tensors in inputs]
        expected = case.expect(values)
        size = max(float(np.abs(v).max()) for v in values) * 4
        tolerance = size * {BF16: 2.0**-8, F16: 2.0**-11, F32: 2.0**-23}[out_dtype]
        assert np.abs(reference.decode(got.reshape(-1), out_dtype) - expected).max() <= tolerance, name


def block_digest(data: bytes) -> str:
    blocks = b"".join(xxhash.xxh3_128_digest(data[k : k + (1 << 20)]) for k in range(0, len(data), 1 << 20))
    return "xxh3-128-1MiB:" + xxhash.xxh3_128_hexdigest(blocks)


WAYS = list(itertools.product((1, 2, 3, 8), (1 << 19, 4096), ("1GB", "1kB"), (False, True)))
"""Threads, bytes of a tile, sizes of files, and whether the merge is interrupted in the middle and goes on."""
QUICK = [(1, 1 << 19, "1GB", False), (2, 4096, "1kB", False), (8, 99_999, "1GB", True)]
MORE = [
    Case("gradient", 2, None, {"values": [0.2, 0.8, 0.5]}),
    Case("gradient", 2, None, {"values": [0.2, 0.8, 0.5], "arithmetic": "original"}, label="original"),
    Case("ties", 2, None, {"scope": "model"}, {"weight": [0.5, 0.3], "density": [0.3, 0.5]}, base=True, label="model"),
]


@pytest.mark.parametrize("case", [*CASES, *MORE], ids=lambda case: case.id)
@pytest.mark.parametrize("ways", [QUICK, pytest.param(WAYS, marks=pytest.mark.soak)], ids=["some ways", "all ways"])
def test_bits_depend_on_nothing_but_the_recipe(tmp_path: Path, case: Case, ways: list[Any]) -> None:
    total = case.count + case.base
    values = near(7, total, (811, 1009), BF16)
    paths = [write(tmp_path, k, {"a.weight": (BF16, v), "b.weight": (BF16, v[:3])}) for k, v in enumerate(values)]
    seen = set()
    for threads, tile, shard, interrupted in ways:
        recipe = recipe_of(case, paths, max_shard_size=shard)
        with pytest.MonkeyPatch.context() as patch:
            defaults = dict(executor.Executor.__init__.__kwdefaults__ or {})
            patch.setattr(executor.Executor.__init__, "__kwdefaults__", {**defaults, "tile": tile})
            if interrupted:
                interrupt(tmp_path, recipe, threads=threads)
            out = merge(tmp_path, recipe, threads=threads)
        seen.add(hashlib.sha256(b"".join(out[name][1].tobytes() for name in sorted(out))).hexdigest())
        published = json.loads((tmp_path / "out" / "blockmerge.json").read_text())["tensors"]
        assert published == {name: block_digest(array.tobytes()) for name, (_, array) in out.items()}
        shutil.rmtree(tmp_path / "out")
    assert len(seen) == 1


def interrupt(folder: Path, recipe: dict[str, Any], **how: Any) -> None:
    """Let the merge stop at a full disk, in the second block of the large tensor."""
    pwrite, size = os.pwrite, 811 * 1009 * 2

    def refusing(descriptor: int, data: memoryview, at: int) -> int:
        if (1 << 20) + 99_999 < at < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pwrite", refusing)
        with pytest.raises(blockmerge.OutputError, match="the disk is full"):
            merge(folder, recipe, **how)
    assert (folder / "out.partial").exists()


@each
def test_equal_models_give_that_model(tmp_path: Path, case: Case) -> None:
    if case.method in ("passthrough",):
        pytest.skip("scales by design")
    tensors = siblings(case, BF16)[0]
    paths = [write(tmp_path, k, tensors) for k in range(case.count + case.base)]
    out = merge(tmp_path, recipe_of(case, paths))
    for name, (dtype, array) in tensors.items():
        got, expected = reference.decode(out[name][1], dtype), reference.decode(array, dtype)
        assert np.abs(got - expected).max() <= np.abs(expected).max() * 2.0**-7, name


@each
def test_frozen_and_zero_tensors_stay_finite(tmp_path: Path, case: Case) -> None:
    total = case.count + case.base
    random = np.random.default_rng(3)
    frozen = random.normal(0, 1, (16, 8)).astype(np.float32)
    zero = np.zeros((16, 8), np.float32)
    paths = [write(tmp_path, k, {"frozen.weight": (F32, frozen), "zero.weight": (F32, zero)}) for k in range(total)]
    out = merge(tmp_path, recipe_of(case, paths))
    assert np.isfinite(out["frozen.weight"][1]).all()
    assert (out["zero.weight"][1] == 0).all()


@each
def test_the_order_of_models_matters_only_where_it_may(tmp_path: Path, case: Case) -> None:
    if not METHODS[case.method].symmetric:
        pytest.skip("not promised")
    inputs = siblings(case, F32)
    paths = [write(tmp_path, k, tensors) for k, tensors in enumerate(inputs)]
    out = merge(tmp_path, recipe_of(case, paths))
    turned = recipe_of(case, paths)
    turned["models"] = turned["models"][::-1]
    other = merge(tmp_path, turned, "turned")
    for name in out:
        assert np.allclose(out[name][1], other[name][1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", [case for case in CASES if METHODS[case.method].models[1] is None], ids=lambda c: c.id)
def test_sixteen_models_at_once(tmp_path: Path, case: Case) -> None:
    values = near(1, 16 + case.base, (33, 17), BF16)
    paths = [write(tmp_path, k, {"a.weight": (BF16, v)}) for k, v in enumerate(values)]
    own = {name: [0.3 if name == "density" else 0.1] * 16 for name in case.per_model}
    many = Case(case.method, 16, None, case.settings, own, case.base)
    out = merge(tmp_path, recipe_of(many, paths))
    assert np.isfinite(reference.decode(out["a.weight"][1], BF16)).all()


def kept_of(tmp_path: Path, base: Floats, model: Floats, dtype: DType, **settings: Any) -> tuple[Floats, Floats]:
    """The task vector and what is left of it in the result, both float64."""
    paths = [write(tmp_path, k, {"a.weight": (dtype, array)}) for k, array in enumerate((base, model))]
    recipe = {"base": paths[0], "models": [paths[1]], "weight": 1, **settings, "dtype": "float32"}
    out = reference.decode(merge(tmp_path, recipe)["a.weight"][1], F32)
    whole = reference.decode(model, dtype) - reference.decode(base, dtype)
    return whole.reshape(-1), (out - reference.decode(base, dtype)).reshape(-1)


@pytest.mark.parametrize("dtype", [BF16, F16, F32])
@pytest.mark.parametrize(("density", "gamma"), [(0.2, 0.0), (0.5, 0.1), (0.7, 0.3), (0.999, 0.001), (1e-6, 0.0)])
def test_exactly_so_many_are_kept_and_none_smaller_than_a_dropped_one(
    tmp_path: Path, dtype: DType, density: float, gamma: float
) -> None:
    random = np.random.default_rng(4)
    base = reference.encode(random.normal(0, 0.05, (701, 997)), dtype)  # over several granules, with many ties
    model = reference.encode(reference.decode(base, dtype) + np.round(random.normal(0, 0.01, base.shape), 3), dtype)
    delta, left = kept_of(tmp_path, base, model, dtype, method="breadcrumbs", density=density, gamma=gamma)
    size = delta.size
    largest, kept = int(gamma * size), max(int(density * size), 1)
    kept = min(kept, size - largest)
    nonzero = left != 0
    magnitude = np.abs(delta.astype(np.float32))
    order = np.sort(magnitude)
    low, high = order[size - largest - kept], order[size - largest - 1]
    assert nonzero.sum() + ((magnitude == 0) & (low == 0)).sum() >= kept
    assert (nonzero <= ((magnitude >= low) & (magnitude <= high))).all()
    assert nonzero[(magnitude > low) & (magnitude < high)].all()
    if low > 0:
        assert nonzero.sum() == kept


@pytest.mark.parametrize(("misled", "more"), [(False, 0), (True, 4)])
def test_a_sample_that_misleads_costs_time_and_changes_nothing(tmp_path: Path, misled: bool, more: int) -> None:
    random = np.random.default_rng(8)
    model = random.normal(0, 0.1, (1024, 1024)).astype(np.float32)
    if misled:  # where the sample is taken, everything is small
        model.reshape(-1, GRANULE)[:, : GRANULE // 32] *= 1e-6
    folder, base = tmp_path / "out", np.zeros_like(model)
    paths = [write(tmp_path, k, {"a.weight": (F32, array)}) for k, array in enumerate((base, model))]
    recipe = {"method": "ties", "base": paths[0], "models": [paths[1]], "weight": 1, "density": 0.3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    plan = blockmerge.plan(tmp_path / "recipe.yaml")
    finished = blockmerge.merge(plan, folder)
    kept = models.read(folder)["a.weight"][1] != 0
    assert finished.bytes_read == plan.bytes_to_read + more * 2 * model.nbytes
    assert kept.sum() == int(0.3 * model.size)
    assert np.abs(model[kept]).min() > np.abs(model[~kept]).max()


@each
def test_what_a_tensor_was_measured_for_is_gone_with_it(tmp_path: Path, case: Case) -> None:
    """At once, not when someone looks for garbage: else memory would grow with the model."""
    paths = [
        write(tmp_path, k, {"a.weight": (BF16, value)})
        for k, value in enumerate(near(12, case.count + case.base, (60, 70), BF16))
    ]
    merge(tmp_path, recipe_of(case, paths), "first")  # compiling holds frames
    gc.collect()
    gc.disable()
    try:
        merge(tmp_path, recipe_of(case, paths), "second")
        kinds = {type(each) for each in gc.get_objects()}  # not isinstance, which asks dead proxies of others
        assert not [kind for kind in kinds if issubclass(kind, RowWork | Whole | between.Found)]
    finally:
        gc.enable()


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "sce", "consensus_ties", "arcee_fusion"])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("bad", [False, True])
def test_what_a_sample_says_changes_nothing_but_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, mixed: bool, few: bool, bad: bool
) -> None:
    random = np.random.default_rng(8)
    dtypes = [BF16, F32 if mixed else BF16] + [BF16] * (0 if method == "arcee_fusion" else 2)
    values = [random.normal(0, 0.02, (900, 701)).astype(np.float32) for _ in dtypes]
    for value in values if few else ():  # as finetunes that hardly moved: many ties
        value[:] = np.round(values[0], 2) + np.round(value, 2)
    for value in values if bad else ():  # not finite, with several payloads
        odd = np.array([0x7FC00000, 0x7FA50000, 0xFFFF0000, 0x7F800000, 0xFF800000], np.uint32).view(np.float32)
        where = random.random(value.shape) < 0.2
        value[where] = random.choice(odd, where.sum())
    paths = [
        write(tmp_path, k, {"a.weight": (dtype, reference.encode(value, dtype))})
        for k, (value, dtype) in enumerate(zip(values, dtypes, strict=True))
    ]
    share: dict[str, Any] = {"sce": {"select_topk": 0.3}, "arcee_fusion": {}}.get(
        method, {"weight": 0.5, "density": 0.3}
    )
    (tmp_path / "recipe.yaml").write_text(
        yaml.safe_dump({"method": method, "base": paths[0], "models": paths[1:], **share})
    )
    plan = blockmerge.plan(tmp_path / "recipe.yaml")
    once = blockmerge.merge(plan, tmp_path / "once", allow_nonfinite=bad)
    monkeypatch.setattr(between, "MOST", 1)  # no room for what is between
    again = blockmerge.merge(plan, tmp_path / "again", allow_nonfinite=bad)
    monkeypatch.setattr(ranking, "around", lambda sample, region: (1, 2))
    misled = blockmerge.merge(plan, tmp_path / "misled", allow_nonfinite=bad)
    found = [models.read(merged.path)["a.weight"][1].view(np.uint8) for merged in (once, again, misled)]
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()
    size = sum(dtype.itemsize for dtype in dtypes) * values[0].size
    assert once.bytes_read == pytest.approx(plan.bytes_to_read, rel=1e-5)  # a sample is rounded up
    assert (again.bytes_read - once.bytes_read) / size in ((0, 1, 4) if few or bad else (4,))
    assert misled.bytes_read == once.bytes_read + 4 * size


def test_a_sample_of_a_large_tensor_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """And in whatever order it is taken, the same elements are kept, of every granule."""
    monkeypatch.setattr(sampling, "_MOST", 1 << 14)
    values = np.random.default_rng(1).normal(0, 1, (37, 2, 900)).astype(np.float32)
    kept = list[np.ndarray]()
    for order in (range(37), reversed(range(37)), np.random.default_rng(2).permutation(37)):
        sample = sampling.Sampling(scores.Difference(), 1)
        for granule in order:
            sample(values[granule], int(granule) * GRANULE)
        kept.append(sample.total())
    assert (kept[0] == np.abs(values[:, 0] - values[:, 1])[:, ::9].reshape(1, -1).view(np.uint32)).all()
    assert all((each == kept[0]).all() for each in kept)


def test_a_sample_keeps_an_element_of_each_granule_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_MOST", 1)
    sample = sampling.Sampling(scores.Difference(), 3)
    for granule in range(20):
        sample(np.zeros((4, 90), np.float32), granule * GRANULE)
    assert sample.total().shape == (3, 20)


@pytest.mark.parametrize("rows", [1, 2, 40, 300])
@pytest.mark.parametrize("width", [1, 1000])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999, 1.0])
def test_a_rank_is_between_the_two_that_a_sample_gives(rows: int, width: int, part: float) -> None:
    random = np.random.default_rng(rows)
    values = random.normal(0, 1, (32 * rows, width))
    if rows * width > 1e5:  # enough to see that rows differ
        values *= random.normal(0, 1, (32 * rows, 1))
    bits = np.abs(values).astype(np.float32).view(np.uint32)
    total = rows * width
    low, high = sampling.around(
        bits[::32].reshape(-1), sampling.Region(-1, 1 << 31, min(int(part * total), total - 1), total)
    )
    assert low < high
    assert low <= np.sort(bits.reshape(-1))[min(int(part * bits.size), bits.size - 1)] <= high


def test_ties_between_magnitudes_are_broken_by_chance_all_over_the_tensor(tmp_path: Path) -> None:
    base = np.zeros((1024, 1024), np.float32)
    model = np.full((1024, 1024), 0.5, np.float32)
    _, left = kept_of(tmp_path, base, model, F32, method="ties", density=0.25)
    assert (left != 0).sum() == 1 << 18
    rows = (left != 0).reshape(1024, 1024)
    assert abs(rows[:512].sum() - (1 << 17)) <= 2
    assert np.abs(np.diff(rows.astype(int))).sum(1).min() > 100  # not one run at the start of a row


def test_dare_keeps_a_share_and_rescales_it(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    base = random.normal(0, 1, (512, 640)).astype(np.float32)
    model = base + random.normal(0, 1, base.shape).astype(np.float32)
    delta, left = kept_of(tmp_path, base, model, F32, method="dare_linear", density=0.3)
    nonzero = left != 0
    assert abs(nonzero.mean() - 0.3) < 4 * (0.3 * 0.7 / nonzero.size) ** 0.5
    assert np.allclose(left[nonzero], delta[nonzero] / 0.3, rtol=1e-4, atol=1e-5)
    _, again = kept_of(tmp_path / "again", base, model, F32, method="dare_linear", density=0.3)
    assert (again == left).all()
    _, other = kept_of(tmp_path / "other", base, model, F32, method="dare_linear", density=0.3, seed=1)
    assert abs(((other != 0) & nonzero).sum() / nonzero.sum() - 0.3) < 0.01
    _, plain = kept_of(tmp_path / "plain", base, model, F32, method="dare_linear", density=0.3, rescale=False)
    assert np.allclose(plain[nonzero], delta[nonzero], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["dare_linear", "della_linear", "ties"])
def test_rescaling_as_mergekit_does_gives_back_the_l1_norm(tmp_path: Path, method: str) -> None:
    random = np.random.default_rng(6)
    base = np.zeros((640, 997), np.float32)  # the last granule is not whole
    model = random.normal(0, 1, base.shape).astype(np.float32)
    how = {"rescale": True} if method == "ties" else {"variant": "mergekit"}
    delta, left = kept_of(tmp_path, base, model, F32, method=method, density=0.4, **how)
    assert 0.39 < (left != 0).mean() < 0.41
    assert np.isclose(np.abs(left).sum(), np.abs(delta).sum(), rtol=1e-6)
    ratios = left[left != 0] / delta[left != 0]
    assert np.ptp(ratios) < 1e-6 * ratios.mean()


@pytest.mark.parametrize("method", ["dare_ties", "della", "breadcrumbs"])
@pytest.mark.parametrize("shape", [(640, 997), (700_001,), (3, 5), (400_000, 2), (1, 1)])
@pytest.mark.parametrize("mixed", [False, True])
def test_what_is_remembered_of_a_measurement_is_what_would_be_decided_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, shape: tuple[int, ...], mixed: bool
) -> None:
    random = np.random.default_rng(8)
    values = [random.normal(0, 1, (shape[0] + extra, *shape[1:])) for extra in (2, 0, 0)]  # the base has more rows
    dtypes = [BF16, F32 if mixed else BF16, BF16]
    paths = [
        write(tmp_path, k, {"embed_tokens.weight": (dtype, reference.encode(value.astype(np.float32), dtype))})
        for k, (value, dtype) in enumerate(zip(values, dtypes, strict=True))
    ]
    variant = {} if method == "breadcrumbs" else {"variant": "mergekit"}
    recipe = {"method": method, "base": paths[0], "models": paths[1:], "weight": 0.5, "density": 0.4, **variant}
    remembered = merge(tmp_path, {**recipe, "rescale": True})
    monkeypatch.setattr(thinning, "_MOST", 0)
    again = merge(tmp_path, {**recipe, "rescale": True}, name="again")
    assert all((remembered[name][1] == again[name][1]).all() for name in remembered)


def shuffled_rows(seed: int, shape: tuple[int, ...]) -> Floats:
    """Rows of 1, 2, 3 and so on with random signs, each in an order of its own."""
    random = np.random.default_rng(seed)
    rows = np.broadcast_to(np.arange(1, shape[-1] + 1, dtype=np.float32), shape)
    return random.permuted(rows, axis=-1) * random.choice(np.array([-1, 1], np.float32), shape)


def test_della_keeps_each_rank_of_a_row_with_its_chance_and_divides_by_it(tmp_path: Path) -> None:
    rows, length, density, epsilon = 2048, 997, 0.5, 0.3
    base = np.zeros((rows, length), np.float32)
    model = shuffled_rows(7, base.shape)
    _, left = kept_of(tmp_path, base, model, F32, method="della_linear", density=density, epsilon=epsilon)
    order = np.argsort(np.abs(model), axis=1)
    ranked, values = np.take_along_axis(left.reshape(rows, length), order, 1), np.take_along_axis(model, order, 1)
    chance = density - epsilon + 2 * epsilon * np.arange(length) / (length - 1)
    off = ((ranked != 0).mean(0) - chance) / np.sqrt(chance * (1 - chance) / rows)
    assert np.abs(off).max() < 4.5  # of 997 normal numbers
    assert abs((off**2).mean() - 1) < 5 * (2 / length) ** 0.5
    assert np.allclose(ranked, np.where(ranked != 0, values / chance, 0), rtol=1e-6)
    for part in np.array_split(np.arange(length), 10):  # so it is right on average, among the small and the large
        assert (
            abs((ranked[:, part] / values[:, part]).mean() - 1) < 5 * (1 / chance[part].min() / part.size / rows) ** 0.5
        )


@pytest.mark.parametrize("shape", [(100_000, 1), (100, 1000), (100_000,)])
def test_della_treats_equal_magnitudes_alike(tmp_path: Path, shape: tuple[int, ...]) -> None:
    base = np.zeros(shape, np.float32)
    model = np.where(np.arange(base.size).reshape(shape) % 2, 0.5, -0.5).astype(np.float32)
    _, left = kept_of(tmp_path, base, model, F32, method="della_linear", density=0.3, epsilon=0.2)
    assert abs((left != 0).mean() - 0.3) < 5 * (0.3 * 0.7 / left.size) ** 0.5
    assert np.allclose(left[left != 0], model.reshape(-1)[left != 0] / 0.3)


def test_della_ranks_rows_of_any_length_wherever_blocks_end(tmp_path: Path) -> None:
    """One row in two blocks, one row over several: the ranks are those of the whole row."""
    for number, shape in enumerate([(3, 400_001), (1_500_000,), (2, 300_000, 2)]):
        base = np.zeros(shape, np.float32)
        model = shuffled_rows(number, shape)
        (folder := tmp_path / str(number)).mkdir()
        _, left = kept_of(folder, base, model, F32, method="della_linear", density=0.5, epsilon=0.3)
        ranks = np.argsort(np.argsort(np.abs(model), axis=-1), axis=-1)
        chance = (0.2 + 0.6 * ranks / (shape[-1] - 1)).reshape(-1)
        assert np.allclose(left, np.where(left != 0, model.reshape(-1) / chance, 0), rtol=1e-6)
        assert abs((left != 0).mean() - 0.5) < 0.002


@pytest.mark.parametrize(("density", "epsilon"), [(0.9, 0.15), (0.1, 0.15), (0.5, 0.5)])
def test_della_refuses_chances_that_are_none(tmp_path: Path, density: float, epsilon: float) -> None:
    base = np.zeros((3, 4), np.float32)
    with pytest.raises(blockmerge.RecipeError, match=r"epsilon: density .* choose a smaller one") as caught:
        kept_of(tmp_path, base, base + 1, F32, method="della", density=density, epsilon=epsilon)
    assert "\n" not in str(caught.value)


def test_rows_that_are_too_long_to_hold_are_refused(tmp_path: Path) -> None:
    base = np.zeros((1, (1 << 22) + 1), np.float32)
    with pytest.raises(blockmerge.RecipeError, match="too long to be seen whole"):
        kept_of(tmp_path, base, base, F32, method="della", density=0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("case", [case for case in CASES if case.count > 1], ids=lambda case: case.id)
def test_bad_values_are_found_where_they_are(tmp_path: Path, case: Case, value: float) -> None:
    values = near(9, case.count + case.base, (700, 1000), F32)
    values[-1][650, 3] = value
    paths = [write(tmp_path, k, {"a.weight": (F32, v)}) for k, v in enumerate(values)]
    with pytest.raises(blockmerge.NonFiniteError, match=rf"^m{len(paths) - 1}: a.weight\[650, 3\] is not finite"):
        merge(tmp_path, recipe_of(case, paths))
    merge(tmp_path, recipe_of(case, paths), "allowed", allow_nonfinite=True)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("method", ["ties", "breadcrumbs_ties", "consensus_ties", "sce"])
def test_what_is_allowed_is_passed_on_whatever_its_sign(tmp_path: Path, method: str, value: float) -> None:
    base, *others = near(13, 4, (70, 100), F32)
    others[1][65, 3] = value
    paths = [write(tmp_path, k, {"a.weight": (F32, v)}) for k, v in enumerate((base, *others))]
    share = {} if method == "sce" else {"density": 1, "weight": [1, 1e-3, 1]}
    share |= {"gamma": 0} if method == "breadcrumbs_ties" else {}
    out = merge(tmp_path, {"method": method, "base": paths[0], "models": paths[1:], **share}, allow_nonfinite=True)
    assert np.argwhere(~np.isfinite(out["a.weight"][1])).tolist() == [[65, 3]]


def test_masks_of_two_models_are_independent(tmp_path: Path) -> None:
    base = np.zeros((512, 512), np.float32)
    paths = [write(tmp_path, k, {"a.weight": (F32, base + k)}) for k in range(3)]
    recipe = {
        "method": "dare_linear",
        "base": paths[0],
        "models": paths[1:],
        "weight": 1,
        "density": 0.5,
        "rescale": False,
    }
    out = merge(tmp_path, recipe)["a.weight"][1]
    both = (out == 3).mean()
    assert abs(both - 0.25) < 0.01


@each
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_never_hidden(tmp_path: Path, case: Case, value: float) -> None:
    if METHODS[case.method].models[1] == 1:
        pytest.skip("not promised")
    total = case.count + case.base
    for damaged in range(total):
        tensors = near(11, total, (40, 50), F32)
        tensors[damaged].reshape(-1)[777] = value
        folder = tmp_path / str(damaged)
        paths = [write(folder, k, {"a.weight": (F32, v)}) for k, v in enumerate(tensors)]
        with pytest.raises(blockmerge.NonFiniteError, match=r"a\.weight\[15, 27\]"):
            merge(folder, recipe_of(case, paths))


@pytest.mark.parametrize("dtype", [BF16, F32])
@pytest.mark.parametrize("topk", [0.2, 0.7, 0.999, 1e-6, 0.0])
def test_sce_selects_exactly_so_many_of_what_differs_most(tmp_path: Path, dtype: DType, topk: float) -> None:
    random = np.random.default_rng(6)
    base = reference.encode(random.normal(0, 0.05, (701, 997)), dtype)  # over several granules, with many ties
    model = reference.encode(reference.decode(base, dtype) + np.round(random.normal(0, 0.002, base.shape), 3), dtype)
    paths = [write(tmp_path, k, {"a.weight": (dtype, array)}) for k, array in enumerate((base, model, base))]
    recipe = {"method": "sce", "base": paths[0], "models": paths[1:], "select_topk": topk, "dtype": "float32"}
    out = reference.decode(merge(tmp_path, recipe)["a.weight"][1], F32)
    delta = np.abs(reference.decode(model, dtype) - reference.decode(base, dtype)).astype(np.float32)
    kept = out != reference.decode(base, dtype)
    assert kept.sum() == int(topk * np.count_nonzero(delta)) < np.count_nonzero(delta) < delta.size
    assert topk < 1e-3 or delta[kept].min() >= delta[~kept].max()


def test_sce_weights_are_those_of_the_squares_however_small(tmp_path: Path) -> None:
    base = np.zeros((8, 8), np.float32)
    paths = [write(tmp_path, k, {"a.weight": (F32, base + v)}) for k, v in enumerate((0.0, 1e-5, 3e-5))]
    recipe = {"method": "sce", "base": paths[0], "models": paths[1:]}
    assert np.allclose(merge(tmp_path, recipe)["a.weight"][1], 0.1 * 1e-5 + 0.9 * 3e-5)
    equal = merge(tmp_path, {**recipe, "variant": "mergekit"}, "equal")
    assert np.allclose(equal["a.weight"][1], 2e-5)


def test_sce_leaves_what_balances_and_mergekit_takes_the_positive(tmp_path: Path) -> None:
    values = np.linspace(-3, 3, 7, dtype=np.float32)
    paths = [write(tmp_path, k, {"a.weight": (F32, 5 + v)}) for k, v in enumerate((0 * values, values, -values))]
    recipe = {"method": "sce", "base": paths[0], "models": paths[1:]}
    assert (merge(tmp_path, recipe)["a.weight"][1] == 5).all()
    positive = merge(tmp_path, {**recipe, "variant": "mergekit"}, "positive")
    assert np.allclose(positive["a.weight"][1], 5 + np.abs(values))


def test_arcee_fusion_takes_the_quartiles_of_all_elements(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    base = np.zeros(1_100_000, np.float32)  # one row: importance is in proportion to the difference
    model = np.round(random.normal(0, 1, base.size), 4).astype(np.float32)
    paths = [write(tmp_path, k, {"a.weight": (F32, array)}) for k, array in enumerate((base, model))]
    out = merge(tmp_path, {"method": "arcee_fusion", "base": paths[0], "models": paths[1:]})["a.weight"][1]
    size = np.abs(model)
    low, middle, high = (float(np.sort(size)[int(q * (size.size - 1))]) for q in (0.25, 0.5, 0.75))
    assert (out == np.where(size >= middle + 1.5 * (high - low), model, base)).all()


@pytest.mark.parametrize("shape", [(3, 300_001), (200_001, 3), (2, 7, 20_011)])
def test_arcee_fusion_knows_rows_wherever_granules_end(tmp_path: Path, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(9)
    base = random.normal(0, 1, shape).astype(np.float32)
    change = random.normal(0, 0.3, shape) * random.uniform(0.2, 3, (*shape[:-1], 1))
    model = (base + change).astype(np.float32)
    paths = [write(tmp_path, k, {"a.weight": (F32, array)}) for k, array in enumerate((base, model))]
    out = merge(tmp_path, {"method": "arcee_fusion", "base": paths[0], "models": paths[1:]})["a.weight"][1]
    p, q = (_log_softmax(v.astype(np.float64)) for v in (model, base))
    score = np.abs(model.astype(np.float64) - base) * (np.exp(p) * (p - q)).sum(-1, keepdims=True)
    low, middle, high = (np.sort(score.reshape(-1))[int(q * (score.size - 1))] for q in (0.25, 0.5, 0.75))
    clear = np.abs(score / (middle + 1.5 * (high - low)) - 1) > 1e-5
    assert (out == np.where(score >= middle + 1.5 * (high - low), model, base))[clear].all()
    assert clear.mean() > 0.99


def test_arcee_fusion_merges_the_rows_that_vocabularies_share(tmp_path: Path) -> None:
    paths = []
    for k, vocab in enumerate((44, 40)):
        paths.append(str(models.save(tmp_path / f"m{k}", models.tensors(k, vocab=vocab), vocab_size=vocab)))
    out = merge(tmp_path, {"method": "arcee_fusion", "base": paths[0], "models": paths[1:]})
    base, model = (models.read(Path(path))["lm_head.weight"][1] for path in paths)
    got = out["lm_head.weight"][1]
    assert (got[40:] == base[40:]).all()
    assert ((got[:40] == base[:40]) | (got[:40] == model)).all()
    assert (got[:40] != base[:40]).any()


def test_consensus_with_no_mask_is_the_method_it_is_made_of(tmp_path: Path) -> None:
    values = near(2, 4, (33, 47), F32)
    paths = [write(tmp_path, k, {"a.weight": (F32, v)}) for k, v in enumerate(values)]
    recipe = {"base": paths[0], "models": paths[1:], "weight": 0.4, "lambda": 0.8}
    for name, plain, more in (("consensus_ta", "task_arithmetic", {}), ("consensus_ties", "ties", {"density": 0.3})):
        expected = merge(tmp_path, {**recipe, **more, "method": plain, "normalize": False}, plain)["a.weight"][1]
        found = merge(tmp_path, {**recipe, **more, "method": name, "k": 0}, name)["a.weight"][1]
        assert np.abs(found - expected).max() < 1e-7
        found = merge(tmp_path, {**recipe, **more, "method": name, "k": 4}, f"{name} none")["a.weight"][1]
        assert (found == values[0]).all()


def test_slerp_keeps_its_precision_for_tiny_angles() -> None:
    for apart in (1e-6, 1e-4, 1e-2, 1.0):
        gram = np.array([[1.0, np.cos(apart)], [np.cos(apart), 1.0]])
        shares = span.slerp(gram, 0.3, 1.0 - 1e-12)
        exact = np.sin([0.7 * apart, 0.3 * apart]) / np.sin(apart)
        assert np.abs(shares - exact).max() < 1e-12


def test_published_recipes_make_the_same_model_again(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.method == "task_arithmetic")
    inputs = siblings(case, BF16)
    paths = [write(tmp_path, k, tensors) for k, tensors in enumerate(inputs)]
    out = merge(tmp_path, recipe_of(case, paths, by="layer"))
    published = json.loads((tmp_path / "out" / "blockmerge.json").read_text())["recipe"]
    assert published["base"] == "m0"
    published["base"] = paths[0]
    for entry, path in zip(published["models"], paths[1:], strict=True):
        entry["model"] = path
    again = merge(tmp_path, published, "again")
    assert all((out[name][1] == again[name][1]).all() for name in out)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "task_arithmetic" in card
    assert not (tmp_path / "out" / "gradient.svg").exists()


BAD = {
    "unknown method": ({"method": "liner", "models": ["A"]}, "liner.*is not known"),
    "unknown key": ({"method": "linear", "models": ["A"], "wieght": 1}, "did you mean weight"),
    "too few": ({"method": "slerp", "models": ["A"], "t": 0.5}, "slerp takes 2 models, not 1"),
    "no base": ({"method": "task_arithmetic", "models": ["A"], "weight": 1}, "base is missing"),
    "a base too many": ({"method": "slerp", "base": "C", "models": ["A", "B"], "t": 0.5}, "slerp has no base"),
    "bad choice": ({"method": "slerp", "models": ["A", "B"], "t": 0.5, "variant": "mergekt"}, "did you mean mergekit"),
    "bad flag": ({"method": "linear", "models": ["A"], "weight": 1, "normalize": 3}, "needs true or false"),
}


@pytest.mark.parametrize("what", BAD)
def test_recipes_that_make_no_sense(tmp_path: Path, what: str) -> None:
    recipe, expected = BAD[what]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(blockmerge.BlockmergeError, match=expected):
        blockmerge.load_recipe(tmp_path / "recipe.yaml")


def test_a_parameter_that_is_missing_or_out_of_bounds(tmp_path: Path) -> None:
    paths = [write(tmp_path, k, {"a.weight": (F32, np.ones(3, np.float32))}) for k in range(2)]
    for extra, expected in (({}, "linear needs weight"), ({"weight": 0.5}, None)):
        recipe = {"method": "linear", "models": paths, **extra}
        if expected is None:
            merge(tmp_path, recipe)
        else:
            with pytest.raises(blockmerge.RecipeError, match=expected):
                merge(tmp_path, recipe)
    with pytest.raises(blockmerge.BlockmergeError, match="max_iter: is 0, but must be from 1 to 10000"):
        merge(tmp_path, {"method": "karcher", "models": paths, "max_iter": 0})


@pytest.mark.parametrize(
    ("method", "settings", "values"),
    [
        ("linear", {}, [0.6, -0.6]),
        ("nuslerp", {}, [1, -1]),
        ("multislerp", {}, [0, 0]),
        ("dare_linear", {"normalize": True, "density": 0.5, "base": True}, [1, -1]),
        ("task_arithmetic", {"normalize": True, "base": True}, [1, -1]),
    ],
)
def test_weights_that_sum_to_zero_are_one_line(
    tmp_path: Path, method: str, settings: dict[str, Any], values: list[float]
) -> None:
    tensors = {f"t{k}.weight": (F32, np.ones(3, np.float32)) for k in range(9)}
    paths = [write(tmp_path, k, tensors) for k in range(3)]
    recipe: dict[str, Any] = {"method": method, **settings}
    recipe["models"] = [{"model": path, "weight": value} for path, value in zip(paths, values, strict=False)]
    if "base" in recipe:
        recipe["base"] = paths[2]
    with pytest.raises(blockmerge.RecipeError, match=r"sum to zero.*\(9 tensors, first t0.weight\)") as caught:
        merge(tmp_path, recipe)
    assert "\n" not in str(caught.value)
    places = r"[\w-]+\.yaml:\d+"
    assert re.match(rf"{places}(, {places})*: weight: ", str(caught.value))


def test_a_recipe_can_be_merged_without_a_plan_of_ones_own(tmp_path: Path) -> None:
    paths = [write(tmp_path, k, {"a.weight": (F32, np.full(3, k, np.float32))}) for k in range(2)]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"method": "linear", "models": paths, "weight": 1}))
    blockmerge.merge(tmp_path / "recipe.yaml", tmp_path / "out")
    assert models.read(tmp_path / "out")["a.weight"][1].tolist() == [0.5] * 3


@each
def test_a_tensor_without_elements_is_kept(tmp_path: Path, case: Case) -> None:
    tensors = {"a.weight": (F32, np.ones((2, 3), np.float32)), "empty.weight": (F32, np.zeros((0, 4), np.float32))}
    paths = [write(tmp_path, k, tensors) for k in range(case.count + case.base)]
    assert merge(tmp_path, recipe_of(case, paths))["empty.weight"][1].shape == (0, 4)


# --- Trimming over the whole model -----------------------------------------------------------------------------------


def trimmed(folder: Path, values: list[dict[str, Floats]], name: str = "out", **more: Any) -> models.Tensors:
    paths = [
        write(folder, k, {key: (F32, array) for key, array in tensors.items()}) for k, tensors in enumerate(values)
    ]
    recipe = {"method": "ties", "base": paths[0], "models": paths[1:], "weight": 1, "scope": "model", **more}
    how = {"threads": recipe.pop("threads", None)}
    return merge(folder, recipe, name, **how)


def test_scope_model_trims_all_tensors_by_one_threshold(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    shapes = {"a.weight": (300, 1000), "b.weight": (40, 50), "c.weight": (7,)}
    sizes = {"a.weight": 0.01, "b.weight": 0.05, "c.weight": 0.002}
    base = {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    fine = [
        {name: (base[name] + random.normal(0, sizes[name], shape)).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(2)
    ]
    out = trimmed(tmp_path, [base, *fine], density=0.2)
    deltas = [np.concatenate([(one[name] - base[name]).reshape(-1) for name in shapes]) for one in fine]
    kept = []
    for delta in deltas:
        threshold = np.sort(np.abs(delta))[delta.size - int(0.2 * delta.size)]
        kept.append(np.where(np.abs(delta) >= threshold, delta, 0).astype(np.float64))
    flat = np.concatenate([base[name].reshape(-1) for name in shapes]) + _agreeing(kept, [1, 1], normalize=True)
    got = np.concatenate([out[name][1].reshape(-1) for name in shapes])
    assert np.abs(got - flat).max() < 1e-6
    assert (out["c.weight"][1] == base["c.weight"]).all()  # all of its changes are below the threshold


def test_scope_model_gives_the_same_bits_for_any_threads_and_in_a_stage(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    base = {f"{k}.weight": random.normal(0, 1, (700, 800)).astype(np.float32) for k in range(5)}
    fine = [
        {name: (a + random.normal(0, 0.1, a.shape)).astype(np.float32) for name, a in base.items()} for _ in range(2)
    ]
    outs = [
        trimmed(tmp_path, [base, *fine], f"out{n}", density=0.3, threads=n, max_shard_size="3MB") for n in (1, 2, 5)
    ]
    for other in outs[1:]:
        assert all(outs[0][name][1].tobytes() == other[name][1].tobytes() for name in base)
    paths = [str(tmp_path / f"m{k}") for k in range(3)]
    stage = {"method": "ties", "base": paths[0], "models": paths[1:], "weight": 1, "scope": "model", "density": 0.3}
    documents = [{"name": "stage", **stage}, {"method": "passthrough", "models": ["stage"]}]
    (tmp_path / "stages.yaml").write_text(yaml.safe_dump_all(documents))
    blockmerge.merge(tmp_path / "stages.yaml", tmp_path / "staged")
    staged = models.read(tmp_path / "staged")
    assert all(outs[0][name][1].tobytes() == staged[name][1].tobytes() for name in base)


def test_scope_model_and_rescale_do_not_go_together(tmp_path: Path) -> None:
    values = {"a.weight": np.ones((3, 3), np.float32)}
    with pytest.raises(blockmerge.RecipeError, match="rescale: goes with scope: tensor only"):
        trimmed(tmp_path, [values, values], density=0.5, rescale=True)
