"""A model whose tensors go by other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from blockmerge.sources.base import Fingerprint, Source
from blockmerge.sources.small import SmallFile
from blockmerge.tensors import TensorSpec

__all__ = ["RespelledSource"]


class RespelledSource:
    """Model ``source`` with ``names``, which maps those it is known by to those it stores; ``config`` stands for its
    own.
    """

    def __init__(self, source: Source, names: Mapping[str, str], config: Mapping[str, Any]) -> None:
        self._source, self._stored = source, names
        self.label = source.label
        self.files: Mapping[str, SmallFile] = source.files
        self.config = config
        self.remarks = source.remarks
        self.specs: Mapping[str, TensorSpec] = {
            name: replace(source.specs[stored], name=name) for name, stored in names.items()
        }

    def read_into(self, name: str, first: int, count: int, buffer: memoryview) -> None:
        """As :class:`~blockmerge.sources.Source` has it."""
        self._source.read_into(self._stored[name], first, count, buffer)

    def fingerprint(self) -> Fingerprint:
        """As :class:`~blockmerge.sources.Source` has it."""
        return self._source.fingerprint()

    def changed(self) -> str | None:
        """As :class:`~blockmerge.sources.Source` has it."""
        return self._source.changed()

    def close(self) -> None:
        """As :class:`~blockmerge.sources.Source` has it."""
        self._source.close()
