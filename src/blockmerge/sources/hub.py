"""Models on the Hugging Face Hub: only the files that a merge needs, through the Hub's own client and cache.

Tokens, offline mode, mirrors and cache folders are the client's business (HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT,
HF_HOME ...) and work as they do everywhere.
"""

from __future__ import annotations

import fnmatch
import glob
import importlib
import logging
import re
from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockmerge.errors import BlockmergeError, ModelError
from blockmerge.sources.local import WEIGHTS, is_index, weight_map
from blockmerge.sources.location import ModelLocation

if TYPE_CHECKING:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["download", "needed_files"]

_CONFIG, _ADAPTER_CONFIG = "config.json", "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""All that is read of an adapter: its config and the first of these, and its card."""
_CARD = "README.md"
_BESIDES = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "README.md", "LICENSE*", "NOTICE*")
"""Configuration, tokenizers, chat templates and the card."""
_NOT_BESIDES = ("*.index.json", "*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.gguf")
_TEMPLATE_FOLDERS = ("additional_chat_templates", "chat_templates")
_PLAIN = re.compile(r"(?!\.+$)[^\\/:\x00-\x1f\x7f]+")
"""A file or folder name that stays in its folder on every system; names in a repository are a stranger's."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Repo:
    """What was asked for, a model or an adapter of one; its text begins every message."""

    id: str
    revision: str | None
    adapter: bool = False

    def __str__(self) -> str:
        return self.id + (f"@{self.revision}" if self.revision else "")


def needed_files(files: Iterable[str], shards: Iterable[str] = ()) -> list[str]:
    """The files of a repository that a merge reads: one set of weights and everything small that belongs to it.

    The weights are those that transformers would load: ``model.safetensors``, else ``shards``, the files that the index
    names, and the index; ``pytorch_model.bin`` or its shards only where there are no others. Other formats, variants
    and folders stay where they are, and so does a file whose name leads out of its folder.
    """
    names = set(files)
    besides = {name for name in names if _goes_along(name)}
    main = _main_file(names)
    if main is None:
        return sorted(besides)
    return sorted(besides | {main} | (set(shards) if is_index(main) else set()))


def _main_file(names: Collection[str]) -> str | None:
    """The file of the weights, or their index."""
    return next((name for name in WEIGHTS if name in names), None)


def _goes_along(name: str) -> bool:
    *folders, last = name.split("/")
    if not all(_PLAIN.fullmatch(part) for part in (*folders, last)):
        return False
    if folders:
        return len(folders) == 1 and folders[0] in _TEMPLATE_FOLDERS and last.endswith(".jinja")
    return _matches(last, _BESIDES) and not _matches(last, _NOT_BESIDES)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def download(
    repo_id: str,
    revision: str | None,
    *,
    adapter: bool = False,
    quiet: bool = False,
    on_bytes: Callable[[int, int], object] | None = None,
) -> ModelLocation:
    """Fetch what is needed of ``repo_id`` at ``revision`` (branch, tag or commit; default ``main``) into the cache.

    The revision is resolved once, to a commit; all files are of that commit, and the location names it. What the cache
    holds already is not fetched again. A model that cannot be merged for want of weights or a config.json
    is refused on sight of its list of files, before anything is downloaded.

    With HF_HUB_OFFLINE set, and also when the Hub cannot be reached or is out of order, a complete copy in the cache is
    used, as the client itself and transformers do; in the second case a warning in the log ``blockmerge.sources.hub``
    says so, because that copy may be out of date. A Hub that answers "no" (gated, private, gone, no such revision) is
    believed, whatever the cache holds.

    :param adapter: it is an adapter; fetch its options, its weights and its card.
    :param quiet: show no progress bars. (HF_HUB_DISABLE_PROGRESS_BARS works, too.)
    :param on_bytes: called instead, from any thread, with the bytes that are here and those that are known of.

    Raises :class:`ModelError` with the reason and the remedy.
    """
    repo = _Repo(repo_id, revision, adapter)
    _start_client(repo)
    with _explained(repo):
        folder = _fetch(repo, _bars(on_bytes) if on_bytes or quiet else None)
    return ModelLocation(folder, repo_id, folder.name)


def _start_client(repo: _Repo) -> None:
    try:
        importlib.import_module("huggingface_hub.constants")
    except ValueError as error:  # it turns variables into numbers and addresses on import
        raise ModelError(
            f"{repo}: the Hub's client does not start ({_words(error)}); check the HF_... variables"
        ) from error


def _fetch(repo: _Repo, bars: Any) -> Path:
    """The snapshot of ``repo`` in the cache, whole."""
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        info = _ask(repo)
    except OfflineModeIsEnabled:
        because = "offline mode is on (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE)"
        return _from_cache(repo, because, "unset the variable to download it")
    except Exception as error:
        if _definite(error):
            raise
        because = f"the Hub at {_endpoint()} {_silence(error)}"
        folder = _from_cache(repo, because, "check the network and HF_ENDPOINT, or try later")
        _log.warning("%s: %s; using commit %s from the cache", repo, because, folder.name[:12])
        return folder
    names = _choose(repo, info, bars)
    # By the revision's own name and not by info.sha: only then does the client note what the name stood for, and
    # offline mode finds it.
    patterns = [glob.escape(name) for name in names]
    folder = Path(snapshot_download(repo.id, revision=repo.revision, allow_patterns=patterns, tqdm_class=bars))
    if folder.name != info.sha:  # the name moved, or the Hub vanished and the client was content with an old copy
        raise ModelError(f"{repo}: changed, or the Hub became unreachable, during the download; start again")
    if missing := _missing(repo, folder):
        raise ModelError(f"{repo}: {_listed(missing)} did not arrive; start again, files that are complete are kept")
    return folder


def _ask(repo: _Repo) -> ModelInfo:
    """The commit and the list of its files. In time: without a limit, a network that swallows packets hangs it."""
    from huggingface_hub import HfApi, constants

    return HfApi().model_info(repo.id, revision=repo.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def _choose(repo: _Repo, info: ModelInfo, bars: Any) -> list[str]:
    """What to download of a model. Raises :class:`ModelError` if it cannot be merged anyway."""
    from huggingface_hub import hf_hub_download  # pyright: ignore[reportUnknownVariableType]

    files = {file.rfilename for file in info.siblings or ()}
    if repo.adapter:
        return _adapter_files(repo, files)
    main = _check_usable(repo, files)
    if not is_index(main):
        return needed_files(files)
    shards = set(weight_map(Path(hf_hub_download(repo.id, main, revision=info.sha, tqdm_class=bars))).values())
    if absent := sorted(shards - files):
        raise ModelError(f"{repo}: {main} names {_listed(absent)}, not there on the Hub; ask its author")
    return needed_files(files, shards)


def _adapter_files(repo: _Repo, files: set[str]) -> list[str]:
    weights = next((name for name in _ADAPTER_WEIGHTS if name in files), _ADAPTER_WEIGHTS[0])
    if absent := [name for name in (_ADAPTER_CONFIG, weights) if name not in files]:
        raise ModelError(f"{repo}: has no {absent[0]}; after the + stands an adapter, as peft saves it")
    return [_ADAPTER_CONFIG, weights, *sorted(files & {_CARD})]


def _check_usable(repo: _Repo, files: set[str]) -> str:
    """The file of the weights, or their index."""
    if _ADAPTER_CONFIG in files and _CONFIG not in files:
        raise ModelError(f"{repo}: is an adapter, not a model; write its base before it, BASE+{repo}")
    main = _main_file(files)
    if main is None:
        others = sorted(name for name in files if _matches(name, _NOT_BESIDES[1:]))
        if not others:
            raise ModelError(f"{repo}: has no weights (none of {', '.join(WEIGHTS)}); is it the right model?")
        raise ModelError(
            f"{repo}: has none of {', '.join(WEIGHTS)}, only {_listed(others)}; load it with transformers, "
            "save_pretrained it to a folder, and give that"
        )
    if _CONFIG not in files:
        raise ModelError(f"{repo}: has no {_CONFIG}; a model needs one, as transformers saves it")
    return main


def _from_cache(repo: _Repo, because: str, remedy: str) -> Path:
    """The snapshot that earlier downloads left, if it is whole.

    Raises :class:`ModelError` if not: ``because`` says why it cannot be fetched now, ``remedy`` what to do about it.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    config = try_to_load_from_cache(repo.id, _ADAPTER_CONFIG if repo.adapter else _CONFIG, revision=repo.revision)
    if not isinstance(config, str):
        raise ModelError(f"{repo}: {because}, and the cache {constants.HF_HUB_CACHE} does not hold it; {remedy}")
    folder = Path(config).parent
    if missing := _missing(repo, folder):
        raise ModelError(f"{repo}: {because}, and the copy in the cache lacks {_listed(missing)}; {remedy}")
    return folder


def _missing(repo: _Repo, folder: Path) -> list[str]:
    """What the snapshot ``folder`` lacks of what is needed, as far as the cache knows the list of files."""
    if repo.adapter:
        weights = next((name for name in _ADAPTER_WEIGHTS if (folder / name).is_file()), _ADAPTER_WEIGHTS[0])
        return [name for name in (_ADAPTER_CONFIG, weights) if not (folder / name).is_file()]
    files = _known_files(repo, folder)
    main = _main_file(files) or WEIGHTS[0]
    shards: set[str] = set()
    if not (folder / main).is_file():
        return [main]
    if is_index(main):
        shards.update(weight_map(folder / main).values())
    return [name for name in needed_files(files, shards) if not (folder / name).is_file()]


def _known_files(repo: _Repo, folder: Path) -> set[str]:
    """The files of the commit: as the Hub listed them, or, in a cache that other tools filled, those that are there."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        return {file.path for file in get_cached_repo_tree(repo.id, revision=folder.name)}
    except CachedRepoTreeNotFoundError:
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def _bars(on_bytes: Callable[[int, int], object] | None) -> Any:
    """A progress bar that shows nothing and tells of bytes. (The client's own switch acts on the whole process.)"""
    from huggingface_hub.utils import tqdm

    class Silent(tqdm):  # pyright: ignore[reportUntypedBaseClass]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # pyright: ignore[reportUnknownMemberType]
            self._in_bytes, self._here = options.get("unit") == "B", 0

        def update(self, n: float | None = 1) -> None:
            self._here += int(n or 0)
            if on_bytes is not None and self._in_bytes:
                on_bytes(self._here, int(self.total or 0))

    return Silent


# ---- from exceptions to sentences ------------------------------------------------------------------------------------


@contextmanager
def _explained(repo: _Repo) -> Generator[None]:
    """Turn whatever the client raises into one line.

    It lets through what its HTTP library, its Xet library and its parsers raise; they have no root in common, and they
    change with its versions. So everything is caught, but only around the client, and the cause stays attached.
    """
    try:
        yield
    except BlockmergeError:
        raise
    except Exception as error:
        raise ModelError(f"{repo}: {_reason(repo, error)}") from error


def _reason(repo: _Repo, error: BaseException) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        return _reason(repo, error.__cause__)  # "not on the disk" is not news; why it could not be fetched is
    match error:
        case errors.GatedRepoError():
            return _gated(repo, error)
        case errors.RepositoryNotFoundError():
            return (
                "there is no such folder here and no such model on the Hub; check the spelling "
                "(a private model needs the token of somebody who may see it: hf auth login, or HF_TOKEN)"
            )
        case errors.RevisionNotFoundError():
            return f"the Hub has this model, but no revision {repo.revision or 'main'}; its page lists those it has"
        case errors.DisabledRepoError():
            return "the Hub has disabled this model"
        case errors.HFValidationError():
            return f"is no Hub id (org/name, or org/name@revision): {_plain_text(str(error))}"
        case errors.HfHubHTTPError():
            return _answer(error)
        case OSError() if _local(error):
            place = error.filename or _cache()
            return (
                f"{place}: {error.strerror or error}; check its room and rights, or let HF_HOME name a folder elsewhere"
            )
        case _:
            return f"the download failed ({_words(error)}); start again, files that are complete are kept"


def _gated(repo: _Repo, error: GatedRepoError) -> str:
    page = f"{_endpoint()}/{repo.id}"
    if error.response.status_code == 401:
        return f"the Hub gives this model only to those who accepted its terms; accept them at {page} and hf auth login"
    return f"your token gives no access to this model{_said(error)}; accept its terms at {page}, or wait to be let in"


def _answer(error: HfHubHTTPError) -> str:
    """What an HTTP status without a class of its own means. The client's text has the address, maybe a signed one."""
    status = error.response.status_code
    said = _said(error)
    if status == 401:
        return f"the Hub does not accept the token{said}; hf auth login again, or correct HF_TOKEN"
    if status == 403:
        return f"the Hub refuses{said}; check what the token permits (reading gated models is a right of its own)"
    if status == 429:
        return f"the Hub had too many requests from here{said}; wait some minutes (a token allows more: hf auth login)"
    return f"the Hub answers with error {status}{said}; {'try later' if status >= 500 else 'check id and HF_ENDPOINT'}"


def _silence(error: Exception) -> str:
    """How the Hub failed to answer what it was asked."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return f"answers with error {error.response.status_code}{_said(error)}"
    return f"cannot be reached ({_words(error)})"


def _said(error: HfHubHTTPError) -> str:
    return f" ({_plain_text(error.server_message)})" if error.server_message else ""


def _definite(error: Exception) -> bool:
    """Whether asking again would give the same: the Hub's own "no", or trouble of this machine."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code < 500 and error.response.status_code not in (408, 429)
    return _local(error)


def _local(error: Exception) -> bool:
    """Whether it is about files: such errors have an errno, and those of name servers have negative ones."""
    return (
        isinstance(error, OSError)
        and not isinstance(error, ConnectionError | TimeoutError)
        and error.errno is not None
        and error.errno > 0
    )


def _words(error: BaseException) -> str:
    return _plain_text(f"{type(error).__name__}: {error}") if str(error) else type(error).__name__


def _plain_text(text: str) -> str:
    """One line without control characters, of bearable length: servers say anything."""
    return "".join(char for char in " ".join(text.split()) if char.isprintable())[:200]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return _plain_text(names[0]) + more


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _cache() -> str:
    from huggingface_hub import constants

    return constants.HF_HUB_CACHE
