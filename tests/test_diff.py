"""Where two models differ: against numpy in float64, whatever the dtypes, threads and oddities."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import blockmerge
from blockmerge.cli import main
from blockmerge.comparison import Statistics, compare, pair_up
from blockmerge.dtypes import BF16, F16, F32, F64, DType, by_name
from blockmerge.errors import BlockmergeError, MismatchError, ModelError, RecipeError
from blockmerge.execution import Event, Progress, Started
from blockmerge.kernels import reference
from blockmerge.methods.operations import GRANULE
from blockmerge.sources import MemorySource
from models import CONFIG, Tensors, save, tensors

FLOATS = (BF16, F16, F32, F64)
NAME = "model.layers.0.mlp.up_proj.weight"
I64, I32, U8 = (by_name(name) for name in ("int64", "int32", "uint8"))


def difference(first: Tensors, second: Tensors, threads: int = 2, **config: Any) -> blockmerge.Difference:
    sources = tuple(
        MemorySource(label, content, {**CONFIG, **config}) for label, content in (("first", first), ("second", second))
    )
    return compare(pair_up(*sources), sources, threads=threads, emit=lambda event: None)


def only(a: np.ndarray, b: np.ndarray, dtypes: tuple[DType, DType] = (F32, F32)) -> Any:
    """The difference of two models with one tensor each."""
    (found,) = difference({NAME: (dtypes[0], a)}, {NAME: (dtypes[1], b)}).tensors
    return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "first", tensors(1)), save(tmp_path / "second", tensors(2), shards=2)


@pytest.mark.parametrize("dtypes", list(itertools.product(FLOATS, FLOATS)), ids=lambda pair: "-".join(map(str, pair)))
@pytest.mark.parametrize("size", [1, 127, 1000, GRANULE + 77])
def test_every_number_is_that_of_float64(dtypes: tuple[DType, DType], size: int) -> None:
    random = np.random.default_rng(size)
    values = random.normal(0, 0.05, size)
    moved = np.where(random.random(size) < 0.5, values, values + random.normal(0, 1e-3, size))
    a, b = reference.encode(values, dtypes[0]), reference.encode(moved, dtypes[1])
    found = only(a, b, dtypes)
    x, y = reference.decode(a, dtypes[0]), reference.decode(b, dtypes[1])
    statistics, d = found.statistics, x - y
    assert statistics.elements == size
    assert statistics.differing == np.count_nonzero(x != y)
    assert statistics.share == np.count_nonzero(x != y) / size
    assert statistics.relative == pytest.approx(np.linalg.norm(d) / np.linalg.norm(x), rel=1e-12)
    assert statistics.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
    assert statistics.largest == np.abs(d).max()
    assert found.place == ((int(np.abs(d).argmax()),) if d.any() else None)
    assert statistics.nonfinite == (0, 0)


def test_results_do_not_depend_on_threads() -> None:
    random = np.random.default_rng(0)
    shape = (3, GRANULE - 5)
    first, second = (
        {f"model.layers.{k}.mlp.up_proj.weight": (F32, random.normal(0, 1, shape).astype(np.float32)) for k in range(3)}
        for _ in range(2)
    )
    one, *others = (difference(first, second, threads).to_json() for threads in (1, 2, 3, 8))
    assert all(other == one for other in others)
    granules = np.array_split(first[NAME][1].reshape(-1).astype(np.float64), range(GRANULE, 3 * GRANULE - 15, GRANULE))
    total = sum(float(part @ part) for part in granules)
    assert difference(first, second).tensors[0].statistics.squares[0] == pytest.approx(total, rel=1e-13)


def test_aggregates_are_those_of_the_elements_together() -> None:
    first, second = tensors(1), tensors(2)
    found = difference(first, second)

    def joined(content: Tensors, text: str) -> np.ndarray:
        chosen = [
            reference.decode(array, dtype).reshape(-1) for name, (dtype, array) in content.items() if text in name
        ]
        return np.concatenate(chosen)

    for text, statistics in (
        ("", found.whole),
        ("layers.1.", found.layers[1]),
        ("self_attn", found.blocks["attention"]),
        ("layers.0.mlp", found.cells[0, "mlp"]),
        ("lm_head", found.cells[None, "head"]),
    ):
        x, y = joined(first, text), joined(second, text)
        assert statistics.elements == x.size
        assert statistics.differing == np.count_nonzero(x != y)
        assert statistics.relative == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x), rel=1e-12)
        assert statistics.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), rel=1e-12)
    assert [tensor.name for tensor in found.tensors] == list(first)


def test_a_model_does_not_differ_from_itself(tmp_path: Path) -> None:
    model = save(tmp_path / "model", tensors(1))
    found = blockmerge.diff(model, model)
    assert (found.whole.differing, found.whole.relative, found.whole.cosine) == (0, 0.0, 1.0)
    assert "no tensor differs" in str(found)
    assert all(tensor.place is None for tensor in found.tensors)


def test_signs_of_zero_are_no_difference() -> None:
    found = only(np.array([0.0, -0.0, 1.0], np.float32), np.array([-0.0, 0.0, 1.0], np.float32))
    assert (found.statistics.differing, found.statistics.relative) == (0, 0.0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_values_that_are_not_finite_are_counted_and_left_out(dtype: DType) -> None:
    values = np.array([1.0, np.nan, np.inf, 2.0, np.nan, -np.inf, 3.0])
    others = np.array([1.5, np.nan, np.inf, 2.0, 5.0, np.inf, np.nan])
    found = only(reference.encode(values, dtype), reference.encode(others, dtype), (dtype, dtype))
    statistics = found.statistics
    assert statistics.nonfinite == (4, 4)
    assert statistics.differing == 4  # NaN is NaN here, and infinity infinity
    assert statistics.relative == pytest.approx(0.5 / np.sqrt(5))
    assert (statistics.largest, found.place) == (0.5, (0,))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["nonfinite"] == [4, 4]


def test_what_is_not_defined_is_none() -> None:
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert (only(zero, one).statistics.relative, only(zero, one).statistics.cosine) == (None, None)
    assert (only(zero, zero).statistics.relative, only(zero, zero).statistics.cosine) == (0.0, None)
    huge = only(np.full(3, 1e300), np.full(3, -1e300), (F64, F64))
    assert (huge.statistics.relative, huge.statistics.nonfinite) == (None, (0, 0))
    json.dumps(huge.to_json(), allow_nan=False)
    assert Statistics().share == 0.0


def test_integers_are_equal_or_not_across_their_formats() -> None:
    a = np.array([[1, 2], [3, 2**40]])
    found = only(a, a.copy(), (I64, I64))
    assert (found.statistics.differing, found.statistics.relative, found.to_json()["largest"]) == (0, 0.0, None)
    found = only(a[:1], np.array([[1, 3]], np.int32), (I64, I32))
    assert (found.statistics.differing, found.statistics.relative, found.place) == (1, None, None)
    assert only(np.array([1], np.uint8), np.array([1], np.int32), (U8, I32)).statistics.differing == 0


def test_scalars_and_empty_tensors_pass() -> None:
    found = only(np.float32(2).reshape(()), np.float32(1).reshape(()))
    assert (found.statistics.relative, found.place) == (0.5, ())
    found = only(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32))
    assert (found.statistics.elements, found.statistics.relative) == (0, 0.0)


@pytest.mark.parametrize(("vocab", "other"), [(40, 48), (48, 40)])
def test_of_different_vocabularies_the_common_rows_are_compared(vocab: int, other: int) -> None:
    first, second = tensors(1, vocab=vocab), tensors(2, vocab=other)
    found = {tensor.name: tensor for tensor in difference(first, second).tensors}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        x, y = (reference.decode(content[name][1][:40], BF16) for content in (first, second))
        assert found[name].pair.shape == (40, 16)
        assert found[name].statistics.relative == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x))
    assert "the 40 rows that both have are compared" in str(difference(first, second))


def test_tensors_of_one_model_only_and_of_other_shapes_are_named() -> None:
    first, second = tensors(1, layers=2), tensors(2, layers=1)
    first["model.layers.0.extra.weight"] = (F32, np.ones(2, np.float32))
    second["model.layers.0.mlp.up_proj.weight"] = (BF16, np.ones((24, 8), np.uint16))
    second["model.layers.0.input_layernorm.weight"] = (I64, np.ones(16, np.int64))
    second["other.weight"] = (F32, np.ones(2, np.float32))
    found = difference(first, second)
    assert sum("layers.1." in name for name in found.only_first) == 9
    assert "model.layers.0.extra.weight" in found.only_first
    assert found.only_second == ("other.weight",)
    assert found.unlike == {
        "model.layers.0.mlp.up_proj.weight": "shapes [24, 16] and [24, 8]",
        "model.layers.0.input_layernorm.weight": "bfloat16 and int64 are numbers of two kinds",
    }
    for text in ("only in second", "not compared: 2 tensors", "only in first: 10 tensors"):
        assert text in str(found)


def test_ties_count_once_and_reach_across() -> None:
    tied, free = tensors(1, tied=True), tensors(2)
    both = difference(tied, tensors(2, tied=True), tie_word_embeddings=True)
    assert [tensor.name for tensor in both.tensors] == list(tied)
    head = {tensor.name: tensor for tensor in difference(tied, free, tie_word_embeddings=True).tensors}[
        "lm_head.weight"
    ]
    x = reference.decode(tied["model.embed_tokens.weight"][1], BF16)
    y = reference.decode(free["lm_head.weight"][1], BF16)
    assert head.statistics.relative == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(x))
    twice = {**tied, "lm_head.weight": tied["model.embed_tokens.weight"]}
    assert len(difference(twice, twice, tie_word_embeddings=True).tensors) == len(tied)


def test_a_model_with_an_adapter_is_a_model(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    base, finetune = pair
    blockmerge.extract_lora(finetune, base, tmp_path / "adapter", rank=16, save_embeddings=True)
    adapted = blockmerge.diff(finetune, f"{base}+{tmp_path / 'adapter'}")
    before = blockmerge.diff(finetune, base)
    assert adapted.models == ("second", "first+adapter")
    for tensor, other in zip(adapted.tensors, before.tensors, strict=True):
        changed = "norm" not in tensor.name
        assert (tensor.statistics.relative < 1e-2) == changed, tensor.name
        assert changed or tensor.statistics == other.statistics


def test_the_command_prints_what_python_finds(pair: tuple[Path, Path]) -> None:
    models = [str(path) for path in pair]
    found = blockmerge.diff(*pair)
    for arguments, expected in (
        ([], str(found)),
        (["--by", "tensor", "--threads", "1"], found.text("tensor")),
        (["--json"], json.dumps(found.to_json(), indent=2)),
    ):
        result = CliRunner().invoke(main, ["diff", *models, *arguments, "--quiet"], catch_exceptions=False)
        assert (result.exit_code, result.stdout, result.stderr) == (0, expected + "\n", "")
    lines = found.text("tensor").splitlines()
    assert all(any(f"  {name} [" in line for line in lines) for name in tensors(1))


def test_the_table_has_a_line_for_each_layer_and_the_tensors_that_differ_most(pair: tuple[Path, Path]) -> None:
    lines = str(blockmerge.diff(*pair)).splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["layer", "0", "1", "none", "all"]
    start = next(number for number, line in enumerate(lines) if line.endswith("tensor")) + 1
    shares = [float(line.split()[1].rstrip("%")) for line in lines[start : start + 10]]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 10
    assert lines[start + 10] == ""


def test_events_tell_what_is_read(pair: tuple[Path, Path]) -> None:
    events: list[Event] = []
    blockmerge.diff(*pair, on_event=events.append, threads=1)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Progress)
    stored = sum(array.nbytes for _, array in tensors(1).values())
    assert (events[0].bytes_to_read, events[-1].bytes_read, events[0].bytes_to_write) == (2 * stored, 2 * stored, 0)


def test_a_listener_that_raises_stops_it(pair: tuple[Path, Path]) -> None:
    def listen(event: Event) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        blockmerge.diff(*pair, on_event=listen)


def test_requests_that_cannot_be_met(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    def refused(kind: type[BlockmergeError], text: str, second: Path | str, **how: Any) -> None:
        with pytest.raises(kind, match=text):
            blockmerge.diff(pair[0], second, **how)

    refused(RecipeError, "0 is no number of threads", pair[1], threads=0)
    refused(ModelError, "there is no such folder", "nowhere")
    strange = save(tmp_path / "strange", {"w": (F32, np.ones(2, np.float32))})
    refused(MismatchError, "have no tensor in common", strange)
    quantised = save(tmp_path / "quantised", tensors(1), quantization_config={"quant_method": "gptq"})
    refused(ModelError, "is quantised", quantised)
    small = {name: (dtype, array[..., :4].copy()) for name, (dtype, array) in tensors(1).items()}
    other = save(tmp_path / "small", small, hidden_size=4)
    refused(MismatchError, "another size of the family: 4 width against 16|16 width against 4", other)


def test_a_shard_that_was_cut_is_an_error(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    file = pair[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError):
        blockmerge.diff(*pair)
