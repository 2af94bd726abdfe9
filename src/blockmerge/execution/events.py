"""What happens during a merge or a comparison, as values. All are emitted from the thread that called for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Event", "Finished", "Progress", "Publishing", "Started", "TensorCompared", "TensorDone"]


@dataclass(frozen=True, slots=True)
class Started:
    """Everything is checked; reading begins. Sizes in bytes."""

    tensors: int
    bytes_to_read: int
    bytes_to_write: int
    threads: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Emitted some ten times a second. Sizes in bytes, time in seconds since :class:`Started`."""

    bytes_read: int
    bytes_written: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TensorDone:
    """One tensor is written. ``digest`` is explained in docs/format.md."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class TensorCompared:
    """One tensor of two models is compared: the norm of the difference over that of model 1's; None if not defined."""

    name: str
    relative: float | None


@dataclass(frozen=True, slots=True)
class Publishing:
    """All weights are written; they are now made durable and given their name."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The model is at ``path``. ``nonfinite`` counts tensors with NaN or infinity in them (if those were allowed).

    ``seconds_compiling`` of those merging went into kernels, which are ``kept`` for the next time if that is possible.
    """

    path: Path
    bytes_read: int
    bytes_written: int
    seconds_merging: float
    seconds_publishing: float
    nonfinite: int
    seconds_compiling: float = 0.0
    kept: bool = True


Event = Started | Progress | TensorDone | TensorCompared | Publishing | Finished
