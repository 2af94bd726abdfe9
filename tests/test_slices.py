"""Frankenmerges: layers stacked, repeated and renumbered; merges of merges; parts of composite models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import blockmerge
import models
from blockmerge.dtypes import BF16, F32
from blockmerge.errors import BlockmergeError, MismatchError, RecipeError
from blockmerge.kernels import reference


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A model of four layers and one of six."""
    one = models.save(tmp_path / "one", models.tensors(1, layers=4), num_hidden_layers=4)
    two = models.save(tmp_path / "two", models.tensors(2, layers=6), num_hidden_layers=6)
    return one, two


def planned(folder: Path, *documents: dict[str, Any]) -> blockmerge.Plan:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return blockmerge.plan(path)


def merged(folder: Path, *documents: dict[str, Any], name: str = "out", **how: Any) -> models.Tensors:
    blockmerge.merge(planned(folder, *documents), folder / name, **how)
    return models.read(folder / name)


def config(folder: Path, name: str = "out") -> dict[str, Any]:
    return json.loads((folder / name / "config.json").read_text())


def same(one: tuple[Any, np.ndarray], other: tuple[Any, np.ndarray]) -> bool:
    return one[0] == other[0] and one[1].tobytes() == other[1].tobytes()


def taken(model: Path, layers: str) -> dict[str, Any]:
    return {"models": [{"model": str(model), "layers": layers}]}


def test_stacked_slices_rename_layers_and_leave_no_hole(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    slices = [taken(pair[0], "0:3"), taken(pair[1], "1:4"), taken(pair[1], "3:6")]
    out = merged(tmp_path, {"method": "passthrough", "slices": slices})
    one, two = models.read(pair[0]), models.read(pair[1])
    origins = [(one, 0), (one, 1), (one, 2), (two, 1), (two, 2), (two, 3), (two, 3), (two, 4), (two, 5)]
    expected = {"model.embed_tokens.weight": one["model.embed_tokens.weight"]}
    for k, (model, layer) in enumerate(origins):
        prefix = f"model.layers.{layer}."
        for name in (name for name in model if name.startswith(prefix)):
            expected[name.replace(prefix, f"model.layers.{k}.")] = model[name]
    expected |= {name: two[name] for name in ("model.norm.weight", "lm_head.weight")}
    assert out.keys() == expected.keys()
    assert all(same(out[name], expected[name]) for name in out)
    assert config(tmp_path)["num_hidden_layers"] == 9


def test_a_slice_of_one_model_shortens_it(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    out = merged(tmp_path, {"method": "passthrough", "slices": [taken(pair[1], "2:4")]})
    two = models.read(pair[1])
    assert config(tmp_path)["num_hidden_layers"] == 2
    assert same(out["model.layers.0.mlp.up_proj.weight"], two["model.layers.2.mlp.up_proj.weight"])
    assert same(out["lm_head.weight"], two["lm_head.weight"])


def test_lists_with_an_entry_for_each_layer_follow(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention"] * 2
    own = {"num_hidden_layers": 4, "layer_types": kinds, "mlp_only_layers": [0, 3], "other": [1, 2, 3]}
    one = models.save(tmp_path / "one", models.tensors(1, layers=4), **own)
    two = models.save(tmp_path / "two", models.tensors(2, layers=4), **{**own, "layer_types": kinds[::-1]})
    merged(tmp_path, {"method": "passthrough", "slices": [taken(one, "0:3"), taken(two, "0:4"), taken(one, "3:4")]})
    found = config(tmp_path)
    assert found["num_hidden_layers"] == 8
    assert found["layer_types"] == [*kinds[:3], *kinds[::-1], kinds[3]]
    assert found["mlp_only_layers"] == [0, 3, 6, 7]
    assert found["other"] == [1, 2, 3]


def test_slices_merge_their_models_layer_by_layer(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    one, two = pair
    both = {
        "models": [{"model": str(one), "layers": "0:2", "weight": 1}, {"model": str(two), "layers": "3:5", "weight": 3}]
    }
    out = merged(tmp_path, {"method": "linear", "dtype": "float32", "slices": [both, taken_alone(two)]})
    a, b = models.read(one), models.read(two)
    for k in range(2):
        x, y = (
            reference.decode(model[f"model.layers.{layer}.self_attn.q_proj.weight"][1], BF16)
            for model, layer in ((a, k), (b, k + 3))
        )
        got = out[f"model.layers.{k}.self_attn.q_proj.weight"][1]
        assert np.abs(got - (x + 3 * y) / 4).max() < 1e-7
    assert config(tmp_path)["num_hidden_layers"] == 3


def taken_alone(model: Path) -> dict[str, Any]:
    return {"models": [{"model": str(model), "layers": "5:6", "weight": 1}]}


def test_a_gradient_by_layer_starts_anew_in_each_slice(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    one, two = pair
    pieces = [
        {"models": [{"model": str(one), "layers": "0:3"}, {"model": str(two), "layers": "0:3"}]},
        {"models": [{"model": str(one), "layers": "1:4"}, {"model": str(two), "layers": "3:6"}]},
    ]
    plan = planned(tmp_path, {"method": "slerp", "t": [0.0, 1.0], "by": "layer", "slices": pieces})
    shown = {row.name: row.settings for row in plan.rows}
    found = [shown[f"model.layers.{k}.mlp.up_proj.weight"] for k in range(6)]
    assert found == ["t 0", "t 0.5", "t 1"] * 2
    assert shown["model.embed_tokens.weight"] == "t 0"
    assert shown["lm_head.weight"] == "t 1"  # mergekit 0.1.5 gives it the first
    plan = planned(tmp_path, {"method": "slerp", "t": [0.0, 1.0], "by": "mergekit-0.1.5", "slices": pieces})
    assert {row.name: row.settings for row in plan.rows}["lm_head.weight"] == "t 0"


def test_settings_of_a_model_are_looked_up_by_its_own_layers(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    weight = [{"filter": "layers.3.", "value": 0.9}, {"value": 0.1}]
    piece = {"models": [{"model": str(pair[0]), "layers": "0:1", "weight": 1}]}
    piece["models"].append({"model": str(pair[1]), "layers": "3:4", "weight": weight})
    plan = planned(tmp_path, {"method": "linear", "slices": [piece]})
    assert {row.settings for row in plan.rows if row.layer == 0} == {"weight 1/0.9"}


@pytest.mark.parametrize(
    ("slices", "told"),
    [
        ([("one", "2:9")], "layers 2:9 of one do not exist; it has 4"),
        ([("one", "0:2"), ("two", "0:3")], "a slice needs as many of each"),
    ],
)
def test_ranges_that_do_not_exist_or_fit(
    tmp_path: Path, pair: tuple[Path, Path], slices: list[tuple[str, str]], told: str
) -> None:
    paths = {path.name: str(path) for path in pair}
    piece = {"models": [{"model": paths[name], "layers": layers, "weight": 1} for name, layers in slices]}
    with pytest.raises(RecipeError, match=told):
        planned(tmp_path, {"method": "linear", "slices": [piece]})


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ("method: passthrough\nslices:\n  - models:\n      - {model: MODEL, layers: 0:2}\n"
         "  - models:\n      - model: MODEL\n        layers: 3:9\n", 7),
        ("merge_method: passthrough\nslices:\n  - sources:\n      - model: MODEL\n        layer_range: [3, 9]\n", 5),
    ],
)  # fmt: skip
def test_layers_that_do_not_exist_are_told_with_their_line(
    tmp_path: Path, pair: tuple[Path, Path], recipe: str, line: int
) -> None:
    (tmp_path / "stacked.yaml").write_text(recipe.replace("MODEL", str(pair[0])))
    with pytest.raises(RecipeError, match=f"^stacked.yaml:{line}: layers 3:9 of one do not exist; it has 4"):
        blockmerge.plan(tmp_path / "stacked.yaml")


def test_whole_models_of_different_depth_do_not_merge(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(MismatchError, match="4 layers in one, 6 in two"):
        planned(tmp_path, {"method": "linear", "models": [str(path) for path in pair], "weight": 1})


def test_a_tied_model_followed_by_another_head_is_untied(tmp_path: Path) -> None:
    one = models.save(tmp_path / "one", models.tensors(1, tied=True), tie_word_embeddings=True)
    two = models.save(tmp_path / "two", models.tensors(2, tied=True), tie_word_embeddings=True)
    out = merged(tmp_path, {"method": "passthrough", "slices": [taken(one, "0:1"), taken(two, "1:2")]})
    assert same(out["model.embed_tokens.weight"], models.read(one)["model.embed_tokens.weight"])
    assert same(out["lm_head.weight"], models.read(two)["model.embed_tokens.weight"])
    assert config(tmp_path)["tie_word_embeddings"] is False
    out = merged(tmp_path, {"method": "passthrough", "slices": [taken(one, "0:1")]}, name="short")
    assert "lm_head.weight" not in out
    assert config(tmp_path, "short")["tie_word_embeddings"] is True


def test_a_tied_base_takes_a_head_from_an_untied_model(tmp_path: Path) -> None:
    base = models.save(tmp_path / "base", models.tensors(1, tied=True), tie_word_embeddings=True)
    fine = models.save(tmp_path / "fine", models.tensors(2), tie_word_embeddings=False)
    recipe = {"method": "task_arithmetic", "base": str(base), "models": [str(fine)], "weight": 1, "dtype": "float32"}
    out = merged(tmp_path, recipe)
    head = reference.decode(models.read(fine)["lm_head.weight"][1], BF16)
    assert np.abs(out["lm_head.weight"][1] - head).max() < 1e-7
    assert config(tmp_path)["tie_word_embeddings"] is False


# --- Stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", ["linear", "ties", "karcher"])
def test_a_merge_of_merges_equals_the_one_by_way_of_the_disk(tmp_path: Path, second: str) -> None:
    paths = [str(models.save(tmp_path / f"m{k}", models.tensors(k, vocab=20_000))) for k in range(3)]
    inner = {"method": "ties", "base": paths[0], "models": paths[1:], "weight": 0.6, "density": 0.3}
    outer: dict[str, Any] = {"method": second, "models": ["inner", paths[1]]}
    outer |= {} if second == "karcher" else {"weight": 0.5}
    outer |= {"base": paths[0], "density": 0.4} if second == "ties" else {}
    direct = merged(tmp_path, {"name": "inner", **inner}, outer, threads=3)
    merged(tmp_path, inner, name="inner-on-disk")
    by_disk = {**outer, "models": [str(tmp_path / "inner-on-disk"), paths[1]]}
    other = merged(tmp_path, by_disk, name="by-disk")
    assert direct.keys() == other.keys()
    assert all(same(direct[name], other[name]) for name in direct)


def test_stages_of_stages_with_gradients_slices_and_other_dtypes(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    one = str(pair[0])
    stages = [
        {"name": "deep", "method": "passthrough", "slices": [taken(pair[1], "0:2"), taken(pair[1], "4:6")]},
        {"name": "mixed", "method": "gradient", "models": [one, "deep"], "values": [0.2, 0.8], "dtype": "float32"},
        {"method": "slerp", "models": ["mixed", one], "t": 0.25, "dtype": "bfloat16"},
    ]
    out = merged(tmp_path, *stages)
    merged(tmp_path, {key: value for key, value in stages[0].items() if key != "name"}, name="deep")
    steps = {"deep": str(tmp_path / "deep"), "mixed": str(tmp_path / "mixed")}
    mixed = {**stages[1], "models": [one, steps["deep"]]}
    merged(tmp_path, {key: value for key, value in mixed.items() if key != "name"}, name="mixed")
    other = merged(tmp_path, {**stages[2], "models": [steps["mixed"], one]}, name="other")
    assert all(same(out[name], other[name]) for name in out)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "one" in card
    assert str(tmp_path) not in card


def test_bad_values_in_a_stage_are_told_as_anywhere(tmp_path: Path) -> None:
    tensors = models.tensors(1)
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][1][3, 4] = 0x7FC0
    bad = str(models.save(tmp_path / "bad", tensors))
    good = str(models.save(tmp_path / "good", models.tensors(2)))
    stage = {"name": "stage", "method": "linear", "models": [bad, good], "weight": 1}
    with pytest.raises(BlockmergeError, match=rf"bad: {name}\[3, 4\] is not finite"):
        merged(tmp_path, stage, {"method": "slerp", "models": ["stage", good], "t": 0.5})
    assert not (tmp_path / "out").exists()


# --- Composite models ------------------------------------------------------------------------------------------------


def composite(folder: Path, seed: int) -> Path:
    """A language model with a vision tower and a projector, of a class that no table knows."""
    random = np.random.default_rng(seed)
    content = {f"language_model.{name}": value for name, value in models.tensors(seed).items()}
    for name in ("vision_tower.encoder.layers.0.fc1.weight", "multi_modal_projector.linear.weight"):
        content[name] = (F32, random.normal(0, 1, (4, 4)).astype(np.float32))
    return models.save(
        folder, content, {"architectures": ["UnheardOfForConditionalGeneration"], "model_type": "unheard"}
    )


def test_composite_models_merge_by_name(tmp_path: Path) -> None:
    one, two = composite(tmp_path / "one", 1), composite(tmp_path / "two", 2)
    out = merged(tmp_path, {"method": "linear", "models": [str(one), str(two)], "weight": 1})
    assert out.keys() == models.read(one).keys()


def test_modules_are_merged_each_in_its_own_way(tmp_path: Path) -> None:
    one, two = composite(tmp_path / "one", 1), composite(tmp_path / "two", 2)
    modules = {
        "text_decoder": {"models": [{"model": str(one), "weight": 0.0}, {"model": str(two), "weight": 1.0}]},
        "vision_tower": {"models": [{"model": str(one), "weight": 1.0}]},
    }
    with pytest.raises(RecipeError, match="1 tensors of one belong to none of text_decoder, vision_tower"):
        planned(tmp_path, {"method": "linear", "modules": modules})
    modules["multi_modal_projector"] = {"models": [{"model": str(two), "weight": 1.0}]}
    out = merged(tmp_path, {"method": "linear", "modules": modules})
    a, b = models.read(one), models.read(two)
    for name in out:
        assert same(out[name], (a if "vision" in name else b)[name]), name


# --- Coverage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("model.layers.1.", "config.json promises layer 1, and no tensor"),
        ("lm_head.weight", "config.json promises lm_head.weight, and no tensor"),
    ],
)
def test_what_config_json_promises_must_be_there(tmp_path: Path, gone: str, told: str) -> None:
    content = {name: value for name, value in models.tensors(1).items() if not name.startswith(gone)}
    paths = [str(models.save(tmp_path / name, content)) for name in ("one", "two")]
    for recipe in (
        {"method": "linear", "models": paths, "weight": 1},
        {"method": "gradient", "models": paths, "values": [0.5]},
    ):
        with pytest.raises(MismatchError, match=told):
            planned(tmp_path, recipe)


def test_a_bare_model_promises_no_head(tmp_path: Path) -> None:
    content = models.tensors(1, tied=True)
    paths = [str(models.save(tmp_path / name, content, architectures=["LlamaModel"])) for name in ("one", "two")]
    assert len(planned(tmp_path, {"method": "linear", "models": paths, "weight": 1}).rows) == 20
