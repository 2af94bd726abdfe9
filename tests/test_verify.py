"""A merged model can be proved: against its digests, and against its inputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

import blockmerge
import models
from blockmerge.cli import main
from blockmerge.dtypes import BF16, F32
from blockmerge.errors import BlockmergeError, ModelError, Problems, RecipeError, VerificationError
from blockmerge.execution.verify import sampled

MERGES: dict[str, list[dict[str, Any]]] = {
    "gradient": [{"method": "gradient", "models": ["m0", "m1"], "values": [0.2, 0.8]}],
    "dare_ties": [
        {"method": "dare_ties", "base": "m0", "models": ["m1", "m2"], "weight": 0.5, "density": 0.4, "seed": 7}
    ],
    "slices": [
        {
            "method": "passthrough",
            "slices": [{"models": [{"model": "m1", "layers": "0:2"}]}, {"models": [{"model": "m2", "layers": "1:2"}]}],
        }
    ],
    "stages": [
        {"name": "inner", "method": "karcher", "models": ["m0", "m1", "m2"]},
        {"method": "ties", "base": "m0", "models": ["inner", "m2"], "weight": 0.5, "density": 0.5, "dtype": "float32"},
    ],
}


@pytest.fixture
def merged(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A merge of models that lie beside it."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        models.save(tmp_path / f"m{number}", models.tensors(number, vocab=40_000))
    documents = MERGES[getattr(request, "param", "gradient")]
    Path("recipe.yaml").write_text(yaml.safe_dump_all(documents))
    blockmerge.merge("recipe.yaml", "out")
    return tmp_path / "out"


def change(folder: Path, name: str, at: tuple[int, ...]) -> None:
    tensors = {key: (dtype, array.copy()) for key, (dtype, array) in models.read(folder).items()}
    tensors[name][1][at] += 1
    models.write_file(folder / "model.safetensors", tensors)


@pytest.mark.parametrize("merged", list(MERGES), indirect=True)
def test_what_was_merged_is_verified_from_its_inputs(merged: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir("/")
    found = blockmerge.verify(merged, inputs=True)
    assert found.differing == ()
    assert found.tensors == found.recomputed == len(models.read(merged))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(str(merged), elsewhere / "out")
    with pytest.raises(BlockmergeError, match="there is no such folder"):
        blockmerge.verify(elsewhere / "out", inputs=True)
    assert blockmerge.verify(elsewhere / "out", inputs=True, roots=[tmp_path]).differing == ()


def test_a_changed_element_is_found_with_its_tensor_and_block(merged: Path) -> None:
    change(merged, "lm_head.weight", (39_999, 15))
    assert blockmerge.verify(merged).differing == ("lm_head.weight differs from what was written",)
    found = blockmerge.verify(merged, inputs=True).differing
    assert found[1] == "lm_head.weight differs from what its inputs give, from the block of element 524288 on"


def test_a_manifest_that_was_made_to_fit_does_not_fit_the_inputs(merged: Path) -> None:
    change(merged, "model.norm.weight", (3,))
    manifest = json.loads((merged / "blockmerge.json").read_text())
    import xxhash

    block = xxhash.xxh3_128_digest(models.read(merged)["model.norm.weight"][1].tobytes())
    manifest["tensors"]["model.norm.weight"] = f"xxh3-128-1MiB:{xxhash.xxh3_128_hexdigest(block)}"
    (merged / "blockmerge.json").write_text(json.dumps(manifest))
    assert blockmerge.verify(merged).differing == ()
    found = blockmerge.verify(merged, inputs=True).differing
    assert found == ("model.norm.weight differs from what its inputs give, from the block of element 0 on",)


def test_tensors_that_are_missing_or_too_many(merged: Path) -> None:
    tensors = models.read(merged)
    del tensors["lm_head.weight"]
    tensors["more.weight"] = (BF16, np.zeros(3, np.uint16))
    models.write_file(merged / "model.safetensors", tensors)
    found = blockmerge.verify(merged).differing
    assert found == ("lm_head.weight is missing", "more.weight is not in blockmerge.json")


def test_other_inputs_are_no_proof(merged: Path, tmp_path: Path) -> None:
    models.save(tmp_path / "m1", models.tensors(1, vocab=40_000, dtype=F32))
    with pytest.raises(VerificationError, match="its inputs are not those that it was made of"):
        blockmerge.verify(merged, inputs=True)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "only models that Blockmerge made can be verified"),
        ("{}", "is no manifest that this version can read"),
        ('{"format": 1, "recipe": {}, "plan": "", "tensors": {"a": 1}}', "lists no digests of tensors"),
        ('{"format": 1, "recipe": {"stages": 3}, "plan": "", "tensors": {}}', None),
        ("[1]", "not an object"),
    ],
)
def test_manifests_of_strangers(merged: Path, content: str | None, told: str | None) -> None:
    (merged / "blockmerge.json").unlink()
    if content is not None:
        (merged / "blockmerge.json").write_text(content)
    with pytest.raises((ModelError, RecipeError, Problems), match=told):
        blockmerge.verify(merged, inputs=True)


def test_a_sample_follows_from_the_plan_alone() -> None:
    sizes = {f"t{k}": 100 + k for k in range(1000)}
    assert sampled(sizes, 0.05, "a") == sampled(dict(reversed(sizes.items())), 0.05, "a")
    assert sampled(sizes, 0.05, "a") != sampled(sizes, 0.05, "b")
    assert 0.05 <= sum(sizes[name] for name in sampled(sizes, 0.05, "a")) / sum(sizes.values()) < 0.06
    assert len(sampled(sizes, 0.0, "a")) == 1
    assert sorted(sampled(sizes, 1.0, "a")) == sorted(sizes)


def test_the_command_ends_with_seven_if_anything_differs(merged: Path) -> None:
    done = CliRunner().invoke(main, ["verify", str(merged), "--inputs", "--sample", "5%", "--quiet"])
    assert done.exit_code == 0, done.output
    assert "21 tensors are as they were written, " in done.output
    change(merged, "lm_head.weight", (0, 0))
    done = CliRunner().invoke(main, ["verify", str(merged), "--quiet"])
    assert done.exit_code == 7
    assert "lm_head.weight differs from what was written" in done.stderr
    assert CliRunner().invoke(main, ["verify", str(merged), "--sample", "5 parts"]).exit_code == 2
