"""`blockmerge-gradient` writes, bit for bit, what the original writes through torch and transformers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

torch = pytest.importorskip("torch")

import checkpoints  # noqa: E402
import oracle  # noqa: E402
from blockmerge.cli.original import main  # noqa: E402

DTYPES = ("bfloat16", "float16", "float32")


def run(*arguments: str) -> None:
    result = CliRunner().invoke(main, [*arguments, "--quiet"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def agree(ours: Path, theirs: dict[str, Any]) -> None:
    """Same names, dtypes, shapes and bits; NaN where the original has NaN."""
    found = checkpoints.read_tensors(ours)
    assert found.keys() == theirs.keys()
    for name, expected in theirs.items():
        got = found[name]
        assert got.dtype == expected.dtype == torch.float16
        assert got.shape == expected.shape
        nan = expected.isnan()
        assert torch.equal(got.isnan(), nan), name
        assert torch.equal(got.view(torch.int16)[~nan], expected.view(torch.int16)[~nan]), name


def check_flags(tmp_path: Path, first: Path, second: Path, gradient: str, **flags: Any) -> None:
    expected = oracle.original_gradient(first, second, tmp_path / "theirs", yaml.safe_load(gradient), **flags)
    options = [f"--{key}" if value is True else f"--{key}={value}" for key, value in flags.items() if value]
    run(
        f"--model_path1={first}", f"--model_path2={second}", f"--output_model_path={tmp_path / 'ours'}",
        f"--gradient_values={gradient}", *options,
    )  # fmt: skip
    agree(tmp_path / "ours", expected)


def check_operations(tmp_path: Path, first: Path, second: Path, operations: list[dict[str, Any]]) -> None:
    config: dict[str, Any] = {"model_path1": str(first), "model_path2": str(second), "operations": operations}
    config |= {"max_shard_size": "2GB", "output_model_path": str(tmp_path / "theirs")}
    expected = oracle.original_operations(config)
    config["output_model_path"] = str(tmp_path / "ours")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config))
    run(f"--config={tmp_path / 'recipe.yaml'}")
    agree(tmp_path / "ours", expected)


@pytest.fixture
def two(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Two Llamas; options for the second carry the prefix ``other_``."""

    def make(**options: Any) -> tuple[Path, Path]:
        other = {key.removeprefix("other_"): value for key, value in options.items() if key.startswith("other_")}
        common = {key: value for key, value in options.items() if not key.startswith("other_")}
        first = checkpoints.make_llama(tmp_path / "first", seed=1, **common)
        return first, checkpoints.make_llama(tmp_path / "second", seed=2, **(common | other))

    return make


@pytest.mark.parametrize(
    ("gradient", "flags"),
    [
        ("[1.0, 0.5, 0.0]", {}),
        ("[1, 0]", {"layer_only": True}),
        ("[0.9, 0.0, 0.0, 0.0]", {"layer_only": True}),
        ("[0.2, 0.7]", {"no_layers": True}),
        ("[0.2, 0.7]", {"no_layers": True, "layer_only": True}),
        ("[0.1, 0.8]", {"custom_filter": "self_attn"}),
        ("[0.1, 0.8]", {"custom_filter": "layernorm", "layer_only": True}),
        ("[0.3, 0.6]", {"custom_filter": "no such tensor"}),
        ("[1.4, -0.3, 0.2]", {}),
        ("[0, 1, 0, 1, 0]", {"custom_filter": "lm_head"}),
        (str([k / 50 for k in range(50)]), {}),
    ],
)
def test_every_flag(tmp_path: Path, two, gradient: str, flags: dict[str, Any]) -> None:
    first, second = two(layers=12 if "layer_only" in flags else 3)
    check_flags(tmp_path, first, second, gradient, **flags)


@pytest.mark.parametrize(("stored", "loaded"), itertools.product(DTYPES, DTYPES))
def test_every_dtype_on_disk_and_in_the_config(tmp_path: Path, two, stored: str, loaded: str) -> None:
    first, second = two(dtype=stored, config_dtype=loaded, other_dtype="float32", other_config_dtype="bfloat16")
    check_flags(tmp_path, first, second, "[0.9, 0.4, 0.1]")


@pytest.mark.parametrize("dtypes", list(itertools.product(DTYPES, DTYPES)))
def test_the_yaml_edition_blends_in_the_loaded_dtypes(tmp_path: Path, two, dtypes: tuple[str, str]) -> None:
    first, second = two(dtype=dtypes[0], other_dtype=dtypes[1])
    check_operations(
        tmp_path,
        first,
        second,
        [
            {"operation": "all", "gradient_values": [0.3]},
            {"operation": "attention", "filter": "self_attn", "gradient_values": [0.2, 0.8]},
            {"operation": "layers", "layer_only": True, "gradient_values": [0.6, 0.1]},
            {"operation": "none", "filter": "nowhere", "gradient_values": [0.5, 0.1]},
        ],
    )


@pytest.mark.parametrize(("tied", "other_tied"), itertools.product((True, False), repeat=2))
@pytest.mark.parametrize("custom_filter", [None, "embed_tokens", "lm_head"])
def test_tied_and_untied(tmp_path: Path, two, tied: bool, other_tied: bool, custom_filter: str | None) -> None:
    first, second = two(tied=tied, other_tied=other_tied)
    check_flags(tmp_path, first, second, "[0.9, 0.2]", custom_filter=custom_filter)


@pytest.mark.parametrize(("tied", "other_tied"), itertools.product((True, False), repeat=2))
def test_operations_on_tied_names_compound(tmp_path: Path, two, tied: bool, other_tied: bool) -> None:
    first, second = two(tied=tied, other_tied=other_tied)
    operations = [
        {"operation": "lm_head", "filter": "lm_head", "gradient_values": [0.75]},
        {"operation": "embed_tokens", "filter": "embed_tokens", "gradient_values": [0.25]},
        {"operation": "both", "no_layers": True, "gradient_values": [0.6, 0.3]},
    ]
    check_operations(tmp_path, first, second, operations)


@pytest.mark.parametrize("equal", [True, False])
def test_heads_stored_twice(tmp_path: Path, two, equal: bool) -> None:
    first, second = two(tied=True)
    checkpoints.store_head(first, equal=equal)
    check_flags(tmp_path, first, second, "[0.9, 0.2]")


@pytest.mark.parametrize(("vocab", "other_vocab"), [(64, 60), (60, 64)])
@pytest.mark.parametrize("tied", [True, False])
def test_vocabularies_of_two_sizes(tmp_path: Path, two, vocab: int, other_vocab: int, tied: bool) -> None:
    first, second = two(vocab=vocab, other_vocab=other_vocab, tied=tied)
    check_flags(tmp_path, first, second, "[0.7, 0.4]")


def test_values_that_are_not_finite_pass(tmp_path: Path, two) -> None:
    first, second = two(dtype="float32")
    name = "model.layers.1.mlp.up_proj.weight"
    checkpoints.set_values(first, name, {0: float("nan"), 5: float("inf"), 9: 1e5, 11: -0.0, 13: 65519.9})
    checkpoints.set_values(second, name, {1: float("nan"), 6: float("-inf"), 9: -1e5, 12: -0.0, 13: 65519.9})
    check_flags(tmp_path, first, second, "[1.0, 0.0]")


def test_rotary_frequencies_in_the_file_take_no_position(tmp_path: Path, two) -> None:
    first, second = two()
    checkpoints.add_inv_freq(first)
    check_flags(tmp_path, first, second, "[0.9, 0.2]")


def test_shards(tmp_path: Path, two) -> None:
    first, second = two(shard_size="10KB")
    check_flags(tmp_path, first, second, "[0.9, 0.2]", max_shard_size="20KB")
    assert (tmp_path / "ours" / checkpoints.INDEX).is_file()


@pytest.mark.parametrize("make", [checkpoints.make_gpt2, checkpoints.make_qwen2, checkpoints.make_gemma2])
@pytest.mark.parametrize("flags", [{}, {"layer_only": True}, {"custom_filter": "mlp"}])
def test_other_architectures(tmp_path: Path, make, flags: dict[str, Any]) -> None:
    first, second = (make(tmp_path / name, seed=seed) for seed, name in enumerate(("first", "second")))
    check_flags(tmp_path, first, second, "[0.9, 0.2, 0.4]", **flags)
