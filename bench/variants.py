"""How much results differ between a paper's method and what mergekit does under the same name.

    python bench/variants.py

Two finetunes of one base, a matrix and a vector each, change it by 1.5 % and 3 %; one change in a hundred is ten times
as large. A difference is the length of what separates two results, over the length of what the method changed in the
base.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import blockmerge
from blockmerge.dtypes import F32
from blockmerge.formats.safetensors import build_header
from blockmerge.sources import LocalSource
from blockmerge.tensors import TensorSpec

SHAPES = {"model.layers.0.mlp.up_proj.weight": (1024, 1024), "model.layers.0.input_layernorm.weight": (1024,)}
Tensors = dict[str, np.ndarray]
COMPARED: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("dare_linear: 1/density, or one L1 factor", {"method": "dare_linear", "density": 0.5}, {"variant": "mergekit"}),
    ("della: 1/chance, or one L1 factor", {"method": "della", "density": 0.5, "epsilon": 0.3}, {"variant": "mergekit"}),
    ("ties: trimmed by tensor, or over the model", {"method": "ties", "density": 0.2}, {"scope": "model"}),
    (
        "breadcrumbs: gamma first, or density first",
        {"method": "breadcrumbs", "density": 0.995},
        {"variant": "mergekit"},
    ),
    ("sce: shares as they are, or equal when small", {"method": "sce", "select_topk": 0.5}, {"variant": "mergekit"}),
    ("model_stock: base below zero, or past it", {"method": "model_stock", "opposed": True}, {"variant": "mergekit"}),
    ("slerp: always, or linear above 0.9995", {"method": "slerp", "t": 0.3}, {"variant": "mergekit"}),
)


def finetunes(*, opposed: bool) -> list[Tensors]:
    """The base and two finetunes; ``opposed`` ones mostly undo each other."""
    random = np.random.default_rng(0)
    found: list[Tensors] = [{name: random.normal(0, 0.02, shape) for name, shape in SHAPES.items()}]
    for number in range(2):
        changed: Tensors = {}
        for name, base in found[0].items():
            size = np.where(random.random(base.shape) < 0.01, 0.003, 0.0003) * (1 + number)
            changed[name] = base + random.normal(0, 1, base.shape) * size
            if opposed and number:
                changed[name] = base - 0.3 * (found[1][name] - base) + 0.5 * (changed[name] - base)
        found.append(changed)
    return found


def save(folder: Path, tensors: Tensors) -> str:
    """Write a model of float32."""
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "none"}')
    specs = [TensorSpec(name, F32, array.shape) for name, array in tensors.items()]
    data = b"".join(array.astype(np.float32).tobytes() for array in tensors.values())
    (folder / "model.safetensors").write_bytes(build_header(specs, {"format": "pt"}) + data)
    return str(folder)


def merged(folder: Path, recipe: dict[str, Any]) -> np.ndarray:
    """All elements of a merge."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    blockmerge.merge(folder / "recipe.yaml", folder / "out", overwrite=True)
    source, found = LocalSource(folder / "out"), []
    for name, spec in source.specs.items():
        values = np.empty(spec.elements, np.float32)
        source.read_into(name, 0, spec.elements, memoryview(values).cast("B"))
        found.append(values.astype(np.float64))
    source.close()
    return np.concatenate(found)


def difference(settings: dict[str, Any], other: dict[str, Any]) -> float:
    """Between the two ways to carry out a recipe."""
    settings = dict(settings)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        models = finetunes(opposed=settings.pop("opposed", False))
        paths = [save(folder / f"m{k}", tensors) for k, tensors in enumerate(models)]
        method = blockmerge.methods.METHODS[settings["method"]]
        recipe = {**settings, "models": paths[1:], "seed": 1}
        recipe |= {"base": paths[0]} if method.base == "required" else {}
        recipe |= {"weight": 0.5} if method.parameter("weight") else {}
        one, two = merged(folder, recipe), merged(folder, {**recipe, **other})
        names = sorted(SHAPES)
        base = np.concatenate([models[0][name].reshape(-1) for name in names])
        changed = max(np.linalg.norm(one - base), np.linalg.norm(two - base))
        return float(np.linalg.norm(one - two) / changed)


def main() -> None:
    """Print the table."""
    import blockmerge.methods  # noqa: F401

    for text, settings, other in COMPARED:
        print(f"{text:<48}{difference(settings, other):>9.2%}")


if __name__ == "__main__":
    main()
