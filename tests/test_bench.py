"""The benches run, on small models; their figures are for people, not for tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench" / "run.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="measures with Linux means")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--gb", "0.2", "--rounds", "1", "--mergekit", ""], "merge phase"),
        (["--diff", "--gb", "0.2", "--rounds", "1"], "diff phase"),
        (["--plan"], "405 billion parameters"),
    ],
)
def test_benches_print_their_tables(tmp_path: Path, arguments: list[str], expected: str) -> None:
    command = [sys.executable, str(BENCH), "--folder", str(tmp_path / "models"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert not (tmp_path / "models").exists()
