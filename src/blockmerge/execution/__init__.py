"""Carrying out a plan: the only code that writes.

:func:`run` reads, blends, checks and writes; what it is doing comes out as :mod:`.events`.
"""

from __future__ import annotations

from blockmerge.execution.events import Event, Finished, Progress, Publishing, Started, TensorCompared, TensorDone
from blockmerge.execution.run import run
from blockmerge.execution.writer import discard

__all__ = [
    "Event",
    "Finished",
    "Progress",
    "Publishing",
    "Started",
    "TensorCompared",
    "TensorDone",
    "discard",
    "run",
]
