"""Merging against copying, and against mergekit: one table, everything side by side in one run.

    python bench/run.py                    two models of 2.2 GB on a RAM disk
    python bench/run.py --diff             where they differ, against reading both
    python bench/run.py --memory           peak memory at 0.2, 2.2 and 8 GB
    python bench/run.py --plan             planning two models of the layout of Llama 3.1 405B
    python bench/run.py --cold FOLDER      from a cold cache on a disk, fsync included
    python bench/run.py --kernels          blending alone, from cache to cache, on one core

Ratios are to the parallel copy of the same round, and medians over rounds are printed: machines are noisy, and a
figure is worth something only beside another one from the same minute. mergekit is measured where it is installed
(--mergekit gives the path of its command mergekit-yaml).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from models import LLAMA_405B, layout_of, make_model

HERE = Path(__file__).parent
VALUES = "0.9,0.5,0.1"


class Run:
    """One process: wall time, time of its merge phase if it prints one, and peak memory of it and its children."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None) -> None:
        full = {**os.environ, **(env or {})}
        full.pop("PYTHONDONTWRITEBYTECODE", None)  # who installs a package has its bytecode
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=full)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds = time.perf_counter() - started
        self.peak = usage.ru_maxrss * 1024
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"{' '.join(command)} failed:\n{output}")
        phase = re.search(r"(?:merge|diff|read) phase ([\d.]+) s", output)
        self.phase = float(phase[1]) if phase else None


def merge_command(folder: Path, values: str = VALUES) -> list[str]:
    script = HERE / "merge_phase.py"
    return [sys.executable, str(script), str(folder / "first"), str(folder / "second"), str(folder / "out"), values]


def cli_command(folder: Path) -> list[str]:
    entry = "from blockmerge.cli import main; main()"
    models = [str(folder / name) for name in ("first", "second", "out")]
    return [sys.executable, "-c", entry, "gradient", *models, "--values", VALUES, "--quiet"]


def mergekit_command(tool: str, folder: Path) -> list[str]:
    recipe = {
        "merge_method": "linear",
        "models": [{"model": str(folder / name), "parameters": {"weight": 0.5}} for name in ("first", "second")],
        "dtype": "bfloat16",
    }
    path = folder / "mergekit.yaml"
    path.write_text(json.dumps(recipe))
    return [tool, str(path), str(folder / "out"), "--allow-crimes", "--out-shard-size", "2B"]


def side_by_side(folder: Path, gigabytes: float, rounds: int, mergekit: str | None) -> None:
    prepare(folder, gigabytes)
    copy = [sys.executable, str(HERE / "copy_models.py"), *(str(folder / name) for name in ("first", "second", "out"))]
    contenders = {"parallel copy": copy, "merge phase": merge_command(folder), "blockmerge": cli_command(folder)}
    if mergekit:
        contenders["mergekit linear"] = mergekit_command(mergekit, folder)
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    Run(cli_command(folder))  # compiles the kernels, once and for all
    for _ in range(rounds):
        for name, command in contenders.items():
            shutil.rmtree(folder / "out", ignore_errors=True)
            runs[name].append(Run(command))
    print(f"two models of {size_of(folder / 'first') / 1e9:.2f} GB bfloat16, {rounds} rounds, medians")
    print(f"{'':<18}{'seconds':>9}{'x copy':>9}{'peak MB':>9}")
    for name, found in runs.items():
        seconds = [run.phase if name == "merge phase" else run.seconds for run in found]
        ratios = [s / base.seconds for s, base in zip(seconds, runs["parallel copy"], strict=True) if s is not None]
        peak = max(run.peak for run in found) / 1e6
        print(
            f"{name:<18}{statistics.median(s for s in seconds if s):>9.2f}{statistics.median(ratios):>9.2f}{peak:>9.0f}"
        )
    if mergekit:
        pairs = zip(runs["mergekit linear"], runs["blockmerge"], strict=True)
        print(f"mergekit / blockmerge: {statistics.median(a.seconds / b.seconds for a, b in pairs):.1f} x")


def differences(folder: Path, gigabytes: float, rounds: int) -> None:
    prepare(folder, gigabytes)
    models = [str(folder / name) for name in ("first", "second")]
    whole = [sys.executable, "-c", "from blockmerge.cli import main; main()", "diff", *models, "--quiet"]
    contenders = {
        "parallel read": [sys.executable, str(HERE / "read_models.py"), *models],
        "diff phase": [sys.executable, str(HERE / "diff_phase.py"), *models],
        "blockmerge diff": whole,
    }
    Run(whole)  # compiles the kernels, once and for all
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, command in contenders.items():
            runs[name].append(Run(command))
    print(f"two models of {size_of(folder / 'first') / 1e9:.2f} GB bfloat16, {rounds} rounds, medians")
    print(f"{'':<18}{'seconds':>9}{'x read':>9}{'peak MB':>9}")
    base = [run.phase or run.seconds for run in runs["parallel read"]]
    for name, found in runs.items():
        seconds = [run.phase or run.seconds for run in found]
        ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=True))
        peak = max(run.peak for run in found) / 1e6
        print(f"{name:<18}{statistics.median(seconds):>9.2f}{ratio:>9.2f}{peak:>9.0f}")


def memory(folder: Path) -> None:
    print(f"{'GB':>6}{'peak MB':>9}")
    for gigabytes in (0.2, 2.2, 8.0):
        prepare(folder, gigabytes, same=True)
        run = Run(cli_command(folder))
        print(f"{size_of(folder / 'first') / 1e9:>6.2f}{run.peak / 1e6:>9.0f}")


def plan(folder: Path) -> None:
    for name in ("first", "second"):
        shutil.rmtree(folder / name, ignore_errors=True)
        make_model(folder / name, LLAMA_405B, 0, shard_bytes=5_000_000_000, sparse=True)
    entry = "from blockmerge.cli import main; main()"
    command = [sys.executable, "-c", entry, "gradient", *(str(folder / n) for n in ("first", "second"))]
    seconds = [Run([*command, "--values", VALUES, "--dry-run"]).seconds for _ in range(5)]
    help_seconds = [Run([sys.executable, "-c", entry, "--help"]).seconds for _ in range(5)]
    print(f"plan of two models of 405 billion parameters: {statistics.median(seconds):.2f} s")
    print(f"--help: {statistics.median(help_seconds):.3f} s")


def cold(folder: Path, gigabytes: float) -> None:
    prepare(folder, gigabytes)
    copy = [sys.executable, str(HERE / "copy_models.py"), *(str(folder / name) for name in ("first", "second", "out"))]
    for name, command in (("parallel copy and sync", copy), ("blockmerge, published", cli_command(folder))):
        shutil.rmtree(folder / "out", ignore_errors=True)
        os.sync()
        drop_caches(folder)
        started = time.perf_counter()
        Run(command)
        if command is copy:
            os.sync()
        print(f"{name:<24}{time.perf_counter() - started:>8.2f} s")


def drop_caches(folder: Path) -> None:
    """Ask for the pages of the models only; works without being root."""
    for path in folder.rglob("*.safetensors"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def kernels() -> None:
    """Bytes read and written per second by one core, on tiles that stay in its cache."""
    import numpy as np

    from blockmerge import kernels
    from blockmerge.dtypes import BF16, F16
    from blockmerge.kernels import reference

    random = np.random.default_rng(0)
    for dtype in (BF16, F16):
        a, b = (reference.encode(random.normal(0, 0.02, 1 << 16), dtype) for _ in range(2))
        out, times = np.empty_like(a), []
        for _ in range(200):
            started = time.perf_counter()
            kernels.lerp(a, b, out, np.float32(0.3), np.float32(0.7))
            times.append(time.perf_counter() - started)
        print(f"blend {dtype}: {3 * a.nbytes / statistics.median(times) / 1e9:.0f} GB/s a core")


def prepare(folder: Path, gigabytes: float, *, same: bool = False) -> None:
    """Make both models; with ``same`` the second is a link to the first, which halves the room that is needed."""
    layout = layout_of(gigabytes)
    for seed, name in enumerate(("first", "second")):
        target = folder / name
        made = target / "config.json"
        if made.is_file() and json.loads(made.read_text()) == layout.config() and not (same or target.is_symlink()):
            continue
        target.unlink() if target.is_symlink() else shutil.rmtree(target, ignore_errors=True)
        if same and name == "second":
            shutil.copytree(folder / "first", target, copy_function=os.link)
        else:
            make_model(target, layout, seed)
    shutil.rmtree(folder / "out", ignore_errors=True)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/blockmerge-bench"))
    parser.add_argument("--gb", type=float, default=2.2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mergekit", default=shutil.which("mergekit-yaml"))
    parser.add_argument("--diff", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--kernels", action="store_true")
    parser.add_argument("--cold", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    folder: Path = arguments.cold or arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.kernels:
            kernels()
        elif arguments.diff:
            differences(folder, arguments.gb, arguments.rounds)
        elif arguments.memory:
            memory(folder)
        elif arguments.plan:
            plan(folder)
        elif arguments.cold:
            cold(folder, arguments.gb)
        else:
            side_by_side(folder, arguments.gb, arguments.rounds, arguments.mergekit)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
