"""Models on the Hugging Face Hub: only the files that a merge needs, through the Hub's own client and cache.

Tokens, offline mode, mirrors and cache folders are the client's business (HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT,
HF_HOME ...) and work as they do everywhere.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from pathlib import Path

from blockmerge.errors import ModelError
from blockmerge.sources.local import weight_map
from blockmerge.sources.location import ModelLocation

__all__ = ["download", "needed_files"]

_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_BESIDES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "README.md", "LICENSE*", "NOTICE*")
"""Configuration, tokenizers, chat templates and the card."""


def needed_files(files: Iterable[str], shards: Iterable[str] = ()) -> list[str]:
    """The files of a repository that a merge reads: one set of weights and everything small that belongs to it.

    The weights are those that transformers would load: ``model.safetensors``, else ``shards``, the files that the index
    names. Other formats and variants stay where they are.
    """
    top = [name for name in files if "/" not in name or name.startswith("chat_template")]
    besides = {name for name in top if any(fnmatch.fnmatch(name, pattern) for pattern in _BESIDES)}
    if _SINGLE in top:
        return sorted((besides - {_INDEX}) | {_SINGLE})
    return sorted(besides | set(shards))


def download(repo_id: str, revision: str | None) -> ModelLocation:
    """Fetch what is needed of ``repo_id`` at ``revision`` (branch, tag or commit; default ``main``) into the cache.

    Raises :class:`ModelError` with the reason and the remedy.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    where = repo_id + (f"@{revision}" if revision else "")
    try:
        info = HfApi().model_info(repo_id, revision=revision)
        files = [file.rfilename for file in info.siblings or ()]
        shards: set[str] = set()
        if _SINGLE not in files and _INDEX in files:
            shards.update(weight_map(Path(hf_hub_download(repo_id, _INDEX, revision=info.sha))).values())
        folder = snapshot_download(repo_id, revision=info.sha, allow_patterns=needed_files(files, shards))
    except OfflineModeIsEnabled:
        try:
            folder = snapshot_download(repo_id, revision=revision, local_files_only=True)
        except LocalEntryNotFoundError as error:
            raise ModelError(f"{where}: not in the cache, and HF_HUB_OFFLINE is set; unset it to download") from error
    except (OSError, ValueError) as error:  # the client's errors are one or the other, whatever it speaks HTTP with
        raise ModelError(f"{where}: {_reason(error)}") from error
    path = Path(folder)
    return ModelLocation(path, repo_id, path.name)


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "the Hub wants you to accept this model's terms on its page first, and to log in (hf auth login)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such folder here and no such model on the Hub (a private one needs hf auth login)"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the Hub has this model, but no such revision"
    first_line = next(iter(str(error).splitlines()), type(error).__name__)
    return f"cannot be downloaded: {first_line}"
