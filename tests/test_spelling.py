"""A checkpoint that was saved from AutoModel names its tensors without the prefix of the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import blockmerge
import models
from blockmerge.errors import MismatchError

RECIPES: dict[str, dict[str, Any]] = {
    "gradient": {"method": "gradient", "values": [0.2, 0.9]},
    "original": {"method": "gradient", "values": [0.2, 0.9], "arithmetic": "original"},
    "linear": {"method": "linear", "weight": [0.3, 0.6]},
    "slices": {"method": "slerp", "t": 0.4},
}


def bare(folder: Path, content: models.Tensors, **config: Any) -> Path:
    renamed = {name.removeprefix("model."): value for name, value in content.items()}
    return models.save(folder, renamed, architectures=["LlamaModel"], **config)


@pytest.fixture
def three(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two tied models, and the second as AutoModel saves it."""
    one, two = models.tensors(1, tied=True), models.tensors(2, tied=True)
    return (
        models.save(tmp_path / "one", one, tie_word_embeddings=True),
        models.save(tmp_path / "two", two, tie_word_embeddings=True),
        bare(tmp_path / "bare" / "two", two, tie_word_embeddings=True),
    )


def merged(out: Path, how: str, *paths: Path) -> tuple[models.Tensors, blockmerge.Plan]:
    recipe = RECIPES[how]
    inputs = {"models": [str(path) for path in paths]}
    if how == "slices":
        inputs = {"slices": [{"models": [{"model": str(path), "layers": "0:2"} for path in paths]}]}
    (out.parent / f"{out.name}.yaml").write_text(yaml.safe_dump({**recipe, **inputs}))
    plan = blockmerge.plan(out.parent / f"{out.name}.yaml")
    blockmerge.merge(plan, out)
    return models.read(out), plan


def same(one: models.Tensors, other: models.Tensors) -> bool:
    return one.keys() == other.keys() and all(
        a[0] == other[name][0] and a[1].tobytes() == other[name][1].tobytes() for name, a in one.items()
    )


@pytest.mark.parametrize("how", RECIPES)
def test_it_merges_as_the_same_model_with_the_prefix(tmp_path: Path, three: tuple[Path, Path, Path], how: str) -> None:
    one, two, plain = three
    expected, plan = merged(tmp_path / "expected", how, one, two)
    found, told = merged(tmp_path / "found", how, one, plain)
    assert same(found, expected)
    assert not any("without it" in note for note in plan.notes)
    assert any("named with model. in one of one and two" in note for note in told.notes)
    assert blockmerge.verify(tmp_path / "found", inputs=True, roots=[plain.parent]).differing == ()


def test_the_first_models_names_stand(tmp_path: Path, three: tuple[Path, Path, Path]) -> None:
    one, two, plain = three
    expected, _ = merged(tmp_path / "expected", "linear", two, one)
    found, _ = merged(tmp_path / "found", "linear", plain, one)
    assert same({f"model.{name}": value for name, value in found.items()}, expected)
    assert blockmerge.inspect(tmp_path / "found").architecture == "LlamaModel"


def test_it_compares_and_gives_adapters_too(tmp_path: Path, three: tuple[Path, Path, Path]) -> None:
    one, two, plain = three
    seen, expected = blockmerge.diff(one, plain), blockmerge.diff(one, two)
    assert [(t.name, t.statistics) for t in seen.tensors] == [(t.name, t.statistics) for t in expected.tensors]
    for k, model in enumerate((two, plain)):
        blockmerge.extract_lora(model, one, tmp_path / f"adapter{k}", rank=2)
    files = [(tmp_path / f"adapter{k}" / "adapter_model.safetensors").read_bytes() for k in range(2)]
    assert files[0] == files[1]


def test_a_head_that_is_not_there_is_told_and_kept(tmp_path: Path) -> None:
    one, two = models.tensors(1), models.tensors(2)
    headless = {name: value for name, value in two.items() if name != "lm_head.weight"}
    first, second = models.save(tmp_path / "one", one), bare(tmp_path / "two", headless)
    recipe = blockmerge.gradient(str(first), str(second), values=1.0)
    with pytest.raises(MismatchError, match=r"a tensor of one is not in two: lm_head\.weight"):
        blockmerge.plan(recipe)
    blockmerge.merge(blockmerge.gradient(str(first), str(second), values=1.0, on_missing="keep"), tmp_path / "out")
    found = models.read(tmp_path / "out")
    assert np.array_equal(found["lm_head.weight"][1], one["lm_head.weight"][1])
    assert same({**found, "lm_head.weight": two["lm_head.weight"]}, two)


def test_other_classes_do_not_pair(tmp_path: Path) -> None:
    first = models.save(tmp_path / "one", models.tensors(1))
    second = bare(tmp_path / "two", models.tensors(2), model_type="unheard-of")
    with pytest.raises(MismatchError, match="only finetunes of one architecture"):
        blockmerge.plan(blockmerge.gradient(str(first), str(second), values=0.5))
