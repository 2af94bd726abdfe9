"""Methods of other packages: numpy functions with a declaration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import blockmerge
import models
from blockmerge.dtypes import BF16, F32
from blockmerge.errors import RecipeError
from blockmerge.execution import executor
from blockmerge.kernels import reference
from blockmerge.methods import Method, Parameter, plain
from blockmerge.methods import plugins as plugins_module
from blockmerge.methods.plugins import Catalogue

MODULE = """
import numpy as np
from blockmerge.methods import Parameter, plain

LARGEST = plain.method(
    lambda tensors, base, scale: base + np.max(tensors - base, axis=0) * np.array(scale).max(),
    name="largest", summary="s", equation="e", paper="none", base="required",
    parameters=[Parameter("scale", "s", default=1.0, per_model=True)],
)
NOTHING = 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Installs a package that offers methods, for the time of a test."""

    def install(entries: str, module: str = MODULE) -> Catalogue:
        (tmp_path / "own_methods.py").write_text(module)
        info = tmp_path / "own_methods-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-methods\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[blockmerge.methods]\n{entries}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        found = Catalogue(blockmerge.methods.METHODS.own.values())
        for name in (
            "planning.combine",
            "recipes.methods",
            "recipes.load",
            "report.methods",
            "report.card",
            "report.settings",
        ):
            monkeypatch.setattr(sys.modules[f"blockmerge.{name}"], "METHODS", found)
        return found

    yield install
    sys.modules.pop("own_methods", None)


def run(folder: Path, recipe: dict[str, Any], name: str = "out", **how: Any) -> models.Tensors:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    blockmerge.merge(path, folder / name, **how)
    return models.read(folder / name)


def three(folder: Path) -> list[str]:
    return [str(models.save(folder / f"m{k}", models.tensors(k))) for k in range(3)]


def test_an_installed_method_is_found_and_used(tmp_path: Path, package: Any) -> None:
    found = package("largest = own_methods:LARGEST")
    assert "largest" in found
    assert list(found)[-1] == "largest"
    paths = three(tmp_path)
    own = [{"model": paths[1], "scale": 0.5}, {"model": paths[2], "scale": 2}]
    out = run(tmp_path, {"method": "largest", "base": paths[0], "models": own, "dtype": "float32"})
    base, *rest = ({name: reference.decode(a, BF16) for name, (_, a) in models.read(Path(p)).items()} for p in paths)
    for name, (_, got) in out.items():
        expected = base[name] + 2 * np.maximum(rest[0][name] - base[name], rest[1][name] - base[name])
        assert np.abs(got - expected).max() < 1e-6, name
    assert "largest" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("entries", "module", "told"),
    [
        ("nothing = own_methods:NOTHING", MODULE, "nothing of the package own-methods is no Method"),
        ("gone = own_methods:GONE", MODULE, "gone of the package own-methods cannot be loaded: AttributeError"),
        ("linear = own_methods:LARGEST", MODULE.replace('"largest"', '"linear"'), "offers linear, but there is one"),
        ("a = own_methods:LARGEST\nb = own_methods:LARGEST", MODULE, "offers largest, but there is one already"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(package: Any, entries: str, module: str, told: str) -> None:
    found = package(entries, module)
    assert found["linear"].name == "linear"  # our own need no other package
    with pytest.raises(RecipeError, match=told):
        list(found)


def test_adding_replaces_but_never_our_own() -> None:
    found = Catalogue(blockmerge.methods.METHODS.own.values())
    for summary in ("first", "second"):
        found.add(declared(lambda tensors: tensors[0], summary=summary))
    assert found["mine"].summary == "second"
    with pytest.raises(RecipeError, match="linear is a method of Blockmerge's own"):
        found.add(declared(lambda tensors: tensors[0], name="linear"))


def declared(function: Any, **more: Any) -> Method:
    return plain.method(function, **{"name": "mine", "summary": "s", "equation": "e", "paper": "none", **more})


@pytest.fixture
def mine(package: Any) -> Any:
    found = package("largest = own_methods:LARGEST")

    def add(function: Any, **more: Any) -> None:
        found.add(declared(function, **more))

    return add


def test_bits_depend_on_nothing_but_the_recipe(tmp_path: Path, mine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mine(
        lambda tensors, pull, statistic: tensors[0] + (tensors[1] - tensors[0]).clip(-pull, pull) / statistic.sum(),
        measure=lambda tensors, pull: np.abs(tensors).sum(axis=1) * pull,
        parameters=[Parameter("pull", "p", default=0.01)],
    )
    random = np.random.default_rng(0)
    paths = []
    for k in range(2):
        values = reference.encode(random.normal(0, 0.05, (1011, 1013)), BF16)
        paths.append(str(models.save(tmp_path / f"m{k}", {"a.weight": (BF16, values)}, {"model_type": "none"})))
    defaults = dict(executor.Executor.__init__.__kwdefaults__ or {})
    seen = set()
    for number, (threads, tile) in enumerate([(1, 1 << 19), (3, 4096), (2, 77_777)]):
        monkeypatch.setattr(executor.Executor.__init__, "__kwdefaults__", {**defaults, "tile": tile})
        out = run(tmp_path, {"method": "mine", "models": paths, "pull": 0.02}, f"out{number}", threads=threads)
        seen.add(out["a.weight"][1].tobytes())
    assert len(seen) == 1


def test_rows_come_whole(tmp_path: Path, mine: Any) -> None:
    mine(lambda tensors: tensors.mean(axis=0) - tensors.mean(axis=(0, 2))[:, None], scope="row")
    random = np.random.default_rng(0)
    values = random.normal(0, 1, (700, 1000)).astype(np.float32)  # rows straddle blocks
    path = str(models.save(tmp_path / "m", {"a.weight": (F32, values)}, {"model_type": "none"}))
    out = run(tmp_path, {"method": "mine", "models": [path]})
    assert np.abs(out["a.weight"][1] - (values - values.mean(axis=1, keepdims=True))).max() < 1e-6


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda tensors: tensors[0][:3], "mine: its function gave 3 elements for"),
        (lambda tensors: {}["key"], "mine: its function fails: KeyError"),
    ],
)
def test_a_function_that_fails_is_told_in_one_line(tmp_path: Path, mine: Any, function: Any, told: str) -> None:
    mine(function)
    with pytest.raises(RecipeError, match=told):
        run(tmp_path, {"method": "mine", "models": three(tmp_path)[:1]})
    assert not (tmp_path / "out").exists()


def test_the_group_is_the_documented_one() -> None:
    assert plugins_module.GROUP == "blockmerge.methods"
