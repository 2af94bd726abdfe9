"""Plans as text: each file in golden/ is a recipe and the plan that it must give.

After a change that is meant, `BLOCKMERGE_GOLDEN=write pytest tests/test_golden.py` writes them anew; read the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import blockmerge
import models
from blockmerge.dtypes import F32

GOLDEN = Path(__file__).parent / "golden"
SEPARATOR = "--- plan ---\n"


def make_models(folder: Path) -> None:
    """The models that the recipes name."""
    models.save(folder / "plain", models.tensors(1))
    models.save(folder / "other", models.tensors(2))
    models.save(folder / "wide", models.tensors(3, vocab=48), vocab_size=48)
    models.save(folder / "tied", models.tensors(4, tied=True), tie_word_embeddings=True)
    models.save(folder / "tied-too", models.tensors(5, tied=True), tie_word_embeddings=True)
    models.save(folder / "float32", models.tensors(6, dtype=F32), torch_dtype="float32", rope_theta=5e5)
    models.save(folder / "unknown", models.tensors(7), architectures=["OwnForCausalLM"], model_type="own")
    models.save(folder / "unknown-too", models.tensors(8), architectures=["OwnForCausalLM"], model_type="own")


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.txt")), ids=lambda path: path.stem)
def test_plans_are_what_they_were(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_models(tmp_path)
    monkeypatch.chdir(tmp_path)
    recipe = path.read_text(encoding="utf-8").split(SEPARATOR)[0]
    Path("recipe.yaml").write_text(recipe, encoding="utf-8")
    text = recipe + SEPARATOR + str(blockmerge.plan("recipe.yaml")) + "\n"
    if os.environ.get("BLOCKMERGE_GOLDEN") == "write":
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text
