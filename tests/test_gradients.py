"""How a list of values becomes one ratio for each tensor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockmerge.planning.gradients import by_layer, by_tensor, ratios, selects
from blockmerge.recipes import Only, Reading, Selection

values = st.lists(st.floats(-2, 2), min_size=1, max_size=9)


def test_the_readme_example_of_the_original() -> None:
    """24 tensors over [1, .5, 0]: the sixth has 1 - .5 * 5/11 of model 2 (not 75 %, as its README says)."""
    ratios = by_tensor([1.0, 0.5, 0.0], 24)
    assert ratios[5] == pytest.approx(1 - 0.5 * 5 / 11, abs=1e-15)
    assert ratios[11] == ratios[12] == 0.5
    assert (ratios[0], ratios[23]) == (1.0, 0.0)


def test_tensors_that_are_left_over_get_the_last_value() -> None:
    assert by_tensor([0.0, 1.0, 0.25], 7) == [0.0, 0.5, 1.0, 1.0, 0.625, 0.25, 0.25]


def test_sections_of_one_tensor_take_their_first_value() -> None:
    assert by_tensor([0.1, 0.2, 0.3, 0.9], 4) == [0.1, 0.2, 0.3, 0.9]
    assert by_tensor([0.1, 0.2, 0.3, 0.9], 3) == [0.1, 0.2, 0.3]


def test_more_sections_than_tensors_leave_only_the_last_value() -> None:
    assert by_tensor([0.1, 0.2, 0.3, 0.9], 2) == [0.9, 0.9]


def test_one_value_is_a_constant() -> None:
    assert by_tensor([0.3], 3) == [0.3, 0.3, 0.3]
    assert by_layer([0.3], [None, 0, 1, None], [True, False, False, False]) == [0.3] * 4


@given(values, st.integers(0, 200))
def test_by_tensor_follows_its_definition(curve: list[float], count: int) -> None:
    found = by_tensor(curve, count)
    assert len(found) == count
    sections = len(curve) - 1
    each = count // sections if sections else 0
    for k, ratio in enumerate(found):
        section, inside = divmod(k, each) if each else (sections, 0)
        if section >= sections:
            assert ratio == curve[-1]
        else:
            assert ratio == np.linspace(curve[section], curve[section + 1], each)[inside]


@given(values, st.integers(1, 100))
def test_by_layer_stays_on_the_polyline_and_ends_where_it_should(curve: list[float], layers: int) -> None:
    found = by_layer(curve, [None, *range(layers), None], [True, *[False] * (layers + 1)])
    grid = np.arange(layers) / max(layers - 1, 1) if layers > 1 else np.array([1.0])
    expected = np.interp(grid, np.linspace(0, 1, len(curve)), curve) if len(curve) > 1 else np.full(layers, curve[0])
    assert np.allclose(found[1:-1], expected, rtol=0, atol=1e-12)
    assert found[0] == curve[0]
    assert found[-1] == curve[-1]


def test_by_layer_gives_all_tensors_of_a_layer_one_value_and_the_head_the_last() -> None:
    assert by_layer([0.0, 1.0], [None, 0, 0, 1, 1, 2, 2, None, None], [True] + [False] * 8) == [
        0,
        0,
        0,
        0.5,
        0.5,
        1,
        1,
        1,
        1,
    ]


NAMES = [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.11.input_layernorm.weight",
    "transformer.h.3.attn.c_attn.weight",
    "gpt_neox.final_layer_norm.weight",
    "lm_head.weight",
]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), NAMES),
        (Selection(only=Only.LAYERS), NAMES[1:5]),
        (Selection(only=Only.NON_LAYERS), [NAMES[0], NAMES[5], NAMES[6]]),
        (Selection(only=Only.LAYERS, literal_layers=True), [NAMES[1], NAMES[2], NAMES[3], NAMES[5]]),
        (Selection(filters=("q_proj", "up_proj")), NAMES[1:3]),
        (Selection(layers=(1, 4)), [NAMES[2], NAMES[4]]),
        (Selection(layers=(1, 4), filters=("attn",)), [NAMES[4]]),
    ],
)
def test_selections(selection: Selection, expected: list[str]) -> None:
    assert [name for name in NAMES if selects(selection, name)] == expected


def test_what_follows_the_layers_gets_the_last_value_even_if_no_layer_is_selected() -> None:
    names = [NAMES[0], NAMES[6]]
    assert ratios([0.0, 1.0], names, Reading.LAYER, NAMES) == [0.0, 1.0]
    assert ratios([0.0, 1.0], names[1:], Reading.LAYER, NAMES) == [1.0]
