"""The contract of a source of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from blockmerge.sources.small import SmallFile
from blockmerge.tensors import TensorSpec

__all__ = ["Fingerprint", "Source"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What identifies the weights of a model without reading them.

    ``headers`` maps each weight file to the digest of its header (sha256, hex); ``identity`` holds what changes when
    a file is touched or replaced (size, modification time, inode), and never leaves this machine.
    """

    headers: Mapping[str, str]
    identity: Mapping[str, tuple[int, ...]]


class Source(Protocol):
    """One model, read by name and range. Safe to use from several threads at once."""

    @property
    def label(self) -> str:
        """How people call it: the Hub id or the folder's name. Holds no path."""
        ...

    @property
    def files(self) -> Mapping[str, SmallFile]:
        """Its files besides weights by name: config.json, tokenizer, templates, licence, code."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config.json; empty if it has none."""
        ...

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Its tensors by name; files in the order of their names, and in each file tensors likewise."""
        ...

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is odd about it, a line each."""
        ...

    def read_into(self, name: str, first: int, count: int, buffer: memoryview) -> None:
        """Put ``count`` encoded elements of tensor ``name``, from element ``first``, into ``buffer``.

        ``buffer`` is writable, of bytes, and exactly as long as those elements. Raises :class:`FormatError` if the
        bytes are not there any more.
        """
        ...

    def fingerprint(self) -> Fingerprint:
        """The identity of the weights now; compare with an earlier one to see whether they changed."""
        ...

    def changed(self) -> str | None:
        """The name of a weight file that is not the one that was opened any more, or None."""
        ...

    def close(self) -> None:
        """Release files; reading is an error from here on."""
        ...
