"""Pictures: well-formed, the same bytes every time, and true to their numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import blockmerge
from blockmerge.cli import main
from blockmerge.comparison import difference_svg
from blockmerge.errors import RecipeError
from blockmerge.report import plan_svg
from blockmerge.report.svg import COLOURS, RAMP, page, shade, text
from models import Tensors, save, tensors

SVG = "{http://www.w3.org/2000/svg}"
STRANGE = "<&\"'>]]> \x07\u202e"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "first", tensors(1)), save(tmp_path / "second", tensors(2))


def parsed(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.find(f"{SVG}title") is not None
    described = root.find(f"{SVG}desc")
    assert described is not None and described.text
    return root


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def plan(folder: Path, **recipe: Any) -> blockmerge.Plan:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return blockmerge.plan(path)


def stacked(folder: Path, pair: tuple[Path, Path]) -> blockmerge.Plan:
    first, second = map(str, pair)
    slices = [
        {"models": [{"model": first, "layers": "0:2"}]},
        {"models": [{"model": second, "layers": "1:2"}]},
    ]
    return plan(folder, method="passthrough", slices=slices)


def weighted(folder: Path, pair: tuple[Path, Path], *weights: Any, **more: Any) -> blockmerge.Plan:
    models = [{"model": str(path), "weight": weight} for path, weight in zip(pair, weights, strict=True)]
    return plan(folder, method="linear", models=models, **more)


def oklab_lightness(colour: str) -> float:
    """Perceived lightness, 0 to 1 (Ottosson 2020)."""
    encoded = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    return float(np.cbrt(to_cones @ linear) @ [0.2104542553, 0.7936177850, -0.0040720468])


def test_shades_darken_in_even_steps() -> None:
    steps = np.diff([oklab_lightness(colour) for colour in RAMP])
    assert np.abs(steps - steps.mean()).max() < 0.003
    assert steps.mean() < -0.08
    assert (shade(0.0), shade(1.0), shade(2.0), shade(-1.0)) == (RAMP[0], RAMP[-1], RAMP[-1], RAMP[0])
    fine = np.diff([oklab_lightness(shade(k / 100)) for k in range(101)])
    assert (fine < 0).all()


def test_text_of_strangers_is_text() -> None:
    svg = page(100, STRANGE, STRANGE, [text(0, 0, STRANGE)])
    root = parsed(svg)
    assert texts(svg) == ["<&\"'>]]> \ufffd\ufffd"]
    assert len(list(root)) == 4


def test_the_heatmap_shows_every_block_of_every_layer(pair: tuple[Path, Path]) -> None:
    found = blockmerge.diff(*pair)
    svg = difference_svg(found)
    assert svg == difference_svg(blockmerge.diff(*pair, threads=1))
    cells = [element for element in parsed(svg).iter(f"{SVG}rect") if element.get("height") == "44"]
    assert len(cells) == len(found.cells) == 2 * 3 + 3
    assert sum(element.get("fill") == RAMP[-1] for element in cells) == 1
    for block in found.blocks:
        assert block.value in texts(svg)
        assert COLOURS[block] in svg


def test_the_heatmap_of_equal_and_of_deep_models(tmp_path: Path) -> None:
    model = save(tmp_path / "model", tensors(1, layers=90), num_hidden_layers=90)
    same = difference_svg(blockmerge.diff(model, model))
    assert "0%" in texts(same)
    numbers = [int(found) for found in texts(same) if found.isdigit()]
    assert numbers == sorted(numbers)
    assert numbers[0] == 0
    assert 15 <= len(numbers) <= 25


def test_values_that_have_no_number_are_drawn(tmp_path: Path) -> None:
    def zero(content: Tensors) -> Tensors:
        return {name: (dtype, array * 0 if "mlp" in name else array) for name, (dtype, array) in content.items()}

    first = save(tmp_path / "first", zero(tensors(1)))
    second = save(tmp_path / "second", tensors(2))
    assert "undefined" in texts(difference_svg(blockmerge.diff(first, second)))


def test_stacked_layers_are_a_map(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    planned = stacked(tmp_path, pair)
    svg = plan_svg(planned)
    assert svg == plan_svg(stacked(tmp_path, pair))
    assert texts(svg)[0] == "3 layers of 2 models"
    assert {"0 to 1", "1", "first", "second"} <= set(texts(svg))
    described = parsed(svg).find(f"{SVG}desc")
    assert described is not None
    assert described.text == "layers 0 to 1 are layers 0 to 1 of first; layer 2 is layer 1 of second."


def test_numbers_that_vary_are_drawn_and_the_others_are_told(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    planned = weighted(tmp_path, pair, [0.0, 1.0], 0.25)
    svg = plan_svg(planned)
    said = texts(svg)
    assert "weight of first" in said
    assert "weight of second" not in said
    assert any("weight of second 0.25" in line for line in said)
    dots = [element for element in parsed(svg).iter(f"{SVG}circle") if element.get("r") == "3.5"]
    assert len(dots) == len(tensors(1))
    heights = [float(dot.get("cy", "")) for dot in sorted(dots, key=lambda dot: float(dot.get("cx", "")))]
    assert heights == sorted(heights, reverse=True)
    assert svg == plan_svg(weighted(tmp_path, pair, [0.0, 1.0], 0.25))


def test_numbers_that_do_not_vary_are_a_table(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    said = texts(plan_svg(weighted(tmp_path, pair, 0.3, 0.7)))
    assert {"model 1", "first", "0.3", "model 2", "second", "0.7", "weight"} <= set(said)


@pytest.mark.parametrize("kind", ["stacked", "varying", "table"])
def test_a_published_model_carries_its_picture_if_that_says_more_than_words(
    tmp_path: Path, pair: tuple[Path, Path], kind: str
) -> None:
    planned = stacked(tmp_path, pair) if kind == "stacked" else None
    planned = planned or weighted(tmp_path, pair, [0, 1] if kind == "varying" else 0.5, 0.5)
    blockmerge.merge(planned, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    if kind == "table":
        assert not (tmp_path / "out" / "merge.svg").exists()
        assert "merge.svg" not in card
    else:
        assert (tmp_path / "out" / "merge.svg").read_text(encoding="utf-8") == plan_svg(planned)
        assert "](merge.svg)" in card
    blockmerge.merge(planned, tmp_path / "out", overwrite=True)


def test_the_command_draws_what_python_draws(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    def run(*arguments: object) -> int:
        return CliRunner().invoke(main, [str(argument) for argument in arguments]).exit_code

    assert run("diff", *pair, "--plot", tmp_path / "d.svg") == 0
    blockmerge.draw(blockmerge.diff(*pair), tmp_path / "python.svg")
    assert (tmp_path / "d.svg").read_bytes() == (tmp_path / "python.svg").read_bytes()
    stacked(tmp_path, pair)
    assert run("plan", tmp_path / "recipe.yaml", "--plot", tmp_path / "s.svg") == 0
    assert (tmp_path / "s.svg").read_text(encoding="utf-8") == plan_svg(stacked(tmp_path, pair))
    with pytest.raises(RecipeError, match=r"ends in .svg or .png"):
        blockmerge.draw(blockmerge.diff(*pair), tmp_path / "d.gif")
    assert run("diff", "nowhere", "nothing", "--plot", tmp_path / "d.gif") == 2
    pytest.importorskip("resvg_py")
    assert run("diff", *pair, "--plot", tmp_path / "d.png") == 0
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")
