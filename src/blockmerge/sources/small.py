"""The files of a model besides its weights: config, tokenizer, templates, licence, code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blockmerge.errors import ModelError
from blockmerge.formats.jsonfile import MAX_BYTES
from blockmerge.formats.regular import open_regular

__all__ = ["SmallFile", "small_files"]

_NAMES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model",
    "sentencepiece.bpe.model", "tekken.json", "chat_template.jinja", "chat_template.json", "preprocessor_config.json",
    "processor_config.json", "video_preprocessor_config.json",
)  # fmt: skip
_PATTERNS = ("LICENSE*", "NOTICE*", "*.tiktoken", "chat_templates/*.jinja", "additional_chat_templates/*.jinja", "*.py")


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A small file: where it is, or what it holds. ``size`` in bytes."""

    size: int
    path: Path | None = None
    content: bytes | None = None

    @classmethod
    def of(cls, content: bytes | str) -> SmallFile:
        """A file that holds ``content``; text is UTF-8."""
        data = content.encode() if isinstance(content, str) else content
        return cls(len(data), content=data)

    def read(self) -> bytes:
        """Its bytes. Raises :class:`ModelError` if they cannot be read any more."""
        if self.content is not None:
            return self.content
        assert self.path is not None
        try:
            with open_regular(self.path) as file:
                return file.read(self.size + 1)
        except OSError as error:
            raise ModelError(f"{self.path}: cannot be read: {error.strerror or error}") from error


def small_files(folder: Path) -> Mapping[str, SmallFile]:
    """The small files in ``folder`` that belong to a model, by name; those in subfolders with forward slashes.

    They are copied into what is merged and perhaps published. So each is a regular file inside ``folder``, or, as in
    the Hub's cache, among the ``blobs`` of the same repository: a link in a downloaded archive must not carry a file of
    this computer away. Raises :class:`ModelError` for a file that is anything else.
    """
    paths = [folder / name for name in _NAMES if os.path.lexists(folder / name)]
    paths += sorted(path for pattern in _PATTERNS for path in folder.glob(pattern) if not path.is_dir())
    try:
        places = _places(folder)
        return {path.relative_to(folder).as_posix(): _small_file(path, places) for path in paths}
    except OSError as error:
        raise ModelError(f"{error.filename or folder}: cannot be read: {error.strerror or error}") from error


def _places(folder: Path) -> list[Path]:
    """Where the small files of a model in ``folder`` may really be."""
    real = folder.resolve(strict=True)
    return [real, real.parent.parent / "blobs"] if real.parent.name == "snapshots" else [real]


def _small_file(path: Path, places: Sequence[Path]) -> SmallFile:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size > MAX_BYTES:
        raise ModelError(f"{path}: larger than {MAX_BYTES:,} bytes; this is no small file of a model")
    real = path.resolve(strict=True)
    if not any(real.is_relative_to(place) for place in places):
        raise ModelError(f"{path}: leads out of its folder, to {real}; if it belongs to the model, put a copy there")
    return SmallFile(size, path)
