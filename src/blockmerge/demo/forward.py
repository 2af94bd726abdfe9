"""The forward pass of a Llama in numpy: what a merge did, without torch.

Weights are float32 arrays under the names of transformers; ``config`` is a parsed ``config.json``. Only what the
demo models use is here: default rotary positions, no biases, and tokens that are bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode", "encode", "forward", "generate", "loss"]

Floats: TypeAlias = NDArray[np.float32]
Tokens: TypeAlias = NDArray[np.int64]
Weights: TypeAlias = Mapping[str, Floats]
Config: TypeAlias = Mapping[str, Any]

_TEMPERATURE = 0.8
_BATCH = 16  # windows at a time
_BLOCK = 32  # queries at a time: none looks at the keys after its block, which saves nearly half of the work


def encode(text: str) -> Tokens:
    """The tokens of a text: its bytes in UTF-8."""
    return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64)


def decode(tokens: Tokens) -> str:
    """The text of tokens; leaves out those that are no bytes, and marks bytes that are no UTF-8."""
    return bytes(tokens[tokens < 256].tolist()).decode(errors="replace")


def loss(weights: Weights, config: Config, tokens: Tokens) -> float:
    """Mean cross entropy of each token but the first, in nats.

    A token is predicted from those before it in its window of the context length; windows do not overlap.
    """
    if tokens.size < 2:
        raise ValueError("a loss needs two tokens or more")
    total = 0.0
    for inputs, targets in _windows(tokens, int(config["max_position_embeddings"])):
        logits = forward(weights, config, inputs)
        logits -= logits.max(axis=-1, keepdims=True)
        chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        total += float((np.log(np.exp(logits).sum(axis=-1)) - chosen).sum(dtype=np.float64))
    return total / (tokens.size - 1)


def generate(weights: Weights, config: Config, tokens: Tokens, count: int, seed: int | None = None) -> Tokens:
    """``count`` tokens to follow ``tokens``: the likeliest ones, or with a seed, drawn at random."""
    context = int(config["max_position_embeddings"])
    random = None if seed is None else np.random.default_rng(seed)
    text = tokens
    for _ in range(count):
        logits: Floats = forward(weights, config, text[None, -context:], last=True)[0, -1]
        if random is not None:  # the largest after Gumbel noise is a draw from the softmax
            logits += np.asarray(random.gumbel(scale=_TEMPERATURE, size=logits.size), dtype=np.float32)
        text = np.append(text, np.argmax(logits))
    return text[tokens.size :]


def forward(weights: Weights, config: Config, tokens: Tokens, *, last: bool = False) -> Floats:
    """Logits (batch, length, vocabulary) for tokens (batch, length); of the last position only, if ``last``."""
    epsilon = float(config["rms_norm_eps"])
    embeddings = weights["model.embed_tokens.weight"]
    x = embeddings[tokens]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}."
        x = x + _attention(_rms_norm(x, weights[layer + "input_layernorm.weight"], epsilon), weights, config, layer)
        x = x + _mlp(_rms_norm(x, weights[layer + "post_attention_layernorm.weight"], epsilon), weights, layer)
    x = _rms_norm(x[:, -1:] if last else x, weights["model.norm.weight"], epsilon)
    return _linear(x, weights.get("lm_head.weight", embeddings))


def _linear(x: Floats, weight: Floats) -> Floats:
    y = x.reshape(-1, x.shape[-1]) @ weight.T  # one product for the whole batch is faster than one for each window
    return y.reshape(*x.shape[:-1], -1)


def _rms_norm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(epsilon)) * weight


def _attention(x: Floats, weights: Weights, config: Config, layer: str) -> Floats:
    batch, length, _ = x.shape
    queries, keys = int(config["num_attention_heads"]), int(config["num_key_value_heads"])

    def project(name: str, heads: int) -> Floats:
        y = _linear(x, weights[f"{layer}self_attn.{name}_proj.weight"])
        return y.reshape(batch, length, heads, -1).swapaxes(1, 2)

    theta = float(config["rope_parameters"]["rope_theta"])
    q, k, v = _rotate(project("q", queries), theta), _rotate(project("k", keys), theta), project("v", keys)
    q *= np.float32(q.shape[-1] ** -0.5)
    k, v = (np.repeat(y, queries // keys, axis=1) for y in (k, v))  # neighbouring queries share keys and values
    mixed = np.empty_like(q)
    for start in range(0, length, _BLOCK):
        seen = slice(0, start + _BLOCK)
        scores = q[:, :, start : seen.stop] @ k[:, :, seen].swapaxes(-1, -2)
        rows = scores.shape[-2]
        scores[..., start:] += np.triu(np.full((rows, rows), -np.inf, dtype=np.float32), 1)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        mixed[:, :, start : seen.stop] = scores @ v[:, :, seen] / scores.sum(axis=-1, keepdims=True)
    return _linear(mixed.swapaxes(1, 2).reshape(batch, length, -1), weights[layer + "self_attn.o_proj.weight"])


def _rotate(x: Floats, theta: float) -> Floats:
    """Turn each pair of (first half, second half) by an angle that grows with the position."""
    length, half = x.shape[-2], x.shape[-1] // 2
    speeds = np.power(theta, -np.arange(half, dtype=np.float64) / half)
    angles = np.outer(np.arange(length, dtype=np.float64), speeds)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    a, b = x[..., :half], x[..., half:]
    turned = np.empty_like(x)
    turned[..., :half] = a * cos - b * sin
    turned[..., half:] = b * cos + a * sin
    return turned


def _mlp(x: Floats, weights: Weights, layer: str) -> Floats:
    gate = _linear(x, weights[layer + "mlp.gate_proj.weight"])
    up = _linear(x, weights[layer + "mlp.up_proj.weight"])
    up *= gate / (np.float32(1) + np.exp(np.minimum(-gate, np.float32(80))))  # e⁸⁹ would overflow
    return _linear(up, weights[layer + "mlp.down_proj.weight"])


def _windows(tokens: Tokens, context: int) -> Iterator[tuple[Tokens, Tokens]]:
    """Batches of inputs and of the tokens that follow them; the last batch is the one window left over."""
    whole = (tokens.size - 1) // context * context
    for start in range(0, whole, _BATCH * context):
        end = min(start + _BATCH * context, whole)
        yield tokens[start:end].reshape(-1, context), tokens[start + 1 : end + 1].reshape(-1, context)
    if whole < tokens.size - 1:
        yield tokens[None, whole:-1], tokens[None, whole + 1 :]
