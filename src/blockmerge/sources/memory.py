"""A model made of arrays, for tests and experiments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from blockmerge.dtypes import DType
from blockmerge.sources.base import Fingerprint
from blockmerge.sources.small import SmallFile
from blockmerge.tensors import TensorSpec

__all__ = ["MemorySource"]


class MemorySource:
    """Tensors given as ``name: (dtype, array of encoded elements)``; see :class:`~blockmerge.sources.base.Source`."""

    remarks: tuple[str, ...] = ()

    def __init__(
        self,
        label: str,
        tensors: Mapping[str, tuple[DType, NDArray[np.generic]]],
        config: Mapping[str, Any] | None = None,
        files: Mapping[str, SmallFile] | None = None,
    ) -> None:
        self.label = label
        self.files: Mapping[str, SmallFile] = dict(files or {})
        self.config: Mapping[str, Any] = dict(config or {})
        self._bytes = {name: np.ascontiguousarray(array).tobytes() for name, (_, array) in tensors.items()}
        self.specs: Mapping[str, TensorSpec] = {
            name: TensorSpec(name, dtype, tuple(array.shape)) for name, (dtype, array) in tensors.items()
        }

    def read_into(self, name: str, first: int, count: int, buffer: memoryview) -> None:
        """Copy encoded elements into ``buffer``; see the contract."""
        size = self.specs[name].dtype.itemsize
        buffer[:] = self._bytes[name][first * size : (first + count) * size]

    def fingerprint(self) -> Fingerprint:
        """Digest of names, dtypes and shapes; memory does not change by itself."""
        layout = [[spec.name, spec.dtype.code, list(spec.shape)] for spec in self.specs.values()]
        return Fingerprint(headers={"memory": hashlib.sha256(json.dumps(layout).encode()).hexdigest()}, identity={})

    def changed(self) -> str | None:
        """Never: arrays were copied."""
        return None

    def close(self) -> None:
        """Nothing to release."""
