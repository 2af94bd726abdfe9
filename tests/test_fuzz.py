"""Files that are nearly right: whatever is in them, they are read, or refused by an error of ours in one line."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import blockmerge
import models
from blockmerge.errors import BlockmergeError, FormatError
from blockmerge.formats.jsonfile import parse_object
from blockmerge.formats.safetensors import read_header
from blockmerge.formats.sentencepiece import read_pieces
from blockmerge.recipes import to_yaml
from blockmerge.recipes.load import parse_recipe
from blockmerge.report import published_files
from blockmerge.sources import LocalSource
from blockmerge.sources.local import weight_map

FUZZ = Path(__file__).parents[1] / "attacks" / "fuzz.py"
many = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

words = st.sampled_from(["", "a", "b", "..", "a\0b", "\x1b[2J", "ü", "\ud800", "__metadata__", "x" * 1025, "\u202e"])
numbers = st.sampled_from([0, 1, 2, 4, 8, -1, 2**31, 2**63 - 1, 2**63, 2**64, 10**300, 10**301, 0.5, 1e999, True])
values = st.recursive(
    st.none() | numbers | words | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def refused_or(read: Callable[[], Any], kind: type[BlockmergeError] = BlockmergeError) -> Any:
    """What ``read`` gives, or None if it refuses as it should."""
    try:
        return read()
    except kind as error:
        assert str(error)
        assert all(len(line) < 5000 for line in str(error).splitlines())
        return None


# ---- headers ---------------------------------------------------------------------------------------------------------

SIZES = {"U8": 1, "BOOL": 1, "F16": 2, "BF16": 2, "F32": 4, "I64": 8}


@st.composite
def near_headers(draw: st.DrawFn) -> bytes:
    """A file that is right but for one thing or two."""
    entries: dict[str, Any] = {}
    end = 0
    for name in draw(st.lists(st.sampled_from("abcdef"), max_size=4, unique=True)):
        code, shape = draw(st.sampled_from(sorted(SIZES))), draw(st.lists(st.integers(0, 3), max_size=3))
        size = SIZES[code]
        for length in shape:
            size *= length
        entries[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    for _ in range(draw(st.integers(0, 2))):
        target = entries.get(draw(st.sampled_from("abcdef")))
        (target if isinstance(target, dict) else entries)[
            draw(words | st.sampled_from(["dtype", "shape", "data_offsets"]))
        ] = draw(values)
    text = json.dumps(entries).encode()
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.binary(max_size=2)) + text[at + draw(st.integers(0, 2)) :]
    text += b" " * draw(st.integers(0, 3))
    length = len(text) + draw(st.sampled_from([0, 0, 0, 1, -1]))
    return max(0, length).to_bytes(8, "little") + text + bytes(end + draw(st.sampled_from([0, 0, 0, 1])))


@many
@given(near_headers())
def test_headers(content: bytes) -> None:
    ours = refused_or(lambda: read_header(io.BytesIO(content), len(content), "x"), FormatError)
    if ours is not None:
        theirs = dict(safetensors.deserialize(content))
        assert {name: (view["dtype"], tuple(view["shape"])) for name, view in theirs.items()} == {
            name: (spec.dtype.code, spec.shape) for name, spec in ours.tensors.items()
        }


# ---- indexes and configs ---------------------------------------------------------------------------------------------

maps = st.dictionaries(words, words | st.sampled_from(["a.safetensors", "../a.safetensors", "a.safetensors\n"]))


@many
@given(st.dictionaries(st.sampled_from(["weight_map", "metadata", "x"]), maps | values, max_size=3))
def test_indexes(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(content))
    for name, shard in (refused_or(lambda: weight_map(path), FormatError) or {}).items():
        assert name.isprintable()
        assert shard == "a.safetensors"


keys = st.sampled_from([*models.CONFIG, "text_config", "quantization_config", "dtype", "rope_scaling", "auto_map"])


@settings(many, max_examples=100)
@given(st.dictionaries(keys, values, max_size=4))
def test_configs(tmp_path: Path, changes: dict[str, Any]) -> None:
    folders = [str(models.save(tmp_path / name, models.tensors(1, layers=1), **changes)) for name in ("one", "two")]
    refused_or(lambda: str(blockmerge.inspect(folders[0])))
    planned = refused_or(lambda: blockmerge.plan(blockmerge.gradient(*folders, values=0.5, dtype="float32")))
    if planned is not None:
        assert published_files(planned, {row.name: "" for row in planned.rows})
        assert planned.files["config.json"].read()


@many
@given(st.binary(max_size=40) | values.map(lambda value: json.dumps({"a": value}).encode()))
def test_json_that_is_taken_can_be_written_again(content: bytes) -> None:
    found = refused_or(lambda: parse_object(content, "x"), FormatError)
    if found is not None:
        written = json.dumps(found, ensure_ascii=False, indent=2).encode()
        assert json.dumps(parse_object(written, "x")) == json.dumps(found)


# ---- recipes ---------------------------------------------------------------------------------------------------------

RECIPES: list[dict[str, Any]] = [
    {
        "method": "gradient",
        "models": ["a/b", "c/d"],
        "values": {"attention": [0.2, 0.8], "all": [0.5]},
        "layers": "0:4",
    },
    {
        "method": "linear",
        "models": [{"model": "a/b", "weight": 1}, {"model": "c/d", "weight": [0, 1]}],
        "dtype": "float16",
        "name": "x",
    },
    {
        "merge_method": "ties",
        "base_model": "a/b",
        "models": [{"model": "c/d", "parameters": {"density": [0, 1], "weight": 0.5}}, {"model": "a/b"}],
        "parameters": {"normalize": True, "density": [{"filter": "mlp", "value": 0.5}, {"value": 1}]},
        "tokenizer": {"source": "union", "tokens": {"<s>": {"source": "a/b"}}},
    },
    {
        "merge_method": "passthrough",
        "slices": [{"sources": [{"model": "a/b", "layer_range": [0, 8]}]}],
        "dtype": "float16",
    },
    {
        "model_path1": "a/b",
        "model_path2": "c/d",
        "output_model_path": "out",
        "operations": [{"operation": "gradient", "gradient_values": [0, 1], "filter": "mlp"}],
    },
]
WORDS = [
    "a/b",
    "c/d",
    "a/b+c/d",
    "..",
    "\x1b",
    "gradient",
    "linear",
    "slerp",
    "union",
    "0:4",
    "model",
    "value",
    "filter",
]
nested = st.recursive(
    values | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def near_recipes(draw: st.DrawFn) -> dict[str, Any]:
    """A recipe that is right but for a few things, anywhere in it."""
    recipe = copy.deepcopy(draw(st.sampled_from(RECIPES)))
    for _ in range(draw(st.integers(0, 3))):
        place: Any = recipe
        while place and draw(st.booleans()):
            inner = list(place.values() if isinstance(place, dict) else place)
            inner = [part for part in inner if isinstance(part, dict | list)]
            place = draw(st.sampled_from(inner)) if inner else place
        if isinstance(place, list):
            place[draw(st.integers(0, len(place))) :] = [draw(nested)]
        else:
            place[draw(st.sampled_from([*place, *WORDS]))] = draw(nested)
    return recipe


@settings(many, max_examples=150)
@given(st.lists(near_recipes(), min_size=1, max_size=2))
def test_recipes(contents: list[dict[str, Any]]) -> None:
    text = yaml.safe_dump_all(contents, allow_unicode=True)
    recipe = refused_or(lambda: parse_recipe(text))
    if recipe is not None and not recipe.stages:
        to_yaml(recipe, {name: name for name in recipe.models}).encode()


@many
@given(st.text("ab:-[]{}&*!?|>'\"#%@,\n\t 01\\uxUDd8", max_size=60))
def test_texts_that_are_hardly_yaml(text: str) -> None:
    refused_or(lambda: parse_recipe(text))


# ---- SentencePiece ---------------------------------------------------------------------------------------------------


@many
@given(st.lists(st.binary(max_size=8) | st.sampled_from([b"\x0a\x03\x0a\x01a", b"\x0a\xff\xff\x7f", b"\x18\x06"])))
def test_pieces(content: list[bytes]) -> None:
    refused_or(lambda: read_pieces(b"".join(content), "x", 100), FormatError)


# ---- truncation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"]
)
def test_every_boundary_of_every_file(tmp_path: Path, name: str) -> None:
    """Cut at each place where something ends, and one byte around it."""
    folder = models.save(
        tmp_path / "model", models.tensors(1, layers=1), shards=1 if name == "model.safetensors" else 2
    )
    path = folder / name
    content = path.read_bytes()
    for length in _boundaries(content, name):
        path.write_bytes(content[:length])
        with pytest.raises(BlockmergeError):
            LocalSource(folder)
    path.write_bytes(content)
    LocalSource(folder).close()


def _boundaries(content: bytes, name: str) -> list[int]:
    ends = {0, 8, len(content)}
    if name.endswith(".safetensors"):
        header = read_header(io.BytesIO(content), len(content), name)
        ends |= {8 + len(header.raw), *header.offsets.values()}
        content = content[: 8 + len(header.raw)]
    ends |= {place for place, byte in enumerate(content) if byte in b'{}[],:"'}
    return sorted({end + step for end in ends for step in (-1, 0, 1)} & set(range(max(ends))))


# ---- a million of them -----------------------------------------------------------------------------------------------

RUNS = {
    "header": 1_000_000, "file": 300_000, "index": 300_000, "recipe": 200_000, "pieces": 500_000, "tokenizer": 300_000,
    "adapter": 200_000, "card": 200_000,
}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("target", RUNS)
def test_coverage_guided(tmp_path: Path, target: str) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris")
    command = [sys.executable, str(FUZZ), target, "--runs", str(RUNS[target])]
    scratch = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=scratch, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS[target]} runs" in done.stderr
