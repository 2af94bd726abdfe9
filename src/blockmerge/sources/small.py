"""The files of a model besides its weights: config, tokenizer, templates, licence, code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blockmerge.errors import ModelError

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
            with self.path.open("rb") as file:
                return file.read(self.size + 1)
        except OSError as error:
            raise ModelError(f"{self.path}: cannot be read: {error.strerror or error}") from error


def small_files(folder: Path) -> Mapping[str, SmallFile]:
    """The small files in ``folder`` that belong to a model, by name; those in subfolders with forward slashes."""
    paths = [folder / name for name in _NAMES]
    paths += sorted(path for pattern in _PATTERNS for path in folder.glob(pattern))
    return {
        path.relative_to(folder).as_posix(): SmallFile(path.stat().st_size, path) for path in paths if path.is_file()
    }
