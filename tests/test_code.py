"""Code that a model brings along: told of, copied if asked for, never run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import blockmerge
import models
from blockmerge.cli import main
from blockmerge.cli.original import main as original

MAP = {"AutoModelForCausalLM": "modeling_own.Own", "AutoConfig": "other/place--configuration_own.Config"}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    """Two models whose code stops the process that runs it."""
    for k, name in enumerate(("first", "second")):
        models.add_tokenizer(models.save(tmp_path / name, models.tensors(k), auto_map=MAP))
        (tmp_path / name / "helper.py").write_bytes(b"\xff\0 not even text " + name.encode())
    return str(tmp_path / "first"), str(tmp_path / "second")


def plan(pair: tuple[str, str], **how: Any) -> blockmerge.Plan:
    return blockmerge.plan(blockmerge.gradient(*pair, values=0.5), **how)


def code_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.py")}


def test_code_is_copied_as_bytes_and_named_where_it_is_asked_for(tmp_path: Path, pair: tuple[str, str]) -> None:
    planned = plan(pair, copy_code=True)
    blockmerge.merge(planned, tmp_path / "out")
    assert code_in(tmp_path / "out") == code_in(tmp_path / "first")
    assert len(code_in(tmp_path / "out")) == 2
    assert {"helper.py", "modeling_own.py"} <= set(planned.files)
    text = str(planned)
    assert "code copied: helper.py, modeling_own.py; it runs wherever" in text
    assert "first runs code of other/place, which stays there" in text
    assert json.loads((tmp_path / "out" / "config.json").read_text())["auto_map"] == MAP
    assert blockmerge.verify(tmp_path / "out", inputs=True).differing == ()


def test_code_stays_where_it_is_otherwise(tmp_path: Path, pair: tuple[str, str]) -> None:
    planned = plan(pair)
    blockmerge.merge(planned, tmp_path / "out")
    assert code_in(tmp_path / "out") == {}
    assert "not copied, because it is code: helper.py, modeling_own.py (--copy-code)" in str(planned)
    assert planned.digest == plan(pair, copy_code=True).digest


@pytest.mark.parametrize("command", ["gradient", "dry", "merge", "plan", "original"])
def test_every_command_has_the_option(tmp_path: Path, pair: tuple[str, str], command: str) -> None:
    out, recipe = str(tmp_path / "out"), tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"method": "gradient", "models": pair, "values": 0.5}))
    words = {
        "gradient": ["gradient", *pair, out, "--values=0.5"],
        "dry": ["gradient", *pair, "--values=0.5", "--dry-run"],
        "merge": ["merge", str(recipe), out],
        "plan": ["plan", str(recipe)],
        "original": [f"--model_path1={pair[0]}", f"--model_path2={pair[1]}", f"--output_model_path={out}",
                     "--gradient_values=[0.5, 0.5]"],
    }[command]  # fmt: skip
    result = CliRunner().invoke(original if command == "original" else main, [*words, "--copy-code"])
    assert result.exit_code == 0, result.output
    assert "code copied: helper.py, modeling_own.py" in result.output
    assert len(code_in(tmp_path / "out")) == (2 if command in ("gradient", "merge", "original") else 0)


def test_a_model_with_code_can_be_replaced_by_its_like_but_other_code_is_safe(
    tmp_path: Path, pair: tuple[str, str]
) -> None:
    planned = plan(pair, copy_code=True)
    blockmerge.merge(planned, tmp_path / "out")
    blockmerge.merge(planned, tmp_path / "out", overwrite=True)
    (tmp_path / "out" / "mine.py").write_text("")
    with pytest.raises(blockmerge.OutputError, match=r"also holds mine\.py, which --overwrite will not delete"):
        blockmerge.merge(planned, tmp_path / "out", overwrite=True)


@pytest.mark.parametrize(
    "names",
    [None, "x.Y", [], {"AutoModel": None}, {"AutoModel": 3}, {"A": [None, ["x.Y"]]}, {"A": "../../modeling_own.Own"},
     {"A": "/etc/passwd"}, {"A": ""}, {"A": "gone.Own"}],
)  # fmt: skip
def test_nothing_but_code_of_the_folder_is_copied_whatever_the_config_says(tmp_path: Path, names: Any) -> None:
    models.save(tmp_path / "first", models.tensors(0), auto_map=names)
    (tmp_path / "modeling_own.py").write_text("outside")
    models.save(tmp_path / "second", models.tensors(1))
    planned = plan((str(tmp_path / "first"), str(tmp_path / "second")), copy_code=True)
    assert not any(name.endswith(".py") for name in planned.files)
    told = any("which is not there" in line for line in planned.warnings)
    assert told == (isinstance(names, dict) and isinstance(names[next(iter(names))], str))


def test_tokenizers_name_code_as_well(tmp_path: Path) -> None:
    for k, name in enumerate(("first", "second")):
        models.add_tokenizer(models.save(tmp_path / name, models.tensors(k)))
    settings = {"auto_map": {"AutoTokenizer": ["modeling_own.Tokenizer", None]}}
    (tmp_path / "first" / "tokenizer_config.json").write_text(json.dumps(settings))
    pair = str(tmp_path / "first"), str(tmp_path / "second")
    assert "modeling_own.py" in plan(pair, copy_code=True).files
    (tmp_path / "first" / "tokenizer_config.json").write_text("{}")
    assert "modeling_own.py" not in plan(pair, copy_code=True).files
