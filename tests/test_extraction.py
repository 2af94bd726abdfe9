"""Adapters taken from finetunes, against exact decompositions in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import blockmerge
import models
from blockmerge.adapters.factors import factorise, kept_share
from blockmerge.cli import main
from blockmerge.dtypes import BF16, F16, F32, DType
from blockmerge.errors import BlockmergeError
from blockmerge.execution import Finished, Progress, Started
from blockmerge.formats.safetensors import read_header
from blockmerge.kernels import reference
from blockmerge.sources import locate, open_model
from test_adapters import values

Q, K, DOWN = (f"model.layers.0.{name}.weight" for name in ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj"))
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


def changed(content: models.Tensors, *names: str, rank: int | None = None, seed: int = 9) -> models.Tensors:
    """A finetune: other numbers under ``names``, off by a matrix of that rank."""
    random, found = np.random.default_rng(seed), dict(content)
    for name in names:
        dtype, encoded = content[name]
        shape = encoded.shape
        if rank is None:
            change = random.normal(0, 0.01, shape)
        else:
            change = random.normal(0, 0.1, (shape[0], rank)) @ random.normal(0, 0.1, (rank, shape[1]))
        found[name] = (dtype, reference.encode(reference.decode(encoded, dtype) + change, dtype))
    return found


def pair(tmp_path: Path, *names: str, dtype: DType = F32, rank: int | None = None, **config: Any) -> tuple[Path, Path]:
    content = models.tensors(1, dtype=dtype)
    finetune = models.save(tmp_path / "finetune", changed(content, *names, rank=rank), **config)
    return finetune, models.save(tmp_path / "base", content, **config)


def stored(folder: Path, name: str) -> np.ndarray:
    dtype, encoded = models.read(folder)[name]
    return reference.decode(encoded, dtype)


def options(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "adapter_config.json").read_text())


# ---- decomposition ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (3, 70)])
@pytest.mark.parametrize("rank", [1, 3, 20])
@pytest.mark.parametrize("size", [1.0, 1e-12, 1e12])
def test_products_are_nearly_the_best(shape: tuple[int, int], rank: int, size: float) -> None:
    random, rank = np.random.default_rng(1), min(rank, *shape)
    # singular values that fall slowly, as those of finetunes do
    matrix = (random.normal(size=shape) * np.linspace(1, 0.1, shape[1]) * size).astype(np.float32)
    left, right = factorise(matrix, rank, "name")
    assert (left.shape, right.shape) == ((shape[0], rank), (rank, shape[1]))
    norm, lost = kept_share(matrix, left, right)
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    np.testing.assert_allclose(norm, (singular**2).sum(), rtol=1e-6)
    assert (singular[rank:] ** 2).sum() / norm - 1e-6 <= lost / norm <= (singular[rank:] ** 2).sum() / norm + 5e-3


def test_the_lost_share_is_measured_and_not_assumed() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    norm, lost = kept_share(matrix, np.zeros((3, 1), np.float32), np.zeros((1, 4), np.float32))
    assert norm == lost == float((matrix.astype(np.float64) ** 2).sum())


def test_no_change_is_kept_whole() -> None:
    left, right = factorise(np.zeros((4, 5), np.float32), 2, "name")
    assert not left.any() and not right.any()


# ---- adapters --------------------------------------------------------------------------------------------------------


def test_a_change_of_low_rank_comes_back(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q, DOWN, rank=3)
    found = blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=3)
    assert [layer.name for layer in found.layers] == [Q, DOWN]
    assert found.kept > 1 - 1e-9
    assert found.unchanged == 12
    source = open_model(locate(f"{base}+{tmp_path / 'out'}"))
    for name in models.tensors(1):
        np.testing.assert_allclose(values(source, name), stored(finetune, name), atol=1e-7)
    source.close()


def test_each_share_is_that_of_the_best_product(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q, DOWN)
    found = blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=4)
    for layer in found.layers:
        singular = np.linalg.svd(stored(finetune, layer.name) - stored(base, layer.name), compute_uv=False) ** 2
        assert layer.kept == pytest.approx(singular[:4].sum() / singular.sum(), abs=1e-5)
        assert layer.norm == pytest.approx(singular.sum(), rel=1e-5)
    kept = sum(layer.kept * layer.norm for layer in found.layers) / sum(layer.norm for layer in found.layers)
    assert found.kept == pytest.approx(kept)


def test_a_small_layer_gets_a_smaller_rank(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q, K)
    found = blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=100)
    assert [(layer.name, layer.rank) for layer in found.layers] == [(Q, 16), (K, 8)]
    assert options(tmp_path / "out")["rank_pattern"] == {Q[:-7]: 16, K[:-7]: 8}
    source = open_model(locate(f"{base}+{tmp_path / 'out'}"))
    np.testing.assert_allclose(values(source, K), stored(finetune, K), atol=1e-7)
    source.close()


def test_gpt2_layers_store_inputs_first(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    content = {
        f"h.0.{name}.weight": (F32, np.random.default_rng(k).normal(0, 1, shape).astype(np.float32))
        for k, (name, shape) in enumerate({"attn.c_attn": (8, 24), "attn.c_proj": (8, 8)}.items())
    }
    base = models.save(tmp_path / "base", content, config)
    finetune = models.save(tmp_path / "finetune", changed(content, *content, rank=2), config)
    blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=2)
    assert options(tmp_path / "out")["fan_in_fan_out"] is True
    with (tmp_path / "out" / "adapter_model.safetensors").open("rb") as file:
        header = read_header(file, (tmp_path / "out" / "adapter_model.safetensors").stat().st_size, "")
    shapes = {name: spec.shape for name, spec in header.tensors.items()}
    assert shapes["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"] == (2, 8)
    assert shapes["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"] == (24, 2)
    source = open_model(locate(f"{base}+{tmp_path / 'out'}"))
    for name in content:
        np.testing.assert_allclose(values(source, name), stored(finetune, name), atol=1e-6)
    source.close()


def test_what_is_no_linear_layer_is_named_or_kept_whole(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q, EMBEDDING, HEAD, NORM, dtype=BF16)
    found = blockmerge.extract_lora(finetune, base, tmp_path / "plain", rank=2)
    assert set(found.uncovered) == {EMBEDDING, HEAD, NORM}
    found = blockmerge.extract_lora(finetune, base, tmp_path / "whole", rank=2, save_embeddings=True)
    assert (set(found.whole), found.uncovered) == ({EMBEDDING, HEAD}, (NORM,))
    assert options(tmp_path / "whole")["modules_to_save"] == ["lm_head", "embed_tokens"]
    source = open_model(locate(f"{base}+{tmp_path / 'whole'}"))
    for name in (EMBEDDING, HEAD):
        assert source.specs[name].dtype == BF16
        assert (values(source, name) == stored(finetune, name)).all()
    source.close()


def test_a_larger_vocabulary_is_kept_whole(tmp_path: Path) -> None:
    content = models.tensors(1)
    finetune = changed(content, Q)
    for name in (EMBEDDING, HEAD):
        finetune[name] = (BF16, np.concatenate([content[name][1], content[name][1][:2]]))
    places = models.save(tmp_path / "finetune", finetune), models.save(tmp_path / "base", content)
    with pytest.raises(BlockmergeError, match="the vocabularies differ; --save-embeddings stores them whole"):
        blockmerge.extract_lora(*places, tmp_path / "out", rank=2)
    blockmerge.extract_lora(*places, tmp_path / "out", rank=2, save_embeddings=True)
    assert blockmerge.inspect(f"{places[1]}+{tmp_path / 'out'}").vocabulary == {EMBEDDING: 42, HEAD: 42}


def test_layers_are_chosen_by_their_names(tmp_path: Path) -> None:
    names = [name for name in models.tensors(1) if "_proj" in name]
    finetune, base = pair(tmp_path, *names)
    chosen = [
        blockmerge.extract_lora(finetune, base, tmp_path / f"out{k}", rank=2, **how)
        for k, how in enumerate([{}, {"include": ["mlp"]}, {"include": ["layers.0"], "exclude": ["mlp", "k_proj"]}])
    ]
    assert [len(found.layers) for found in chosen] == [14, 6, 3]
    assert set(chosen[1].uncovered) == {name for name in names if "attn" in name}
    targets = [options(found.path)["target_modules"] for found in chosen]
    assert targets[0] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert targets[1] == ["down_proj", "gate_proj", "up_proj"]
    assert targets[2] == [f"model.layers.0.self_attn.{name}_proj" for name in "oqv"]


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_products_in_16_bits_keep_nearly_as_much(tmp_path: Path, dtype: DType) -> None:
    finetune, base = pair(tmp_path, Q, DOWN, rank=2)
    found = blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=2, dtype=dtype.name)
    assert 1e-9 < 1 - found.kept < 1e-4
    source = open_model(locate(f"{base}+{tmp_path / 'out'}"))
    ours = values(source, Q) - stored(base, Q)
    wanted = stored(finetune, Q) - stored(base, Q)
    assert 1 - found.layers[0].kept == pytest.approx(((ours - wanted) ** 2).sum() / (wanted**2).sum(), rel=0.01)
    source.close()


def test_an_adapter_of_an_adapted_model(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q, DOWN, rank=6)
    blockmerge.extract_lora(finetune, base, tmp_path / "six", rank=6)
    found = blockmerge.extract_lora(f"{base}+{tmp_path / 'six'}", base, tmp_path / "two", rank=2)
    direct = blockmerge.extract_lora(finetune, base, tmp_path / "direct", rank=2)
    assert found.kept == pytest.approx(direct.kept, abs=1e-6)


def test_the_same_models_give_the_same_bytes(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q, DOWN, EMBEDDING)
    written = set()
    for k in range(2):
        blockmerge.extract_lora(finetune, base, tmp_path / f"out{k}", rank=2, save_embeddings=True)
        written.add(tuple(path.read_bytes() for path in sorted((tmp_path / f"out{k}").iterdir())))
    assert len(written) == 1


def test_events_lead_to_the_end(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q, DOWN, EMBEDDING)
    events: list[Any] = []
    blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=2, save_embeddings=True, on_event=events.append)
    assert isinstance(events[0], Started) and events[0].tensors == 3
    assert [event for event in events if isinstance(event, Progress)][-1].bytes_read == events[0].bytes_to_read
    assert isinstance(events[-1], Finished)


def test_the_command_tells_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair(tmp_path, Q, DOWN, NORM, rank=None)
    monkeypatch.chdir(tmp_path)
    command = ["lora", "extract", "finetune", "base", "out", "--rank", "4"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "of the change of 2 linear layers kept at rank 4" in result.output
    assert f"none                  {NORM}" in result.output
    told = json.loads(CliRunner().invoke(main, [*command, "--overwrite", "--json"]).stdout)
    assert [layer["name"] for layer in told["layers"]] == [Q, DOWN]
    assert 0 < told["kept"] < 1
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: base\n" in card and f"keeps {told['kept']:.2%} of what changed in 2 linear layers" in card
    assert str(tmp_path) not in card + (tmp_path / "out" / "adapter_config.json").read_text()


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"rank": 0}, "rank: 0 is none"),
        ({"rank": 70_000}, "rank: 70000 is none"),
        ({"dtype": "float64"}, "dtype: 'float64' cannot be written"),
        ({"include": ["nothing"]}, "include and exclude leave no linear layer"),
        ({"include": ["layers.1"]}, "no linear layer chosen differs from base"),
    ],
)
def test_requests_that_make_no_sense(tmp_path: Path, how: dict[str, Any], text: str) -> None:
    finetune, base = pair(tmp_path, Q)
    with pytest.raises(BlockmergeError, match=text):
        blockmerge.extract_lora(finetune, base, tmp_path / "out", **({"rank": 2} | how))
    assert not (tmp_path / "out").exists()


def test_models_that_do_not_fit_are_told_at_once(tmp_path: Path) -> None:
    content = models.tensors(1)
    finetune = dict(content)
    finetune[Q] = (BF16, np.zeros((16, 15), np.uint16))
    finetune["model.extra.weight"] = content[NORM]
    del finetune[NORM]
    places = models.save(tmp_path / "finetune", finetune), models.save(tmp_path / "base", content)
    with pytest.raises(BlockmergeError) as caught:
        blockmerge.extract_lora(*places, tmp_path / "out", rank=2)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["finetune", "base", Q]


def test_a_damaged_weight_is_named(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q)
    content = models.read(finetune)
    content[Q] = (F32, np.full((16, 16), np.nan, np.float32))
    models.save(finetune, content)
    with pytest.raises(BlockmergeError, match=f"{Q}: differs by a number that is not finite"):
        blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "finetune"]


def test_an_output_is_replaced_only_if_asked(tmp_path: Path) -> None:
    finetune, base = pair(tmp_path, Q)
    for _ in range(2):
        blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=2, overwrite=True)
    with pytest.raises(BlockmergeError, match="exists already"):
        blockmerge.extract_lora(finetune, base, tmp_path / "out", rank=2)
    with pytest.raises(BlockmergeError, match="lies inside the input"):
        blockmerge.extract_lora(finetune, base, base / "out", rank=2)


@pytest.mark.parametrize("tied", ["finetune", "base"])
def test_a_head_that_only_one_of_them_stores_is_named(tmp_path: Path, tied: str) -> None:
    content = models.tensors(1)
    places = []
    for name, tensors in (("finetune", changed(content, Q)), ("base", content)):
        if name == tied:
            del tensors[HEAD]
        places.append(models.save(tmp_path / name, tensors, tie_word_embeddings=name == tied))
        content = models.tensors(1)
    found = blockmerge.extract_lora(*places, tmp_path / "out", rank=2)
    assert found.uncovered == (HEAD,)
