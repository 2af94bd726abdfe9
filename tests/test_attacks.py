"""Every attack in ``attacks/`` gets the answer that its table promises."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

ATTACKS = Path(__file__).parents[1] / "attacks"


@pytest.mark.skipif(os.name != "posix", reason="makes pipes and links")
def test_attacks_get_the_answers_that_stand_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ATTACKS)
    run = importlib.import_module("run")
    assert run.table() == (ATTACKS / "README.md").read_text("utf-8"), "python attacks/run.py makes it again"
    assert len(run.ATTACKS) == len({attack.what for attack in run.ATTACKS}) > 60
