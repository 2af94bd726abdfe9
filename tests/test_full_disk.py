"""Merges onto real file systems that are full or become so, in a mount namespace that vanishes with its process."""

from __future__ import annotations

import ctypes
import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blockmerge
import models
from blockmerge.dtypes import F32
from blockmerge.errors import OutputError

_CLONE_NEWNS, _CLONE_NEWUSER, _MS_PRIVATE = 0x20000, 0x10000000, 0x44000
NO_MOUNT = 77


def on_disk(size: int, place: Path, scenario: Callable[[Path], None]) -> None:
    """Run ``scenario`` in a child that sees a disk of ``size`` bytes at ``place``; skips if the system lets us not."""
    place.mkdir(exist_ok=True)
    child = os.fork()
    if child == 0:
        try:
            if not _mounted(size, place):
                os._exit(NO_MOUNT)
            scenario(place)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == NO_MOUNT:
        pytest.skip(
            "NOT TESTED: no real full disks, because no tmpfs can be mounted here (not even by user namespaces)"
        )
    assert code == 0, "see the traceback of the child"


def _mounted(size: int, place: Path) -> bool:
    """Whether this process, which has one thread, now has a tmpfs of its own there."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWNS) != 0:
        if libc.unshare(_CLONE_NEWNS | _CLONE_NEWUSER) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_PRIVATE), None) != 0:
        return False
    return libc.mount(b"none", os.fsencode(place), b"tmpfs", ctypes.c_ulong(0), f"size={size}".encode()) == 0


def models_in(folder: Path, elements: int) -> blockmerge.Plan:
    """The plan of a merge with one tensor of many blocks, if ``elements`` are many, and several files."""
    content = {f"{k}.weight": (F32, np.arange(count, dtype=np.float32)) for k, count in enumerate([elements, 3000, 7])}
    paths = [str(models.save(folder / name, content, {"model_type": "none"})) for name in ("one", "two")]
    return blockmerge.plan(blockmerge.gradient(*paths, values=0.25, max_shard_size="20kB"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fill(place: Path, spare: int) -> None:
    """Take all room of the disk but ``spare`` bytes."""
    free = shutil.disk_usage(place).free
    with (place / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(free - spare, 1))


def filled_at(call: int, place: Path, spare: int, patch: pytest.MonkeyPatch) -> list[int]:
    """Let somebody fill the disk right before call number ``call`` that writes; returns how many calls there were."""
    calls, opened = [0], os.open

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            if original is not opened or arguments[1] & os.O_CREAT:
                calls[0] += 1
                if calls[0] == call:
                    fill(place, spare)
            return original(*arguments, **keywords)

        return wrapped

    for name in ("pwrite", "open", "mkdir", "fsync"):
        patch.setattr(os, name, counted(getattr(os, name)))
    return calls


@pytest.mark.parametrize(
    ("elements", "spares", "threads"),
    [
        (5000, (0, 4096), 1),
        pytest.param(2_500_000, (0, 4096, 8192, 1 << 20, 3_000_000), 1, marks=pytest.mark.soak),
        pytest.param(9_000_000, (0, 300_000, 1 << 20, 20_000_000), 2, marks=pytest.mark.soak),
    ],
)
def test_a_disk_that_fills_up_costs_nothing(
    tmp_path: Path, elements: int, spares: tuple[int, ...], threads: int
) -> None:
    plan = models_in(tmp_path, elements)
    blockmerge.merge(plan, tmp_path / "expected")
    expected = contents(tmp_path / "expected")

    def scenario(place: Path) -> None:
        for spare in spares:
            call, full = 0, 0
            while True:
                call += 1
                with pytest.MonkeyPatch.context() as patch:
                    calls = filled_at(call, place, spare, patch)
                    try:
                        blockmerge.merge(plan, place / "out", threads=threads)
                    except OutputError as error:
                        assert "the disk is full; make room and start again" in str(error)
                        assert not (place / "out").exists()
                        full += 1
                    else:
                        assert contents(place / "out") == expected
                        shutil.rmtree(place / "out")
                if calls[0] < call:
                    break
                (place / "filler").unlink()
                blockmerge.merge(plan, place / "out", threads=threads)
                assert contents(place / "out") == expected, (spare, call)
                assert [path.name for path in place.iterdir()] == ["out"], (spare, call)
                shutil.rmtree(place / "out")
            assert full > 10, spare

    on_disk(3 * sum(map(len, expected.values())) + (1 << 20), tmp_path / "disk", scenario)


def test_too_small_a_disk_is_told_in_bytes_before_anything_is_read(tmp_path: Path) -> None:
    plan = models_in(tmp_path, 50_000)
    blockmerge.merge(plan, tmp_path / "expected")
    need = sum(map(len, contents(tmp_path / "expected").values()))

    def scenario(place: Path) -> None:
        fill(place, 8192)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "preadv", None)
            with pytest.raises(OutputError) as caught:
                blockmerge.merge(plan, place / "out")
        free = shutil.disk_usage(place).free
        assert str(caught.value) == f"{place / 'out'}: needs {need:,} bytes, the disk has {free:,} free; make room"
        assert [path.name for path in place.iterdir()] == ["filler"]

    for size in (need // 2, need - 1, 4 * need):
        on_disk(size, tmp_path / "disk", scenario)
