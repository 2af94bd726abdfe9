import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blockmerge.demo.forward import decode, encode, forward, generate, loss

DEMO = Path(str(files("blockmerge.demo")))
KINDS = ("code", "prose")


@cache
def model(kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Weights widened to float32, read by hand so that no test here needs torch for it."""
    data = (DEMO / "models" / kind / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    weights = {}
    for name, tensor in json.loads(data[8:start]).items():
        if name != "__metadata__":
            assert tensor["dtype"] == "BF16"
            begin, end = tensor["data_offsets"]
            bits = np.frombuffer(data[start + begin : start + end], dtype="<u2").astype("<u4") << 16
            weights[name] = bits.view("<f4").reshape(tensor["shape"])
    return weights, json.loads((DEMO / "models" / kind / "config.json").read_text())


def text(kind: str) -> str:
    return (DEMO / "text" / f"{kind}.txt").read_text(encoding="utf-8")


@cache
def measured(model_kind: str, text_kind: str) -> float:
    return loss(*model(model_kind), encode(text(text_kind)))


@pytest.mark.parametrize("kind", KINDS)
def test_loss_equals_the_loss_of_transformers(kind):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(DEMO / "models" / kind, dtype=torch.float32).eval()
    weights, config = model(kind)
    tokens = encode(text("code")[:1000])  # three whole windows and a shorter one
    total = 0.0
    for start in range(0, tokens.size - 1, config["max_position_embeddings"]):
        window = torch.from_numpy(tokens[start : start + config["max_position_embeddings"] + 1])
        with torch.no_grad():
            logits = reference(input_ids=window[None, :-1]).logits[0]
        total += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    assert loss(weights, config, tokens) == pytest.approx(total / (tokens.size - 1), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_of_transformers_agrees_with_encode_and_decode(kind):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DEMO / "models" / kind)
    for sample in (text("code"), text("prose"), "".join(map(chr, range(256))), " leading, ünïcödé, 漢字, 🙂\r\n\t "):
        ids = tokenizer(sample, add_special_tokens=True)["input_ids"]
        assert ids == encode(sample).tolist()
        assert tokenizer.decode(ids) == decode(np.array(ids)) == sample
    assert tokenizer("a<|end|>").input_ids == [97, 256]


def test_each_model_is_clearly_better_on_its_own_kind_of_text():
    assert measured("code", "code") < measured("prose", "code") - 0.2
    assert measured("prose", "prose") < measured("code", "prose") - 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_the_even_blend_is_close_to_the_right_specialist_and_far_from_the_wrong_one(kind):
    (code, config), (prose, _) = model("code"), model("prose")
    even = loss({name: (code[name] + prose[name]) / 2 for name in code}, config, encode(text(kind)))
    right = measured(kind, kind)
    wrong = measured("prose" if kind == "code" else "code", kind)
    assert even < right + (wrong - right) / 2


def test_a_single_token_has_no_loss():
    with pytest.raises(ValueError, match="two tokens"):
        loss(*model("code"), encode("a"))


def test_nothing_that_follows_a_token_changes_its_prediction():
    weights, config = model("prose")
    pair = np.stack([encode("It is a truth universally acknowledged" + end) for end in (", that", "; then")])
    first, second = forward(weights, config, pair)
    same = len("It is a truth universally acknowledged")
    assert np.allclose(first[:same], second[:same], atol=1e-3)
    assert not np.allclose(first[same:], second[same:], atol=1)


def test_generation_is_greedy_without_a_seed_and_repeatable_with_one():
    weights, config = model("prose")
    prompt = encode("She was ")
    assert np.array_equal(generate(weights, config, prompt, 8), generate(weights, config, prompt, 8))
    drawn = [decode(generate(weights, config, prompt, 24, seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_generation_slides_past_the_context():
    weights, config = model("prose")
    prompt = encode(text("prose")[: config["max_position_embeddings"] + 50])
    assert generate(weights, config, prompt, 3).shape == (3,)


def test_decode_marks_broken_bytes_and_leaves_out_other_tokens():
    assert decode(np.array([104, 105, 256, 0xE2, 0x82])) == "hi�"


def test_everything_shipped_fits_in_six_megabytes():
    assert sum(path.stat().st_size for path in shipped()) <= 6_000_000


def test_no_shipped_file_names_a_path_of_the_machine_that_made_it():
    for path in shipped():
        data = path.read_bytes()
        for trace in (b"/home/", b"/root/", b"/tmp/", b"/work/", b"/Users/", b"C:\\Users"):
            assert trace not in data, f"{trace!r} in {path.name}"


def shipped() -> list[Path]:
    return [path for path in DEMO.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
