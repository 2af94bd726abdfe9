"""Recipes: three ways to say the same thing, and what is said about a recipe that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from blockmerge.architectures import Block
from blockmerge.errors import BlockmergeError, Problems, RecipeError
from blockmerge.recipes import Arithmetic, Only, Reading, gradient, load_recipe, to_yaml
from blockmerge.recipes.blockmerge import from_flags
from blockmerge.recipes.values import parse_layers, parse_list, parse_size, parse_values


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_native_yaml_says_what_the_arguments_say(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "method: gradient\nmodels: [A, B]\nvalues: {attention: [0.2, 0.8], all: 0.5}\nby: layer\nonly: layers\n"
        "filters: [q_proj, mlp]\nlayers: 0:20\ndtype: float16\non_missing: keep\nmax_shard_size: 500MB\n",
    )
    same = gradient(
        "A",
        "B",
        values={"attention": [0.2, 0.8], "all": 0.5},
        by="layer",
        only="layers",
        filters=["q_proj", "mlp"],
        layers=(0, 20),
        dtype="float16",
        on_missing="keep",
        max_shard_size="500MB",
    )
    assert load_recipe(path) == same
    assert same.by is Reading.LAYER
    assert same.curves[0].selection.block is Block.ATTENTION  # blocks come before what is left for all


@pytest.mark.parametrize(
    "recipe",
    [
        gradient("A", "org/B@main", values=[1.0, 0.5, 0.0]),
        gradient("A", "B", values={"mlp": [0.8, 0.2], "all": [0.1]}, by="layer", layers="3:9", only="layers"),
        gradient("A", "B", values=0.5, filters=["x", "y"], dtype="float32", on_missing="keep"),
        gradient("A", "B", values=[0.5], arithmetic="original", only="non-layers"),
    ],
)
def test_a_recipe_survives_being_written_and_read(tmp_path: Path, recipe) -> None:
    assert load_recipe(written(tmp_path, to_yaml(recipe))) == recipe


MYTHALION = """
model_path1: pygmalion
model_path2: mythomax
output_model_path: mythalion
max_shard_size: 2000MiB
operations:
  - operation: lm_head # Single tensor
    filter: "lm_head"
    gradient_values: [0.5]
  - operation: self_attn
    filter: "self_attn"
    gradient_values: [0.2, 0.8]
  - operation: rest
    no_layers: true
    gradient_values: [1, 0]
"""


def test_the_yaml_edition_is_read_as_it_is(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, MYTHALION))
    assert recipe.models == ("pygmalion", "mythomax")
    assert recipe.output == "mythalion"
    assert recipe.max_shard_size == 2000 << 20
    assert recipe.arithmetic is Arithmetic.ORIGINAL_YAML
    assert [curve.values for curve in recipe.curves] == [(0.5,), (0.2, 0.8), (1.0, 0.0)]
    assert [curve.selection.filters for curve in recipe.curves] == [("lm_head",), ("self_attn",), ()]
    assert recipe.curves[2].selection.only is Only.NON_LAYERS
    assert all(curve.selection.literal_layers for curve in recipe.curves)
    again = load_recipe(written(tmp_path, to_yaml(recipe)))
    assert [(c.values, c.selection) for c in again.curves] == [(c.values, c.selection) for c in recipe.curves]


def test_the_flags_of_the_script_are_a_gradient_with_its_arithmetic() -> None:
    recipe = from_flags("A", "B", gradient_values="[1, 0.5]", layer_only=True, no_layers=True, custom_filter="mlp")
    assert recipe.arithmetic is Arithmetic.ORIGINAL
    assert recipe.curves[0].values == (1.0, 0.5)
    assert recipe.curves[0].selection.only is Only.LAYERS
    assert recipe.curves[0].selection.literal_layers
    assert recipe.max_shard_size == 2000 << 20


def test_all_problems_of_a_recipe_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = written(
        tmp_path, "method: gradeint\nmodles: [A, B]\nvalues: [1, x, .nan]\nby: tensor\nby: layer\nonly: [a]\n"
    )
    with pytest.raises(Problems) as caught:
        load_recipe(path)
    lines = str(caught.value).splitlines()
    assert f"{path}:2: modles: is not known; did you mean models?" in lines
    assert f"{path}:1: models is missing" in lines
    assert any(line.startswith(f"{path}:1: method: 'gradeint' is not known") for line in lines)
    assert any(line.startswith(f"{path}:3: values: 'x' is no finite number") for line in lines)
    assert f"{path}:5: by: is given twice" in lines
    assert any(line.startswith(f"{path}:6: only") for line in lines)
    assert caught.value.exit_code == 2


BAD_FILES = {
    "not yaml": ("a: [1, 2\nb: }", "not valid YAML"),
    "a list": ("- 1\n- 2\n", "holds no recipe"),
    "empty": ("", "holds no recipe"),
    "mergekit": ("merge_method: ties\nmodels: []\n", "mergekit"),
    "wrong count": ("method: gradient\nmodels: [A]\nvalues: 1\n", "two models, not 1"),
    "unknown block": ("method: gradient\nmodels: [A, B]\nvalues: {atention: [1]}\n", "did you mean attention"),
    "other block": ("method: gradient\nmodels: [A, B]\nvalues: {other: [1]}\n", "values.other: is not known"),
    "bad size": ("method: gradient\nmodels: [A, B]\nvalues: 1\nmax_shard_size: big\n", "no size"),
    "bad dtype": ("method: gradient\nmodels: [A, B]\nvalues: 1\ndtype: float8_e4m3fn\n", "cannot be written"),
    "bad choice": ("method: gradient\nmodels: [A, B]\nvalues: 1\nby: tensors\n", "did you mean tensor"),
    "object tag": (
        "method: !!python/object:os.system x\nmodels: [A, B]\nvalues: 1\n",
        "is not known|cannot be understood",
    ),
    "operations empty": ("model_path1: A\nmodel_path2: B\noperations: []\n", "no operation"),
    "flag not a flag": (
        "model_path1: A\nmodel_path2: B\noperations: [{gradient_values: [1], layer_only: perhaps}]\n",
        "needs true or false",
    ),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_bad_recipe_files_are_refused_by_line(tmp_path: Path, what: str) -> None:
    text, expected = BAD_FILES[what]
    with pytest.raises(BlockmergeError, match=expected) as caught:
        load_recipe(written(tmp_path, text))
    assert caught.value.exit_code == 2


def test_a_yaml_bomb_ends_in_an_error_not_in_memory(tmp_path: Path) -> None:
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    bomb += "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 9))
    text = f"method: gradient\nmodels: [A, B]\nvalues: {{all: *a8}}\n{bomb}".replace("*a8", "[1]") + "filters: *a8\n"
    with pytest.raises(BlockmergeError):
        load_recipe(written(tmp_path, text))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"UTF-8|not valid YAML"):
        load_recipe(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * 10**9),
        ("2000MiB", 2000 << 20),
        ("1.5 gb", 1_500_000_000),
        ("10kb", 10_000),
        ("7000", 7000),
        ("1TiB", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "x") == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 XB", "0", "1e3", "2GBs", "5"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(RecipeError, match=r"no size|no unit"):
        parse_size(text, "x")


@pytest.mark.parametrize("text", ["", "1,,2", "a", "1;2", "nan", "inf", "1e999"])
def test_gradient_text_that_does_not_parse(text: str) -> None:
    with pytest.raises(RecipeError, match=r"1\.0,0\.5,0\.0"):
        parse_values(text, "--values")


@pytest.mark.parametrize("text", ["", "[", "[]", "['a']", "{1: 2}", "__import__('os')", "[nan]", "[True]", "[" * 500])
def test_lists_that_do_not_parse(text: str) -> None:
    with pytest.raises(RecipeError, match="gradient_values"):
        parse_list(text, "--gradient_values")


@pytest.mark.parametrize("text", ["", "3", "5:5", "7:3", "a:b", "-1:3", "1:2:3"])
def test_layer_ranges_that_are_none(text: str) -> None:
    with pytest.raises(RecipeError, match="0:20"):
        parse_layers(text, "--layers")
    assert parse_layers(" 0 : 20 ", "--layers") == (0, 20)


def test_front_matter_stays_plain_yaml() -> None:
    assert yaml.safe_load(to_yaml(gradient("A", "B", values=[1.0, 0.0]))) == {
        "method": "gradient",
        "models": ["A", "B"],
        "values": [1.0, 0.0],
    }


@pytest.mark.parametrize(
    "values",
    [
        "!!int ''",
        "!!bool x",
        "!!timestamp x",
        "1" + "0" * 400,
        "{}",
        "[1e308, -1e308]",
        "{? [a, b] : 1}",
        "1:1:1:1:1.5e9",
    ],
)
def test_hostile_values_end_in_one_of_our_errors(tmp_path: Path, values: str) -> None:
    with pytest.raises(BlockmergeError):
        load_recipe(written(tmp_path, f"method: gradient\nmodels: [A, B]\nvalues: {values}\n"))
