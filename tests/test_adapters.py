"""Models with adapters, against what they must be in float64, and what is said of adapters that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import blockmerge
import models
from blockmerge.dtypes import BF16, F16, F32, F64, DType
from blockmerge.errors import BlockmergeError
from blockmerge.execution import executor
from blockmerge.kernels import reference
from blockmerge.sources import AdapterSource, LocalSource, locate, open_model

Q, UP, EMBEDDING, HEAD = (
    "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "model.embed_tokens", "lm_head",
)  # fmt: skip
SIZES = {Q: (16, 16), UP: (24, 16), HEAD: (40, 16)}
Arrays = dict[str, np.ndarray]


def normal(shape: tuple[int, ...], seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, shape).astype(np.float32)


def factors(*modules: str, rank: int = 4, seed: int = 3) -> Arrays:
    """A and B of linear layers, as PEFT names them."""
    found: Arrays = {}
    for k, module in enumerate(modules):
        outputs, inputs = SIZES[module]
        found[f"{module}.lora_A.weight"] = normal((rank, inputs), seed + k)
        found[f"{module}.lora_B.weight"] = normal((outputs, rank), seed + 50 + k)
    return found


def save_adapter(folder: Path, arrays: Arrays, *, dtype: DType = F32, **options: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "target_modules": ["q_proj"], **options}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    content = {
        f"base_model.model.{name}": (dtype, reference.encode(value.astype(np.float64), dtype))
        for name, value in arrays.items()
    }
    models.write_file(folder / "adapter_model.safetensors", content)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return models.save(tmp_path / "base", models.tensors(1), shards=2)


@contextmanager
def opened(base: Path, adapter: Path) -> Iterator[AdapterSource]:
    with closing(open_model(locate(f"{base}+{adapter}"))) as source:
        assert isinstance(source, AdapterSource)
        yield source


def values(source: AdapterSource | LocalSource, name: str, step: int | None = None) -> np.ndarray:
    """A tensor in float64, read in runs of ``step`` elements."""
    spec = source.specs[name]
    step = step or max(1, spec.elements)
    found = bytearray(spec.nbytes)
    view, size = memoryview(found), spec.dtype.itemsize
    for first in range(0, spec.elements, step):
        count = min(step, spec.elements - first)
        source.read_into(name, first, count, view[first * size : (first + count) * size])
    return reference.decode(np.frombuffer(found, spec.dtype.storage), spec.dtype).reshape(spec.shape)


def stored(base: Path, name: str) -> np.ndarray:
    dtype, encoded = models.read(base)[name]
    return reference.decode(encoded, dtype)


def close(ours: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=1e-6 * float(np.abs(wanted).max()))


def product(arrays: Arrays, module: str) -> np.ndarray:
    return arrays[f"{module}.lora_B.weight"].astype(np.float64) @ arrays[f"{module}.lora_A.weight"].astype(np.float64)


# ---- what a weight is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [BF16, F16, F32, F64])
@pytest.mark.parametrize("rank", [1, 3, 4, 11])
def test_a_weight_is_the_bases_plus_the_scaled_product(tmp_path: Path, dtype: DType, rank: int) -> None:
    base = models.save(tmp_path / "base", models.tensors(1, dtype=dtype))
    arrays = factors(Q, UP, rank=rank)
    with opened(base, save_adapter(tmp_path / "adapter", arrays, r=rank)) as source:
        for module in (Q, UP):
            spec = source.specs[f"{module}.weight"]
            assert (spec.dtype, spec.result_dtype) == (F32, dtype)
            close(values(source, spec.name), stored(base, spec.name) + 6 / rank * product(arrays, module))
        other = source.specs["model.norm.weight"]
        assert (other.dtype, other.result_dtype) == (dtype, dtype)
        assert (values(source, other.name) == stored(base, other.name)).all()
        assert source.label == "base+adapter"
        assert source.files["config.json"].path == base / "config.json"


def test_float32_and_64_sums_are_rounded_once(tmp_path: Path) -> None:
    """For a float32 base nothing is lost before the last rounding: the nearest float32 comes out."""
    base = models.save(tmp_path / "base", models.tensors(1, dtype=F32))
    arrays = factors(UP)
    with opened(base, save_adapter(tmp_path / "adapter", arrays)) as source:
        wanted = (stored(base, f"{UP}.weight") + 1.5 * product(arrays, UP)).astype(np.float32)
        assert (values(source, f"{UP}.weight") == wanted).mean() > 0.999


@pytest.mark.parametrize(
    ("options", "scaling"),
    [
        ({"use_rslora": True}, 6 / 2),
        ({"lora_alpha": 2.5}, 2.5 / 4),
        ({"alpha_pattern": {"up_proj": 8}}, 2.0),
        ({"alpha_pattern": {r"layers\.0\..*": 8, "model.layers.1.mlp.up_proj": 12}}, 3.0),
        ({"alpha_pattern": {"p_proj": 8, "^up_proj": 8, r"layers\.2\.mlp\.up_proj": 8}}, 1.5),
        ({"r": 9, "rank_pattern": {r"\d+\.(?:mlp|attn)\.up_proj": 4}}, 1.5),
        ({"r": 9, "rank_pattern": {"mlp.up_proj": 4}, "use_rslora": True, "alpha_pattern": {"up_proj": 1}}, 0.5),
    ],
)
def test_scaling_follows_the_options(tmp_path: Path, base: Path, options: dict[str, Any], scaling: float) -> None:
    arrays = factors(UP)
    with opened(base, save_adapter(tmp_path / "adapter", arrays, **options)) as source:
        close(values(source, f"{UP}.weight"), stored(base, f"{UP}.weight") + scaling * product(arrays, UP))


def test_dora_gives_each_output_its_length(tmp_path: Path, base: Path) -> None:
    arrays = factors(UP) | {f"{UP}.lora_magnitude_vector": normal((24,)) + 2}
    with opened(base, save_adapter(tmp_path / "adapter", arrays, use_dora=True)) as source:
        ours = values(source, f"{UP}.weight", step=37)
        moved = stored(base, f"{UP}.weight") + 1.5 * product(arrays, UP)
        magnitudes = arrays[f"{UP}.lora_magnitude_vector"]
        close(ours, magnitudes[:, None] * moved / np.linalg.norm(moved, axis=1, keepdims=True))
        close(np.linalg.norm(ours, axis=1), magnitudes)


@pytest.mark.parametrize("dora", [False, True])
def test_embeddings_are_adapted_the_other_way_round(tmp_path: Path, base: Path, dora: bool) -> None:
    a, b, magnitudes = normal((4, 40), 1), normal((16, 4), 2), normal((16,)) + 2
    arrays = {f"{EMBEDDING}.lora_embedding_A": a, f"{EMBEDDING}.lora_embedding_B": b}
    arrays |= {f"{EMBEDDING}.lora_magnitude_vector": magnitudes} if dora else {}
    moved = stored(base, f"{EMBEDDING}.weight") + 1.5 * (b.astype(np.float64) @ a).T
    wanted = magnitudes * moved / np.linalg.norm(moved, axis=0) if dora else moved
    with opened(base, save_adapter(tmp_path / "adapter", arrays, use_dora=dora)) as source:
        close(values(source, f"{EMBEDDING}.weight", step=23), wanted)


@pytest.mark.parametrize("shape", [(16, 48), (16, 16)])
@pytest.mark.parametrize("dora", [False, True])
def test_gpt2_stores_inputs_first(tmp_path: Path, shape: tuple[int, int], dora: bool) -> None:
    name = "h.0.attn.c_attn"
    weight = (BF16, reference.encode(normal(shape).astype(np.float64), BF16))
    base = models.save(tmp_path / "base", {f"{name}.weight": weight}, model_type="gpt2")
    a, b, magnitudes = normal((4, 16), 1), normal((shape[1], 4), 2), normal((shape[1],)) + 2
    arrays = {f"transformer.{name}.lora_A.weight": a, f"transformer.{name}.lora_B.weight": b}
    arrays |= {f"transformer.{name}.lora_magnitude_vector": magnitudes} if dora else {}
    moved = stored(base, f"{name}.weight") + 1.5 * (b.astype(np.float64) @ a).T
    wanted = magnitudes * moved / np.linalg.norm(moved, axis=0) if dora else moved
    with opened(base, save_adapter(tmp_path / "adapter", arrays, use_dora=dora)) as source:
        close(values(source, f"{name}.weight"), wanted)


def test_a_pickled_adapter_is_read_as_its_twin_where_there_is_no_other(tmp_path: Path, base: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", factors(Q, UP))
    with opened(base, adapter) as source:
        wanted = {module: values(source, f"{module}.weight") for module in (Q, UP)}
    twin = adapter / "adapter_model.safetensors"
    torch.save(load_file(twin), adapter / "adapter_model.bin")
    with opened(base, adapter) as source:
        assert "adapter_model.bin" not in source.fingerprint().headers
    twin.unlink()
    with opened(base, adapter) as source:
        assert all((values(source, f"{module}.weight") == wanted[module]).all() for module in (Q, UP))
        assert "adapter_model.bin" in source.fingerprint().headers
        assert "pickles, read as data, without running them: adapter_model.bin" in source.remarks
        (adapter / "adapter_model.bin").touch()
        assert source.changed() == "adapter_model.bin"


def test_whole_tensors_take_the_place_of_the_bases(tmp_path: Path, base: Path) -> None:
    """modules_to_save, and the layers below adapted ones that PEFT saves with embeddings and biases."""
    a, b, embedding = normal((4, 40), 1), normal((16, 4), 2), normal((40, 16), 4)
    arrays = {
        f"{EMBEDDING}.base_layer.weight": embedding,
        f"{EMBEDDING}.lora_embedding_A": a,
        f"{EMBEDDING}.lora_embedding_B": b,
        f"{HEAD}.weight": normal((40, 16), 5),
        "model.norm.modules_to_save.default.weight": normal((16,), 6),
    }
    with opened(base, save_adapter(tmp_path / "adapter", arrays, dtype=F16)) as source:
        half = {name: reference.rounded(array.astype(np.float64), F16) for name, array in arrays.items()}
        close(
            values(source, f"{EMBEDDING}.weight"),
            half[f"{EMBEDDING}.base_layer.weight"]
            + 1.5 * (half[f"{EMBEDDING}.lora_embedding_B"] @ half[f"{EMBEDDING}.lora_embedding_A"]).T,
        )
        assert (values(source, f"{HEAD}.weight") == half[f"{HEAD}.weight"]).all()
        assert (values(source, "model.norm.weight") == half["model.norm.modules_to_save.default.weight"]).all()
        assert (source.specs[f"{HEAD}.weight"].dtype, source.specs[f"{HEAD}.weight"].result_dtype) == (F16, BF16)
        assert any("3 tensors are the adapter's own" in line for line in source.remarks)


# ---- ties ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tied(tmp_path: Path) -> Path:
    return models.save(tmp_path / "tied", models.tensors(1, tied=True), tie_word_embeddings=True)


def test_an_adapted_head_parts_from_the_embedding_it_was(tmp_path: Path, tied: Path) -> None:
    arrays = factors(HEAD)
    adapter = save_adapter(tmp_path / "adapter", arrays)
    embedding = stored(tied, f"{EMBEDDING}.weight")
    with opened(tied, adapter) as source:
        assert (values(source, f"{EMBEDDING}.weight") == embedding).all()
        close(values(source, f"{HEAD}.weight"), embedding + 1.5 * product(arrays, HEAD))
    blockmerge.merge(blockmerge.gradient(f"{tied}+{adapter}", f"{tied}+{adapter}", values=0.5), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert f"{HEAD}.weight" in models.read(tmp_path / "out")


@pytest.mark.parametrize("together", [False, True])
def test_an_adapted_embedding_leaves_its_head_alone_unless_told(tmp_path: Path, tied: Path, together: bool) -> None:
    arrays = {f"{EMBEDDING}.weight": normal((40, 16))}
    with opened(tied, save_adapter(tmp_path / "adapter", arrays, ensure_weight_tying=together)) as source:
        assert (values(source, f"{EMBEDDING}.weight") == arrays[f"{EMBEDDING}.weight"]).all()
        assert (f"{HEAD}.weight" in source.specs) is not together
        if not together:
            assert (values(source, f"{HEAD}.weight") == stored(tied, f"{EMBEDDING}.weight")).all()


# ---- bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("dtype", [BF16, F32])
def test_any_run_of_elements_gives_the_same_bits(tmp_path: Path, dtype: DType, dora: bool) -> None:
    base = models.save(tmp_path / "base", models.tensors(1, dtype=dtype))
    arrays = factors(UP, rank=7) | ({f"{UP}.lora_magnitude_vector": normal((24,))} if dora else {})
    adapter = save_adapter(tmp_path / "adapter", arrays, r=7, use_dora=dora)
    with opened(base, adapter) as source:
        whole = values(source, f"{UP}.weight")
    for step in (1, 5, 16, 17, 100):
        with opened(base, adapter) as source:
            assert values(source, f"{UP}.weight", step).tobytes() == whole.tobytes()


def test_long_rows_are_summed_in_stretches_without_a_seam(tmp_path: Path) -> None:
    shape = (3, 5000)
    base = models.save(tmp_path / "base", {"model.wide.weight": (BF16, np.zeros(shape, np.uint16))})
    a, b = normal((4, 5000)), normal((3, 4))
    arrays = {"model.wide.lora_A.weight": a, "model.wide.lora_B.weight": b}
    with opened(base, save_adapter(tmp_path / "adapter", arrays)) as source:
        whole = values(source, "model.wide.weight")
        assert whole.tobytes() == values(source, "model.wide.weight", 777).tobytes()
        close(whole, 1.5 * (b.astype(np.float64) @ a.astype(np.float64)))


def test_a_tensor_without_elements_is_no_trouble(tmp_path: Path) -> None:
    base = models.save(tmp_path / "base", {"model.none.weight": (BF16, np.zeros((3, 0), np.uint16))})
    arrays = {"model.none.lora_A.weight": normal((4, 0)), "model.none.lora_B.weight": normal((3, 4))}
    arrays["model.none.lora_magnitude_vector"] = normal((3,))
    with opened(base, save_adapter(tmp_path / "adapter", arrays, use_dora=True)) as source:
        assert values(source, "model.none.weight").shape == (3, 0)
        source.read_into("model.none.weight", 0, 0, memoryview(bytearray()))


METHODS: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "gradient": lambda base, other: {"method": "gradient", "models": [base, other], "values": [0.2, 0.9]},
    "first": lambda base, other: {"method": "gradient", "models": [other, base], "values": [0.2, 0.9]},
    "task_arithmetic": lambda base, other: {
        "method": "task_arithmetic", "base": base, "models": [{"model": other, "weight": 0.7}]
    },
    "ties": lambda base, other: {
        "method": "ties", "base": base, "models": [{"model": other, "weight": 0.7, "density": 0.5}]
    },
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_a_merge_equals_that_of_the_materialised_model(tmp_path: Path, base: Path, method: str) -> None:
    arrays = factors(Q, UP) | {f"{part}.lora_magnitude_vector": normal((SIZES[part][0],)) for part in (Q, UP)}
    arrays["model.norm.weight"] = normal((16,))
    adapter = save_adapter(tmp_path / "adapter", arrays, use_dora=True)
    with opened(base, adapter) as source:
        content = {
            name: (spec.dtype, reference.encode(values(source, name), spec.dtype))
            for name, spec in source.specs.items()
        }
    whole = models.save(tmp_path / "whole", content)
    written = []
    for number, other in enumerate((f"{base}+{adapter}", str(whole))):
        recipe = METHODS[method](str(base), other) | {"dtype": "bfloat16"}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        blockmerge.merge(tmp_path / "recipe.yaml", tmp_path / f"out{number}")
        written.append((tmp_path / f"out{number}" / "model.safetensors").read_bytes())
    assert written[0] == written[1]


def test_threads_and_tiles_change_nothing(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = factors(Q, UP) | {f"{part}.lora_magnitude_vector": normal((SIZES[part][0],)) for part in (Q, UP)}
    adapter = save_adapter(tmp_path / "adapter", arrays, use_dora=True)
    recipe = blockmerge.gradient(str(base), f"{base}+{adapter}", values=[0.0, 1.0])
    written = set()
    for number, (threads, tile) in enumerate([(1, 1 << 19), (2, 60), (5, 998)]):
        monkeypatch.setattr(executor.Executor.__init__, "__kwdefaults__", {"tile": tile})
        blockmerge.merge(recipe, tmp_path / f"out{number}", threads=threads)
        written.add((tmp_path / f"out{number}" / "model.safetensors").read_bytes())
    assert len(written) == 1


def test_the_licences_of_base_and_adapter_both_count(tmp_path: Path, base: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", factors(Q))
    (base / "README.md").write_text("---\nlicense: llama3\nlanguage: en\nbase_model: root\n---\n")
    (adapter / "README.md").write_text("---\nlicense: cc-by-nc-4.0\nlanguage: [en, de]\nbase_model: base\n---\n")
    plan = blockmerge.plan(blockmerge.gradient(f"{base}+{adapter}", str(base), values=0.5))
    assert plan.inputs[0].card == {
        "license": ["llama3", "cc-by-nc-4.0"], "language": ["en", "de"], "base_model": "root",
    }  # fmt: skip
    blockmerge.merge(plan, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license:\n- llama3\n- cc-by-nc-4.0\n" in card
    assert "| model 1 | base+adapter | llama3, cc-by-nc-4.0 |" in card


def test_the_result_has_the_bases_dtype_and_names_both(tmp_path: Path, base: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", factors(Q))
    plan = blockmerge.plan(blockmerge.gradient(f"{base}+{adapter}", str(base), values=0.5))
    assert plan.dtype == BF16
    assert {row.dtype for row in plan.rows} == {BF16}
    assert [model.published for model in plan.inputs] == ["base+adapter", "base"]
    assert {"adapter_model.safetensors", "adapter_config.json"} <= plan.inputs[0].fingerprint.headers.keys()
    blockmerge.merge(plan, tmp_path / "out")
    assert "base_model:\n- base\n- adapter\n" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "config.json").read_bytes() == (base / "config.json").read_bytes()


def test_options_are_part_of_the_digest(tmp_path: Path, base: Path) -> None:
    digests = set()
    for alpha in (1, 2):
        adapter = save_adapter(tmp_path / "adapter", factors(Q), lora_alpha=alpha)
        digests.add(blockmerge.plan(blockmerge.gradient(f"{base}+{adapter}", str(base), values=0.5)).digest)
    assert len(digests) == 2


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "config.json"])
def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path, base: Path, name: str) -> None:
    adapter = save_adapter(tmp_path / "adapter", factors(Q))
    with opened(base, adapter) as source:
        assert source.changed() is None
        if name != "config.json":
            (adapter / name).write_bytes((adapter / name).read_bytes())
            assert source.changed() == name
        else:
            shard = sorted(base.glob("*.safetensors"))[0]
            shard.write_bytes(shard.read_bytes())
            assert source.changed() == shard.name


def test_an_output_is_not_put_into_the_adapter(tmp_path: Path, base: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", factors(Q))
    recipe = blockmerge.gradient(str(base), f"{base}+{adapter}", values=0.5)
    with pytest.raises(BlockmergeError, match="lies inside the input"):
        blockmerge.merge(recipe, adapter / "out")


# ---- names and places ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("model.layers.0.q", "model.layers.0.q"),
        ("layers.0.q", "model.layers.0.q"),
        ("model.layers.0.q", "layers.0.q"),
        ("model.language_model.layers.0.q", "language_model.model.layers.0.q"),
    ],
)
def test_names_are_found_with_and_without_the_inner_models_name(tmp_path: Path, path: str, name: str) -> None:
    base = models.save(tmp_path / "base", {f"{name}.weight": (BF16, np.zeros((8, 6), np.uint16))})
    a, b = normal((4, 6)), normal((8, 4))
    arrays = {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
    with opened(base, save_adapter(tmp_path / "adapter", arrays)) as source:
        close(values(source, f"{name}.weight"), 1.5 * (b.astype(np.float64) @ a.astype(np.float64)))


def test_a_folder_with_a_plus_in_its_name_comes_first(tmp_path: Path, base: Path) -> None:
    adapter = save_adapter(tmp_path / "ad+apter", factors(Q))
    plain = models.save(tmp_path / "base+plain", models.tensors(2))
    assert locate(str(plain)).adapter is None
    assert locate(f"{base}+{adapter}").name == "base+ad+apter"
    assert locate(f"{plain}+{adapter}").name == "base+plain+ad+apter"


def test_a_tokenizer_of_the_adapters_own_stands(tmp_path: Path, base: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", factors(Q))
    for folder in (base, adapter):
        (folder / "tokenizer.json").write_text("{}")
    with opened(base, adapter) as source:
        assert source.files["tokenizer.json"].path == base / "tokenizer.json"
    (adapter / "tokenizer.json").write_text('{"more": 1}')
    with opened(base, adapter) as source:
        assert source.files["tokenizer.json"].path == adapter / "tokenizer.json"
        assert any("tokenizer of its own" in line for line in source.remarks)
    blockmerge.merge(blockmerge.gradient(f"{base}+{adapter}", str(base), values=0.5), tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_text() == '{"more": 1}'
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_vocabulary_that_grew(tmp_path: Path, base: Path) -> None:
    arrays = {f"{EMBEDDING}.weight": normal((43, 16)), f"{HEAD}.weight": normal((43, 16), 4)} | factors(Q)
    adapter = save_adapter(tmp_path / "adapter", arrays)
    blockmerge.merge(blockmerge.gradient(f"{base}+{adapter}", str(base), values=0.5), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 43
    assert models.read(tmp_path / "out")[f"{HEAD}.weight"][1].shape == (43, 16)


def test_inspect_shows_it(tmp_path: Path, base: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", factors(Q, UP), some_new_option=3)
    seen = blockmerge.inspect(f"{base}+{adapter}")
    assert seen.label == "base+adapter"
    assert "2 tensors are read as float32 sums of base and adapter (LoRA of rank 4)" in seen.odd
    assert any("some_new_option is not known here" in line for line in seen.odd)
    assert not any("several dtypes" in line for line in seen.odd)


# ---- what is refused -------------------------------------------------------------------------------------------------

GOOD = factors(Q)
REFUSED: dict[str, tuple[Arrays, dict[str, Any], str]] = {
    "another kind": (GOOD, {"peft_type": "IA3"}, "is IA3, and only LORA is read; merge it into its base with peft"),
    "a prompt": (GOOD, {"peft_type": "PREFIX_TUNING"}, "is PREFIX_TUNING, which changes what a model reads"),
    "no kind": (GOOD, {"peft_type": None}, "has no peft_type"),
    "pissa": (GOOD, {"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4', which changed the base as well"),
    "lora_bias": (GOOD, {"lora_bias": True}, "lora_bias is set"),
    "replicated": (GOOD, {"layer_replication": [[0, 1]]}, "layer_replication is set"),
    "tokens": (GOOD, {"trainable_token_indices": [1]}, "trainable_token_indices is set"),
    "alora": (GOOD, {"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
    "experts": (GOOD, {"target_parameters": ["experts.up"]}, "target_parameters is set"),
    "rank 0": (GOOD, {"r": 0}, "r is '0'; a rank is 1 to 65,536"),
    "rank true": (GOOD, {"r": True}, "r is 'True'; a rank is"),
    "rank huge": (GOOD, {"r": 10**30}, "a rank is 1 to 65,536"),
    "alpha NaN": (GOOD, {"lora_alpha": float("nan")}, "lora_alpha is 'nan'; it is a finite number"),
    "alpha text": (GOOD, {"lora_alpha": "16"}, "lora_alpha is '16'"),
    "dora text": (GOOD, {"use_dora": "yes"}, "use_dora is 'yes'; it is true or false"),
    "pattern list": (GOOD, {"rank_pattern": ["q_proj"]}, "rank_pattern is no object"),
    "pattern number": (GOOD, {"alpha_pattern": {"q_proj": None}}, "alpha_pattern: q_proj is 'None'"),
    "pattern broken": (GOOD, {"rank_pattern": {"(": 4}}, "is no regular expression"),
    "pattern doubtful": (GOOD, {"rank_pattern": {"[[a]": 4}}, "is no regular expression"),
    "pattern repeating": (GOOD, {"rank_pattern": {"(a+)+x": 4}}, "repeats a group"),
    "pattern looking": (GOOD, {"rank_pattern": {"(?=a)x": 4}}, "looks back or around"),
    "pattern again": (GOOD, {"rank_pattern": {r"(.*)\1x": 4}}, "looks back or around"),
    "pattern long": (GOOD, {"rank_pattern": {"a" * 501: 4}}, "is longer than 500 characters"),
    "pattern slow": (GOOD, {"rank_pattern": {".*" * 40 + "x": 4}}, "could take minutes"),
    "pattern branching": (GOOD, {"rank_pattern": {"(.|m)" * 60 + "x": 4}}, "could take minutes"),
    "other rank": (GOOD, {"r": 5}, "are not of rank 5"),
    "nothing": ({}, {}, "holds no tensors"),
    "half": ({f"{Q}.lora_A.weight": GOOD[f"{Q}.lora_A.weight"]}, {}, "has lora_A, not lora_A, lora_B"),
    "dora without": (GOOD, {"use_dora": True}, "has lora_A, lora_B, not lora_A, lora_B, lora_magnitude_vector"),
    "unknown module": (
        {f"model.layers.7.self_attn.q_proj.lora_{part}.weight": normal((4, 4)) for part in "AB"}, {},
        "2 of its tensors belong to nothing in the base, or are of a kind that is not read: base_model.model.model.lay",
    ),
    "score": (GOOD | {"score.weight": normal((2, 16))}, {}, "1 of its tensors belong to nothing"),
    "expert bias": (GOOD | {f"{Q}.lora_B.bias": normal((16,))}, {}, "1 of its tensors belong to nothing"),
    "wrong inputs": (GOOD | {f"{Q}.lora_A.weight": normal((4, 15))}, {}, "give [16, 15], but"),
    "three axes": (GOOD | {f"{Q}.lora_A.weight": normal((4, 16, 1))}, {}, "only matrices are adapted"),
    "a norm": (
        {"model.norm.lora_A.weight": normal((4, 16)), "model.norm.lora_B.weight": normal((16, 4))}, {},
        "only matrices are adapted",
    ),
    "magnitudes": (
        GOOD | {f"{Q}.lora_magnitude_vector": normal((15,))}, {"use_dora": True}, "magnitudes are [15], not [16]"
    ),
    "norm size": ({"model.norm.weight": normal((17,))}, {}, "is [17], model.norm.weight in the base [16]"),
    "twice": (
        GOOD | {f"{Q}.lora_A.default.weight": GOOD[f"{Q}.lora_A.weight"]}, {}, "is there twice, also as",
    ),
    "two names": (
        GOOD | {key.removeprefix("model."): array for key, array in GOOD.items()}, {}, "are both for model.layers.0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_and_what_is_said(tmp_path: Path, base: Path, case: str) -> None:
    arrays, options, text = REFUSED[case]
    adapter = save_adapter(tmp_path / "adapter", arrays, **options)
    with pytest.raises(BlockmergeError) as caught:
        open_model(locate(f"{base}+{adapter}"))
    assert text in str(caught.value)
    assert str(caught.value).isprintable()


def test_all_problems_come_at_once(tmp_path: Path, base: Path) -> None:
    arrays = GOOD | {f"{Q}.lora_A.weight": normal((4, 15)), "model.norm.weight": normal((17,)), "x": normal((1,))}
    with pytest.raises(BlockmergeError) as caught:
        open_model(locate(f"{base}+{save_adapter(tmp_path / 'adapter', arrays)}"))
    assert len(str(caught.value).splitlines()) == 3


def test_a_quantised_base_is_refused(tmp_path: Path) -> None:
    content = models.tensors(1)
    content[f"{Q}.weight"] = (DType("U8", "uint8", 8, "uint8"), np.zeros((16, 16), np.uint8))
    base = models.save(tmp_path / "base", content)
    with pytest.raises(BlockmergeError, match="is uint8; only floating numbers of 16 to 64 bits are adapted"):
        open_model(locate(f"{base}+{save_adapter(tmp_path / 'adapter', GOOD)}"))


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("base+", "are written BASE+ADAPTER, with nothing around the +"),
        ("+adapter", "are written BASE+ADAPTER"),
        ("base+nothing", "nothing: there is no such folder"),
        ("nothing+adapter", "nothing: there is no such folder"),
        ("base+adapter+adapter", "one adapter goes with a model"),
        ("base+base", "has no adapter_config.json; after the + stands an adapter"),
        ("base+adapter/adapter_config.json", "is a file; give the folder that holds adapter_config.json"),
        ("adapter+base", "write its base before it, BASE+adapter"),
        ("base+pickled", "adapter_model.bin: is no file of torch.save"),
        ("base+empty", "has no adapter_model.safetensors"),
    ],
)
def test_references_that_lead_nowhere(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, reference: str, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("adapter", "pickled", "empty"):
        save_adapter(tmp_path / name, GOOD)
    for name in ("pickled", "empty"):
        (tmp_path / name / "adapter_model.safetensors").unlink()
    (tmp_path / "pickled" / "adapter_model.bin").touch()
    with pytest.raises(BlockmergeError) as caught:
        open_model(locate(reference))
    assert text in str(caught.value)


def test_infinite_weights_are_found_and_named(tmp_path: Path, base: Path) -> None:
    arrays = GOOD | {f"{Q}.lora_B.weight": np.full((16, 4), np.inf, np.float32)}
    adapter = save_adapter(tmp_path / "adapter", arrays)
    with pytest.raises(BlockmergeError, match=r"base\+adapter: .*q_proj.weight\[0, 0\] is not finite"):
        blockmerge.merge(blockmerge.gradient(str(base), f"{base}+{adapter}", values=0.5), tmp_path / "out")
