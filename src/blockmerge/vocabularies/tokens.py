"""The tokens of a model: their strings and ids, read from its tokenizer files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from blockmerge.errors import FormatError, ModelError
from blockmerge.formats.jsonfile import MAX_BYTES, parse_object
from blockmerge.formats.sentencepiece import read_pieces
from blockmerge.sources.small import SmallFile

__all__ = ["CONVERT", "MAX_TOKENS", "AddedToken", "Tokens", "read_tokens", "token_contents"]

MAX_TOKENS = 1 << 22
"""More than any vocabulary in use, of tokens as well as of ids."""
_FILES = (
    "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "tokenizer.model", "vocab.json", "vocab.txt",
)  # fmt: skip
"""The files that decide which tokens a model has."""
_UNREADABLE = ("tekken.json", "sentencepiece.bpe.model", "spiece.model")
_KINDS = {"BPE": dict, "WordPiece": dict, "WordLevel": dict, "Unigram": list}
CONVERT = "convert it: transformers.AutoTokenizer.from_pretrained(MODEL, use_fast=True).save_pretrained(MODEL)"
"""What to do about a tokenizer that has no tokenizer.json."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is cut out of the text before anything else, and how; the flags are those of ``tokenizers``."""

    special: bool = False
    normalized: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True, slots=True)
class Tokens:
    """The id of each token, which tokens are ``added`` ones, and the tokenizer.json they are from (empty if another).

    ``file`` names the file that says it.
    """

    ids: Mapping[str, int]
    added: Mapping[str, AddedToken]
    file: str
    document: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


def token_contents(files: Mapping[str, SmallFile], label: str) -> dict[str, bytes]:
    """The bytes of those ``files`` that decide which tokens a model has; equal ones mean equal tokens."""
    found = {name: files[name] for name in _FILES if name in files}
    for name, file in found.items():
        if file.size > MAX_BYTES:
            raise ModelError(f"{label}: {name}: larger than {MAX_BYTES:,} bytes; this is no file of a tokenizer")
    return {name: file.read() for name, file in found.items()}


def read_tokens(files: Mapping[str, SmallFile], label: str) -> Tokens:
    """The tokens of the model that ``label`` names, from its small ``files``.

    tokenizer.json decides if it is there, else tokenizer.model, vocab.json or vocab.txt; added_tokens.json and the
    added_tokens_decoder of tokenizer_config.json may add tokens, but not contradict it. Raises :class:`ModelError`
    if there is no tokenizer, or none that can be read, or one that makes no sense.
    """
    contents = token_contents(files, label)
    name = next((name for name in ("tokenizer.json", "tokenizer.model") if name in contents), None)
    unreadable = [other for other in files if other in _UNREADABLE or other.endswith(".tiktoken")]
    if name is None and unreadable:
        raise ModelError(f"{label}: the tokens in {unreadable[0]} cannot be read; {CONVERT}")
    name = name or next((name for name in ("vocab.json", "vocab.txt") if name in contents), None)
    if name is None:
        raise ModelError(f"{label}: has no tokenizer; copy the tokenizer files of the model it was made from into it")
    reader = _Reader(label, name)
    document = reader.read_main(contents[name])
    for other in ("tokenizer_config.json", "added_tokens.json"):
        if other in contents:
            reader.read_additions(other, contents[other])
    return Tokens(reader.checked(), reader.added, name, document)


class _Reader:
    """The tokens read so far, and what is wrong with the next one."""

    def __init__(self, label: str, main: str) -> None:
        self.where = f"{label}: {main}"
        self._label = label
        self._main = main
        self.ids: dict[str, int] = {}
        self.added: dict[str, AddedToken] = {}

    def read_main(self, data: bytes) -> Mapping[str, Any]:
        """Read the file that decides; its content if that is a tokenizer.json."""
        if self._main == "tokenizer.json":
            document = parse_object(data, self.where)
            self._read_model(document.get("model"))
            self._read_added(document.get("added_tokens", []))
            return document
        if self._main == "tokenizer.model":
            for number, piece in enumerate(read_pieces(data, self.where, MAX_TOKENS)):
                self._add(piece.text, number)
                if piece.control or piece.user_defined:
                    self.added[piece.text] = AddedToken(special=piece.control)
        elif self._main == "vocab.json":
            self._add_all(parse_object(data, self.where))
        else:
            self._add_in_order(_lines(data, self.where))
        return {}

    def _read_model(self, model: object) -> None:
        """The vocabulary of a tokenizer.json: a table of ids, or a list of pieces with scores."""
        model = _table(model, f"{self.where}: model")
        kind: object = model.get("type")
        vocabulary: object = model.get("vocab")
        if kind is not None and (not isinstance(kind, str) or kind not in _KINDS):
            raise FormatError(
                f"{self.where}: model has the unknown type {str(kind)[:80]!r}; known are {', '.join(_KINDS)}"
            )
        if isinstance(vocabulary, dict) and _KINDS.get(kind or "", dict) is dict:
            self._add_all(cast("dict[str, object]", vocabulary))
        elif isinstance(vocabulary, list) and _KINDS.get(kind or "", list) is list:
            self._add_in_order([self._piece(piece) for piece in cast("list[object]", vocabulary)])
        else:
            raise FormatError(f"{self.where}: model.vocab is neither a table of ids nor a list of pieces")

    def _piece(self, piece: object) -> str:
        match piece:
            case [str() as text, (int() | float())]:
                return text
            case _:
                raise FormatError(f"{self.where}: model.vocab is no list of [piece, score]")

    def _read_added(self, entries: object) -> None:
        if not isinstance(entries, list):
            raise FormatError(f"{self.where}: added_tokens is no list")
        for entry in cast("list[object]", entries):
            entry = _table(entry, f"{self.where}: an added token")
            token = self._text(entry.get("content"))
            if token in self.added:
                raise FormatError(f"{self.where}: the added token {token[:80]!r} appears twice")
            self._add(token, entry.get("id"))
            self.added[token] = _flags(entry, self.where)

    def read_additions(self, name: str, data: bytes) -> None:
        """Read a file that may only add tokens."""
        where = f"{self._label}: {name}"
        content = parse_object(data, where)
        if name == "added_tokens.json":
            for token, number in content.items():
                self._add(token, number, name)
                self.added.setdefault(token, AddedToken())
            return
        for number, entry in _table(content.get("added_tokens_decoder", {}), f"{where}: added_tokens_decoder").items():
            entry = _table(entry, f"{where}: an added token")
            token = self._text(entry.get("content"))
            self._add(
                token, int(number) if number.isascii() and number.isdigit() and len(number) < 10 else number, name
            )
            self.added.setdefault(token, _flags(entry, where))

    def _add_all(self, vocabulary: Mapping[str, object]) -> None:
        """A whole table of ids; the first thing that is read."""
        self._check_count(len(vocabulary))
        for token, number in vocabulary.items():
            self.ids[token] = self._id(number, token, self._main)

    def _add_in_order(self, tokens: Sequence[object]) -> None:
        self._check_count(len(tokens))
        for number, token in enumerate(tokens):
            self._add(self._text(token), number)

    def _add(self, token: str, number: object, file: str | None = None) -> None:
        file = file or self._main
        known = self.ids.setdefault(token, self._id(number, token, file))
        if known != number:
            raise FormatError(
                f"{self._label}: {token[:80]!r} has the id {known} in {self._main} and {number} in {file}; "
                "which one counts?"
            )

    def _id(self, number: object, token: str, file: str) -> int:
        if type(number) is not int or not 0 <= number < MAX_TOKENS:
            raise FormatError(
                f"{self._label}: {file}: {token[:80]!r} has the id {str(number)[:80]}; "
                f"ids are whole numbers below {MAX_TOKENS:,}"
            )
        return number

    def _check_count(self, count: int) -> None:
        if count > MAX_TOKENS:
            raise FormatError(f"{self.where}: has more than {MAX_TOKENS:,} tokens; this is no tokenizer of a model")

    def _text(self, token: object) -> str:
        if not isinstance(token, str):
            raise FormatError(f"{self.where}: a token is a JSON {type(token).__name__}, not a string")
        return token

    def checked(self) -> dict[str, int]:
        """All tokens, if they make a vocabulary: some, each with its own id, each writable."""
        if not self.ids:
            raise FormatError(f"{self.where}: has no tokens")
        if len(set(self.ids.values())) < len(self.ids):
            first, second = _sharing_an_id(self.ids)
            raise FormatError(f"{self.where}: {first[:80]!r} and {second[:80]!r} have the same id {self.ids[first]}")
        try:
            "".join(self.ids).encode()
        except UnicodeEncodeError as error:
            raise FormatError(f"{self.where}: a token holds half of a surrogate pair, which is no text") from error
        return self.ids


def _sharing_an_id(ids: Mapping[str, int]) -> tuple[str, str]:
    seen: dict[int, str] = {}
    for token, number in ids.items():
        if number in seen:
            return seen[number], token
        seen[number] = token
    raise AssertionError("all ids differ")


def _lines(data: bytes, where: str) -> list[str]:
    try:
        return data.decode("utf-8").removesuffix("\n").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: byte {error.start} is not UTF-8; the file is corrupt") from error


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError(f"{where}: is a JSON {type(value).__name__}, not an object")
    return cast("dict[str, Any]", value)


def _flags(entry: Mapping[str, Any], where: str) -> AddedToken:
    names: Iterable[str] = AddedToken.__slots__
    flags = {name: entry.get(name, False) for name in names}
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise FormatError(f"{where}: a flag of the added token {str(entry.get('content'))[:80]!r} is not true or false")
    return AddedToken(**flags)
