"""The oracle against answers worked out by hand, so that what everything else is held to is itself held to something.

Most tests blend a model of zeros with a model of ones: each output tensor then is its own ratio, in float16.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import checkpoints
import oracle

HEAD, EMBEDDING = checkpoints.HEAD, checkpoints.EMBEDDING
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def pair(tmp_path: Path):
    """Two Llamas filled with one number each, zeros and ones unless said."""

    def make(values: tuple[float, float] = (0.0, 1.0), dtype: str = "bfloat16", **options) -> tuple[Path, Path]:
        folders = tmp_path / "model1", tmp_path / "model2"
        for folder, value in zip(folders, values, strict=True):
            checkpoints.make_llama(folder, seed=1, dtype=dtype, **({"layers": 1} | options))
            checkpoints.fill(folder, value)
        return folders

    return make


@pytest.fixture
def merged(tmp_path: Path):
    """Merge by the command-line edition and give the value of every (constant) output tensor."""

    def merge(models: tuple[Path, Path], gradient_values, **options) -> dict[str, float]:
        return constants(oracle.original_gradient(*models, tmp_path / "out", gradient_values, **options))

    return merge


@pytest.fixture
def operated(tmp_path: Path):
    """Merge by the YAML edition and give the value of every (constant) output tensor."""

    def merge(models: tuple[Path, Path], *operations: dict) -> dict[str, float]:
        paths = {"model_path1": models[0], "model_path2": models[1], "output_model_path": tmp_path / "out"}
        return constants(oracle.original_operations({**paths, "operations": list(operations)}))

    return merge


def constants(tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    assert all(tensor.dtype == torch.float16 and tensor.unique().numel() == 1 for tensor in tensors.values())
    return {name: tensor.reshape(-1)[0].item() for name, tensor in tensors.items()}


def half(value: float) -> float:
    return float(np.float16(value))


# ---- ratios and positions --------------------------------------------------------------------------------------------


def test_eight_layers_walk_through_75_positions_in_module_order(pair, merged):
    ratios = merged(pair(layers=8), [0, 1])
    layer = "model.layers.{}.".format
    expected = {
        EMBEDDING: 0.0,
        layer(0) + "self_attn.q_proj.weight": half(1 / 74),  # .0135
        layer(0) + "self_attn.k_proj.weight": half(2 / 74),
        layer(0) + "self_attn.v_proj.weight": half(3 / 74),
        layer(0) + "self_attn.o_proj.weight": half(4 / 74),
        layer(0) + "mlp.gate_proj.weight": half(5 / 74),
        layer(0) + "mlp.up_proj.weight": half(6 / 74),
        layer(0) + "mlp.down_proj.weight": half(7 / 74),
        layer(0) + "input_layernorm.weight": half(8 / 74),
        layer(0) + "post_attention_layernorm.weight": half(9 / 74),
        layer(1) + "self_attn.q_proj.weight": half(10 / 74),
        layer(7) + "post_attention_layernorm.weight": half(72 / 74),
        "model.norm.weight": half(73 / 74),  # .986
        HEAD: 1.0,
    }
    assert len(ratios) == 75
    assert {name: ratios[name] for name in expected} == expected


def test_twelve_layers_are_in_numerical_order(pair, merged):
    ratios = merged(pair(layers=12), [0, 1], custom_filter="q_proj")
    assert [ratios[f"model.layers.{i}.self_attn.q_proj.weight"] for i in range(12)] == [half(i / 11) for i in range(12)]


def test_readme_example():
    # "the sixth tensor around 75 %" of the original's README: position 5 of a section of 12 with both ends included.
    ratios = oracle.gradient_ratios([1.0, 0.5, 0.0], 24)
    assert ratios[0] == 1.0
    assert ratios[5] == pytest.approx(1 - 0.5 * 5 / 11) == pytest.approx(0.7727, abs=1e-4)
    assert ratios[11] == ratios[12] == 0.5
    assert ratios[23] == 0.0


def test_remainder_gets_the_last_value_as_it_is_written():
    ratios = oracle.gradient_ratios([0, 1, 3], 11)
    assert ratios == [0, 0.25, 0.5, 0.75, 1, 1, 1.5, 2, 2.5, 3, 3]
    assert [type(ratio) for ratio in ratios[-2:]] == [np.float64, int]


def test_sections_of_one_tensor_take_their_starts():
    assert oracle.gradient_ratios([0.1, 0.2, 0.3, 0.4], 3) == [0.1, 0.2, 0.3]


def test_more_sections_than_tensors_leave_the_last_value():
    assert oracle.gradient_ratios([0.1, 0.2, 0.3, 0.4, 0.9], 3) == [0.9, 0.9, 0.9]


def test_one_value_is_an_error_in_one_edition_and_a_constant_in_the_other(pair, merged, operated):
    models = pair()
    with pytest.raises(ZeroDivisionError):
        merged(models, [0.25])
    assert set(operated(models, {"gradient_values": [0.25]}).values()) == {0.25}


def test_selection():
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"]
    assert oracle.select_names(names, layer_only=True, no_layers=True) == names[1:]
    assert oracle.select_names(names, no_layers=True) == names[:1]
    assert oracle.select_names(names, layer_only=True, part="mlp") == names[1:2]
    assert oracle.select_names(names, part="") == names
    assert oracle.select_names(names, part="nothing") == []


def test_only_selected_tensors_change_and_the_ramp_spans_just_them(pair, merged):
    ratios = merged(pair(layers=2), [0.5, 1], layer_only=True, custom_filter="up_proj")
    assert ratios.pop(UP) == 0.5
    assert ratios.pop("model.layers.1.mlp.up_proj.weight") == 1.0
    assert set(ratios.values()) == {0.0}


def test_rotary_frequencies_in_the_file_take_no_position(pair, merged):
    models = pair(layers=2)
    for folder in models:
        checkpoints.add_inv_freq(folder, layers=2)
    ratios = merged(models, [0, 1])
    assert len(ratios) == 21
    assert ratios["model.layers.1.self_attn.q_proj.weight"] == half(10 / 20)


# ---- ties and vocabularies -------------------------------------------------------------------------------------------


def test_tied_names_both_count_and_the_last_one_stands(pair, merged):
    models = pair(tied=True)
    ratios = merged(models, [0, 0.5])
    assert HEAD not in ratios
    assert ratios[EMBEDDING] == 0.5  # the head's, not its own 0
    assert ratios["model.norm.weight"] == half(0.5 * 10 / 11)  # 12 positions, so the head's was counted
    assert merged(models, [0.25, 0.25], custom_filter="embed")[EMBEDDING] == 0.25
    assert merged(models, [0.25, 0.25], custom_filter="lm_head")[EMBEDDING] == 0.25


def test_a_tied_model_takes_an_untied_models_head(pair, merged):
    model1, model2 = pair(tied=True)
    checkpoints.edit_config(model2, tie_word_embeddings=False)
    checkpoints.add_tensors(model2, {HEAD: torch.full((64, 32), 3.0, dtype=torch.bfloat16)})
    assert merged((model1, model2), [0.5, 0.5])[EMBEDDING] == 1.5


def test_unequal_duplicates_undo_the_tie(pair, merged):
    model1, model2 = pair(tied=True)
    checkpoints.add_tensors(model1, {HEAD: torch.full((64, 32), 2.0, dtype=torch.bfloat16)})
    ratios = merged((model1, model2), [0.5, 0.5])
    assert (ratios[EMBEDDING], ratios[HEAD]) == (0.5, 1.5)


@pytest.mark.parametrize(("vocab1", "vocab2"), [(72, 64), (64, 72)])
def test_vocabularies_of_two_sizes(tmp_path, vocab1, vocab2):
    model1 = checkpoints.fill(checkpoints.make_llama(tmp_path / "1", seed=1, layers=1, vocab=vocab1), 1.0)
    model2 = checkpoints.fill(checkpoints.make_llama(tmp_path / "2", seed=1, layers=1, vocab=vocab2), 2.0)
    out = oracle.original_gradient(model1, model2, tmp_path / "out", [0.5, 0.5])
    for name in (HEAD, EMBEDDING):
        assert out[name].shape == (vocab1, 32)
        assert (out[name][:64] == 1.5).all()
        assert (out[name][64:] == 1.0).all()


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def test_each_product_is_rounded_to_float16_before_the_sum(pair, merged):
    # .625(1 + 2^-10) = .625 + 1.25 * 2^-11 rounds to .625 + 2^-11; adding .375 gives 1 + 2^-11, a tie, and 1 is even.
    # Rounded once, the blend would be 1 + 2^-10.
    models = pair((1 + 2**-10, 1.0), dtype="float16")
    assert merged(models, [0.375, 0.375])[UP] == 1.0


def test_the_yaml_edition_blends_in_the_dtype_of_the_file(pair, merged, operated):
    # bfloat16 rounds .625(1 + 2^-7) to .625 + 2^-8 and the sum 1 + 2^-8 to 1; in float16 all of it is exact.
    models = pair((1 + 2**-7, 1.0))
    assert operated(models, {"gradient_values": [0.375]})[UP] == 1.0
    assert merged(models, [0.375, 0.375])[UP] == 1 + 5 * 2**-10


def test_one_minus_ratio_is_float64_and_both_weights_become_float32(pair, operated):
    # The weights are f32(1 - r) = .75 - 2^-24 and f32(r) = .25 + 2^-25, which times -3 rounds to -.75 - 2^-23.
    # With 1 - r taken in float32 the first would be .75, and the sum -2 * 2^-24.
    models = pair((1.0, -3.0), dtype="float32")
    assert operated(models, {"gradient_values": [0.25 + 2**-25 + 2**-40]})[UP] == -3 * 2**-24


def test_config_decides_the_dtype_a_model_loads_in(pair, merged):
    models = pair((1 + 2**-9, 0.0), dtype="float32")
    assert merged(models, [0, 0])[UP] == 1 + 2**-9
    checkpoints.edit_config(models[0], dtype="bfloat16")
    assert merged(models, [0, 0])[UP] == 1.0


def test_operations_compound_in_place(pair, operated):
    # 0 -> .2 everywhere, then .5 * .2 + .5 = .6 where the second one applies, in float32.
    everywhere, attention = {"gradient_values": [0.2]}, {"gradient_values": [0.5], "filter": "self_attn"}
    ratios = operated(pair(dtype="float32"), everywhere, attention)
    assert ratios["model.layers.0.self_attn.q_proj.weight"] == half(0.6)
    assert ratios[UP] == half(0.2)


def test_ratio_zero_still_reads_the_other_model(pair, tmp_path):
    model1, model2 = pair((1.0, float("inf")))
    out = oracle.original_gradient(model1, model2, tmp_path / "out", [0, 0], custom_filter="up_proj")
    assert out[UP].isnan().all()  # 0 * inf
    assert (out[HEAD] == 1.0).all()


def test_values_past_float16_become_infinite(pair, merged):
    # 65520 is half way between the largest float16 and the next one there would be.
    assert merged(pair((65519.0, 65520.0), dtype="float32"), [0.0, 0.0], custom_filter="nothing")[UP] == 65504.0
    assert merged(pair((65520.0, 0.0), dtype="float32"), [0.0, 0.0], custom_filter="nothing")[UP] == float("inf")


# ---- what is written -------------------------------------------------------------------------------------------------


def test_shards_hold_the_same_tensors(pair, tmp_path):
    models = pair(layers=2)
    whole = oracle.original_gradient(*models, tmp_path / "whole", [0.1, 0.9])
    parts = oracle.original_gradient(*models, tmp_path / "parts", [0.1, 0.9], max_shard_size="10KB")
    assert len(checkpoints.weight_files(tmp_path / "parts")) > 1
    assert list(whole) == sorted(parts)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
