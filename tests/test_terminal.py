"""Terminals that go away, have another encoding or are attacked; and impatient people."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import blockmerge
import models
from blockmerge.cli import main
from blockmerge.errors import printable

ENTRY = "from blockmerge.cli import main; main()"
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX pipes and signals")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return models.save(tmp_path / "first", models.tensors(1)), models.save(tmp_path / "second", models.tensors(2))


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-c", ENTRY, *map(str, arguments)]


def closed_pipe() -> int:
    """The end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@posix
@pytest.mark.parametrize("streams", [("stderr",), ("stdout",), ("stdout", "stderr")])
def test_a_merge_outlives_those_who_watch_it(tmp_path: Path, pair: tuple[Path, Path], streams: tuple[str, ...]) -> None:
    models.save(pair[1], models.tensors(2), rope_theta=1e6)  # something to warn about
    end = closed_pipe()
    arguments = command("gradient", *pair, tmp_path / "out", "--values", "0.5")
    done = subprocess.run(arguments, check=False, **dict.fromkeys(streams, end))  # type: ignore[call-overload]
    os.close(end)
    assert done.returncode == 0
    assert models.read(tmp_path / "out").keys() == models.read(pair[0]).keys()


@posix
def test_a_failure_is_one_though_nobody_can_be_told(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    (pair[1] / "config.json").unlink()
    end = closed_pipe()
    done = subprocess.run(command("gradient", *pair, tmp_path / "out", "--values", "0.5"), check=False, stderr=end)
    os.close(end)
    assert done.returncode == 3


@posix
def test_a_reader_who_has_seen_enough_of_a_plan_is_no_error(pair: tuple[Path, Path]) -> None:
    end = closed_pipe()
    arguments = command("inspect", pair[0])
    done = subprocess.run(arguments, check=False, stdout=end, stderr=subprocess.PIPE, text=True)
    os.close(end)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_plan_that_cannot_be_written_is_an_error(pair: tuple[Path, Path]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("inspect", pair[0]), check=False, stdout=full, stderr=subprocess.PIPE, text=True
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("blockmerge: the system says:")
    assert done.stderr.count("\n") == 1


def test_what_an_encoding_lacks_is_shown_as_an_escape(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    content = models.tensors(1)
    content["model.слой.weight"] = content["model.norm.weight"]
    models.save(pair[0], content)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run(command("inspect", pair[0]), capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"model.\\u0441\\u043b\\u043e\\u0439.weight" in done.stdout


IMPATIENT = """
import os, signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from blockmerge.cli import main
from blockmerge.execution import writer
leave = writer.PartialModel._leave
def slowly(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.1)
    leave(*args, **kwargs)
def interrupted(*args):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
writer.PartialModel._leave = slowly
writer.PartialModel.publish = interrupted
main()
"""


@posix
def test_a_second_ctrl_c_waits_until_things_are_cleaned_up(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    arguments = [sys.executable, "-c", IMPATIENT, "gradient", *map(str, pair), str(tmp_path / "out"), "--values", "0.5"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    told = done.stderr.splitlines()[-2:]
    assert told[0] == "blockmerge: cleaning up, a moment"
    assert told[1].startswith("blockmerge: stopped; nothing was published; the same command goes on from there")


HANGING_UP = """
import os, signal
{before}
from blockmerge.cli import main
from blockmerge.execution import writer
publish = writer.PartialModel.publish
def hung_up(*args):
    os.kill(os.getpid(), signal.SIGHUP)
    return publish(*args)
writer.PartialModel.publish = hung_up
main()
"""


@posix
@pytest.mark.parametrize(("before", "code"), [("", 129), ("signal.signal(signal.SIGHUP, signal.SIG_IGN)", 0)])
def test_nohup_is_respected(tmp_path: Path, pair: tuple[Path, Path], before: str, code: int) -> None:
    script = HANGING_UP.format(before=before)
    arguments = [sys.executable, "-c", script, "gradient", *map(str, pair), str(tmp_path / "out"), "--values", "0.5"]
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == code
    assert (tmp_path / "out").exists() == (code == 0)


def test_commands_give_the_signals_back(pair: tuple[Path, Path]) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if os.name == "posix" else [])]
    before = list(map(signal.getsignal, numbers))
    assert CliRunner().invoke(main, ["inspect", str(pair[0])]).exit_code == 0
    assert list(map(signal.getsignal, numbers)) == before


NAMES = [
    "new\nline",
    "\x1b[2Jcleared",
    "tab\tulator",
    "<script>|",
    "ü" * 100,
    "\udcff\udcfe latin",
    "a'b\"c",
    "‮reversed",
]


@posix
@pytest.mark.parametrize("name", NAMES)
def test_models_in_folders_of_any_name_are_merged_and_told(tmp_path: Path, name: str) -> None:
    first = models.save(tmp_path / name, models.tensors(1))
    second = models.save(tmp_path / "second", models.tensors(2), rope_theta=1e6)
    shown = CliRunner().invoke(main, ["inspect", str(first)])
    assert shown.exit_code == 0, shown.output
    out = tmp_path / f"{name}.out"
    planned = blockmerge.plan(blockmerge.gradient(str(first), str(second), values=0.5))
    assert all(line.isprintable() for line in str(planned).splitlines())
    blockmerge.merge(planned, out)
    card = (out / "README.md").read_text("utf-8")
    assert all(line.isprintable() for line in card.splitlines())
    assert json.loads((out / "blockmerge.json").read_text("utf-8"))["inputs"][0]["model"] == printable(name)


@posix
def test_a_name_that_is_too_long_is_refused_before_anything_is_read(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    result = CliRunner().invoke(main, ["gradient", *map(str, pair), str(tmp_path / ("x" * 253)), "--values", "1"])
    assert result.exit_code == 6, result.output
    assert "File name too long" in result.output.splitlines()[-1]
    assert not list(tmp_path.glob("x*"))


def test_errors_do_not_obey_what_they_quote(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        main, ["inspect", str(tmp_path / "\x1b]0;owned\x07\nblockmerge: all is well" / "x" / "y")]
    )
    assert result.exit_code == 3
    assert "\x1b" not in result.output
    assert len(result.output.splitlines()) == 1


def test_thousands_of_problems_fit_a_screen(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "".join(f"? {'k' * 5000}{number}\n: 1\n" for number in range(30)) + "".join(f"k{n}: 1\n" for n in range(1000))
    )
    result = CliRunner().invoke(main, ["plan", str(recipe)])
    lines = result.output.splitlines()
    assert result.exit_code == 2
    assert len(lines) == 51
    assert "more problems" in lines[-1]
    assert max(map(len, lines)) < 4100
