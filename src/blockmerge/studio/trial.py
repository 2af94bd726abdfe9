"""Trying models out: what they answer, and how well they foretell a text. Needs the extra ``eval``.

One model is in memory at a time, loaded by transformers from safetensors alone; code in a model folder never runs.
"""

from __future__ import annotations

import importlib.util
import math
import threading
from collections.abc import Generator, Iterator
from typing import Any, cast

from blockmerge.errors import BlockmergeError, ModelError
from blockmerge.sources import locate

__all__ = ["Trial"]

_WINDOW = 1024
"""Tokens of a text that are foretold together."""


class Trial:
    """The model that is tried at the moment; requests take turns."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._reference = ""
        self._loaded: tuple[Any, Any] | None = None

    def missing(self) -> list[str]:
        """The packages that trying needs and that are not installed."""
        return [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]

    def answer(self, reference: str, prompt: str, *, chat: bool, tokens: int) -> Generator[dict[str, Any]]:
        """The most likely continuation of ``prompt``, piece by piece (``{"text": ...}``), then the number of tokens.

        Raises :class:`BlockmergeError` if the model cannot be loaded or the extra is missing.
        """
        with self._turn:
            model, tokenizer = self._load(reference)
            ids = _prompt_ids(tokenizer, prompt, chat=chat)
            made: list[int] = []
            shown = ""
            for token in _greedy(model, ids, tokens, _ends(model, tokenizer)):
                made.append(token)
                text = tokenizer.decode(made, skip_special_tokens=True)
                if not text.endswith("�"):  # half of a character
                    yield {"text": text[len(shown) :]}
                    shown = text
            yield {"done": len(made)}

    def perplexity(self, reference: str, text: str) -> dict[str, Any]:
        """How surprised a model is by ``text``: perplexity, and nats per byte, which other tokenizers compare with."""
        import torch

        with self._turn:
            model, tokenizer = self._load(reference)
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            total, count = 0.0, 0
            with torch.inference_mode():
                for first in range(0, ids.shape[1] - 1, _WINDOW):
                    window = ids[:, first : first + _WINDOW + 1]
                    loss = model(input_ids=window, labels=window).loss.item()
                    total, count = total + loss * (window.shape[1] - 1), count + window.shape[1] - 1
        if count == 0:
            raise ModelError(f"{reference}: the text is a single token to it; give it some sentences")
        nats = total / len(text.encode())
        return {"perplexity": math.exp(min(total / count, 700.0)), "nats_per_byte": nats, "tokens": count}

    def _load(self, reference: str) -> tuple[Any, Any]:
        """Model and tokenizer of ``reference``, in evaluation mode."""
        if missing := self.missing():
            raise BlockmergeError(f"{' and '.join(missing)} must be installed: pip install 'blockmerge[eval]'")
        if self._loaded is not None and self._reference == reference:
            return self._loaded
        if "+" in reference:
            raise ModelError(f"{reference}: a model with an adapter is tried after merging it into one")
        self._loaded = None  # before the next one, so that there is room for it
        import transformers

        classes = cast(Any, transformers)
        folder = locate(reference, quiet=True).folder
        how = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = classes.AutoTokenizer.from_pretrained(folder, **how)
            model = classes.AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **how)
        except Exception as error:  # whatever transformers, tokenizers and torch raise about a model
            raise ModelError(f"{reference}: transformers cannot load it: {_first_line(error)}") from error
        self._reference, self._loaded = reference, (model.eval(), tokenizer)
        return self._loaded


def _prompt_ids(tokenizer: Any, prompt: str, *, chat: bool) -> Any:
    if chat and tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    return tokenizer(prompt, return_tensors="pt")["input_ids"]


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end an answer."""
    named: int | list[int] | None = model.generation_config.eos_token_id
    found = [*named] if isinstance(named, list) else [named]
    return {token for token in (*found, tokenizer.eos_token_id) if token is not None}


def _greedy(model: Any, ids: Any, most: int, ends: set[int]) -> Iterator[int]:
    """The most likely token after ``ids``, after that, and so on: nothing is drawn, so answers can be compared."""
    import torch

    past = None
    for _ in range(most):
        with torch.inference_mode():
            seen = model(input_ids=ids, past_key_values=past, use_cache=True)
        past, token = seen.past_key_values, int(seen.logits[0, -1].argmax())
        if token in ends:
            return
        yield token
        ids = torch.tensor([[token]])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
