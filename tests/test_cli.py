"""The command line: what it prints, what it leaves to Python, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import blockmerge
import mergekit_files
import models
from blockmerge.cli import main
from blockmerge.cli.original import main as original
from blockmerge.dtypes import F32

ENTRY = """import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background
from blockmerge.cli import main; main()"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return models.save(tmp_path / "first", models.tensors(1)), models.save(tmp_path / "second", models.tensors(2))


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def test_command_line_recipe_and_python_make_one_plan(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    for folder, words in zip(pair, (["<unk>", "a"], ["<unk>", "b"]), strict=True):
        mergekit_files.add_tokenizer(folder, words)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"method: gradient\nmodels: ['{pair[0]}', '{pair[1]}']\nvalues: {{attention: [0.2, 0.8], all: [0.5]}}\n"
        "by: layer\nfilters: [proj]\ndtype: float16\nmax_shard_size: 3kb\ntokenizer: union\nchat_template: chatml\n"
    )
    said = json.loads(
        run(
            "gradient", *pair, "--values", "attention:0.2,0.8", "--values", "0.5", "--by", "layer", "--filter", "proj",
            "--dtype", "float16", "--max-shard-size", "3KB", "--tokenizer", "union", "--chat-template", "chatml",
            "--dry-run", "--json",
        ).output
    )  # fmt: skip
    python = blockmerge.plan(
        blockmerge.gradient(
            *map(str, pair), values={"attention": [0.2, 0.8], "all": 0.5}, by="layer", filters=["proj"],
            dtype="float16", max_shard_size="3KB", tokenizer="union", chat_template="chatml",
        )
    )  # fmt: skip
    assert said == json.loads(run("plan", recipe, "--json").output) == json.loads(json.dumps(python.to_json()))
    assert python.vocabulary is not None
    assert any("chat_template: chatml" in note for note in python.notes)


def test_a_dry_run_writes_nothing_and_prints_every_tensor(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    output = run("gradient", *pair, "--values", "1,0", "--dry-run").output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    for name in models.tensors(1):
        assert output.count(name) == 1


def test_plots_are_pictures(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    run("gradient", *pair, "--values", "1,0", "--dry-run", "--plot", tmp_path / "g.svg")
    assert (tmp_path / "g.svg").read_text().startswith("<svg ")
    pytest.importorskip("resvg_py")
    run("gradient", *pair, "--values", "1,0", "--dry-run", "--plot", tmp_path / "g.png")
    assert (tmp_path / "g.png").read_bytes().startswith(b"\x89PNG")
    result = CliRunner().invoke(main, ["gradient", *map(str, pair), "--values=1", "--dry-run", "--plot=g.gif"])
    assert result.exit_code == 2
    assert ".svg or .png" in result.output


def test_inspect_shows_what_a_model_is(pair: tuple[Path, Path]) -> None:
    output = run("inspect", pair[0]).output
    assert "LlamaForCausalLM, 2 layers, 21 tensors in module order" in output
    found = json.loads(run("inspect", pair[0], "--json").output)
    assert [tensor["name"] for tensor in found["tensors"]] == list(models.tensors(1))
    assert found["vocabulary"] == {"model.embed_tokens.weight": 40, "lm_head.weight": 40}


def test_inspect_says_what_is_odd(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (pair[0] / "consolidated.safetensors").touch()
    (pair[0] / "model.fp16.safetensors").touch()
    config = json.loads((pair[0] / "config.json").read_text())
    (pair[0] / "config.json").write_text(json.dumps({**config, "vocab_size": 99, "quantization_config": {}}))
    output = run("inspect", pair[0]).output
    assert "consolidated.safetensors, model.fp16.safetensors" in output
    assert "40 rows, config.json says vocab_size 99" in output
    assert "quantised" in output


def test_the_yaml_edition_runs_through_merge_and_through_the_drop_in(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model_path1: {pair[0]}\nmodel_path2: {pair[1]}\noutput_model_path: {tmp_path / 'own'}\n"
        "operations:\n  - {operation: a, filter: self_attn, gradient_values: [0.2, 0.8]}\n"
    )
    run("merge", recipe)
    run("merge", recipe, tmp_path / "given", "--quiet")
    result = CliRunner().invoke(original, ["--config", str(recipe), "--output_model_path", str(tmp_path / "third")])
    assert result.exit_code == 0, result.output
    own, given, third = (models.read(tmp_path / name) for name in ("own", "given", "third"))
    assert all((own[name][1] == given[name][1]).all() and (own[name][1] == third[name][1]).all() for name in own)


def test_the_drop_in_says_which_flags_are_missing() -> None:
    result = CliRunner().invoke(original, ["--model_path1", "a", "--gradient_values", "[1]"])
    assert result.exit_code == 2
    assert "missing --model_path2, --output_model_path" in result.output


def test_quiet_is_quiet_and_otherwise_there_is_a_summary(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert run("gradient", *pair, tmp_path / "a", "--values", "1,0", "--quiet").output == ""
    assert "merged in" in run("gradient", *pair, tmp_path / "b", "--values", "1,0").output


@pytest.mark.parametrize(("cache", "told"), [("", "kept for the next time"), ("/kernels", "not kept: the cache")])
def test_a_first_merge_says_that_it_compiled(tmp_path: Path, pair: tuple[Path, Path], cache: str, told: str) -> None:
    folder = tmp_path / "cache"
    folder.write_text("") if cache else folder.mkdir()
    command = [sys.executable, "-m", "blockmerge", "gradient", *map(str, pair), "--values", "0.5"]
    env = {**os.environ, "BLOCKMERGE_CACHE": f"{folder}{cache}"}
    for out in ("once", "again"):
        done = subprocess.run([*command, str(tmp_path / out)], env=env, capture_output=True, text=True, check=True)
        assert (told in done.stdout) == (out == "once" or bool(cache))


def test_out_is_needed_unless_it_is_a_dry_run(pair: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(main, ["gradient", *map(str, pair), "--values", "1"])
    assert result.exit_code == 2
    assert "--dry-run" in result.output


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom blockmerge.cli import main\n"
        "try:\n    main(['gradient', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'numpy', 'numba', 'rich', 'yaml', 'huggingface_hub', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", 1), 129)]
)
def test_signals_stop_at_once_and_leave_what_the_same_command_goes_on_from(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    content = {f"t{k}.weight": (F32, np.zeros((1024, 2048), np.float32)) for k in range(40)}
    models.save(tmp_path / "first", content, {"model_type": "none"})
    os.link(tmp_path / "first" / "model.safetensors", tmp_path / "twin")
    models.save(tmp_path / "second", {}, {"model_type": "none"})
    (tmp_path / "twin").replace(tmp_path / "second" / "model.safetensors")
    command = [sys.executable, "-c", ENTRY, "gradient", *(str(tmp_path / name) for name in ("first", "second", "out"))]
    process = subprocess.Popen(
        [*command, "--values", "0.5", "--threads", "1"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # whoever runs the tests may ignore it, as nohup does
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out.partial" / "model.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert "nothing was published; the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "out.partial", "out.partial.journal", "second"]
    assert CliRunner().invoke(main, ["clean", str(tmp_path / "out")]).output.endswith("out: discarded\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]
    assert CliRunner().invoke(main, ["clean", str(tmp_path / "out")]).output.endswith("out: nothing to discard\n")


def test_the_demo_leaves_its_models_where_the_readme_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("demo", "--out", tmp_path / "try")
    monkeypatch.chdir(tmp_path / "try")
    run("gradient", "code", "prose", "merged", "--values", "[0, 1, 0]")
    assert models.read(Path("merged")).keys() == models.read(Path("blend")).keys()
    again = CliRunner().invoke(main, ["demo", "--out", str(tmp_path / "try")])
    assert again.exit_code == 6
    assert len(again.stderr.splitlines()) == 3
    (tmp_path / "try" / "code" / "model.safetensors").unlink()
    run("demo", "--out", tmp_path / "try", "--overwrite")
    assert models.read(tmp_path / "try" / "code").keys() == models.read(Path("blend")).keys()
