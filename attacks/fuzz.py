"""Coverage-guided fuzzing of every parser that meets bytes of strangers (needs atheris and safetensors).

    python attacks/fuzz.py header --runs 500000

Whatever the bytes are, a parser returns or raises one of our errors; and a header that we accept, the format's own
library accepts and reads alike. Anything else is a crash, and atheris writes its bytes into a file.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris
import safetensors

with atheris.instrument_imports(include=["blockmerge"]):
    from blockmerge.errors import BlockmergeError
    from blockmerge.formats.safetensors import read_header
    from blockmerge.formats.sentencepiece import read_pieces
    from blockmerge.recipes.load import parse_recipe
    from blockmerge.sources.adapter_config import read_adapter_config
    from blockmerge.sources.card import read_card
    from blockmerge.sources.local import weight_map
    from blockmerge.sources.small import SmallFile
    from blockmerge.vocabularies.tokens import read_tokens

__all__ = ["TARGETS"]

SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-"))


def file(data: bytes) -> None:
    """A whole safetensors file."""
    found = read_header(io.BytesIO(data), len(data), "x")
    theirs = dict(safetensors.deserialize(data))
    ours = {name: (spec.dtype.code, spec.shape) for name, spec in found.tensors.items()}
    if ours != {name: (view["dtype"], tuple(view["shape"])) for name, view in theirs.items()}:
        raise AssertionError("two readers see different tensors")


def header(data: bytes) -> None:
    """The same with the right length in front, so that what is tried gets past that."""
    file((data.rfind(b"}") + 1).to_bytes(8, "little") + data)


def in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """A target that reads a file of this name."""

    def target(data: bytes) -> None:
        (SCRATCH / name).write_bytes(data)
        read(SCRATCH / name)

    return target


TARGETS: dict[str, Callable[[bytes], object]] = {
    "file": file,
    "header": header,
    "index": in_file("model.safetensors.index.json", weight_map),
    "recipe": lambda data: parse_recipe(data.decode("utf-8", errors="replace")),
    "pieces": lambda data: read_pieces(data, "x", 1000),
    "tokenizer": lambda data: read_tokens({"tokenizer.json": SmallFile.of(data)}, "x"),
    "adapter": in_file("adapter_config.json", lambda path: read_adapter_config(path.parent)),
    "card": in_file("README.md", lambda path: read_card([path.parent])),
}


WORDS = (
    '{', '}', '[', ']', ':', ',', '"', '""', '{}', '"dtype"', '"shape"', '"data_offsets"', '"F32"', '"F4"', '"BOOL"',
    '"__metadata__"', 'null', 'true', '-1', '1e9', '9223372036854775808', '18446744073709551616', '\\ud800', '\\u0000',
    '"weight_map"', '.safetensors', '../', 'models: ', 'method: ', 'values: ', 'parameters: ', 'slices: ', 'sources: ',
    'layer_range: ', 'name: ', 'tokenizer: ', 'tokens: ', '&a ', '*a', '!!int ', '!!binary ', '---', '<<: ', '? ', '- ',
    '"model"', '"vocab"', '"merges"', '"added_tokens"', '"content"', '"id"', '"rank_pattern"', '"r"', '"(a|b)*"',
)  # fmt: skip
"""What the formats are made of, for the mutations."""


def seeds(target: str) -> list[bytes]:
    """Good inputs, to start from."""
    one = b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}'
    recipes = (
        b"method: gradient\nmodels: [a/b, c/d]\nvalues: {attention: [0.2, 0.8], all: [0.5]}\nlayers: 0:4\n",
        b"merge_method: ties\nbase_model: a/b\nmodels:\n- model: c/d\n  parameters: {density: [0, 1], weight: 0.5}\n",
        b"merge_method: passthrough\nslices:\n- sources: [{model: a/b, layer_range: [0, 8]}]\ndtype: float16\n",
        b"model_path1: a/b\nmodel_path2: c/d\noutput_model_path: out\noperations:\n- {operation: a, filter: b}\n",
        b"name: one\nmethod: linear\nmodels: [{model: a/b, weight: 1}, {model: c/d}]\n---\nmethod: slerp\nt: &t 0.5\n",
    )
    return {
        "file": [len(one).to_bytes(8, "little") + one + bytes(8)],
        "header": [one + bytes(8), b'{"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}  ' + bytes(2)],
        "index": [b'{"metadata":{},"weight_map":{"a":"model-00001-of-00002.safetensors"}}'],
        "recipe": list(recipes),
        "pieces": [b"\x0a\x0a\x0a\x01a\x15\x00\x00\x80\x3f\x18\x01\x0a\x05\x0a\x01b\x18\x04"],
        "tokenizer": [
            b'{"added_tokens":[{"id":1,"content":"<s>","special":true}],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}',
            b'{"model":{"type":"Unigram","vocab":[["a",-1.5]]}}',
        ],
        "adapter": [
            json.dumps({"peft_type": "LORA", "r": 8, "rank_pattern": {"q_(a|b)": 4}, "use_dora": False}).encode()
        ],
        "card": [b"---\nlicense: mit\nlanguage: [en, de]\nbase_model: &a a/b\n---\n# Model\n"],
    }[target]


def dictionary() -> str:
    """The words as libFuzzer wants them."""
    coded = ("".join(f"\\x{byte:02x}" for byte in word.encode()) for word in WORDS)
    return "".join(f'"{word}"\n' for word in coded)


def main() -> None:
    """Run one target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=100_000)
    arguments = parser.parse_args()
    corpus = SCRATCH / "corpus"
    corpus.mkdir()
    for number, content in enumerate(seeds(arguments.target)):
        (corpus / str(number)).write_bytes(content)
    target = TARGETS[arguments.target]

    def once(data: bytes) -> None:
        try:
            target(data)
        except BlockmergeError as error:
            str(error)

    words = SCRATCH / "words"
    words.write_text(dictionary(), "utf-8")
    limits = [
        f"-runs={arguments.runs}",
        "-max_len=2000",
        "-timeout=5",
        "-rss_limit_mb=1000",
        "-seed=1",
        f"-dict={words}",
    ]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
