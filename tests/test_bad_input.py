"""What people get wrong, and the one line that they get for it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import blockmerge
import models
from blockmerge.cli import main
from blockmerge.dtypes import BF16, F32, by_code
from blockmerge.execution import Publishing, Started, system, writer

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return (
        models.save(tmp_path / "first", models.tensors(1), shards=2),
        models.save(tmp_path / "second", models.tensors(2)),
    )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, code: int, *texts: str) -> str:
    """The error line; one line, the right exit code, no traceback."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("blockmerge: ")]
    assert lines, result.output
    assert "Traceback" not in result.output
    for text in texts:
        assert any(text in line for line in lines), result.output
    return "\n".join(lines)


def gradient(first: object, second: object, *more: object, values: str = "0.5", out: object = None) -> Result:
    target = out if out is not None else Path(str(first)).parent / "out"
    return run("gradient", first, second, target, "--values", values, *more)


def test_a_folder_that_is_missing(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    refused(gradient(tmp_path / "no where", pair[1]), 3, "no where: there is no such folder")


def test_both_missing_folders_are_named_at_once(tmp_path: Path) -> None:
    text = refused(gradient(tmp_path / "one/x/y", tmp_path / "two/x/y"), 3)
    assert "one/x/y" in text
    assert "two/x/y" in text


def test_a_file_instead_of_a_folder(pair: tuple[Path, Path]) -> None:
    refused(gradient(pair[1] / "model.safetensors", pair[1], out=pair[0].parent / "out"), 3, "is a file")


def test_a_folder_without_config(pair: tuple[Path, Path]) -> None:
    (pair[0] / "config.json").unlink()
    refused(gradient(*pair), 3, "has no config.json")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1, "a": 2}', "\xff"])
def test_a_config_that_is_no_json_object(pair: tuple[Path, Path], text: str) -> None:
    (pair[0] / "config.json").write_bytes(text.encode("latin-1"))
    refused(gradient(*pair), 3, "config.json: ")


def test_a_folder_without_weights(pair: tuple[Path, Path]) -> None:
    (pair[1] / "model.safetensors").unlink()
    refused(gradient(*pair), 3, "holds no weights")
    (pair[1] / "model-q4.gguf").touch()
    refused(gradient(*pair), 3, "only model-q4.gguf", "save_pretrained")
    (pair[1] / "pytorch_model.bin").touch()
    refused(gradient(*pair), 3, "pytorch_model.bin: is no file of torch.save")


def test_an_index_that_names_a_missing_shard(pair: tuple[Path, Path]) -> None:
    (pair[0] / "model-00002-of-00002.safetensors").unlink()
    refused(gradient(*pair), 3, "1 of 2 shards are missing, first model-00002-of-00002.safetensors")


INDEXES: dict[str, Callable[[dict[str, Any]], object]] = {
    "parent folder": lambda index: index["weight_map"].update({NAME: "../second/model.safetensors"}),
    "absolute": lambda index: index["weight_map"].update({NAME: "/etc/passwd"}),
    "hidden": lambda index: index["weight_map"].update({NAME: ".model.safetensors"}),
    "not a name": lambda index: index["weight_map"].update({NAME: 7}),
    "other kind": lambda index: index["weight_map"].update({NAME: "pytorch_model.bin"}),
    "wrong shard": lambda index: index["weight_map"].update({NAME: _other(index["weight_map"][NAME])}),
    "unknown tensor": lambda index: index["weight_map"].update({"x": "model-00001-of-00002.safetensors"}),
    "not listed": lambda index: index["weight_map"].pop(NAME),
    "no map": lambda index: index.pop("weight_map"),
    "empty map": lambda index: index.update(weight_map={}),
}


def _other(shard: str) -> str:
    return shard.replace("00001-of", "0000X-of").replace("00002-of", "00001-of").replace("0000X-of", "00002-of")


@pytest.mark.parametrize("what", INDEXES)
def test_an_index_that_lies(pair: tuple[Path, Path], what: str) -> None:
    path = pair[0] / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    INDEXES[what](index)
    path.write_text(json.dumps(index))
    refused(gradient(*pair), 3)
    assert not (pair[0].parent / "out").exists()


def test_a_truncated_shard(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    refused(gradient(*pair), 3, "10 bytes short", "download it again")


def test_a_tensor_in_two_shards(pair: tuple[Path, Path]) -> None:
    first, second = (pair[0] / f"model-0000{k}-of-00002.safetensors" for k in (1, 2))
    shutil.copy(first, second)
    refused(gradient(*pair), 3, "is also in")


def test_a_pipe_does_not_hang(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "model.safetensors"
    path.unlink()
    os.mkfifo(path)
    refused(gradient(*pair), 3, "not a regular file")


def test_other_architectures(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    models.save(tmp_path / "mistral", models.tensors(3), architectures=["MistralForCausalLM"], model_type="mistral")
    refused(gradient(pair[0], tmp_path / "mistral"), 4, "LlamaForCausalLM", "MistralForCausalLM")


def test_another_size_of_the_family_is_explained(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    content = {
        name: (dtype, np.concatenate([array, array], axis=-1)) for name, (dtype, array) in models.tensors(3).items()
    }
    models.save(tmp_path / "wide", content, hidden_size=32)
    line = refused(gradient(pair[0], tmp_path / "wide"), 4, "another size of the family: 16 width against 32")
    assert "21 shapes differ" in line
    assert "and 17 more" in line


def test_tensors_of_one_model_only_are_listed_or_kept(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    models.save(tmp_path / "deep", models.tensors(2, layers=3), num_hidden_layers=3)
    refused(
        gradient(pair[0], tmp_path / "deep"), 4, "9 tensors of deep are not in first", "and 3 more", "--on-missing keep"
    )
    refused(gradient(tmp_path / "deep", pair[0]), 4, "9 tensors of deep are not in first")
    result = gradient(tmp_path / "deep", pair[0], "--on-missing", "keep")
    assert result.exit_code == 0, result.output
    out, deep = models.read(tmp_path / "out"), models.read(tmp_path / "deep")
    assert out.keys() == deep.keys()
    name = "model.layers.2.mlp.up_proj.weight"
    assert (out[name][1] == deep[name][1]).all()


def test_tensors_that_no_curve_needs_may_be_missing(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    models.save(tmp_path / "deep", models.tensors(2, layers=3), num_hidden_layers=3)
    assert gradient(tmp_path / "deep", pair[0], "--layers", "0:2").exit_code == 0


QUANTISED: dict[str, dict[str, Any]] = {
    "config": {"quantization_config": {"quant_method": "gptq"}},
    "scales": {},
}


@pytest.mark.parametrize("what", QUANTISED)
def test_quantised_checkpoints_are_refused_with_the_reason(tmp_path: Path, pair: tuple[Path, Path], what: str) -> None:
    content = models.tensors(3)
    if what == "scales":
        content[NAME.replace(".weight", ".weight_scale")] = (F32, np.ones(1, np.float32))
    models.save(tmp_path / "quantised", content, **QUANTISED[what])
    refused(gradient(tmp_path / "quantised", pair[1]), 3, "is quantised", "garbage")
    refused(gradient(pair[0], tmp_path / "quantised"), 3, "is quantised")


SCALES = ["weight_scale_inv", "weight_scale", "scale", "input_scale", "scale_weight"]


@pytest.mark.parametrize("scale", SCALES)
def test_eight_bit_floats_with_scales_are_refused(tmp_path: Path, pair: tuple[Path, Path], scale: str) -> None:
    content = models.tensors(3)
    content[NAME] = (by_code("F8_E4M3"), np.zeros((24, 16), np.uint8))  # type: ignore[assignment]
    content[NAME.replace("weight", scale)] = (F32, np.ones(1, np.float32))
    models.save(tmp_path / "fp8", content)
    refused(gradient(tmp_path / "fp8", pair[1]), 3, "is quantised", scale)
    refused(gradient(pair[0], tmp_path / "fp8"), 3, "is quantised", scale)


def test_formats_that_are_no_numbers_by_themselves_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    content = models.tensors(3)
    content[NAME] = (by_code("F8_E8M0"), np.zeros((24, 16), np.uint8))  # type: ignore[assignment]
    models.save(tmp_path / "scales", content)
    refused(gradient(tmp_path / "scales", pair[1]), 3, "float8_e8m0fnu")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("values", ["0.5", "1,0"])
def test_values_that_are_not_finite_are_located(pair: tuple[Path, Path], which: int, value: float, values: str) -> None:
    content = models.read(pair[which])
    array = content[NAME][1].copy()
    array[3, 5] = np.float32(value).view(np.uint32) >> 16
    content[NAME] = (BF16, array)
    shutil.rmtree(pair[which])
    models.save(pair[which], content)
    refused(gradient(*pair, values=values), 5, f"{pair[which].name}: {NAME}[3, 5] is not finite", "--allow-nonfinite")
    assert sorted(path.name for path in pair[0].parent.iterdir()) == ["first", "second"]
    result = gradient(*pair, "--allow-nonfinite", values=values)
    assert result.exit_code == 0
    assert "1 tensors hold values that are not finite" in result.output


def test_a_damaged_tensor_that_is_not_read_does_no_harm(pair: tuple[Path, Path]) -> None:
    content = models.read(pair[1])
    content[NAME] = (BF16, np.full((24, 16), 0x7FC0, np.uint16))
    models.save(pair[1], content)
    assert gradient(*pair, values="0").exit_code == 0


def test_overflow_counts_as_not_finite(tmp_path: Path) -> None:
    content = models.tensors(1)
    content[NAME] = (BF16, np.full((24, 16), 0x4780, np.uint16))  # 65536
    for name in ("first", "second"):
        models.save(tmp_path / name, content)
    result = gradient(tmp_path / "first", tmp_path / "second", "--dtype", "float16")
    refused(result, 5, f"{NAME}[0, 0] overflows float16")


@pytest.mark.parametrize("text", ["", "a", "1,,0", "nan", "mpl:1", "mlp:x", "mlp:1:2"])
def test_gradient_text_that_does_not_parse(pair: tuple[Path, Path], text: str) -> None:
    refused(gradient(*pair, values=text), 2, "values")


def test_a_block_given_twice(pair: tuple[Path, Path]) -> None:
    refused(gradient(*pair, "--values", "mlp:1", "--values", "mlp:0"), 2, "mlp is given twice")


@pytest.mark.parametrize(
    "more", [["--filter", "no such"], ["--layers", "7:9"], ["--values", "attention:1", "--layers", "5:6"]]
)
def test_a_selection_of_nothing(pair: tuple[Path, Path], more: list[str]) -> None:
    refused(gradient(*pair, *more), 2, "selects none of the 21 tensors")


def test_layers_beyond_the_last_and_a_filter_that_is_nearly_right(pair: tuple[Path, Path]) -> None:
    refused(gradient(*pair, "--layers", "0:3"), 2, "layers: 0:3 of first do not exist; it has 2, 0:2")
    refused(gradient(*pair, "--filter", "qproj"), 2, "did you mean q_proj?")


def test_a_folder_is_no_recipe(pair: tuple[Path, Path]) -> None:
    refused(run("plan", pair[0]), 2, "is a folder; a recipe is a YAML file")


CHOICES = [
    "--by=tensors",
    "--only=layer",
    "--dtype=bf16",
    "--arithmetic=exakt",
    "--on-missing=skip",
    "--max-shard-size=2XB",
]


@pytest.mark.parametrize("option", CHOICES)
def test_choices_that_do_not_exist(pair: tuple[Path, Path], option: str) -> None:
    refused(gradient(*pair, option), 2)


def test_no_room_is_known_before_anything_is_read(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(pair[0])
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    refused(gradient(*pair), 6, "bytes, the disk has 1,000 free")
    assert not (pair[0].parent / "out.partial").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_that_cannot_be_written(pair: tuple[Path, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    refused(gradient(*pair, out=locked / "out"), 6, "cannot be written")


def test_an_output_below_a_file(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(gradient(*pair, out=tmp_path / "file" / "out"), 6)


@pytest.mark.parametrize("place", ["first", "first/sub", ".", "first/../second"])
def test_an_output_in_the_way_of_an_input(pair: tuple[Path, Path], tmp_path: Path, place: str) -> None:
    before = models.read(pair[0])
    refused(gradient(*pair, "--overwrite", out=tmp_path / place), 6, "is, holds or lies inside the input")
    assert models.read(pair[0]).keys() == before.keys()


def test_an_output_that_links_to_an_input(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pair[0])
    refused(gradient(*pair, "--overwrite", out=tmp_path / "link"), 6, "is, holds or lies inside the input")


def test_overwrite_does_not_delete_what_is_no_model(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    refused(gradient(*pair, "--overwrite", out=tmp_path / "thesis"), 6, "holds something other than a model")
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_two_merges_to_one_place(pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan = blockmerge.plan(blockmerge.gradient(*map(str, pair), values=0.5))

    def second(event: object) -> None:
        if not isinstance(event, Started):
            return
        with pytest.raises(blockmerge.OutputError, match="another merge is writing it"):
            blockmerge.merge(plan, tmp_path / "out")

    blockmerge.merge(plan, tmp_path / "out", on_event=second)
    assert (tmp_path / "out" / "config.json").is_file()
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("damage", ["truncate", "rewrite"])
def test_an_input_that_changes_while_it_is_read(pair: tuple[Path, Path], tmp_path: Path, damage: str) -> None:
    plan = blockmerge.plan(blockmerge.gradient(*map(str, pair), values=0.5))
    path = pair[1] / "model.safetensors"
    done: list[object] = []

    def interfere(event: object) -> None:
        if done:
            return
        done.append(event)
        content = path.read_bytes()
        path.write_bytes(content[:-100] if damage == "truncate" else content)

    with pytest.raises(blockmerge.ModelError, match=r"changed while|was cut while"):
        blockmerge.merge(plan, tmp_path / "out", on_event=interfere)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second"]


def test_weights_that_changed_since_the_plan(pair: tuple[Path, Path], tmp_path: Path) -> None:
    plan = blockmerge.plan(blockmerge.gradient(*map(str, pair), values=0.5))
    models.save(pair[1], models.tensors(2, vocab=39))
    with pytest.raises(blockmerge.ModelError, match="plan again"):
        blockmerge.merge(plan, tmp_path / "out")


def test_settings_that_change_meaning_are_warned_about(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    models.save(pair[1], models.tensors(2), rope_theta=1e6, max_position_embeddings=4096, eos_token_id=7)
    (pair[0] / "chat_template.jinja").write_text("one")
    (pair[1] / "chat_template.jinja").write_text("other")
    plan = blockmerge.plan(blockmerge.gradient(*map(str, pair), values=0.5))
    text = "\n".join(plan.warnings)
    for key in ("rope_theta", "max_position_embeddings", "eos_token_id", "chat template"):
        assert key in text


def test_debug_shows_where_it_happened(pair: tuple[Path, Path]) -> None:
    result = run("gradient", "missing folder", pair[1], "out", "--values", "1", "--debug")
    assert isinstance(result.exception, blockmerge.ModelError)


def test_a_lock_that_its_holder_removed_is_none(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with system.locked(path) as held:
        assert held
        with system.locked(path) as second:
            assert not second
        late = path.open("ab")
        path.unlink()
    with late:  # opened in time, locked too late: the name is free for somebody else
        assert system._locked(late)
        assert not system._is_at(late, path)


def test_what_an_interrupted_merge_left_is_replaced(pair: tuple[Path, Path], tmp_path: Path) -> None:
    left = tmp_path / "out.partial"
    (left / "deep").mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    (tmp_path / "out.partial.journal").touch()
    assert gradient(*pair).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "out", "second"]


def test_a_folder_in_the_way_of_the_unfinished_model_is_left_alone(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").touch()
    refused(gradient(*pair), 6, "out.partial: is in the way")
    assert (tmp_path / "out.partial" / "mine").exists()


def test_an_input_in_the_way_of_the_unfinished_model_is_left_alone(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (pair[1]).rename(tmp_path / "out.partial")
    (tmp_path / "out.partial.journal").touch()
    refused(gradient(pair[0], tmp_path / "out.partial"), 6, "lies inside the input")
    assert (tmp_path / "out.partial" / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["notes.txt", "checkpoints/one.bin", "train.py"])
def test_overwrite_does_not_delete_what_stands_beside_a_model(
    pair: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    assert gradient(*pair).exit_code == 0
    mine = tmp_path / "out" / name
    mine.parent.mkdir(exist_ok=True)
    mine.touch()
    refused(gradient(*pair, "--overwrite"), 6, f"also holds {name.split('/')[0]}, which --overwrite will not delete")
    assert mine.exists()


def test_an_adapter_is_called_one(pair: tuple[Path, Path]) -> None:
    (pair[1] / "model.safetensors").unlink()
    (pair[1] / "adapter_config.json").write_text("{}")
    refused(gradient(*pair), 3, "is an adapter, not a model")


def test_numbers_of_two_kinds_do_not_blend(pair: tuple[Path, Path]) -> None:
    content = models.read(pair[1])
    content[NAME] = (by_code("U16"), np.zeros((24, 16), np.uint16))  # type: ignore[assignment]
    models.save(pair[1], content)
    refused(gradient(*pair), 4, f"{NAME}: bfloat16 in first, uint16 in second")


def test_a_folder_that_appears_at_out_meanwhile_is_left_alone(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def appear(event: object) -> None:
        if isinstance(event, Publishing):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "thesis.txt").touch()

    with pytest.raises(blockmerge.OutputError, match="exists already"):
        blockmerge.merge(blockmerge.gradient(*map(str, pair), values=0.5), tmp_path / "out", on_event=appear)
    assert (tmp_path / "out" / "thesis.txt").exists()
    (tmp_path / "out").rename(tmp_path / "theirs")
    found = blockmerge.merge(blockmerge.gradient(*map(str, pair), values=0.5), tmp_path / "out")
    assert found.bytes_read == 0  # all of it was there, only the place was taken
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "out", "second", "theirs"]


def test_where_names_cannot_be_exchanged_an_overwrite_still_leaves_one_model(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gradient(*pair).exit_code == 0
    monkeypatch.setattr(system, "exchange", lambda one, other: False)
    assert gradient(*pair, "--overwrite", values="0.1").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "out", "second"]


def test_no_threads_at_all_is_an_error_not_a_hang(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(blockmerge.RecipeError, match="threads"):
        blockmerge.merge(blockmerge.gradient(*map(str, pair), values=0.5), tmp_path / "out", threads=-1)


@pytest.mark.parametrize("place", ["~nosuchuser/x", "x" * 300])
def test_paths_that_are_none(pair: tuple[Path, Path], place: str) -> None:
    refused(gradient(place, pair[1], out=pair[0].parent / "out"), 3, "path")


def test_a_file_that_would_be_published_does_not_lead_out_of_its_folder(pair: tuple[Path, Path]) -> None:
    secret = pair[0].parent / "secret"
    secret.write_text("a secret")
    (pair[0] / "LICENSE").symlink_to(secret)
    refused(gradient(*pair), 3, "LICENSE: leads out of its folder")
    (pair[0] / "LICENSE").unlink()
    (pair[0] / "docs").mkdir()
    (pair[0] / "docs" / "LICENSE").write_text("free")
    (pair[0] / "LICENSE").symlink_to("docs/LICENSE")
    assert gradient(*pair).exit_code == 0
    assert (pair[0].parent / "out" / "LICENSE").read_text() == "free"


def test_weights_may_lie_elsewhere(pair: tuple[Path, Path]) -> None:
    other = pair[0].parent / "other disk"
    other.mkdir()
    (pair[1] / "model.safetensors").rename(other / "weights")
    (pair[1] / "model.safetensors").symlink_to(other / "weights")
    assert gradient(*pair).exit_code == 0


def test_the_cache_of_the_hub_consists_of_links(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """snapshots/COMMIT/config.json leads to blobs/DIGEST, and to no other repository's."""
    repo, other = tmp_path / "hub" / "models--org--one", tmp_path / "hub" / "models--org--private"
    snapshot = repo / "snapshots" / "0123"
    for folder in (snapshot, repo / "blobs", other / "blobs"):
        folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (pair[1] / name).rename(repo / "blobs" / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert gradient(pair[0], snapshot).exit_code == 0
    (other / "blobs" / "beef").touch()
    (snapshot / "LICENSE").symlink_to("../../../models--org--private/blobs/beef")
    refused(gradient(pair[0], snapshot, "--overwrite"), 3, "LICENSE: leads out of its folder")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("what", ["pipe", "socket", "folder", "link to itself", "link to nothing", "link to a device"])
def test_files_that_are_none_are_refused_at_once(pair: tuple[Path, Path], name: str, what: str) -> None:
    path = pair[1] / name
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as end, chdir(pair[1]):  # paths of sockets are short
        {
            "pipe": lambda: os.mkfifo(name),
            "socket": lambda: end.bind(name),
            "folder": path.mkdir,
            "link to itself": lambda: path.symlink_to(name),
            "link to nothing": lambda: path.symlink_to("nothing"),
            "link to a device": lambda: path.symlink_to("/dev/zero"),
        }[what]()
        refused(gradient(*pair), 3)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_pipes_among_the_files_of_an_adapter_are_refused_at_once(pair: tuple[Path, Path], name: str) -> None:
    adapter = pair[0].parent / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (adapter / name).unlink(missing_ok=True)
    os.mkfifo(adapter / name)
    refused(gradient(pair[0], f"{pair[1]}+{adapter}"), 3)


MOUNTED = """
mount --bind {folder}/first {folder}/view && cd {folder} &&
exec {python} -c 'from blockmerge.cli import main; main()' gradient first second {out} --values 0.5 --overwrite
"""


@pytest.mark.parametrize("out", ["view", "view/out"])
def test_an_input_under_another_name_is_still_one(pair: tuple[Path, Path], out: str) -> None:
    folder = pair[0].parent
    (folder / "view").mkdir()
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("needs unshare")
    script = MOUNTED.format(folder=folder, python=sys.executable, out=out)
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert "is, holds or lies inside the input" in done.stderr
    assert (pair[0] / "config.json").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_small_file_that_cannot_be_read_is_found_before_the_weights_are(pair: tuple[Path, Path]) -> None:
    (pair[0] / "LICENSE").touch(mode=0)
    refused(gradient(*pair), 3, "LICENSE: cannot be read: Permission denied")


CONFIGS = {
    "deep": ('{"a": ' + "[" * 200 + "]" * 200 + "}", "nested too deeply"),
    "deep enough to end the parser": ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    "long number": ('{"vocab_size": ' + "9" * 301 + "}", "a number of 301 digits"),
    "half a pair": ('{"model_type": "\\udc80"}', "half of a surrogate pair"),
    "half a pair as a key": ('{"\\uDBFF": 0}', "half of a surrogate pair"),
    "many values": ('{"a": [' + "0," * 5_000_000 + "0]}", "larger than 10,000,000 bytes"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_configs_are_bounded_and_text(pair: tuple[Path, Path], what: str) -> None:
    text, expected = CONFIGS[what]
    (pair[0] / "config.json").write_text(text)
    refused(gradient(*pair), 3, "config.json: ", expected)


def test_whole_pairs_long_floats_and_some_levels_are_fine(pair: tuple[Path, Path]) -> None:
    config = json.loads((pair[0] / "config.json").read_text())
    config |= {"name": "\U0001f600 \\ud800", "small": 10**299, "deep": json.loads("[" * 90 + "]" * 90)}
    (pair[0] / "config.json").write_text(json.dumps(config))
    assert gradient(*pair).exit_code == 0
    assert json.loads((pair[0].parent / "out" / "config.json").read_text())["name"] == config["name"]


@pytest.mark.parametrize("value", ["\\ud800", "a\\nb", "\\x1b[2J"])
def test_a_card_with_text_that_cannot_be_shown_is_not_carried_over(pair: tuple[Path, Path], value: str) -> None:
    (pair[0] / "README.md").write_text(f'---\nlicense: "{value}"\n---\n')
    assert gradient(*pair).exit_code == 0
    assert "license" not in (pair[0].parent / "out" / "README.md").read_text("utf-8").split("---")[1]


@pytest.mark.parametrize(
    "text", ['"\\ud83d\\ude00"', '"\\U0000DC00"', '"\\UFFFFFFFF"', "1" * 400, "!!float " + "1" * 400]
)
def test_texts_and_numbers_in_recipes_that_are_none(pair: tuple[Path, Path], text: str) -> None:
    recipe = pair[0].parent / "recipe.yaml"
    recipe.write_text(f"method: gradient\nmodels: ['{pair[0]}', '{pair[1]}']\nvalues: [{text}]\n")
    refused(run("merge", recipe, pair[0].parent / "out"), 2, "recipe.yaml")


def test_an_index_with_names_that_are_none(pair: tuple[Path, Path]) -> None:
    path = pair[0] / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["\x1b[2J"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    assert "\x1b" not in refused(gradient(*pair), 3, r"'\x1b[2J' is no name for a tensor")


def test_an_empty_tensor_of_a_huge_shape_is_no_trouble(tmp_path: Path) -> None:
    content = models.tensors(1)
    content["model.empty.weight"] = (BF16, np.zeros((2**40, 0), np.uint16))
    for name in ("first", "second"):
        models.save(tmp_path / name, content)
    assert gradient(tmp_path / "first", tmp_path / "second").exit_code == 0
    assert models.read(tmp_path / "out")["model.empty.weight"][1].shape == (2**40, 0)


@pytest.mark.parametrize("what", ["pipe", "link"])
def test_a_journal_that_is_none_is_left_alone(pair: tuple[Path, Path], what: str) -> None:
    folder = pair[0].parent
    (folder / "mine").write_text("precious")
    journal = folder / "out.partial.journal"
    os.mkfifo(journal) if what == "pipe" else journal.symlink_to("mine")
    refused(gradient(*pair), 6, "cannot be written")
    assert (folder / "mine").read_text() == "precious"


def test_a_gradient_recipe_tells_all_at_once_with_lines(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    lines = ["layers: 5:3", "arithmetic: exakt", "on_missing: kep", "only: layer", "max_shard_size: 1XB", "by: tensr"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("\n".join(["method: gradient", f"models: [{pair[0]}, {pair[1]}]", "values: {attn: [0]}", *lines]))
    told = refused(run("plan", recipe), 2, "did you mean attention?", "did you mean exact?", "did you mean layers?")
    assert {int(line.split("recipe.yaml:")[1].split(":")[0]) for line in told.splitlines()} == {3, 4, 5, 6, 7, 8, 9}


def test_a_misspelt_merge_method_is_a_file_of_mergekits_still(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    recipe = tmp_path / "recipe.yaml"
    entries = "".join(f"  - {{model: {path}, parameters: {{weight: 1}}}}\n" for path in pair)
    recipe.write_text(f"merge_methd: linear\nmodels:\n{entries}")
    assert "models[0].parameters" not in refused(run("plan", recipe), 2, "did you mean merge_method?")


@pytest.mark.parametrize("dialect", ["merge_method", "method"])
def test_a_filter_that_selects_nothing_is_told_with_the_nearest_word(
    tmp_path: Path, pair: tuple[Path, Path], dialect: str
) -> None:
    """An error, but in files of mergekit's, where it may be meant for other models, a warning."""
    recipe, first = tmp_path / "recipe.yaml", pair[0]
    setting = "t: [{filter: self_atn, value: 0.3}, {value: 0.5}]"
    recipe.write_text(
        f"merge_method: slerp\nbase_model: {first}\nmodels: [{{model: {first}}}, {{model: {pair[1]}}}]\n"
        f"parameters: {{{setting}}}\n"
        if dialect == "merge_method"
        else f"method: slerp\nmodels: [{first}, {pair[1]}]\n{setting}\n"
    )
    result = run("plan", recipe)
    assert result.exit_code == (0 if dialect == "merge_method" else 2)
    assert "'self_atn'" in result.output and "did you mean self_attn?" in result.output


def test_a_misspelt_folder_is_told_with_the_one_beside_it(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    refused(gradient(tmp_path / "frist", pair[1], out=tmp_path / "out"), 3, "frist: there is no such folder", "first?")
