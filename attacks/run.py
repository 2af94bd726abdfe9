"""Every attack, and what Blockmerge answers.

    python attacks/run.py              writes attacks/README.md
    python attacks/run.py --measure    prints time and peak memory of each, in a process of its own

Each attack is a function of a few lines that makes one hostile file beside two good models.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import chdir
from pathlib import Path

import headers  # noqa: F401 - each of them enters its attacks
import indexes  # noqa: F401
import places  # noqa: F401
import texts  # noqa: F401
from attack import ATTACKS, Attack, good_models
from click.testing import CliRunner

from blockmerge.cli import main

__all__ = ["answer", "table"]

_TITLE = """# Attacks

Downloaded models are hostile until they are read. Each line of this table is a file that somebody could put into one,
made by a function of a few lines in this folder, and the line that Blockmerge answers; the code is that of its exit.
`python attacks/run.py` makes the table again, `python attacks/run.py --measure` shows that each answer comes in bounded
time and memory. A test compares, and checks that nothing is left behind.
"""


def answer(attack: Attack, folder: Path) -> tuple[int, str]:
    """The exit code and the line that the attack gets in ``folder``, which is empty; and nothing else happens."""
    good_models(folder)
    attack.make(folder)
    before = set(folder.rglob("*"))
    with chdir(folder):
        result = CliRunner().invoke(main, list(attack.command))
    left = {path for path in folder.rglob("*") if path.relative_to(folder).parts[0] != "out"} - before
    if left or (result.exit_code and not (folder / "out").is_symlink() and (folder / "out").exists()):
        raise AssertionError(f"{attack.what}: left {left or 'an output'}")
    lines = [line.removeprefix("blockmerge: ") for line in result.output.splitlines()]
    return result.exit_code, lines[0].replace(f"{folder.resolve()}{os.sep}", "") if lines else "merged, unharmed"


def table() -> str:
    """The text of README.md."""
    lines = [_TITLE]
    for kind in dict.fromkeys(attack.kind for attack in ATTACKS):
        lines += [f"## {str(sys.modules[kind].__doc__).rstrip('.')}\n", "| attack | answer | code |", "|---|---|---|"]
        for attack in (attack for attack in ATTACKS if attack.kind == kind):
            with tempfile.TemporaryDirectory() as folder:
                code, line = answer(attack, Path(folder))
            lines.append(f"| {attack.what} | `{line.replace('|', chr(92) + '|')}` | {code} |")
        lines.append("")
    return "\n".join(lines)


def measure() -> None:
    """Print what each attack costs: seconds and MB of a whole process, imports included."""
    for attack in ATTACKS:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [sys.executable, __file__, "--make", attack.what, folder], check=True
            )  # not in this process:
            command = [sys.executable, "-m", "blockmerge", *attack.command]
            started = time.perf_counter()  # what this one holds would count as memory of the next
            process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds, peak = time.perf_counter() - started, usage.ru_maxrss / 1000
        print(f"{seconds:6.2f} s {peak:6.0f} MB  exit {process.returncode:3}  {attack.kind}: {attack.what}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--make", nargs=2, metavar=("ATTACK", "FOLDER"), help="make one of them and look at it")
    arguments = parser.parse_args()
    if arguments.measure:
        measure()
    elif arguments.make:
        what, folder = arguments.make
        good_models(Path(folder))
        next(attack for attack in ATTACKS if attack.what == what).make(Path(folder))
    else:
        Path(__file__).with_name("README.md").write_text(table(), "utf-8")
