"""Chat templates: which one a merged model gets. They are texts here, never rendered.

A template stands in ``chat_template.jinja``, or in tokenizer_config.json under ``chat_template``; transformers prefers
the file, older releases know only the key.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from blockmerge.errors import ModelError, RecipeError, did_you_mean, listed
from blockmerge.formats.jsonfile import parse_object
from blockmerge.sources import SmallFile, Source

__all__ = ["KNOWN", "choose_template", "template_of", "with_template"]

FILE: Final = "chat_template.jinja"
_CONFIG: Final = "tokenizer_config.json"
KNOWN: Final[Mapping[str, str]] = {
    "chatml": (
        "{% for message in messages %}"
        "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] | trim }}<|eot_id|>"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "mistral": (
        "{{ bos_token }}"
        "{% if messages[0]['role'] == 'system' %}"
        "{% set before = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}"
        "{% else %}{% set before = '' %}{% set turns = messages %}{% endif %}"
        "{% for message in turns %}"
        "{% if message['role'] == 'user' %}"
        "[INST] {{ (before if loop.first else '') + message['content'] }} [/INST]"
        "{% else %} {{ message['content'] | trim }}{{ eos_token }}{% endif %}"
        "{% endfor %}"
    ),
    "alpaca": (
        "{{ bos_token }}"
        "{% for message in messages %}"
        "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
        "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
        "{% else %}### Response:\n{{ message['content'] }}{{ eos_token }}\n\n{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}### Response:\n{% endif %}"
    ),
    "exaone": (
        "{% if messages[0]['role'] != 'system' %}[|system|][|endofturn|]\n{% endif %}"
        "{% for message in messages %}"
        "[|{{ message['role'] }}|]{{ message['content'] }}"
        "{{ '\n' if message['role'] == 'user' else '[|endofturn|]\n' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}[|assistant|]{% endif %}"
    ),
}
"""Templates that a recipe may name."""


def template_of(files: Mapping[str, SmallFile]) -> str | None:
    """The template of a model, or None if it has none that can be read."""
    if (file := files.get(FILE)) is not None:
        return file.read().decode("utf-8", errors="replace")
    inline = _config(files).get("chat_template")
    if isinstance(inline, list):  # several, by name
        entries = [cast("dict[str, Any]", entry) for entry in cast("list[Any]", inline) if isinstance(entry, dict)]
        inline = next((entry.get("template") for entry in entries if entry.get("name") == "default"), None)
    return inline if isinstance(inline, str) else None


def choose_template(wanted: str, models: Sequence[Source]) -> tuple[str | None, str]:
    """The text of the template that a recipe wants, and a sentence about it.

    :param wanted: ``auto`` for the one that most models have (of equally many the first), the name of a known one, or
        the text of a template.

    Raises :class:`RecipeError` for a name that is not known.
    """
    if wanted == "auto":
        found = [text.strip() for model in models if (text := template_of(model.files)) is not None]
        if not found:
            return None, "chat_template: no model has one"
        text, count = Counter(found).most_common(1)[0]
        return text, f"chat_template: {count} of {len(models)} models have the one that was chosen"
    if wanted in KNOWN:
        return KNOWN[wanted], f"chat_template: {wanted}"
    if "{" not in wanted:
        hint = did_you_mean(wanted, ("auto", *KNOWN), f"known are auto, {listed(sorted(KNOWN), 9)}")
        raise RecipeError(f"chat_template: {wanted[:60]!r} is no template; {hint}")
    return wanted, "chat_template: the recipe's own"


def with_template(files: Mapping[str, SmallFile], text: str) -> dict[str, SmallFile]:
    """``files`` with this template instead of any other."""
    changed = {name: file for name, file in files.items() if not name.startswith(("chat_template.", "chat_templates/"))}
    changed[FILE] = SmallFile.of(text)
    config = _config(files)
    if "chat_template" in config:
        config["chat_template"] = text
        changed[_CONFIG] = SmallFile.of(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    return changed


def _config(files: Mapping[str, SmallFile]) -> dict[str, Any]:
    file = files.get(_CONFIG)
    try:
        return {} if file is None else parse_object(file.read(), _CONFIG)
    except ModelError:
        return {}
