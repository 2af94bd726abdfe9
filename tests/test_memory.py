"""Memory does not grow with models. Checkpoints are sparse, and read as noise; a disk keeps nothing of what is written.

``pytest -m soak -s tests/test_memory.py`` prints the figures of docs/reliability.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import yaml

import blockmerge
from blockmerge.dtypes import BF16
from blockmerge.formats.safetensors import build_header
from blockmerge.methods import METHODS
from blockmerge.planning.explain import memory
from blockmerge.tensors import TensorSpec

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sparse files, and limits that hold"),
]
HIDDEN = 4096
LAYER = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.up_proj": (4 * HIDDEN, HIDDEN),
    "mlp.down_proj": (HIDDEN, 4 * HIDDEN),
    "input_layernorm": (HIDDEN,),
}
LAYER_GB = 0.335552512
SETTINGS: dict[str, dict[str, Any]] = {"slerp": {"t": 0.3}, "sce": {"select_topk": 0.5}, "nearswap": {"t": 0.001}}
EMBEDDING = {"model.embed_tokens": (131072, HIDDEN)}
SCRIPT = """
import json, os, resource, sys
limit, recipe, out, threads, noises = json.loads(sys.argv[1])
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
models = []
for path in noises:
    with open(path, "rb") as file:
        models.append(memoryview(file.read()))
preadv = os.preadv

def noise(descriptor, buffers, offset):
    if offset < 1 << 20:  # headers are there
        return preadv(descriptor, buffers, offset)
    (buffer,), model, done = buffers, models[descriptor % 3], 0
    while done < len(buffer):
        at = (offset + done) % len(model)
        some = model[at : at + len(buffer) - done]
        buffer[done : done + len(some)] = some
        done += len(some)
    return done

os.preadv, os.pwrite = noise, lambda descriptor, data, offset: len(data)
import blockmerge
done = blockmerge.merge(recipe, out, threads=threads)
print(json.dumps([done.bytes_read, done.seconds_merging, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


class Measured(NamedTuple):
    """What a merge in a process of its own took."""

    read: int
    seconds: float
    peak: int


def sparse(folder: Path, gigabytes: float, more: dict[str, tuple[int, ...]] | None = None) -> str:
    """A model that takes a few kilobytes of the disk."""
    folder.mkdir(parents=True)
    layers = round(gigabytes / LAYER_GB)
    shapes = {f"model.layers.{k}.{name}": shape for k in range(layers) for name, shape in LAYER.items()} | (more or {})
    specs = [TensorSpec(f"{name}.weight", BF16, shape) for name, shape in shapes.items()]
    with (folder / "model.safetensors").open("wb") as file:
        header = build_header(specs, {})
        file.write(header)
        file.truncate(len(header) + sum(spec.nbytes for spec in specs))
    (folder / "config.json").write_text(json.dumps({"model_type": "none", "num_hidden_layers": layers}))
    return str(folder)


def recipe_of(folder: Path, paths: list[str], method: str = "linear") -> Path:
    recipe: dict[str, Any] = {"method": method, "models": paths, "weight": 0.3}
    if method == "ties":
        recipe |= {"base": paths[0], "models": paths[1:], "density": 0.3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def noises(folder: Path) -> list[str]:
    """Files of bfloat16, for models that have moved away from one base, in each row as far as chance has it."""
    random, size, row = np.random.default_rng(0), 500_009, 4096
    base = 0.02 * random.standard_normal(size, np.float32)
    moved = 3e-4 * np.exp(random.standard_normal(size // row + 1, np.float32)).repeat(row)[:size]
    paths = [folder / f"{number}.noise" for number in range(3)]
    for path in paths:
        weights = base + moved * random.standard_normal(size, np.float32)
        path.write_bytes((weights.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    return [str(path) for path in paths]


def measured(recipe: Path, *, threads: int = 2, limit: int = 0) -> Measured:
    """Merge in a child whose address space has at most ``limit`` bytes."""
    out = recipe.with_name("out")
    arguments = json.dumps([limit, str(recipe), str(out), threads, noises(recipe.parent)])
    done = subprocess.run([sys.executable, "-c", SCRIPT, arguments], check=True, capture_output=True, text=True)
    subprocess.run(["rm", "-r", str(out)], check=True)
    return Measured(*json.loads(done.stdout))


def tell(what: str, found: Measured) -> None:
    print(f"{what:<44} {found.read / 1e9:7.1f} GB read {found.seconds:7.1f} s {found.peak / 1e6:7.0f} MB at most")


@pytest.mark.parametrize(("method", "sizes"), [("linear", (1, 10, 50)), ("ties", (1, 3))])
def test_memory_is_flat(tmp_path: Path, method: str, sizes: tuple[int, ...]) -> None:
    peaks: list[int] = []
    for gigabytes in sizes:
        folder = tmp_path / str(gigabytes)
        paths = [sparse(folder / name, gigabytes) for name in "abc"]
        found = measured(recipe_of(folder, paths, method))
        tell(f"{method}, three models of {gigabytes} GB", found)
        assert found.read >= 3 * gigabytes * 0.98e9
        peaks.append(found.peak)
    assert max(peaks) - min(peaks) < 50_000_000


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_memory_grows_with_inputs_as_the_plan_says(tmp_path: Path, method: str) -> None:
    paths = [sparse(tmp_path / str(k), LAYER_GB) for k in range(17)]
    for count in (2, 16):
        recipe = recipe_of(tmp_path, paths[: count + (method == "ties")], method)
        found = measured(recipe)
        tell(f"{method}, {count} models of 0.3 GB", found)
        shared, each = memory(blockmerge.plan(recipe))
        assert found.peak < 1.25 * (shared + 2 * each)


@pytest.mark.parametrize("count", [3, 16])
@pytest.mark.parametrize("method", METHODS)
def test_no_method_takes_much_of_a_large_tensor(tmp_path: Path, method: str, count: int) -> None:
    declared = METHODS[method]
    count = min(count, declared.models[1] or count)
    models = [sparse(tmp_path / str(k), LAYER_GB, EMBEDDING) for k in range(count + 1)]
    recipe: dict[str, Any] = {"method": method, "models": models[:count], **SETTINGS.get(method, {})}
    recipe |= {"base": models[count]} if declared.base == "required" else {}
    recipe |= {name: 0.5 for name in ("weight", "density") if declared.parameter(name)}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    found = measured(tmp_path / "recipe.yaml")
    tell(f"{method}, {count} models of 1.4 GB, most of it one tensor", found)
    assert found.peak < 500_000_000


@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_that_is_larger_than_the_address_space(tmp_path: Path, threads: int) -> None:
    paths = [sparse(tmp_path / name, 8) for name in "abc"]
    for method in ("linear", "ties"):
        found = measured(recipe_of(tmp_path, paths, method), threads=threads, limit=1_500_000_000)
        tell(f"{method}, 8 GB in an address space of 1.5 GB", found)


def test_fifty_gigabytes_are_planned_at_once(tmp_path: Path) -> None:
    paths = [sparse(tmp_path / name, 50) for name in "ab"]
    started = time.perf_counter()
    plan = blockmerge.plan(blockmerge.gradient(*paths, values=[0.0, 1.0]))
    seconds = time.perf_counter() - started
    print(f"a plan for two models of 50 GB, {len(plan.rows)} tensors: {seconds:.2f} s")
    assert plan.bytes_to_write > 49e9
    assert seconds < 2
