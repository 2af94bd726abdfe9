"""Interrupted merges go on, and end with the same bytes: kills at every call, power failures, errors of the disk."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import blockmerge
import models
from blockmerge.dtypes import F32
from blockmerge.errors import OutputError
from blockmerge.execution import journal, system

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")

CALLS = ("pwrite", "fsync", "open", "mkdir", "rename", "unlink", "rmdir")
KILLED = 137


def recipe_in(folder: Path, method: str = "ties") -> Path:
    """A recipe that measures first, over several files."""
    paths = [str(models.save(folder / f"m{k}", models.tensors(k))) for k in range(3)]
    recipe: dict[str, Any] = {"method": method, "models": paths, "weight": 0.5, "max_shard_size": "4kB"}
    if method == "ties":
        recipe |= {"base": paths[0], "models": paths[1:], "density": 0.3}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stray(folder: Path) -> list[str]:
    """What lies in the folder besides inputs and results."""
    return sorted(path.name for path in folder.iterdir() if "partial" in path.name or "replaced" in path.name)


class Unsynced:
    """What a process wrote and did not make durable, by file; ``length`` is how much of the journal is durable."""

    def __init__(self) -> None:
        self.writes: dict[str, list[tuple[int, int]]] = {}
        self.synced: set[str] = set()
        self.length = 0

    def wrote(self, path: str, offset: int, count: int) -> None:
        self.writes.setdefault(path, []).append((offset, count))

    def sync(self, path: str) -> None:
        self.writes.pop(path, None)
        self.synced.add(path)
        if path.endswith(".journal"):
            self.length = Path(path).stat().st_size


def run_until(call: int, plan: blockmerge.Plan, out: Path, **how: Any) -> tuple[bool, Unsynced]:
    """Carry out ``plan`` in a child that dies before its call number ``call`` that writes; whether it did."""
    report = out.with_name("report.json")
    child = os.fork()
    if child == 0:
        _die_at(call, plan, out, report, how)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, KILLED), "the child failed"
    unsynced = Unsynced()
    if report.exists():
        found = json.loads(report.read_text())
        unsynced.writes, unsynced.length, unsynced.synced = found["writes"], found["length"], set(found["synced"])
        report.unlink()
    return code == KILLED, unsynced


def _die_at(call: int, plan: blockmerge.Plan, out: Path, report: Path, how: dict[str, Any]) -> None:
    """The child: counts calls, and dies as by SIGKILL, without a word to anybody."""
    left, unsynced = [call], Unsynced()
    originals = {name: getattr(os, name) for name in CALLS}

    def counted(name: str) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            if name != "open" or arguments[1] & os.O_CREAT:
                left[0] -= 1
                if left[0] == 0:
                    found = {"writes": unsynced.writes, "length": unsynced.length, "synced": sorted(unsynced.synced)}
                    descriptor = originals["open"](report, os.O_WRONLY | os.O_CREAT)
                    os.write(descriptor, json.dumps(found).encode())
                    os._exit(KILLED)
            result = originals[name](*arguments, **keywords)
            if name == "pwrite":
                unsynced.wrote(str(Path(f"/proc/self/fd/{arguments[0]}").readlink()), arguments[2], len(arguments[1]))
            elif name == "fsync":
                unsynced.sync(str(Path(f"/proc/self/fd/{arguments[0]}").readlink()))
            return result

        return wrapped

    try:
        for name in CALLS:
            setattr(os, name, counted(name))
        blockmerge.merge(plan, out, threads=1, **how)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_kill_at_every_call_costs_nothing(tmp_path: Path, replaced: bool) -> None:
    plan = blockmerge.plan(recipe_in(tmp_path))
    blockmerge.merge(plan, tmp_path / "expected")
    expected, call = contents(tmp_path / "expected"), 0
    while True:
        call += 1
        if replaced:
            blockmerge.merge(
                blockmerge.gradient(str(tmp_path / "m0"), str(tmp_path / "m1"), values=0.5), tmp_path / "out"
            )
        killed, _ = run_until(call, plan, tmp_path / "out", overwrite=replaced)
        blockmerge.merge(plan, tmp_path / "out", overwrite=replaced or not killed)
        assert contents(tmp_path / "out") == expected, call
        assert stray(tmp_path) == [], call
        shutil.rmtree(tmp_path / "out")
        if not killed:
            break
    assert call > 40


def test_only_what_was_not_written_is_read_again(tmp_path: Path) -> None:
    content = {"a.weight": (F32, np.arange(4 << 20, dtype=np.float32).reshape(1024, -1))}
    paths = [str(models.save(tmp_path / name, content, {"model_type": "none"})) for name in ("one", "two")]
    plan = blockmerge.plan(blockmerge.gradient(*paths, values=0.25))
    killed, _ = run_until(30, plan, tmp_path / "out")  # of 32 tiles, two in each block
    assert killed
    seen: list[Any] = []
    finished = blockmerge.merge(plan, tmp_path / "out", on_event=seen.append)
    assert finished.bytes_read <= 2 * 6 * (1 << 20)
    assert finished.bytes_written == 16 << 20
    assert [type(event).__name__ for event in seen].count("TensorDone") == 1


def test_after_a_power_failure_nothing_doubtful_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = blockmerge.plan(recipe_in(tmp_path))
    blockmerge.merge(plan, tmp_path / "expected")
    killed, unsynced = run_until(30, plan, tmp_path / "out")
    assert killed
    for path, writes in unsynced.writes.items():
        with Path(path).open("r+b") as file:
            for offset, count in writes:
                file.seek(offset)
                file.write(b"\xa5" * count)
    monkeypatch.setattr(journal, "_boot_id", lambda: bytes(range(16)))
    blockmerge.merge(plan, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


def lose(chance: random.Random, unsynced: Unsynced, journal_file: Path) -> None:
    """What a power failure may do to bytes that were not durable: each write is kept, lost or garbage."""
    for path, writes in unsynced.writes.items():
        file_path = Path(path)
        if not file_path.exists():
            continue
        if path not in unsynced.synced and chance.random() < 0.1:
            file_path.unlink()
            continue
        with file_path.open("r+b") as file:
            for offset, count in writes:
                file.seek(offset)
                fate = chance.choice(["kept", "lost", "garbage"])
                if fate != "kept":
                    file.write(bytes(count) if fate == "lost" else chance.randbytes(count))
    size = journal_file.stat().st_size
    keep = chance.randint(unsynced.length, size)
    with journal_file.open("r+b") as file:
        file.truncate(keep)
        file.seek(0, os.SEEK_END)
        file.write(chance.randbytes(chance.choice([0, 0, 5, size - keep])))


@pytest.mark.parametrize("states", [40, pytest.param(1500, marks=pytest.mark.soak)])
def test_after_any_power_failure_the_merge_ends_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: int
) -> None:
    plan = blockmerge.plan(recipe_in(tmp_path))
    blockmerge.merge(plan, tmp_path / "expected")
    expected, out = contents(tmp_path / "expected"), tmp_path / "out"
    for seed in range(states):
        chance = random.Random(seed)
        monkeypatch.setattr(journal, "_boot_id", lambda seed=seed: seed.to_bytes(16, "little"))
        monkeypatch.setattr("blockmerge.execution.executor._WINDOW", chance.choice([1, 2000, 1 << 30]))
        killed, unsynced = run_until(chance.randint(1, 75), plan, out)
        if killed and (journal_file := tmp_path / "out.partial.journal").exists():
            lose(chance, unsynced, journal_file)
        monkeypatch.setattr(journal, "_boot_id", lambda seed=seed: (seed + states).to_bytes(16, "little"))
        if not out.exists():
            assert not (tmp_path / "out.partial" / "config.json").exists() or killed
        blockmerge.merge(plan, out, overwrite=not killed)
        assert contents(out) == expected, seed
        assert stray(tmp_path) == [], seed
        shutil.rmtree(out)


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A merge of ``recipe.yaml`` that was killed in the middle."""
    assert run_until(25, blockmerge.plan(recipe_in(tmp_path)), tmp_path / "out")[0]
    return tmp_path


def test_a_journal_of_other_inputs_is_refused_with_the_reason(interrupted: Path) -> None:
    os.utime(interrupted / "m1" / "model.safetensors", ns=(1, 1))
    before = contents(interrupted / "out.partial")
    with pytest.raises(OutputError, match="its inputs have changed since; --restart discards that"):
        blockmerge.merge(interrupted / "recipe.yaml", interrupted / "out")
    assert contents(interrupted / "out.partial") == before
    blockmerge.merge(interrupted / "recipe.yaml", interrupted / "out", restart=True)
    assert stray(interrupted) == []


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("density", 0.4, "in the making of another model"), ("max_shard_size", "1GB", "in files of other sizes")],
)
def test_a_journal_of_another_plan_is_refused_with_the_reason(
    interrupted: Path, key: str, value: Any, told: str
) -> None:
    recipe = yaml.safe_load((interrupted / "recipe.yaml").read_text())
    (interrupted / "recipe.yaml").write_text(yaml.safe_dump({**recipe, key: value}))
    with pytest.raises(OutputError, match=told):
        blockmerge.merge(interrupted / "recipe.yaml", interrupted / "out")
    assert blockmerge.clean(interrupted / "out")
    assert stray(interrupted) == []
    assert not blockmerge.clean(interrupted / "out")


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "flipped"])
def test_a_damaged_journal_is_no_journal(interrupted: Path, damage: str) -> None:
    path = interrupted / "out.partial.journal"
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes({"empty": b"", "cut": content[:25], "garbage": b"\xff" * 99, "flipped": bytes(content)}[damage])
    blockmerge.merge(interrupted / "recipe.yaml", interrupted / "out")
    blockmerge.merge(interrupted / "recipe.yaml", interrupted / "expected")
    assert contents(interrupted / "out") == contents(interrupted / "expected")


def test_two_merges_of_one_place_do_not_meet(interrupted: Path) -> None:
    with system.locked(interrupted / "out.partial.journal") as held:
        assert held
        for act in (lambda: blockmerge.merge(interrupted / "recipe.yaml", interrupted / "out"),):
            with pytest.raises(OutputError, match="another merge is writing it at this moment"):
                act()
        with pytest.raises(OutputError, match="stop that one first"):
            blockmerge.clean(interrupted / "out")
    blockmerge.merge(interrupted / "recipe.yaml", interrupted / "out")


def test_errors_that_would_come_again_leave_nothing(tmp_path: Path) -> None:
    recipe = recipe_in(tmp_path, "linear")
    tensors = models.read(tmp_path / "m1")
    bad = {name: (dtype, array.copy()) for name, (dtype, array) in tensors.items()}
    bad["model.norm.weight"][1][3] = 0x7FC0
    models.save(tmp_path / "m1", bad)
    with pytest.raises(blockmerge.NonFiniteError):
        blockmerge.merge(recipe, tmp_path / "out")
    assert stray(tmp_path) == []


# --- Errors of the system --------------------------------------------------------------------------------------------


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int, *, for_good: bool) -> list[int]:
    """Let call ``number`` of ``os.name`` fail, and if asked all that follow; returns how often it was called."""
    original, calls = getattr(os, name), [0]

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == number or (for_good and calls[0] > number):
            raise OSError(code, os.strerror(code))
        return original(*arguments, **keywords)

    monkeypatch.setattr(os, name, wrapped)
    return calls


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", ["pwrite", "fsync"])
@pytest.mark.parametrize("for_good", [False, True])
def test_an_error_of_any_call_ends_in_one_line_and_the_merge_goes_on(
    tmp_path: Path, name: str, code: int, for_good: bool
) -> None:
    plan = blockmerge.plan(recipe_in(tmp_path))
    blockmerge.merge(plan, tmp_path / "expected")
    number = 0
    while True:
        number += 1
        with pytest.MonkeyPatch.context() as patch:
            calls = failing(patch, name, number, code, for_good=for_good)
            try:
                blockmerge.merge(plan, tmp_path / "out", threads=1)
            except OutputError as error:
                assert "\n" not in str(error)
                failed = True
            else:
                failed = False
        if calls[0] < number:
            break
        if failed:
            assert not (tmp_path / "out").exists()
            blockmerge.merge(plan, tmp_path / "out")
        assert contents(tmp_path / "out") == contents(tmp_path / "expected")
        assert stray(tmp_path) == []
        shutil.rmtree(tmp_path / "out")
        if number > 12 and name == "pwrite":
            break


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_short_writes_and_reads_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    plan = blockmerge.plan(recipe_in(tmp_path))
    blockmerge.merge(plan, tmp_path / "expected")
    pwrite, preadv, calls = os.pwrite, os.preadv, [0]

    def part(data: memoryview) -> memoryview:
        calls[0] += 1
        return data if calls[0] % every else data[: max(1, len(data) // 3)]

    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, part(data), at))
    monkeypatch.setattr(os, "preadv", lambda file, into, at: preadv(file, [part(into[0])], at))
    blockmerge.merge(plan, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


INTERRUPTED = "pwrite64,write,preadv,pread64,read,fsync,ftruncate,openat,flock,sync_file_range"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("every", [2, *(pytest.param(every, marks=pytest.mark.soak) for every in (3, 4, 5, 7, 11, 50))])
def test_calls_that_a_signal_interrupts_are_made_again(tmp_path: Path, every: int) -> None:
    plan = blockmerge.plan(recipe_in(tmp_path))
    blockmerge.merge(plan, tmp_path / "expected")
    out = tmp_path / "out"
    places = [tmp_path / "out.partial.journal"]
    places += [tmp_path / "out.partial" / name for name in contents(tmp_path / "expected")]
    places += [tmp_path / f"m{k}" / "model.safetensors" for k in range(3)]
    watched = [word for place in places for word in ("-P", str(place))]
    inject = ["-e", f"trace={INTERRUPTED}", "-e", f"inject={INTERRUPTED}:error=EINTR:when=1+{every}"]
    entry = "from blockmerge.cli import main; main()"
    merge = [sys.executable, "-c", entry, "merge", str(tmp_path / "recipe.yaml"), str(out), "--quiet"]
    log = tmp_path / "log"
    subprocess.run(["strace", "-f", "-qq", "-o", str(log), *watched, *inject, *merge], check=True)
    assert contents(out) == contents(tmp_path / "expected")
    assert stray(tmp_path) == []
    assert log.read_text().count("EINTR") > 100 / every


# --- Longer ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def merging(tmp_path: Path) -> Iterator[tuple[list[str], Path]]:
    """The command line of a merge that takes a moment, and the folder with its inputs."""
    content = {
        f"t{k}.weight": (F32, np.random.default_rng(k).normal(0, 1, (1024, 1024)).astype(np.float32)) for k in range(40)
    }
    for number in range(3):
        models.save(tmp_path / f"m{number}", content, {"model_type": "none"})
    paths = [str(tmp_path / f"m{k}") for k in range(3)]
    recipe = {"method": "ties", "base": paths[0], "models": paths[1:], "weight": 0.5, "density": 0.3}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    entry = "from blockmerge.cli import main; main()"
    yield [sys.executable, "-c", entry, "merge", str(tmp_path / "recipe.yaml"), str(tmp_path / "out")], tmp_path


@pytest.mark.soak
def test_two_hundred_kills_at_random_times(merging: tuple[list[str], Path]) -> None:
    command, folder = merging
    subprocess.run([*command[:-1], str(folder / "expected")], check=True, capture_output=True)
    expected, chance, kills = contents(folder / "expected"), random.Random(0), 0
    while kills < 200:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(chance.uniform(0.3, 2.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            if stray(folder) or not (folder / "out").exists():
                continue
        else:
            assert process.returncode == 0
        assert contents(folder / "out") == expected
        assert stray(folder) == []
        shutil.rmtree(folder / "out")


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("call", ["pwrite64", "write", "fsync", "rename", "renameat2", "unlink", "mkdir", "ftruncate"])
def test_a_kill_at_every_system_call(tmp_path: Path, call: str) -> None:
    recipe = recipe_in(tmp_path)
    blockmerge.merge(recipe, tmp_path / "expected")
    expected, number = contents(tmp_path / "expected"), 0
    entry = "from blockmerge.cli import main; main()"
    merge = [sys.executable, "-c", entry, "merge", str(recipe), str(tmp_path / "out"), "--threads", "1", "--quiet"]
    while True:
        number += 1
        strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when={number}"]
        done = subprocess.run([*strace, *merge], capture_output=True)
        again = subprocess.run(merge, capture_output=True, text=True)
        if not (tmp_path / "out").exists():
            raise AssertionError(again.stderr)
        assert contents(tmp_path / "out") == expected, (call, number)
        assert stray(tmp_path) == [], (call, number)
        shutil.rmtree(tmp_path / "out")
        if done.returncode == 0:
            break
