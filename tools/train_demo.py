"""Train the two tiny models that ``blockmerge demo`` merges, and write the text it measures them on.

A byte-level Llama learns Python and English prose together, then is finetuned twice: once on the code alone,
once on the prose alone. The learning rate falls in one line through both phases, so the two finetunes part
late and stay close enough for the blends between them to work.

The code is the standard library of the interpreter that runs this. The prose is any plain text file; the
published models read Jane Austen's six novels, in the public domain, as Debian packages them:

    apt-get install r-cran-janeaustenr
    Rscript -e 'writeLines(janeaustenr::austen_books()$text, "prose.txt")'
    python tools/train_demo.py --prose prose.txt

Needs torch and transformers, and about twenty minutes on one core. The same text and the same versions of these
give the same models again.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sysconfig
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

CONTEXT = 256
BATCH = 8
END = 256  # the token after the 256 bytes: parts one document from the next
PEAK_MUON, PEAK_ADAMW = 0.02, 0.003
WARMUP = 30
BRANCHING = 0.3  # learning rate at which the finetunes part, as a share of the peak

HELD_OUT_MODULE = "csv.py"  # 16 KB, and nothing else in the library repeats it
HELD_OUT_PROSE = 16 * 1024
# Tests and tables are no code to learn from, and what was configured for one machine names its paths.
SKIPPED = {"encodings", "idlelib", "lib2to3", "pydoc_data", "site-packages", "dist-packages", "test", "tests"}
CONFIGURED = ("config-", "_sysconfigdata")

CARD = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [blockmerge, demo]
---

# Blockmerge demo: {kind}

One of the two models that `blockmerge demo` merges: a Llama of {parameters:,} parameters that reads bytes.
It first learned Python and English prose together, then was finetuned on {kind} alone. It writes text that
looks like its kind from a distance, and has no other use.

Trained by `tools/train_demo.py` on {code_bytes:.1f} MB of the Python {python} standard library (PSF-2.0) and
{prose_bytes:.1f} MB of Jane Austen's novels (public domain). The weights are Apache-2.0.

| held-out text | loss, nats per byte |
|---|---|
| code | {code_loss:.3f} |
| prose | {prose_loss:.3f} |
"""


def read_code() -> tuple[list[bytes], bytes]:
    """Modules of the standard library to learn from, and the one held out."""
    root = Path(sysconfig.get_path("stdlib"))
    modules = [path.relative_to(root) for path in sorted(root.rglob("*.py"))]
    learned = [
        path
        for path in modules
        if path.name != HELD_OUT_MODULE
        and not SKIPPED.intersection(path.parts)
        and not path.parts[0].startswith(CONFIGURED)
    ]
    return [(root / path).read_bytes() for path in learned], (root / HELD_OUT_MODULE).read_bytes()


def read_prose(path: Path) -> tuple[list[bytes], bytes]:
    """The text up to its last whole paragraphs of about 16 KB, and those, held out."""
    text = path.read_bytes().strip() + b"\n"
    cut = text.index(b"\n\n", len(text) - HELD_OUT_PROSE)
    return [text[:cut]], text[cut:].lstrip()


def as_tokens(documents: list[bytes]) -> torch.Tensor:
    """One row of byte tokens, END after each document."""
    return torch.tensor([token for document in documents for token in (*document, END)], dtype=torch.int16)


def new_model() -> LlamaForCausalLM:
    """An untrained Llama of 861,984 parameters."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=END + 1,
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=False,
            bos_token_id=END,
            eos_token_id=END,
            pad_token_id=None,
        )
    )


class Muon:
    """Momentum whose every update is made orthogonal: learns more from each window than AdamW does.

    torch.optim.Muon iterates in bfloat16, one matrix at a time, which is many times slower on a CPU without
    bfloat16 instructions. This one iterates in float32 on all matrices of a shape at once.
    """

    def __init__(self, matrices: list[torch.nn.Parameter]) -> None:
        shapes = sorted({tuple(matrix.shape) for matrix in matrices})
        self.groups = [[matrix for matrix in matrices if tuple(matrix.shape) == shape] for shape in shapes]
        self.momenta = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix against its gradient, and forget the gradients."""
        for group, momentum in zip(self.groups, self.momenta, strict=True):
            gradient = torch.stack([matrix.grad for matrix in group])
            momentum.lerp_(gradient, 0.05)
            update = orthogonal(gradient.lerp(momentum, 0.95))
            rows, columns = group[0].shape
            scale = rate * max(1, rows / columns) ** 0.5
            for matrix, change in zip(group, update, strict=True):
                matrix.sub_(change, alpha=scale)
                matrix.grad = None


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Approximately U Vᵀ of each matrix U S Vᵀ, by Newton-Schulz with the usual coefficients of Muon."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def train(model: LlamaForCausalLM, texts: list[torch.Tensor], steps: int, rates: tuple[float, float]) -> None:
    """Train on equal shares of the texts; ``rates`` are the learning rates at start and end, in peaks."""
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    outer = [p for name, p in model.named_parameters() if p.ndim == 1 or ".layers." not in name]
    muon = Muon(inner)
    adamw = torch.optim.AdamW(outer, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        rate = (rates[0] + (rates[1] - rates[0]) * step / steps) * min(1.0, (step + 1) / WARMUP)
        windows = torch.cat([draw(text, BATCH // len(texts)) for text in texts])
        loss = cross_entropy(model(input_ids=windows[:, :-1]).logits.flatten(0, 1), windows[:, 1:].flatten())
        loss.backward()
        muon.step(PEAK_MUON * rate)
        adamw.param_groups[0]["lr"] = PEAK_ADAMW * rate
        adamw.step()
        adamw.zero_grad()
        if step % 100 == 0:
            print(f"  step {step:5d}  loss {loss.item():.3f}", flush=True)


def draw(text: torch.Tensor, count: int) -> torch.Tensor:
    """Windows from random places: the context and one token more."""
    starts = torch.randint(len(text) - CONTEXT, (count, 1))
    return text[starts + torch.arange(CONTEXT + 1)].long()


@torch.no_grad()
def measure(model: LlamaForCausalLM, text: bytes) -> float:
    """Mean cross entropy in nats per byte, over windows of the context."""
    tokens = torch.tensor(list(text))
    total = 0.0
    for start in range(0, len(tokens) - 1, CONTEXT):
        window = tokens[start : start + CONTEXT + 1]
        total += cross_entropy(model(input_ids=window[None, :-1]).logits[0], window[1:], reduction="sum").item()
    return total / (len(tokens) - 1)


def blend(first: LlamaForCausalLM, second: LlamaForCausalLM, share: float = 0.5) -> LlamaForCausalLM:
    """The model at ``share`` of the way from the first to the second."""
    blended = copy.deepcopy(first)
    other = second.state_dict()
    blended.load_state_dict({name: t.lerp(other[name], share) for name, t in first.state_dict().items()})
    return blended


def write_tokenizer(folder: Path) -> None:
    """A tokenizer whose token ids are the bytes of the text in UTF-8, in the files that transformers reads."""
    tokenizer = Tokenizer(BPE({character: byte for byte, character in bytes_to_unicode().items()}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|end|>",
        "eos_token": "<|end|>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def write_model(model: LlamaForCausalLM, folder: Path, card: str) -> None:
    """The folder of a model as it would be published."""
    model.save_pretrained(folder)
    write_tokenizer(folder)
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    """Train, write, and print how the models and the blends between them do on the held-out text."""
    demo = Path(__file__).resolve().parent.parent / "src" / "blockmerge" / "demo"
    parser = argparse.ArgumentParser(description="Train the models of `blockmerge demo`; see the top of this file.")
    parser.add_argument("--prose", type=Path, required=True, metavar="FILE", help="plain text in English")
    parser.add_argument("--output", type=Path, default=demo, metavar="FOLDER", help="where models/ and text/ go")
    parser.add_argument("--steps", type=int, default=1800, help="steps on both kinds of text (default %(default)s)")
    parser.add_argument("--finetune-steps", type=int, default=400, help="then on one kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.set_num_threads(1)  # the sums of several threads differ from run to run
    learned, held_out = {}, {}
    for kind, (documents, rest) in {"code": read_code(), "prose": read_prose(options.prose)}.items():
        learned[kind], held_out[kind] = as_tokens(documents), rest
        (options.output / "text").mkdir(parents=True, exist_ok=True)
        (options.output / "text" / f"{kind}.txt").write_bytes(rest)

    started = time.monotonic()
    torch.manual_seed(options.seed)
    base = new_model()
    train(base, list(learned.values()), options.steps, (1.0, BRANCHING))
    models = {kind: copy.deepcopy(base) for kind in learned}
    for kind, model in models.items():
        torch.manual_seed(options.seed + 1)
        train(model, [learned[kind]], options.finetune_steps, (BRANCHING, 0.0))
        model.to(torch.bfloat16)
    print(f"trained in {(time.monotonic() - started) / 60:.1f} minutes")

    for kind, model in models.items():
        rounded = copy.deepcopy(model).float()
        card = CARD.format(
            kind=kind,
            parameters=model.num_parameters(),
            python=platform.python_version(),
            code_bytes=len(learned["code"]) / 1e6,
            prose_bytes=len(learned["prose"]) / 1e6,
            code_loss=measure(rounded, held_out["code"]),
            prose_loss=measure(rounded, held_out["prose"]),
        )
        write_model(model, options.output / "models" / kind, card)

    code, prose = (model.float() for model in models.values())
    rows = {"base": base} | {f"{share:.0%} prose": blend(code, prose, share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    for name, model in rows.items():
        print(f"{name:10}", *(f"{kind} {measure(model, text):.3f}" for kind, text in held_out.items()))


if __name__ == "__main__":
    main()
