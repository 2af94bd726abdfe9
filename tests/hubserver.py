"""A small Hugging Face Hub on this machine, true enough for the real client: no test needs the network.

It answers what the client asks while it downloads: the description of a model, its tree, and files (HEAD, GET, ranges).
Weights are served as the real one serves them, by a redirect to another host, where no token is asked for. Refusals
carry the status codes and headers of the real one. It can also be slow, out of order, or hang up in the middle.

    with FakeHub() as hub:
        hub.add("org/model").commit({"config.json": b"{}", ...})
        hub.requests  # what was asked so far
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

_LARGE = (".safetensors", ".bin", ".gguf", ".pt", ".model")
"""Files that the Hub keeps outside git."""


def files_of(folder: Path) -> dict[str, bytes]:
    """What is in a folder, as :meth:`Repo.commit` takes it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Repo:
    """One model. ``readers``: the tokens that see it, if it is ``private``; that get files, if it is ``gated``."""

    id: str
    private: bool = False
    gated: bool = False
    disabled: bool = False
    readers: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    also_listed: list[str] = field(default_factory=list)

    def commit(self, files: Mapping[str, bytes] | Path, *names: str) -> str:
        """Make ``files`` what branches or tags ``names`` (``main`` if none) stand for; the commit's hash."""
        content = files_of(files) if isinstance(files, Path) else dict(files)
        text = repr((self.id, len(self.commits), sorted(content.items())))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = content
        self.names.update(dict.fromkeys(names or ("main",), commit))
        return commit

    def resolve(self, revision: str) -> str | None:
        return self.names.get(revision, revision if revision in self.commits else None)


@dataclass(frozen=True)
class Request:
    """What somebody asked; ``token`` as it came, without the word Bearer."""

    method: str
    path: str
    token: str | None
    range: str | None


class FakeHub:
    """The server; a context that runs it. Attributes may change while it runs.

    ``tokens`` are those that exist; another one is refused everywhere, as the real Hub does. ``failing`` maps a pattern
    of paths to the status with which they are answered, or to 0 for hanging up without an answer. ``cuts`` maps a file
    name to how many more downloads of it are to break off half-way. ``delay`` is the wait before any answer, in
    seconds; ``body`` replaces every answer, as a captive portal does.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens: set[str] = set()
        self.requests: list[Request] = []
        self.failing: dict[str, int] = {}
        self.cuts: dict[str, int] = {}
        self.delay = 0.0
        self.body: bytes | None = None
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.storage = f"http://localhost:{self.port}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Go away: connections are refused from here on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def add(self, repo_id: str, **options: Any) -> Repo:
        """A new model; see :class:`Repo` for the options."""
        repo = self.repos[repo_id] = Repo(repo_id, **options)
        self.tokens |= repo.readers
        return repo

    def fetched(self) -> list[str]:
        """The names of the files whose content was asked for, sorted, each as often as it was asked for."""
        content = re.compile(r"/storage/[^/]+/[^/]+/[^/]+/(.+)|/[^/]+/[^/]+/resolve/[^/]+/(.+)")
        asked = [content.fullmatch(entry.path) for entry in self.requests if entry.method == "GET"]
        return sorted(match[1] or match[2] for match in asked if match and (match[1] or not match[2].endswith(_LARGE)))

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that make the client of another process talk to this server, and keep its things in ``home``."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code} if code else {}
        if message:
            self.headers["X-Error-Message"] = message


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100  # the client opens many connections at once; those beyond the queue would wait a second


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.hub.requests.append(Request(self.command, path, self._token(), self.headers.get("Range")))
        if self.hub.delay:
            threading.Event().wait(self.hub.delay)  # not time.sleep, which tests switch off
        self.close_connection = True  # no idle connections that outlive a test
        try:
            self._fail_on_demand(path)
            if self.hub.body is not None:
                self._send(200, self.hub.body, {})
            elif path.startswith("/storage/"):
                self._send_stored(path)
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", address.path):
                self._api(match[1], match[2], unquote(match[3] or "main"))
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", address.path):
                self._file(match[1], unquote(match[2]), unquote(match[3]))
            else:
                raise _RefusedError(404)
        except _RefusedError as refusal:
            self._send(refusal.status, json.dumps({"error": str(refusal)}).encode(), refusal.headers)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client went away

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet; ``hub.requests`` knows."""

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _fail_on_demand(self, path: str) -> None:
        for pattern, status in self.hub.failing.items():
            if re.search(pattern, path):
                raise _RefusedError(status) if status else ConnectionResetError

    # ---- the three kinds of answer ----

    def _api(self, repo_id: str, kind: str | None, revision: str) -> None:
        repo = self._visible(repo_id)
        commit, files = _commit(repo, revision)
        if kind == "tree":
            answer: object = [*_tree(files), *_tree(dict.fromkeys(repo.also_listed, b""))]
        else:
            siblings = [{"rfilename": name} for name in (*files, *repo.also_listed)]
            answer = {"id": repo.id, "sha": commit, "private": repo.private, "gated": repo.gated, "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _file(self, repo_id: str, revision: str, name: str) -> None:
        repo = self._visible(repo_id)
        if repo.gated and (token := self._token()) not in repo.readers:
            message = f"Access to model {repo.id} is restricted and you are not in the authorized list."
            raise _RefusedError(403 if token else 401, "GatedRepo", message)
        commit, files = _commit(repo, revision)
        headers = {"X-Repo-Commit": commit}
        if name not in files:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        data = files[name]
        if name.endswith(_LARGE):
            digest = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data))}
            headers["Location"] = f"{self.hub.storage}/storage/{quote(repo.id)}/{commit}/{quote(name)}"
            self._send(302, b"", headers)
        else:
            self._send_ranged(name, data, headers | {"ETag": f'"{_blob_id(data)}"'})

    def _send_stored(self, path: str) -> None:
        """What the redirect leads to: another host, which wants no token and knows no commits."""
        _, _, owner, model, commit, name = path.split("/", 5)
        data = self.hub.repos[f"{owner}/{model}"].commits[commit][name]
        self._send_ranged(name, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    # ---- who may see what ----

    def _visible(self, repo_id: str) -> Repo:
        token = self._token()
        if token and token not in self.hub.tokens:
            raise _RefusedError(401, message="Invalid credentials in Authorization header")
        repo = self.hub.repos.get(unquote(repo_id))
        if repo is None or (repo.private and token not in repo.readers):
            raise _RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        if repo.disabled:
            raise _RefusedError(403, message="Access to this resource is disabled.")
        return repo

    # ---- sending ----

    def _send_ranged(self, name: str, data: bytes, headers: dict[str, str]) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            self._send(200, data, headers, cut=self._cut(name))
            return
        first, last = int(match[1]), int(match[2] or len(data) - 1)
        if first >= len(data):
            raise _RefusedError(416)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._send(206, data[first : last + 1], headers, cut=self._cut(name))

    def _cut(self, name: str) -> bool:
        if self.command == "HEAD" or not self.hub.cuts.get(name):
            return False
        self.hub.cuts[name] -= 1
        return True

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)


def _commit(repo: Repo, revision: str) -> tuple[str, dict[str, bytes]]:
    commit = repo.resolve(revision)
    if commit is None:
        raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return commit, repo.commits[commit]


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _tree(files: Mapping[str, bytes]) -> Iterator[dict[str, Any]]:
    for folder in sorted({name.rpartition("/")[0] for name in files} - {""}):
        yield {"type": "directory", "oid": _blob_id(folder.encode()), "size": 0, "path": folder}
    for name, data in files.items():
        entry: dict[str, Any] = {"type": "file", "oid": _blob_id(data), "size": len(data), "path": name}
        if name.endswith(_LARGE):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        yield entry
