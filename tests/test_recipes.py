"""Recipes: several ways to say the same thing, and what is said about a recipe that is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import blockmerge
import mergekit_files
import models
from blockmerge.architectures import Block
from blockmerge.errors import BlockmergeError, Problems, RecipeError
from blockmerge.kernels import reference
from blockmerge.methods import METHODS, Parameter
from blockmerge.recipes import (
    Arithmetic,
    Curve,
    Only,
    Part,
    Reading,
    Recipe,
    Selection,
    Slice,
    gradient,
    load_recipe,
    to_dict,
    to_yaml,
)
from blockmerge.recipes.blockmerge import from_flags
from blockmerge.recipes.load import parse_recipe
from blockmerge.recipes.mergekit_methods import HARMLESS, METHOD_PARAMETERS
from blockmerge.recipes.schema import DIALECTS, schema
from blockmerge.recipes.values import parse_layers, parse_list, parse_size, parse_values
from blockmerge.vocabularies import TokenizerChoice, TokenSource


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
    assert any(line.startswith(f"{path}:1: method: 'gradeint' is not known") for line in lines)
    assert any(line.startswith(f"{path}:3: values: 'x' is no finite number") for line in lines)
    assert f"{path}:5: by: is given twice" in lines
    assert any(line.startswith(f"{path}:6: only") for line in lines)
    assert caught.value.exit_code == 2


BAD_FILES = {
    "not yaml": ("a: [1, 2\nb: }", "not valid YAML"),
    "a list": ("- 1\n- 2\n", "holds no recipe"),
    "empty": ("", "holds no recipe"),
    "mergekit": ("merge_method: ties\nmodels: []\n", "needs a base_model"),
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


# --- several models, slices, modules, tokens


def bare(recipe: Recipe) -> Recipe:
    """``recipe`` without what says where and in which words it was written."""

    def settings(given: Mapping[str, tuple[Curve, ...]]) -> dict[str, tuple[Curve, ...]]:
        return {name: tuple(replace(curve, origin="") for curve in setting) for name, setting in given.items()}

    def part(given: Part) -> Part:
        return replace(given, settings=settings(given.settings))

    return replace(
        recipe,
        curves=tuple(replace(curve, origin="") for curve in recipe.curves),
        slices=tuple(
            replace(
                piece,
                parts=tuple(map(part, piece.parts)),
                base=None if piece.base is None else part(piece.base),
                settings=settings(piece.settings),
            )
            for piece in recipe.slices
        ),
        dialect="",
        stages={name: bare(stage) for name, stage in recipe.stages.items()},
    )


def curve(*values: float, filters: tuple[str, ...] = (), block: Block | None = None) -> Curve:
    return Curve(values, Selection(block=block, filters=filters), origin="")


def part(model: int, layers: tuple[int, int] | None = None, **settings: tuple[Curve, ...]) -> Part:
    return Part(model, settings, layers)


def expect(text: str, recipe: Recipe) -> None:
    """``text`` means ``recipe``, and so does what is written for it."""
    read = parse_recipe(text)
    assert bare(read) == bare(recipe)
    assert bare(parse_recipe(to_yaml(read))) == bare(recipe)


def test_levels_of_a_native_recipe_join_from_the_inside_out() -> None:
    text = """
method: ties
base: B
weight: 1
density: {attention: [0.1, 0.9], all: 0.5}
slices:
  - models: [{model: A, layers: 0:10, weight: [{filter: q_proj, value: 2}]}]
  - base: {model: C, layers: "5:10"}
    models: [{model: C, layers: 5:10}, {model: D, layers: 6:11}]
    weight: 3e-1
    normalize: [{filter: [norm, bias], value: false}, {filter: "*", value: true}]
by: layer
seed: 7
"""
    density = (curve(0.1, 0.9, block=Block.ATTENTION), curve(0.5))
    expect(
        text,
        Recipe(
            ("B", "A", "C", "D"),
            method="ties",
            slices=(
                Slice(
                    (part(1, (0, 10), weight=(curve(2, filters=("q_proj",)),)),),
                    part(0, (0, 10)),
                    {"weight": (curve(1),), "density": density},
                ),
                Slice(
                    (part(2, (5, 10)), part(3, (6, 11))),
                    part(2, (5, 10)),
                    {
                        "weight": (curve(0.3), curve(1)),
                        "density": density,
                        "normalize": (curve(0, filters=("norm", "bias")), curve(1)),
                    },
                ),
            ),
            by=Reading.LAYER,
            seed=7,
        ),
    )


def test_modules_and_a_donor() -> None:
    text = """
method: passthrough
donor: Q
modules:
  text_decoder:
    slices:
      - models: [{model: A, layers: 0:10}]
      - {models: [{model: B, layers: 0:10}], scale: 2}
  vision_tower: {models: [A]}
scale: {mlp: [0, 1]}
"""
    outer = curve(0, 1, block=Block.MLP)
    expect(
        text,
        Recipe(
            ("Q", "A", "B"),
            method="passthrough",
            slices=(
                Slice((part(1, (0, 10)),), None, {"scale": (outer,)}, "text_decoder"),
                Slice((part(2, (0, 10)),), None, {"scale": (curve(2), outer)}, "text_decoder"),
                Slice((part(1),), None, {"scale": (outer,)}, "vision_tower"),
            ),
        ),
    )


def test_a_model_is_one_however_often_it_is_named() -> None:
    recipe = parse_recipe("method: task_arithmetic\nbase: B\nmodels: [A, B, A]\nweight: 1\n")
    assert recipe.models == ("B", "A")
    assert [piece.model for piece in recipe.slices[0].parts] == [1, 0, 1]
    assert recipe.bases == frozenset()


def test_choices_stand_beside_the_method() -> None:
    recipe = parse_recipe("method: slerp\nmodels: [A, B]\nt: [0, 1]\nvariant: mergekit\n")
    assert recipe.choices == {"variant": "mergekit"}
    assert list(recipe.slices[0].settings) == ["t"]


TOKENS = """
tokenizer:
  source: C
  tokens:
    <a>: {source: B, force: true}
    <b>: {source: {model: D, token: <c>}}
    <d>: {source: {model: A, token_id: 7}}
    <e>: {source: zero}
    <f>: {}
  pad_to_multiple_of: 64
chat_template: auto
"""
CHOICE = TokenizerChoice(
    "model",
    2,
    {
        "<a>": TokenSource(1, force=True),
        "<b>": TokenSource(3, token="<c>"),
        "<d>": TokenSource(0, token_id=7),
        "<e>": TokenSource(zero=True),
        "<f>": TokenSource(),
    },
    64,
)


@pytest.mark.parametrize(
    "head", ["method: gradient\nmodels: [A, B]\nvalues: 0.5\n", "method: karcher\nmodels: [A, B]\n"]
)
def test_tokens_of_any_method(head: str) -> None:
    recipe = parse_recipe(head + TOKENS)
    assert recipe.models == ("A", "B", "C", "D")
    assert recipe.tokenizer == CHOICE
    assert recipe.chat_template == "auto"
    assert bare(parse_recipe(to_yaml(recipe))) == bare(recipe)


def test_a_gradient_in_python_chooses_tokens_too() -> None:
    assert gradient("A", "B", values=1, tokenizer="union").tokenizer == TokenizerChoice("union")
    assert gradient("A", "B", values=1, tokenizer="B").tokenizer == TokenizerChoice("model", 1)
    choice = TokenizerChoice("base", pad_to_multiple_of=8)
    with pytest.raises(RecipeError, match="numbers of models are 0"):
        gradient("A", "B", values=1, tokenizer=TokenizerChoice("model", 2))
    recipe = gradient("A", "B", values=1, tokenizer=choice, chat_template="chatml")
    assert (recipe.tokenizer, recipe.chat_template) == (choice, "chatml")
    assert bare(parse_recipe(to_yaml(recipe))) == bare(recipe)


# --- mergekit


def mergekit(models: tuple[str, ...], method: str, *slices: Slice, **more: Any) -> Recipe:
    return Recipe(models, method=method, slices=slices, **({"by": Reading.LAYER} | more))


def test_mergekit_weights() -> None:
    text = """
models:
  - {model: org/orca, parameters: {weight: 1.0}}
  - {model: org/wizard@v2, parameters: {weight: 0.3}}
merge_method: linear
dtype: float16
"""
    parts = (part(0, weight=(curve(1),)), part(1, weight=(curve(0.3),)))
    expect(text, mergekit(("org/orca", "org/wizard@v2"), "linear", Slice(parts), dtype="float16"))


def test_mergekit_gradients_filters_and_a_mask_that_changes_nothing() -> None:
    text = """
models:
  - model: A
    parameters: {density: [1, 0.7, 0.1], weight: 1.0}
  - model: B
    parameters: {density: 0.5, weight: [0, 0.3, 0.7, 1]}
  - model: C
    parameters:
      density: 0.33
      weight:
        - {filter: mlp, value: 0.5}
        - value: 0
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true}
dtype: bfloat16
out_dtype: torch.float16
"""
    parts = (
        part(1, density=(curve(1, 0.7, 0.1),), weight=(curve(1),)),
        part(2, density=(curve(0.5),), weight=(curve(0, 0.3, 0.7, 1),)),
        part(3, density=(curve(0.33),), weight=(curve(0.5, filters=("mlp",)), curve(0))),
    )
    merged = Slice(parts, part(0), {"normalize": (curve(1),)})
    expect(text, mergekit(("base", "A", "B", "C"), "ties", merged, dtype="float16"))


def test_mergekit_slerp_goes_from_the_base_to_the_other_whatever_their_order() -> None:
    text = """
slices:
  - sources:
      - {model: other, layer_range: [0, 40]}
      - {model: base, layer_range: [0, 40]}
merge_method: slerp
base_model: base
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
"""
    t = (curve(0, 0.5, 0.3, 0.7, 1, filters=("self_attn",)), curve(1, 0.5, 0.7, 0.3, 0, filters=("mlp",)), curve(0.5))
    merged = Slice((part(0, (0, 40)), part(1, (0, 40))), None, {"t": t})
    expect(text, mergekit(("base", "other"), "slerp", merged, choices={"variant": "mergekit"}))
    whole = "merge_method: slerp\nbase_model: base\nmodels: [{model: other}]\nparameters: {t: 0.5}\n"
    assert parse_recipe(whole).slices[0].parts == (part(0), part(1))


def test_mergekit_slices_of_several_models() -> None:
    text = """
slices:
  - sources:
      - {model: A, layer_range: [0, 24], parameters: {scale: [{filter: down_proj, value: 0.5}, {value: 1}]}}
  - sources: [{model: B, layer_range: [20, 40]}]
    parameters: {scale: 2}
merge_method: passthrough
parameters:
dtype: float16
"""
    scales = (curve(0.5, filters=("down_proj",)), curve(1))
    slices = (
        Slice((part(0, (0, 24)),), None, {"scale": scales}),
        Slice((part(1, (20, 40)),), None, {"scale": (curve(2),)}),
    )
    expect(text, mergekit(("A", "B"), "passthrough", *slices, dtype="float16"))


def test_mergekit_levels_join_from_the_inside_out() -> None:
    text = """
merge_method: task_arithmetic
base_model: base
modules:
  text_decoder:
    slices:
      - sources:
          - {model: A, layer_range: [0, 4], parameters: {weight: [{filter: q, value: 1}]}}
          - {model: base, layer_range: [0, 4], parameters: {weight: 9}}
        parameters: {weight: [{filter: k, value: 2}]}
    parameters: {weight: {filter: v, value: 3}, normalize: true}
  vision_tower:
    models: [{model: base}, {model: A}]
parameters: {weight: 4, lambda: 1e-1}
"""
    inner = {
        "weight": (curve(2, filters=("k",)), curve(3, filters=("v",)), curve(4)),
        "normalize": (curve(1),),
        "lambda": (curve(0.1),),
    }
    sliced = Slice((part(1, (0, 4), weight=(curve(1, filters=("q",)),)),), part(0, (0, 4)), inner, "text_decoder")
    whole = Slice((part(1),), part(0), {"weight": (curve(4),), "lambda": (curve(0.1),)}, "vision_tower")
    expect(text, mergekit(("base", "A"), "task_arithmetic", sliced, whole))


@pytest.mark.parametrize(
    ("base", "reference"),
    [
        ("org/base@main+org/lora", "org/base@main+org/lora"),
        ("{model: {path: org/base, revision: main}, lora: {path: org/lora}}", "org/base@main+org/lora"),
        ("{model: org/base, lora: null}", "org/base"),
    ],
)
def test_mergekit_models_in_pieces(base: str, reference: str) -> None:
    text = f"merge_method: model_stock\nbase_model: {base}\nmodels: [{{model: A}}, {{model: B}}]\n"
    expect(text, mergekit((reference, "A", "B"), "model_stock", Slice((part(1), part(2)), part(0))))


@pytest.mark.parametrize("method", ["linear", "karcher", "passthrough"])
def test_mergekit_base_that_only_lends_its_config(method: str) -> None:
    weight = "parameters: {weight: 1}\n" if method == "linear" else ""
    recipe = parse_recipe(f"merge_method: {method}\nbase_model: base\nmodels: [{{model: A}}]\n{weight}")
    assert recipe.models == ("base", "A")
    assert recipe.slices[0].base is None
    assert recipe.slices[0].parts == (part(1),)
    assert bare(parse_recipe(to_yaml(recipe))) == bare(recipe)


def test_mergekit_optional_base() -> None:
    text = "merge_method: nuslerp\nmodels: [{model: A}, {model: B}]\nparameters: {weight: 1}\n"
    assert parse_recipe(text).slices[0].base is None
    assert parse_recipe(text + "base_model: C\n").slices[0].base == part(0)


def test_mergekit_base_among_the_models() -> None:
    text = "merge_method: arcee_fusion\nbase_model: A\nmodels: [{model: A}, {model: B}]\ndtype: bfloat16\n"
    expect(text, mergekit(("A", "B"), "arcee_fusion", Slice((part(1),), part(0)), dtype="bfloat16"))


def test_mergekit_documents_that_need_each_other() -> None:
    text = """
name: first
merge_method: linear
models: [{model: A}, {model: B}]
parameters: {weight: 0.5}
---
name: second
merge_method: slerp
base_model: first
models: [{model: C}]
parameters: {t: 0.5}
---
merge_method: dare_ties
base_model: A
models:
  - {model: second, parameters: {density: 0.6, weight: 0.5}}
  - {model: D, parameters: {density: 0.8, weight: 0.5}}
"""
    half = {"weight": (curve(0.5),)}
    first = mergekit(("A", "B"), "linear", Slice((part(0), part(1)), None, half))
    t = {"t": (curve(0.5),)}
    choices = {"variant": "mergekit"}
    second = mergekit(("first", "C"), "slerp", Slice((part(0), part(1)), None, t), choices=choices)
    parts = (part(1, density=(curve(0.6),), **half), part(2, density=(curve(0.8),), **half))
    stages = {"first": first, "second": second}
    expect(text, mergekit(("A", "second", "D"), "dare_ties", Slice(parts, part(0)), choices=choices, stages=stages))


@pytest.mark.parametrize("method", HARMLESS)
def test_mergekit_parameters_that_change_nothing(method: str) -> None:
    for name in HARMLESS[method]:
        text = head_of(method).replace("parameters:", f"parameters:\n  {name}: 0")
        assert bare(parse_recipe(text)) == bare(parse_recipe(head_of(method)))


def test_mergekit_lends_the_config_of_the_first_model_where_none_is_the_base() -> None:
    assert parse_recipe(head_of("karcher")).models == ("A", "B")
    text = "merge_method: passthrough\nslices: [{sources: [{model: Z, layer_range: [0, 2]}]}]\n"
    assert parse_recipe(text + "base_model: Y\n").models == ("Y", "Z")
    assert parse_recipe(text).models == ("Z",)


def test_mergekit_tokens() -> None:
    text = """
merge_method: karcher
models: [{model: A}, {model: B}]
tokenizer:
  source: C
  tokens:
    <a>: {source: B, force: true}
    <b>: {source: {kind: model_token, model: D, token: <c>}}
    <d>: {source: {kind: model_token, model: {model: {path: A}}, token_id: 7}}
    <e>: {source: {kind: zero}}
    <f>: {source: null}
  pad_to_multiple_of: 64
"""
    choice = replace(CHOICE)
    assert parse_recipe(text).tokenizer == choice
    head = "merge_method: karcher\nmodels: [{model: A}, {model: B}]\n"
    assert parse_recipe(head + "tokenizer_source: union\n").tokenizer == TokenizerChoice("union")
    assert parse_recipe(head + "tokenizer_source: B\n").tokenizer == TokenizerChoice("model", 1)
    assert parse_recipe(head + "tokenizer_source:\n").tokenizer is None


def head_of(method: str) -> str:
    """A mergekit recipe of ``method`` with what it must have, and nothing else."""
    models = ["A", "B"] if METHODS[method].models != (1, 1) else ["A"]
    base = "" if METHODS[method].base == "none" and method != "slerp" else "base_model: base\n"
    models = models[: 1 if method == "slerp" else 2]
    needed = {name: 1 for name, scope in METHOD_PARAMETERS[method].items() if scope.default is None}
    named = yaml.safe_dump({"models": [{"model": model} for model in models], "parameters": needed})
    return f"merge_method: {method}\n{base}{named}"


@pytest.mark.parametrize("method", [name for name in METHOD_PARAMETERS if name in METHODS])
def test_mergekit_defaults_hold_where_ours_are_others(method: str) -> None:
    """What a file does not say is mergekit's default: either ours too, or written out."""
    recipe = parse_recipe(head_of(method))
    settings = recipe.slices[0].settings
    for name, scope in METHOD_PARAMETERS[method].items():
        parameter = METHODS[method].parameter(name)
        assert parameter is not None, f"{method} has no {name}"
        if scope.default is not None:
            given = [curve.values for curve in settings.get(name, ())]
            assert given == ([] if scope.default == parameter.default else [(float(scope.default),)])
    variant = METHODS[method].parameter("variant")
    reproduced = variant is not None and method not in ("model_stock", "sce")
    assert recipe.choices == ({"variant": "mergekit"} if reproduced else {})


def test_mergekit_to_the_bug() -> None:
    recipe = parse_recipe("variant: mergekit-0.1.5\n" + head_of("model_stock"))
    assert recipe.by is Reading.MERGEKIT
    assert recipe.choices == {"variant": "mergekit"}
    assert parse_recipe("variant: documented\n" + head_of("model_stock")).by is Reading.LAYER


# --- stages

STAGES = """
name: first
merge_method: linear
models: [{model: /home/me/A}, {model: B}]
parameters: {weight: 0.5}
---
name: second
method: gradient
models: [first, C]
values: [0, 1]
---
name: third
model_path1: first
model_path2: second
operations: [{operation: all, gradient_values: [0.5]}]
---
method: karcher
models: [third, /home/me/A]
"""


def test_documents_take_the_results_of_others() -> None:
    recipe = parse_recipe(STAGES)
    assert recipe.models == ("third", "/home/me/A")
    assert list(recipe.stages) == ["first", "second", "third"]
    assert recipe.stages["second"] == replace(gradient("first", "C", values=[0, 1]))
    assert recipe.stages["third"].dialect == "blockmerge"
    assert all(not stage.stages for stage in recipe.stages.values())
    assert bare(parse_recipe(to_yaml(recipe))) == bare(recipe)


def test_stages_are_published_under_published_names() -> None:
    recipe = parse_recipe(STAGES)
    text = to_yaml(recipe, {"/home/me/A": "org/A"})
    assert "/home/me" not in text
    assert parse_recipe(text).stages["first"].models == ("org/A", "B")
    clash = parse_recipe(to_yaml(recipe, {"/home/me/A": "first"}))
    assert clash.models == ("third", "first")
    assert list(clash.stages) == ["first-", "second", "third"]
    entries = to_dict(recipe, {"/home/me/A": "org/A"})
    assert entries == {"stages": list(yaml.safe_load_all(text))[:3], "method": "karcher", "models": ["third", "org/A"]}


def test_the_result_is_the_document_without_a_name_or_the_last() -> None:
    named = "name: x\nmethod: karcher\nmodels: [A]\n"
    result = "method: karcher\nmodels: [x]\n"
    for text in (f"{named}---\n{result}", f"{result}---\n{named}", f"---\n{named}---\nname: y\n{result}---\n"):
        assert parse_recipe(text).models == ("x",)
    assert parse_recipe(named).stages == {}


# --- mistakes

KARCHER = "method: karcher\nmodels: [A, B]\n"
TIES = "merge_method: ties\nbase_model: base\nparameters: {weight: 1}\n"
MISTAKES = {
    # native
    "method: tise\nmodels: [A]\nvalues: 1\n": [
        "r:1: method: 'tise' is not known; did you mean ties?",
    ],
    "method: tise\nbase: B\nmodels: [{model: A, weight: 1}]\nt: 1\n": [
        "r:1: method: 'tise' is not known; did you mean ties?",
    ],
    "method: no such\n": ["r:1: method: 'no such' is not known; `blockmerge methods` lists them"],
    "models: [A, B]\n": ["r:1: method is missing"],
    "method: karcher\nmodles: [A]\n": [
        "r:2: modles: is not known; did you mean modules?",
        "r:1: models is missing (or slices or modules)",
    ],
    "method: karcher\nmodels: []\n": ["r:2: models: karcher takes 1 or more models, not 0"],
    "method: slerp\nbase: B\nmodels: [A]\nt: 1\n": [
        "r:2: base: slerp has no base",
        "r:3: models: slerp takes 2 models, not 1",
    ],
    "method: ties\nmodels: [A]\nweight: 1\n": ["r:1: base is missing"],
    "method: karcher\nslices: []\n": ["r:2: slices: is empty"],
    "method: karcher\nmodules: {}\n": ["r:2: modules: is empty"],
    KARCHER + "slices: []\n": ["r:1: models and slices exclude each other"],
    "method: linear\nmodels: [{model: A, wieght: 1}]\n": ["r:2: models[0].wieght: is not known; did you mean weight?"],
    "method: linear\nmodels: [{weight: 1}]\n": ["r:2: models[0]: model is missing"],
    "method: linear\nmodels: [A]\nweight: [1, x]\n": [
        "r:3: weight: 'x' is no finite number; a gradient looks like 1.0,0.5,0.0"
    ],
    "method: ties\nbase: B\nmodels: [{model: A, density: [0.5, 1.5]}]\nweight: 1\n": [
        "r:3: models[0].density: is 1.5, but must be from 0 to 1"
    ],
    "method: linear\nmodels: [A]\nweight: {}\n": ["r:3: weight: holds no value"],
    "method: linear\nmodels: [A]\nweight: [{filter: x}]\n": ["r:3: weight[0]: value is missing"],
    "method: linear\nmodels: [A]\nweight: [{value: 1}, 2]\n": ["r:3: weight[1]: needs keys and values here"],
    "method: linear\nmodels: [A]\nweight: [{block: x, value: 1}]\n": [
        "r:3: weight[0].block: 'x' is not known; choose one of embeddings, attention, mlp, norms, head"
    ],
    "method: linear\nmodels: [A]\nweight: 1\nnormalize: maybe\n": ["r:4: normalize: needs true or false, not 'maybe'"],
    "method: linear\nmodels: [A]\nweight: 1\nnormalize: []\n": ["r:4: normalize: holds no value"],
    "method: slerp\nmodels: [A, B]\nt: 1\nvariant: mergekti\n": [
        "r:4: variant: 'mergekti' is not known; did you mean mergekit?"
    ],
    KARCHER + "by: layers\nseed: 1.5\ndtype: int8\n": [
        "r:4: seed: needs a whole number",
        "r:3: by: 'layers' is not known; did you mean layer?",
        "r:5: dtype: 'int8' cannot be written; choose bfloat16, float16 or float32",
    ],
    "method: passthrough\nslices: [{models: [{model: A, layers: 4:4}]}]\n": [
        "r:2: slices[0].models[0].layers: '4:4' is no range of layers; 0:20 means layers 0 to 19"
    ],
    "method: karcher\nslices: [{models: [{model: A, layers: 0:4}, {model: B, layers: 0:5}]}]\n": [
        "r:2: slices[0].models: takes 4 and 5 layers of its models; a slice needs as many of each"
    ],
    "method: task_arithmetic\nbase: C\nweight: 1\n"
    "slices: [{models: [{model: A, layers: 0:4}, {model: B, layers: 1:5}]}]\n": [
        "r:4: slices[0]: needs the layers of the base too: base: {model: ..., layers: ...}"
    ],
    KARCHER + "tokenizer: {sorce: union}\n": ["r:3: tokenizer.sorce: is not known; did you mean source?"],
    KARCHER + "tokenizer: {tokens: [a]}\n": ["r:3: tokenizer.tokens: needs tokens and where their rows come from"],
    KARCHER + "tokenizer: {tokens: {a: {force: true}}}\n": ["r:3: tokenizer.tokens.a: force needs a source"],
    KARCHER + "tokenizer: {tokens: {a: {source: {model: A, token: b, token_id: -1}}}}\n": [
        "r:3: tokenizer.tokens.a.source: token and token_id are two ways to say the same; give one",
        "r:3: tokenizer.tokens.a.source.token_id: is the number of a row, 0 or more",
    ],
    KARCHER + "tokenizer: {pad_to_multiple_of: 0}\n": [
        "r:3: tokenizer.pad_to_multiple_of: needs a number of rows, such as 64"
    ],
    f"name: [x]\n{KARCHER}---\n{KARCHER}": [
        "r:1: name: needs a single value here",
    ],
    # stages
    KARCHER + "---\n" + KARCHER: ["r:1: needs a name, so that another document can take its result as a model"],
    f"name: x\n{KARCHER}---\nname: x\n{KARCHER}": ["r:5: name: 'x' is the name of another document too"],
    f"name: ../x\n{KARCHER}---\n{KARCHER}": [
        "r:1: name: '../x' is no name; use letters, digits, dots, dashes and underscores"
    ],
    "name: one\nmethod: karcher\nmodels: [two]\n---\nname: two\nmethod: karcher\nmodels: [one]\n": [
        "r:1: name: takes its own result as a model: two -> one -> two"
    ],
    f"name: frist\n{KARCHER}---\nmethod: karcher\nmodels: [first]\n": [
        "r:1: name: no other document takes 'frist' as a model; does 'first' mean it?"
    ],
    f"name: other\n{KARCHER}---\n{KARCHER}": [
        "r:1: name: no other document takes 'other' as a model; put it into a file of its own"
    ],
    f"name: x\n{KARCHER}by: layers\n---\nmethod: karcher\nmodels: [x]\nseed: x\n": [
        "r:4: by: 'layers' is not known; did you mean layer?",
        "r:8: seed: needs a whole number",
    ],
    KARCHER + "---\n- 1\n": ["r:4: holds no recipe; a recipe is a list of keys and values"],
    # mergekit
    "merge_method: tiesh\nmodels: [{model: A}]\n": ["r:1: merge_method: 'tiesh' is not known; did you mean ties?"],
    "merge_method:\nmodels: [{model: A}]\n": ["r:1: merge_method: is empty"],
    "base_model: A\nmodels: [{model: A}]\n": ["r:1: merge_method is missing"],
    TIES + "models: [{model: A, paramters: {}}]\n": [
        "r:4: models[0].paramters: is not known; did you mean parameters?"
    ],
    TIES + "models: [{model: A, parameters: {densty: 1}}]\n": [
        "r:4: models[0].parameters.densty: ties has no such parameter; did you mean density?"
    ],
    TIES + "models: [{model: A, parameters: {gamma: 1}}]\n": [
        "r:4: models[0].parameters.gamma: ties has no such parameter; "
        "known are weight, lambda, normalize, density, rescale"
    ],
    TIES + "models: [{model: A, parameters: {normalize: true}}]\n": [
        "r:4: models[0].parameters.normalize: "
        "normalize holds for all models; give it under the parameters of the recipe or the slice"
    ],
    TIES + "models: [A, A]\n": [
        "r:4: models[0]: needs keys and values, like {model: org/name}",
        "r:4: models[1]: needs keys and values, like {model: org/name}",
    ],
    "merge_method: tiesh\nmodels: [{mdoel: A}]\nslices: [{source: x}]\ndtype: half\n": [
        "r:1: merge_method: 'tiesh' is not known; did you mean ties?",
        "r:2: models[0].mdoel: is not known; did you mean model?",
        "r:2: models[0]: model is missing",
        "r:3: slices[0].source: is not known; did you mean sources?",
        "r:3: slices[0]: sources is missing",
        "r:4: dtype: 'half' cannot be written; choose bfloat16, float16 or float32",
    ],
    "base_model: A\ngate_mode: hidden\nexperts: [{source_model: A}]\n": [
        "r:1: is a file of mergekit-moe, which builds a mixture of experts; "
        "Blockmerge merges models into one of their own kind"
    ],
    "method: linear\nmodels: [{model: A, weight: 1}, B]\n": ["r:1: linear needs weight, for each model or for all"],
    TIES + "models: [{model: A}, {model: A}]\n": ["r:4: models[1]: A is given twice"],
    TIES + "models: [{model: base}]\n": ["r:4: models: ties takes 1 or more models beside the base, not 0"],
    TIES + "models: [{model: A}]\nmodules: {}\n": ["r:1: models and modules exclude each other"],
    TIES: ["r:1: models is missing (or slices or modules)"],
    TIES + "slices: [{sources: [{model: A, layer_range: [0, 4]}]}]\n": [
        "r:4: slices[0].sources: base is the base and must be one of the sources, with its layers"
    ],
    TIES + "slices: [{sources: [{model: A, layer_range: [0, 4]}, {model: base, layer_range: [0, 5]}]}]\n": [
        "r:4: slices[0].sources: takes 4 and 5 layers of its models; a slice needs as many of each"
    ],
    "merge_method: passthrough\nslices:\n- sources: [{model: A, layer_range: [4, 4]}]\n"
    "- sources: [{model: A, layer_range: [-1, 4]}]\n- {sources: [{model: A}], residual_weight: 1}\n": [
        "r:3: slices[0].sources[0].layer_range: [4, 4] is no range of layers; [0, 20] means layers 0 to 19",
        "r:4: slices[1].sources[0].layer_range: [-1, 4] is no range of layers; [0, 20] means layers 0 to 19",
        "r:5: slices[2].residual_weight: has no effect in mergekit 0.1.5; take it out",
        "r:5: slices[2].sources[0]: layer_range is missing",
    ],
    "merge_method: slerp\nmodels: [{model: A}, {model: B}]\n": [
        "r:2: models: slerp needs a base_model",
        "r:1: slerp needs t",
    ],
    "merge_method: linear\nmodels: [{model: A, parameters: {weight: 1}}, {model: B}, {model: C}]\n": [
        "r:1: linear needs weight, for each model or for all"
    ],
    TIES + "models: [{model: A}]\ndtype: float64\nout_dtype: bf16\n": [
        "r:6: out_dtype: 'bf16' cannot be written; choose bfloat16, float16 or float32",
        "r:5: dtype: 'float64' cannot be written; choose bfloat16, float16 or float32",
    ],
    TIES + "models: [{model: A}]\ntokenizer_source: union\ntokenizer: {source: union}\n": [
        "r:5: tokenizer_source: and tokenizer exclude each other; put it into tokenizer: {source: ...}"
    ],
    TIES + "models: [{model: A}]\ntokenizer_source: uniom\n": [
        "r:5: tokenizer_source: there is no model 'uniom'; did you mean union?"
    ],
    TIES + "models: [{model: A}]\ntokenizer: {source: Bases}\n": [
        "r:5: tokenizer.source: there is no model 'Bases'; did you mean base?"
    ],
    TIES + "models: [{model: A}]\ntokenizer: {tokens: {a: {source: {kind: zerro}}}}\n": [
        "r:5: tokenizer.tokens.a.source.kind: 'zerro' is not known; did you mean zero?"
    ],
    TIES + "models: [{model: A}]\ninput_model_parameters: {A: {weight: 1}}\n": [
        "r:5: input_model_parameters: is gone from mergekit; "
        "give each model its parameters: models: [{model: ..., parameters: {...}}]"
    ],
    TIES + "models: [{model: {model: A, override_architecture: X}}]\n": [
        "r:4: models[0].model.override_architecture: cannot be overridden: layers are found by the names of tensors"
    ],
    TIES + "models: [{model: A}]\nvariant: mergekit\n": [
        "r:5: variant: 'mergekit' is not known; did you mean mergekit-0.1.5?"
    ],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_told_by_line_and_path(text: str) -> None:
    with pytest.raises(BlockmergeError) as caught:
        parse_recipe(text, "r")
    assert str(caught.value).splitlines() == MISTAKES[text]
    assert caught.value.exit_code == 2


# --- whatever is written can be read again

MODELS = st.sampled_from(["A", "B", "org/C", "org/D@main", "E+lora"])


def numbers(parameter: Parameter) -> st.SearchStrategy[Any]:
    low, high = max(parameter.low, -1), min(parameter.high, 2)
    if high < low:
        low, high = parameter.low, parameter.high
    number = st.floats(low, max(low, high)).map(lambda value: round(value, 3) + 0.0)
    return number | st.lists(number, min_size=1, max_size=3)


def setting(parameter: Parameter, *, blocks: bool) -> st.SearchStrategy[Any]:
    values = numbers(parameter) if parameter.kind == "number" else st.booleans()
    filters = st.sampled_from(["mlp", "q_proj", "*"])
    entry = st.fixed_dictionaries({"value": values}, optional={"filter": filters})
    found = values | entry | st.lists(entry, min_size=1, max_size=3)
    if blocks:
        names = st.sampled_from(["all", "attention", "mlp", "norms", "embeddings", "head"])
        found |= st.dictionaries(names, values, min_size=1, max_size=3)
    return found


def settings_of(parameters: list[Parameter], *, blocks: bool) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional={p.name: setting(p, blocks=blocks) for p in parameters})


TOKENIZERS = st.sampled_from(["union", "base", "A", "org/Z"]) | st.fixed_dictionaries(
    {"source": st.sampled_from(["union", "base", "A", "org/Z"])},
    optional={
        "pad_to_multiple_of": st.integers(1, 128),
        "tokens": st.dictionaries(
            st.sampled_from(["<a>", "b", "1"]),
            st.just({}) | MODELS.map(lambda m: {"source": m, "force": True}) | st.just({"source": "zero"}),
            min_size=1,
        ),
    },
)


@st.composite
def native_recipes(draw: st.DrawFn) -> dict[str, Any]:
    method = draw(st.sampled_from(list(METHODS.values())))
    low, high = method.models
    every = [p for p in method.parameters if p.kind != "choice"]
    own = [p for p in every if p.per_model]

    def models(layers: str | None) -> list[Any]:
        count = draw(st.integers(low, high or low + 2))
        return [
            {"model": draw(MODELS), **draw(settings_of(own, blocks=True)), **({"layers": layers} if layers else {})}
            for _ in range(count)
        ]

    def inner(layers: str | None) -> dict[str, Any]:
        base = {"base": draw(MODELS)} if method.base != "none" else {}
        return {"models": models(layers), **base, **draw(settings_of(every, blocks=True))}

    def slices() -> dict[str, Any]:
        pieces = [inner(layers) for layers in draw(st.lists(st.sampled_from(["0:4", "2:5"]), min_size=1, max_size=3))]
        return {"slices": pieces, **draw(settings_of(every, blocks=True))}

    body = draw(
        st.sampled_from([lambda: inner(None), slices, lambda: {"modules": {"x": slices(), "y": inner(None)}}])
    )()
    common = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "by": st.sampled_from(["tensor", "layer", "mergekit-0.1.5"]),
                "dtype": st.just("float16"),
                "donor": MODELS,
                "seed": st.integers(0, 9),
                "on_missing": st.just("keep"),
                "max_shard_size": st.just("5MB"),
                "tokenizer": TOKENIZERS,
                "chat_template": st.just("chatml"),
            },
        )
    )
    choices = {p.name: draw(st.sampled_from(p.choices)) for p in method.parameters if p.kind == "choice"}
    needed = {p.name: 1 for p in every if p.default is None}
    return {"method": method.name, **needed, **body, **common, **choices}


@st.composite
def mergekit_recipes(draw: st.DrawFn) -> dict[str, Any]:
    method = METHODS[draw(st.sampled_from([name for name in METHOD_PARAMETERS if name in METHODS]))]
    scopes = METHOD_PARAMETERS[method.name]
    every = [p for p in method.parameters if p.name in scopes]
    own = [p for p in every if not scopes[p.name].shared]
    needed = {p.name: 1 for p in every if p.default is None}
    slerp = method.name == "slerp"
    low, high = (1, 1) if slerp else method.models
    based = method.base == "required" or slerp or draw(st.booleans())
    mixed = based and (method.base != "none" or slerp)  # whether the base must be among the sources

    def models(layers: list[int] | None) -> list[Any]:
        names = draw(st.lists(MODELS, min_size=low, max_size=high or low + 2, unique=True))
        names = draw(st.permutations([*names, "base"])) if mixed else names
        return [
            {"model": name, "parameters": draw(settings_of(own, blocks=False)) or None}
            | ({"layer_range": layers} if layers else {})
            for name in names
        ]

    def slices() -> dict[str, Any]:
        ranges = draw(st.lists(st.sampled_from([[0, 4], [2, 5]]), min_size=1, max_size=3))
        pieces = [{"sources": models(r), "parameters": draw(settings_of(every, blocks=False))} for r in ranges]
        return {"slices": pieces}

    body = draw(
        st.sampled_from(
            [
                lambda: {"models": models(None)},
                slices,
                lambda: {"modules": {"x": slices(), "y": {"models": models(None)}}},
            ]
        )
    )()
    common = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.just("torch.float16"),
                "tokenizer_source": st.sampled_from(["union", "base", "A", "org/Z"]),
                "variant": st.just("mergekit-0.1.5"),
            },
        )
    )
    parameters = {**draw(settings_of(every, blocks=False)), **needed}
    return {
        "merge_method": method.name, **body, **common, "parameters": parameters,
        **({"base_model": "base"} if based else {}),
    }  # fmt: skip


@given(native_recipes() | mergekit_recipes())
def test_any_recipe_survives_being_written_and_read(entries: dict[str, Any]) -> None:
    recipe = parse_recipe(yaml.safe_dump(entries, sort_keys=False))
    assert bare(parse_recipe(to_yaml(recipe))) == replace(bare(recipe), output=None)
    names = {model: f"published/{k}" for k, model in enumerate(recipe.models)}
    published = parse_recipe(to_yaml(recipe, names))
    assert published.models == tuple(names.values())
    assert replace(bare(published), models=recipe.models) == bare(recipe)


JUNK = st.sampled_from([None, True, -1, 1e300, "", "x", [], {}, [[]], [{}], {"x": None}, {"value": []}, {"model": 1}])


def spoiled(draw: st.DrawFn, part: Any) -> Any:
    """``part`` with something in it replaced by junk."""
    if isinstance(part, dict) and part and draw(st.booleans()):
        key = draw(st.sampled_from(sorted(part)))
        return {**part, key: spoiled(draw, part[key])}
    if isinstance(part, list) and part and draw(st.booleans()):
        k = draw(st.integers(0, len(part) - 1))
        return [*part[:k], spoiled(draw, part[k]), *part[k + 1 :]]
    return draw(JUNK)


@given(st.data(), native_recipes() | mergekit_recipes())
def test_spoiled_recipes_are_read_or_refused_in_our_words(data: st.DataObject, entries: dict[str, Any]) -> None:
    for _ in range(3):
        key = data.draw(st.sampled_from(sorted(entries)))
        entries = {**entries, key: spoiled(data.draw, entries[key])}
    try:
        recipe = parse_recipe(yaml.safe_dump(entries))
    except BlockmergeError as error:
        assert error.exit_code == 2
    else:
        assert bare(parse_recipe(to_yaml(recipe))) == bare(recipe)


@pytest.mark.parametrize("key", ["models", "tokenizer", "weight", "modules"])
def test_bombs_in_many_documents_stay_bounded(key: str) -> None:
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    bomb += "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 9))
    document = f"method: linear\n{bomb}{key}: *a8\n"
    start = perf_counter()
    with pytest.raises(BlockmergeError):
        parse_recipe("---\n".join([document] * 90))
    assert perf_counter() - start < 20
    with pytest.raises(RecipeError, match="more than 100 documents"):
        parse_recipe("---\n".join([KARCHER] * 101))


# --- for editors


def test_schemas_name_every_method_and_parameter() -> None:
    native, foreign = schema("native"), schema("mergekit")
    for method in METHODS.values():
        words = native["$defs"][f"method.{method.name}"]["properties"]
        for parameter in method.parameters:
            name = words[parameter.name]["$ref"].rpartition("/")[2]
            assert native["$defs"][name]["description"] == parameter.help
    assert {entry["const"] for entry in native["properties"]["method"]["oneOf"]} == {"gradient", *METHODS}
    assert {
        entry["const"] for entry in foreign["properties"]["merge_method"]["oneOf"]
    } == METHOD_PARAMETERS.keys() & METHODS
    for made in (native, foreign, schema("blockmerge"), schema()):
        assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert _references(made) <= {f"#/$defs/{name}" for name in made["$defs"]}


def _references(part: Any) -> set[str]:
    if isinstance(part, list):
        return {found for item in part for found in _references(item)}
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own | {found for item in part.values() for found in _references(item)}
    return set()


@settings(deadline=None)
@given(native_recipes() | mergekit_recipes())
def test_schemas_take_what_is_read(entries: dict[str, Any]) -> None:
    import jsonschema

    jsonschema.Draft202012Validator(SCHEMA).validate(entries)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate({**entries, "wieght": 1})


SCHEMA = schema()


def test_schemas_take_the_examples_and_refuse_the_mistakes() -> None:
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    check = jsonschema.Draft202012Validator(SCHEMA)
    for text in (MYTHALION, STAGES, KARCHER + TOKENS):
        for document in yaml.safe_load_all(text):
            check.validate(document)
    for name in DIALECTS:
        jsonschema.Draft202012Validator.check_schema(schema(name))


BLIND = (
    "base is missing", "no range of layers", "as many of each", "layers of the base", "force needs", "given twice",
    "must be one of the sources", "needs a base_model", "for each model", "needs t", "exclude each other",
    "beside the base", "document", "its own result", "needs a name", "there is no model",
)  # fmt: skip
"""Mistakes that the schema of one document cannot see."""


@pytest.mark.parametrize("text", [text for text, lines in MISTAKES.items() if not any(w in lines[0] for w in BLIND)])
def test_schemas_see_mistakes(text: str) -> None:
    import jsonschema

    check = jsonschema.Draft202012Validator(SCHEMA)
    assert [error for document in yaml.safe_load_all(text) for error in check.iter_errors(document)]


# --- the examples of mergekit's repository


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llamas")
    mergekit_files.prepare(folder)
    return folder


@pytest.mark.parametrize("name", mergekit_files.EXAMPLES)
def test_the_examples_of_mergekit_plan_and_merge(tmp_path: Path, llamas: Path, name: str) -> None:
    documents = mergekit_files.EXAMPLES[name]
    path = written(tmp_path, mergekit_files.written(documents, llamas))
    plan = blockmerge.plan(path)
    blockmerge.merge(plan, tmp_path / "out")
    found = models.read(tmp_path / "out")
    layers = 44 if name == "44 layers" else 40
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    ids = mergekit_files.token_ids(tmp_path / "out")
    assert config["num_hidden_layers"] == layers
    assert found.keys() == models.tensors(0, layers=layers).keys()
    assert {str(dtype) for dtype, _ in found.values()} == {documents[-1].get("dtype", "float32")}
    assert found["model.embed_tokens.weight"][1].shape[0] == config["vocab_size"] > max(ids.values())
    assert name != "padded" or config["vocab_size"] == 32
    inputs = [models.read(llamas / model) for model in mergekit_files.TOKENS]
    for tensor, (dtype, value) in found.items():
        exact = reference.decode(value, dtype)
        assert np.isfinite(exact).all()
        assert np.abs(exact).max() > 0, tensor
        if name not in ("44 layers", "gradient-slerp", "ties"):  # at their ends these take models as they are
            assert not any(tensor in one and np.array_equal(exact, one[tensor][1]) for one in inputs), tensor
