"""Every merge method against mergekit and against reading its bytes: three models and a base, side by side in one run.

    python bench/methods.py --mergekit PATH/mergekit-yaml

Both merge the same recipe, a file of mergekit's: Blockmerge in several rounds, of which the median counts, mergekit in
one, for minutes of it are steadier than seconds. With ``--native`` Blockmerge takes a recipe of its own, which means
the paper. The column "x read" sets a whole process beside a parallel copy of as many bytes as the method's passes read
and write. The models are finetunes of the base: its weights, random with a deviation of 0.02, have moved by random
numbers with one of ``--noise``; with ``--noise 0`` they have nothing in common.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

import blockmerge
from blockmerge.methods import METHODS
from models import layout_of, make_model
from run import HERE, Run, size_of

ENTRY = "from blockmerge.cli import main; main()"
MODELS = ("first", "second", "third")
SETTINGS: dict[str, dict[str, Any]] = {"slerp": {"t": 0.3}, "sce": {"select_topk": 0.5}, "nearswap": {"t": 0.001}}
ALONE = {"passthrough", "geometric_median", "consensus_ta", "consensus_ties"}
"""Not measured there: copying, and what it does not have."""


def recipe(method: str, folder: Path) -> dict[str, Any]:
    declared = METHODS[method]
    most = declared.models[1] or 3
    models = [str(folder / name) for name in MODELS[:most]]
    own = {"weight": 0.5} if declared.parameter("weight") else {}
    own |= {"density": 0.5} if declared.parameter("density") else {}
    found = {"method": method, "models": [{"model": model, **own} for model in models], **SETTINGS.get(method, {})}
    return found | ({"base": str(folder / "base")} if declared.base == "required" else {})


def mergekit_recipe(method: str, folder: Path) -> dict[str, Any]:
    ours = recipe(method, folder)
    entries = [
        {"model": entry["model"], "parameters": {k: v for k, v in entry.items() if k != "model"}}
        for entry in ours["models"]
    ]
    found: dict[str, Any] = {"merge_method": method, "models": entries, "dtype": "bfloat16"}
    if method == "slerp":
        found["base_model"] = str(folder / "first")
    if "base" in ours:
        found["base_model"] = ours["base"]
    if method in SETTINGS:
        found["parameters"] = SETTINGS[method]
    return found


def measure(method: str, folder: Path, rounds: int, mergekit: str | None, *, native: bool) -> str:
    path, theirs_path = folder / "recipe.yaml", folder / "mergekit.yaml"
    theirs_path.write_text(yaml.safe_dump(mergekit_recipe(method, folder)))
    own = yaml.safe_dump(recipe(method, folder)) if native or method in ALONE else theirs_path.read_text()
    path.write_text(own)
    plan = blockmerge.plan(path)
    ours, copies, theirs = [], [], []
    command = [sys.executable, "-c", ENTRY, "merge", str(path), str(folder / "out"), "--quiet"]
    models = [str(folder / "first"), str(folder / "second"), str(folder / "out")]
    fraction = (plan.bytes_to_read + plan.bytes_to_write) / (3 * size_of(folder / "first"))
    Run(command)
    for number in range(rounds):
        wanted = mergekit and method not in ALONE and not number
        for command_line, runs in (
            (command, ours),
            ([sys.executable, str(HERE / "copy_models.py"), *models], copies),
            ([mergekit, str(theirs_path), str(folder / "out")] if wanted else None, theirs),
        ):
            shutil.rmtree(folder / "out", ignore_errors=True)
            if command_line:
                runs.append(Run(command_line))
    shutil.rmtree(folder / "out", ignore_errors=True)
    seconds = statistics.median(run.seconds for run in ours)
    share = statistics.median(a.seconds / (b.seconds * fraction) for a, b in zip(ours, copies, strict=True))
    peak = max(run.peak for run in ours) / 1e6
    line = f"{method:<18}{seconds:>9.2f}{share:>9.2f}{peak:>9.0f}"
    if theirs:
        line += f"{theirs[0].seconds:>12.1f}{theirs[0].seconds / seconds:>9.1f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/blockmerge-methods"))
    parser.add_argument("--gb", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--mergekit", default=shutil.which("mergekit-yaml"))
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--noise", type=float, default=3e-4)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    try:
        for seed, name in enumerate(("base", *MODELS)):
            moved = {"noise": arguments.noise if seed else 0.0, "noise_seed": seed} if arguments.noise else {}
            make_model(folder / name, layout_of(arguments.gb), 0 if moved else seed, **moved)
        print(f"{'':<18}{'seconds':>9}{'x read':>9}{'peak MB':>9}{'mergekit s':>12}{'factor':>9}")
        for method in arguments.methods:
            line = measure(method, folder, arguments.rounds, arguments.mergekit, native=arguments.native)
            print(line, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
