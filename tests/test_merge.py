"""Merging two folders into a third: the numbers, the files, and what does not depend on anything."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

import blockmerge
import models
from blockmerge.architectures import Block
from blockmerge.dtypes import BF16, F16, F32, F64, DType, by_code
from blockmerge.execution import Finished, Started, TensorDone, executor, work
from blockmerge.kernels import reference
from blockmerge.methods import Copy, Operation
from blockmerge.planning import Piece, Read, Row
from blockmerge.planning.gradients import by_tensor


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two untied Llamas of two layers, with tokenizers and cards."""
    first = models.save(tmp_path / "first", models.tensors(1), shards=2)
    second = models.save(tmp_path / "second", models.tensors(2))
    for folder in (first, second):
        models.add_tokenizer(folder)
    return first, second


def merge(first: Path, second: Path, out: Path, *, how: dict | None = None, **recipe) -> Finished:
    plan = blockmerge.plan(blockmerge.gradient(str(first), str(second), **recipe))
    return blockmerge.merge(plan, out, **(how or {}))


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_tensor_is_the_blend_that_its_place_asks_for(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    merge(*pair, tmp_path / "out", values=[1.0, 0.4, 0.0])
    a, b, out = (models.read(folder) for folder in (*pair, tmp_path / "out"))
    names = list(models.tensors(1))  # in module order
    assert set(out) == set(names)
    for name, ratio in zip(names, by_tensor([1.0, 0.4, 0.0], len(names)), strict=True):
        expected = reference.lerp(a[name][1], BF16, b[name][1], BF16, BF16, ratio)
        if ratio in (0.0, 1.0):
            expected = (a if ratio == 0.0 else b)[name][1]
        assert (out[name][1] == expected).all(), name


@pytest.mark.parametrize("out_dtype", [None, "bfloat16", "float16", "float32"])
@pytest.mark.parametrize("second_dtype", [BF16, F16, F32, F64])
@pytest.mark.parametrize("first_dtype", [BF16, F16, F32, F64])
def test_any_dtypes_go_together_and_round_once(
    tmp_path: Path, first_dtype: DType, second_dtype: DType, out_dtype: str | None
) -> None:
    first = models.save(tmp_path / "first", models.tensors(1, dtype=first_dtype), torch_dtype=first_dtype.name)
    second = models.save(tmp_path / "second", models.tensors(2, dtype=second_dtype), torch_dtype=second_dtype.name)
    merge(first, second, tmp_path / "out", values=[0.3], dtype=out_dtype)
    expected_dtype = {"bfloat16": BF16, "float16": F16, "float32": F32}.get(out_dtype or "", first_dtype)
    expected_dtype = F32 if expected_dtype == F64 else expected_dtype
    a, b, out = (models.read(folder) for folder in (first, second, tmp_path / "out"))
    wide = expected_dtype == F32 or F64 in (first_dtype, second_dtype)
    blend = reference.lerp_wide if wide else reference.lerp
    for name, (dtype, got) in out.items():
        assert dtype == expected_dtype
        assert (got == blend(a[name][1], first_dtype, b[name][1], second_dtype, expected_dtype, 0.3)).all()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == expected_dtype.name


def test_results_depend_on_neither_threads_nor_tiles_nor_listeners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    big = {name: (BF16, reference.encode(random.normal(0, 1, (1531, 709)), BF16)) for name in ("a.weight", "b.weight")}
    other = {name: (BF16, reference.encode(random.normal(0, 1, (1531, 709)), BF16)) for name in big}
    for folder, content in (("first", big), ("second", other)):
        models.save(tmp_path / folder, content, {"model_type": "none", "architectures": ["None"]})
    seen = set()
    for number, (threads, tile) in enumerate([(1, 1 << 19), (2, 1 << 12), (3, 999_998), (8, 1 << 20)]):
        monkeypatch.setattr(executor.Executor.__init__, "__kwdefaults__", {**_DEFAULTS, "tile": tile})
        out = tmp_path / f"out{number}"
        merge(tmp_path / "first", tmp_path / "second", out, values=[0.3, 0.6], how={"threads": threads})
        seen.add(json.dumps(digest(out)))
    assert len(seen) == 1


_DEFAULTS = dict(executor.Executor.__init__.__kwdefaults__ or {})


def test_weights_do_not_depend_on_the_size_of_shards(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    merge(*pair, tmp_path / "one", values=[0.3, 0.6])
    merge(*pair, tmp_path / "many", values=[0.3, 0.6], max_shard_size="1KB")
    one, many = models.read(tmp_path / "one"), models.read(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all((one[name][1] == many[name][1]).all() for name in one)
    manifests = [json.loads((tmp_path / name / "blockmerge.json").read_text()) for name in ("one", "many")]
    assert manifests[0]["tensors"] == manifests[1]["tensors"]
    assert manifests[0]["plan"] == manifests[1]["plan"]
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(one)
    assert index["metadata"]["total_size"] == sum(array.nbytes for _, array in one.values())
    for name, file in index["weight_map"].items():
        assert len(list((tmp_path / "many").glob("model-*.safetensors"))) == int(file[15:20])
        assert (tmp_path / "many" / file).is_file(), name


def test_equal_merges_give_equal_files_wherever_they_are_made(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    merge(*pair, tmp_path / "out", values=[0.3, 0.6])
    elsewhere = [models.copy(folder, tmp_path / "elsewhere" / folder.name) for folder in pair]
    merge(*elsewhere, tmp_path / "elsewhere" / "named differently", values=[0.3, 0.6])
    assert digest(tmp_path / "out") == digest(tmp_path / "elsewhere" / "named differently")


def test_inputs_are_not_touched(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    before = [digest(folder) for folder in pair]
    merge(*pair, tmp_path / "out", values=[0.5])
    assert [digest(folder) for folder in pair] == before


def test_model_1_lends_its_small_files_and_code_stays_behind(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    plan = blockmerge.plan(blockmerge.gradient(*map(str, pair), values=[0.5]))
    blockmerge.merge(plan, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    copied = {
        "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
        "generation_config.json",
    }  # fmt: skip
    assert names == copied | {"model.safetensors", "README.md", "gradient.svg", "blockmerge.json"}
    for name in copied:
        assert (tmp_path / "out" / name).read_bytes() == (pair[0] / name).read_bytes()
    assert any("modeling_own.py" in note for note in plan.notes)


def test_the_card_carries_what_the_hub_reads(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (pair[1] / "README.md").write_text("---\nlicense: mit\nlanguage: [en, de]\n---\n")
    merge(*pair, tmp_path / "out", values={"attention": [0.2, 0.8], "mlp": [0.8, 0.2]})
    text = (tmp_path / "out" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    matter = yaml.safe_load(front)
    assert matter["base_model"] == ["first", "second"]
    assert matter["base_model_relation"] == "merge"
    assert matter["license"] == ["apache-2.0", "mit"]
    assert matter["language"] == ["en", "de"]
    assert "blockmerge" in matter["tags"]
    assert "(gradient.svg)" in body
    assert str(tmp_path) not in text
    recipe = yaml.safe_load(body.split("```yaml\n")[1].split("```")[0])
    assert recipe["values"] == {"attention": [0.2, 0.8], "mlp": [0.8, 0.2]}


def test_no_published_file_knows_where_it_was_made(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    merge(*pair, tmp_path / "out", values=[0.5])
    for path in (tmp_path / "out").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name


def test_events_tell_the_story_in_order(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    events: list[object] = []
    finished = merge(*pair, tmp_path / "out", values=[0.5], how={"on_event": events.append})
    assert isinstance(events[0], Started)
    assert events[-1] == finished
    done = [event for event in events if isinstance(event, TensorDone)]
    manifest = json.loads((tmp_path / "out" / "blockmerge.json").read_text())
    assert {event.name: f"xxh3-128-1MiB:{event.digest}" for event in done} == manifest["tensors"]
    assert finished.bytes_read == sum(array.nbytes for folder in pair for _, array in models.read(folder).values())


def test_a_listener_that_raises_stops_the_merge_and_leaves_nothing(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    def refuse(event: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        merge(*pair, tmp_path / "out", values=[0.5], how={"on_event": refuse})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_digests_are_over_blocks_of_one_mebibyte(tmp_path: Path) -> None:
    import xxhash

    random = np.random.default_rng(0)
    content = {"a.weight": (F32, random.normal(0, 1, 700_001).astype(np.float32))}
    for folder in ("first", "second"):
        models.save(tmp_path / folder, content, {"model_type": "none"})
    merge(tmp_path / "first", tmp_path / "second", tmp_path / "out", values=[0.0])
    data = content["a.weight"][1].tobytes()
    blocks = b"".join(xxhash.xxh3_128_digest(data[k : k + (1 << 20)]) for k in range(0, len(data), 1 << 20))
    manifest = json.loads((tmp_path / "out" / "blockmerge.json").read_text())
    assert manifest["tensors"]["a.weight"] == "xxh3-128-1MiB:" + xxhash.xxh3_128_hexdigest(blocks)


@dataclass(frozen=True)
class ByRows(Operation):
    """An operation that needs rows of ``length`` whole, and measures first if asked."""

    length: int
    measures: tuple[int, ...] = ()

    @property
    def row(self) -> int:
        return self.length

    def numbers(self) -> dict:
        return {}

    def bind(self, dtypes, out, statistics=()):
        raise NotImplementedError


@pytest.mark.parametrize("length", [1, 7, 4096, 300_001, 600_000])
@pytest.mark.parametrize("measures", [(), (1,)])
@pytest.mark.parametrize("tile", [1, 4096, 1 << 19])
def test_blocks_are_covered_once_and_rows_are_seen_whole(length: int, measures: tuple[int, ...], tile: int) -> None:
    count = length * (1_300_000 // length)
    reads = (Read(0, "a", BF16),)
    pieces = (Piece(0, count, reads, ByRows(length, measures)), Piece(count, 77, reads, Copy()))
    row = Row("a", BF16, (count + 77,), pieces, None, None, None, Block.OTHER)
    if length * tile == 1:
        pytest.skip("a million tiles")
    blocks = range(-(-row.nbytes // work.BLOCK))
    kept = [(t.first + t.skipped, t.kept) for block in blocks for t in work.tiles(row, block, tile)]
    edges = [first for first, _ in kept] + [row.elements]
    assert edges[0] == 0
    assert all(first + number == following for (first, number), following in zip(kept, edges[1:], strict=True))
    for block in blocks:
        for found in work.tiles(row, block, tile):
            assert block * work.BLOCK // 2 <= found.first + found.skipped < (block + 1) * work.BLOCK // 2
            assert found.piece == 1 or found.first % length == 0 == found.count % length
    seen = [found for block in blocks for found in work.granules(row, block) if found.piece == 0]
    assert [found.first for found in seen] == [sum(f.count for f in seen[:k]) for k in range(len(seen))]
    assert sum(found.count for found in seen) == count
    assert all(found.first % length == 0 for found in seen)


@pytest.mark.parametrize(("vocab", "other"), [(40, 37), (37, 40)])
def test_rows_that_only_one_vocabulary_has(tmp_path: Path, vocab: int, other: int) -> None:
    first = models.save(tmp_path / "first", models.tensors(1, vocab=vocab), vocab_size=vocab)
    second = models.save(tmp_path / "second", models.tensors(2, vocab=other), vocab_size=other)
    plan = blockmerge.plan(blockmerge.gradient(str(first), str(second), values=[0.3]))
    blockmerge.merge(plan, tmp_path / "out")
    a, b, out = (models.read(folder) for folder in (first, second, tmp_path / "out"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        common = reference.lerp(a[name][1][:37], BF16, b[name][1][:37], BF16, BF16, 0.3)
        assert out[name][1].shape == (vocab, 16)
        assert (out[name][1][:37] == common).all()
        assert (out[name][1][37:] == a[name][1][37:]).all()
    assert sum("rows" in note for note in plan.notes) == 2


def test_a_model_that_ties_and_one_that_does_not_give_one_that_does_not(tmp_path: Path) -> None:
    first = models.save(tmp_path / "first", models.tensors(1, tied=True), tie_word_embeddings=True)
    second = models.save(tmp_path / "second", models.tensors(2))
    merge(first, second, tmp_path / "out", values=[1.0])
    out, b = models.read(tmp_path / "out"), models.read(second)
    assert all((out[name][1] == b[name][1]).all() for name in b)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False


def test_two_tied_models_stay_tied_and_the_head_ratio_stands(tmp_path: Path) -> None:
    first = models.save(tmp_path / "first", models.tensors(1, tied=True), tie_word_embeddings=True)
    second = models.save(tmp_path / "second", models.tensors(2, tied=True), tie_word_embeddings=True)
    merge(first, second, tmp_path / "out", values={"embeddings": 0.1, "head": 0.7})
    a, b, out = (models.read(folder) for folder in (first, second, tmp_path / "out"))
    name = "model.embed_tokens.weight"
    assert "lm_head.weight" not in out
    assert (out[name][1] == reference.lerp(a[name][1], BF16, b[name][1], BF16, BF16, 0.7)).all()


def test_integers_and_scalars_and_empty_tensors_pass(tmp_path: Path) -> None:
    extra = {
        "a.ids": (by_code("I64"), np.arange(5)),
        "a.scalar": (F32, np.array(2.0, np.float32)),
        "a.empty": (F32, np.empty((0, 4), np.float32)),
        "a.flag": (by_code("BOOL"), np.array([1, 0], np.uint8)),
    }
    other = {**extra, "a.ids": (by_code("I64"), np.arange(5) + 7), "a.scalar": (F32, np.array(4.0, np.float32))}
    models.save(tmp_path / "first", extra, {"model_type": "none"})  # type: ignore[arg-type]
    models.save(tmp_path / "second", other, {"model_type": "none"})  # type: ignore[arg-type]
    merge(tmp_path / "first", tmp_path / "second", tmp_path / "out", values=[0.5], dtype="bfloat16")
    out = models.read(tmp_path / "out")
    assert out["a.ids"][1].tolist() == list(range(5))
    assert reference.decode(out["a.scalar"][1].reshape(1), BF16).tolist() == [3.0]
    assert out["a.empty"][1].shape == (0, 4)
    assert out["a.flag"][1].tolist() == [1, 0]


def test_what_we_write_the_safetensors_library_reads(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    safetensors = pytest.importorskip("safetensors")
    merge(*pair, tmp_path / "out", values=[0.5], max_shard_size="3KB")
    out = models.read(tmp_path / "out")
    seen = {}
    for file in (tmp_path / "out").glob("*.safetensors"):
        with safetensors.safe_open(file, "np") as opened:
            assert opened.metadata() == {"format": "pt"}
        seen |= dict(safetensors.deserialize(file.read_bytes()))
    assert {name: bytes(view["data"]) for name, view in seen.items()} == {
        name: array.tobytes() for name, (_, array) in out.items()
    }


def test_overwriting_replaces_a_model_whole(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    out = tmp_path / "out"
    merge(*pair, out, values=[0.5], max_shard_size="3KB")
    with pytest.raises(blockmerge.OutputError, match="exists already"):
        merge(*pair, out, values=[0.5])
    merge(*pair, out, values=[0.1], how={"overwrite": True})
    assert len(list(out.glob("*.safetensors"))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "out", "second"]


def test_a_head_that_model_2_stores_twice_is_tied_all_the_same(tmp_path: Path) -> None:
    first = models.save(tmp_path / "first", models.tensors(1, tied=True), tie_word_embeddings=True)
    content = models.tensors(2, tied=True)
    content["lm_head.weight"] = content["model.embed_tokens.weight"]
    second = models.save(tmp_path / "second", content, tie_word_embeddings=True)
    merge(first, second, tmp_path / "out", values=[0.5])
    assert "lm_head.weight" not in models.read(tmp_path / "out")
    differing = content["lm_head.weight"][1].copy()
    differing[-1, -1] ^= 1  # one bit, at the very end
    models.save(second, {**content, "lm_head.weight": (BF16, differing)}, tie_word_embeddings=True)
    merge(first, second, tmp_path / "apart", values=[0.5])
    assert "lm_head.weight" in models.read(tmp_path / "apart")


def test_a_tie_that_no_curve_touches_stays_a_tie(tmp_path: Path) -> None:
    first = models.save(tmp_path / "first", models.tensors(1, tied=True), tie_word_embeddings=True)
    second = models.save(tmp_path / "second", models.tensors(2))
    merge(first, second, tmp_path / "out", values={"attention": [0.5]})
    assert "lm_head.weight" not in models.read(tmp_path / "out")
