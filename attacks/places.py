"""Files that are none, and links to where nothing should be read or written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from attack import GRADIENT, PLAN, attack

__all__: list[str] = []


def instead(folder: Path, name: str, make: Callable[[Path], object]) -> None:
    """Put something else where a file of ``second`` was."""
    path = folder / "second" / name
    path.unlink(missing_ok=True)
    make(path)


@attack("a pipe as weights")
def pipe_weights(folder: Path) -> None:
    instead(folder, "model.safetensors", os.mkfifo)


@attack("a pipe as config.json")
def pipe_config(folder: Path) -> None:
    instead(folder, "config.json", os.mkfifo)


@attack("a pipe as tokenizer.json")
def pipe_tokenizer(folder: Path) -> None:
    instead(folder, "tokenizer.json", os.mkfifo)


@attack("a pipe as README.md")
def pipe_card(folder: Path) -> None:
    instead(folder, "README.md", os.mkfifo)


@attack("a pipe as a recipe", PLAN)
def pipe_recipe(folder: Path) -> None:
    os.mkfifo(folder / "recipe.yaml")


@attack("a device without end as a recipe", ("plan", "/dev/zero"))
def device_recipe(folder: Path) -> None:
    """Nothing to make."""


@attack("a device without end as weights")
def device_weights(folder: Path) -> None:
    instead(folder, "model.safetensors", lambda path: path.symlink_to("/dev/zero"))


@attack("a device without end as config.json")
def device_config(folder: Path) -> None:
    instead(folder, "config.json", lambda path: path.symlink_to("/dev/zero"))


@attack("a link to itself as config.json")
def loop_config(folder: Path) -> None:
    instead(folder, "config.json", lambda path: path.symlink_to(path.name))


@attack("a link to itself as weights")
def loop_weights(folder: Path) -> None:
    instead(folder, "model.safetensors", lambda path: path.symlink_to(path.name))


@attack("a folder as tokenizer.json")
def folder_tokenizer(folder: Path) -> None:
    instead(folder, "tokenizer.json", Path.mkdir)


@attack("a tokenizer.json of a terabyte")
def sparse(folder: Path) -> None:
    os.truncate(folder / "second" / "tokenizer.json", 10**12)


@attack("a licence that is a link to a secret, to be published")
def secret(folder: Path) -> None:
    instead(folder, "LICENSE", lambda path: path.symlink_to("../secret"))


@attack("a folder of templates that is a link to another place")
def secrets(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "tool.jinja").touch()
    instead(folder, "chat_templates", lambda path: path.symlink_to("../elsewhere"))


@attack("an output inside an input", ("gradient", "first", "second", "second/out", "--values", "0.5"))
def inside(folder: Path) -> None:
    """Nothing to make."""


@attack("an output that is a link to an input", (*GRADIENT, "--overwrite"))
def linked(folder: Path) -> None:
    (folder / "out").symlink_to("first")
