"""Indexes of sharded models."""

from __future__ import annotations

from pathlib import Path

from attack import attack, save_json

__all__: list[str] = []

NAME = "model.norm.weight"


def index(folder: Path, weight_map: object) -> None:
    """Let ``second`` consist of what an index says."""
    (folder / "second" / "model.safetensors").rename(folder / "second" / "shard.safetensors")
    save_json(folder / "second" / "model.safetensors.index.json", {"weight_map": weight_map})


@attack("a shard in another folder")
def parent(folder: Path) -> None:
    index(folder, {NAME: "../first/model.safetensors"})


@attack("a shard with an absolute path")
def absolute(folder: Path) -> None:
    index(folder, {NAME: "/etc/passwd"})


@attack("a shard whose name ends early")
def nul(folder: Path) -> None:
    index(folder, {NAME: "/etc/passwd\0.safetensors"})


@attack("a shard that is not there")
def missing(folder: Path) -> None:
    index(folder, {NAME: "other.safetensors"})


@attack("a list of fewer tensors than there are")
def hidden(folder: Path) -> None:
    index(folder, {NAME: "shard.safetensors"})


@attack("a tensor that no shard holds, and that writes to the terminal")
def unknown(folder: Path) -> None:
    index(folder, {"\x1b]0;owned\x07": "shard.safetensors"})


@attack("ten million tensors")
def many(folder: Path) -> None:
    index(folder, {})
    path = folder / "second" / "model.safetensors.index.json"
    path.write_bytes(b'{"weight_map":{' + b'"a":"",' * 10_000_000 + b'"a":""}}')


@attack("100 shards that are one file")
def links(folder: Path) -> None:
    names = [f"shard-{k}.safetensors" for k in range(100)]
    index(folder, {f"{NAME}{k}": name for k, name in enumerate(names)})
    for name in names:
        (folder / "second" / name).symlink_to("shard.safetensors")
