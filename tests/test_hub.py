"""Models on the Hub, held against a small Hub on this machine and the real client.

Most tests turn the client of this process to that Hub; what the client reads from the environment when it is imported
is tried in processes of its own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

import hubserver
from blockmerge.errors import FormatError, ModelError
from blockmerge.sources import locate, open_model
from blockmerge.sources.hub import download, needed_files

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKEN = "hf_goodtoken"
CONFIG = b'{"model_type": "llama"}'


# ---- models ----------------------------------------------------------------------------------------------------------


def weights(*names: str) -> bytes:
    """A safetensors file with a few zeros under each name."""
    layout = {
        name: {"dtype": "F16", "shape": [8], "data_offsets": [16 * k, 16 * k + 16]} for k, name in enumerate(names)
    }
    header = json.dumps(layout).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + bytes(16 * len(names))


def index(**shards: str) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": shards}).encode()


def single(**more: bytes) -> dict[str, bytes]:
    """A model in one file; ``more`` with dots written as __."""
    return {"config.json": CONFIG, SINGLE: weights("a", "b")} | {
        name.replace("__", "."): text for name, text in more.items()
    }


def sharded() -> dict[str, bytes]:
    """A model in two files that nobody would guess the names of."""
    return {
        "config.json": CONFIG,
        INDEX: index(a="first-half.safetensors", b="Rest_2.v1.safetensors"),
        "first-half.safetensors": weights("a"),
        "Rest_2.v1.safetensors": weights("b"),
    }


# ---- the client and its Hub ------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "huggingface"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[hubserver.FakeHub]:
    """A Hub to which the client of this process talks, without waiting between its attempts."""
    with hubserver.FakeHub() as running:
        for name in list(os.environ):
            if name.upper().startswith(("HF_", "HUGGING_FACE_")) or name.upper().endswith("_PROXY"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": running.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_TELEMETRY": True,  # it asks the Hub for things of its own, once in a process
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        huggingface_hub.close_session()
        yield running
        huggingface_hub.close_session()


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def refusal(repo_id: str = "org/model", revision: str | None = None) -> str:
    """What the refused download says: one line that begins with what was asked for."""
    with pytest.raises(ModelError) as caught:
        download(repo_id, revision)
    text = str(caught.value)
    assert text.startswith(repo_id + (f"@{revision}" if revision else "") + ": ")
    assert text.isprintable() and len(text) < 700
    return text


def run(hub: hubserver.FakeHub, home: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """``code`` in a process whose environment leads to ``hub``."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    kept["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    environment = kept | hub.environment(home) | variables
    code = "from blockmerge.sources.hub import download\n" + code
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


# ---- which files -----------------------------------------------------------------------------------------------------


def named(*names: str) -> dict[str, bytes]:
    """Files that differ in content: equal ones are fetched only once."""
    return {name: name.encode() for name in names}


OTHER_WEIGHTS = named(
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.fp16.safetensors",
    "model.safetensors.fp16.index.json",
    "consolidated.safetensors",
    "consolidated.00.pth",
    "model-q4.gguf",
    "LICENSE.bin",
    "flax_model.msgpack",
    "onnx/config.json",
    "onnx/model.onnx",
    "original/params.json",
)
BESIDES = named(
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "qwen.tiktoken",
    "chat_template.jinja",
    "additional_chat_templates/tool_use.jinja",
    "README.md",
    "LICENSE",
    "LICENSE.md",
    "NOTICE",
)


def test_one_file_of_weights_and_what_belongs_to_it_are_fetched_and_nothing_else(hub):
    stray = {"model-00001-of-00002.safetensors": b"x", INDEX: index(a="model-00001-of-00002.safetensors")}
    hub.add("org/model").commit(single() | OTHER_WEIGHTS | BESIDES | stray)
    download("org/model", None)
    assert hub.fetched() == sorted(["config.json", SINGLE, *BESIDES])


def test_shards_are_those_that_the_index_names_whatever_they_are_called(hub):
    stray = {"model-00001-of-00002.safetensors": b"x"}
    hub.add("org/model").commit(sharded() | OTHER_WEIGHTS | BESIDES | stray)
    download("org/model", None)
    assert hub.fetched() == sorted([*sharded(), *BESIDES])


def test_pickles_are_fetched_where_there_is_nothing_else(hub):
    bins = named("pytorch_model.bin", "pytorch_model.bin.index.json", "model.fp16.safetensors", "x.ckpt", "tf_model.h5")
    hub.add("org/model").commit({"config.json": CONFIG} | bins)
    download("org/model", None)
    assert hub.fetched() == ["config.json", "pytorch_model.bin"]


def test_shards_of_pickles_are_those_that_their_index_names(hub):
    listing = {"pytorch_model.bin.index.json": index(a="a.bin", b="b.bin")}
    hub.add("org/model").commit({"config.json": CONFIG} | listing | named("a.bin", "b.bin", "training_args.bin"))
    download("org/model", None)
    assert hub.fetched() == ["a.bin", "b.bin", "config.json", "pytorch_model.bin.index.json"]


def test_an_adapter_that_is_a_pickle_is_fetched_where_there_is_nothing_else(hub):
    hub.add("org/adapter").commit(named("adapter_config.json", "adapter_model.bin", "optimizer.pt"))
    download("org/adapter", None, adapter=True)
    assert hub.fetched() == ["adapter_config.json", "adapter_model.bin"]


def test_a_downloaded_model_opens(hub):
    hub.add("org/model").commit(sharded())
    location = locate("org/model")
    source = open_model(location)
    assert (sorted(source.specs), source.label) == (["a", "b"], "org/model")
    source.close()


def test_what_is_in_the_cache_is_not_fetched_again(hub):
    repo = hub.add("org/model")
    repo.commit(single(README__md=b"one"))
    first = download("org/model", None)
    assert download("org/model", None) == first
    repo.commit(single(README__md=b"two"))
    assert download("org/model", None) != first
    assert hub.fetched() == ["README.md", "README.md", "config.json", SINGLE]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("chat_templates/rag.jinja", True),
        ("chat_templates/deep/rag.jinja", False),
        ("chat_templates/data.json", False),
        ("[odd] name.json", True),
        ("../config.json", False),
        ("/etc/config.json", False),
        ("C:config.json", False),
        ("..\\config.json", False),
        ("chat_templates/../x.jinja", False),
        ("chat_templates/..\\x.jinja", False),
        ("new\nline.json", False),
        ("..", False),
    ],
)
def test_only_plain_names_in_known_places_are_wanted(name, wanted):
    assert (name in needed_files([name, SINGLE])) is wanted


def test_shards_are_left_alone_where_one_file_has_it_all():
    assert needed_files([SINGLE, INDEX, "part.safetensors"], ["part.safetensors"]) == [SINGLE]


def test_names_are_taken_literally_and_not_as_patterns(hub):
    hub.add("org/model").commit(single() | named("[ab].json", "a.json", "sub/[ab].json"))
    download("org/model", None)
    assert hub.fetched() == ["[ab].json", "a.json", "config.json", SINGLE]


def test_a_hostile_list_of_files_writes_nothing_outside_the_snapshot(hub, home):
    repo = hub.add("org/model")
    repo.commit(single())
    repo.also_listed = [
        "../evil.json",
        "/evil.json",
        "..\\evil.json",
        "chat_templates/../../evil.jinja",
        "a/../../b.json",
    ]
    location = download("org/model", None)
    assert {path.name for path in location.folder.iterdir()} == {"config.json", SINGLE}
    assert not [path for path in home.parent.rglob("*") if "evil" in path.name or path.name == "b.json"]
    assert not [entry for entry in hub.requests if "evil" in entry.path]


# ---- which commit ----------------------------------------------------------------------------------------------------


def test_the_location_names_the_commit_that_branch_tag_or_hash_stand_for(hub):
    repo = hub.add("org/model")
    old = repo.commit(single(README__md=b"old"), "main", "v1", "refs/pr/3")
    new = repo.commit(single(README__md=b"new"))
    for revision, commit in ((None, new), ("main", new), ("v1", old), ("refs/pr/3", old), (old, old)):
        location = download("org/model", revision)
        assert (location.label, location.revision, location.folder.name) == ("org/model", commit, commit)
        assert (location.folder / "README.md").read_bytes() == (b"new" if commit == new else b"old")


def test_files_are_asked_for_by_commit_only(hub):
    commit = hub.add("org/model").commit(sharded(), "main", "v1")
    download("org/model", "v1")
    asked = [entry.path for entry in hub.requests if "/resolve/" in entry.path]
    assert asked and all(f"/resolve/{commit}/" in path for path in asked)


def test_a_branch_that_moves_during_the_download_is_not_mixed(hub, monkeypatch):
    repo = hub.add("org/model")
    repo.commit(single(README__md=b"old"))
    ask = huggingface_hub.HfApi.model_info

    def ask_then_move(self, *args, **options):
        answer = ask(self, *args, **options)
        repo.commit(single(README__md=b"new"))
        return answer

    with monkeypatch.context() as patched:
        patched.setattr(huggingface_hub.HfApi, "model_info", ask_then_move)
        assert "start again" in refusal()
    assert (download("org/model", None).folder / "README.md").read_bytes() == b"new"


# ---- what cannot be merged is refused before it is downloaded --------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["config.json", "consolidated.00.pth", "tokenizer.json"], "only consolidated.00.pth"),
        (["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"], "and 1 more"),
        (["config.json", "model-q4.gguf"], "only model-q4.gguf"),
        (["config.json", "model.fp16.safetensors"], "only model.fp16.safetensors"),
        (["config.json"], f"has no weights (none of {SINGLE}, {INDEX}, "),
        (["adapter_config.json", "adapter_model.safetensors"], "is an adapter"),
        ([SINGLE], "has no config.json"),
    ],
)
def test_an_unusable_model_is_refused_on_sight_of_its_list(hub, files, said):
    hub.add("org/model").commit(dict.fromkeys(files, b"x"))
    assert said in refusal()
    assert len(hub.requests) == 1


def test_an_index_that_names_absent_shards_is_refused_before_the_others_come(hub):
    files = sharded()
    del files["Rest_2.v1.safetensors"]
    hub.add("org/model").commit(files)
    assert "names Rest_2.v1.safetensors, not there on the Hub" in refusal()
    assert hub.fetched() == [INDEX]


@pytest.mark.parametrize("shard", ["../../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "x.bin"])
def test_an_index_that_leads_elsewhere_is_refused(hub, shard):
    hub.add("org/model").commit({"config.json": CONFIG, INDEX: index(a=shard), "x.bin": b"x"})
    with pytest.raises(FormatError, match="no plain name"):
        download("org/model", None)
    assert hub.fetched() == [INDEX]


# ---- who may see what ------------------------------------------------------------------------------------------------


def test_a_gated_model_asks_to_accept_its_terms_and_log_in(hub):
    hub.add("org/model", gated=True).commit(single())
    assert f"accept them at {hub.url}/org/model and hf auth login" in refusal()
    assert hub.fetched() == []


def test_a_gated_model_tells_somebody_logged_in_to_accept_its_terms(hub, monkeypatch):
    hub.add("org/model", gated=True).commit(sharded())
    hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    text = refusal()
    assert "your token gives no access" in text and f"accept its terms at {hub.url}/org/model" in text
    assert "not in the authorized list" in text and TOKEN not in text


@pytest.mark.parametrize("kind", ["private", "gated"])
@pytest.mark.parametrize("login", ["HF_TOKEN", "hf auth login"])
def test_a_token_opens_what_its_owner_may_see(hub, home, monkeypatch, kind, login):
    hub.add("org/model", **{kind: True}, readers={TOKEN}).commit(single())
    if login == "HF_TOKEN":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    else:
        home.mkdir()
        (home / "token").write_text(TOKEN + "\n")
    download("org/model", None)
    assert hub.fetched() == ["config.json", SINGLE]


def test_the_token_stays_with_the_hub(hub, monkeypatch):
    hub.add("org/model", private=True, readers={TOKEN}).commit(single())
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    download("org/model", None)
    assert {(entry.token, entry.path.startswith("/storage/")) for entry in hub.requests} == {
        (TOKEN, False),
        (None, True),
    }


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("private", [True, False])
def test_a_private_or_missing_model_asks_for_spelling_and_login(hub, monkeypatch, token, private):
    hub.tokens.add(TOKEN)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    if private:
        hub.add("org/model", private=True).commit(single())
    text = refusal()
    assert "no such model on the Hub" in text and "check the spelling" in text and "hf auth login" in text


def test_a_token_that_the_hub_does_not_know_is_named_as_the_reason(hub, monkeypatch):
    hub.add("org/model").commit(single())
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    text = refusal()
    assert "does not accept the token" in text and "hf_expired" not in text


def test_a_missing_revision_is_told_from_a_missing_model(hub):
    hub.add("org/model").commit(single())
    assert "no revision v9" in refusal(revision="v9")


def test_a_disabled_model_is_named_as_such(hub):
    hub.add("org/model", disabled=True).commit(single())
    assert "the Hub has disabled this model" in refusal()


@pytest.mark.parametrize("repo_id", ["org/a--b", "org/model.git", "org/-model"])
def test_an_impossible_id_is_refused_without_asking(hub, repo_id):
    assert "is no Hub id" in refusal(repo_id)
    assert hub.requests == []


# ---- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "said"), [(403, "the Hub refuses"), (404, "error 404; check id"), (429, "had too many requests")]
)
def test_other_refusals_are_explained(hub, status, said):
    hub.add("org/model").commit(single())
    hub.failing["/resolve/.*safetensors"] = status
    assert said in refusal()


@pytest.mark.parametrize("status", [0, 408, 429, 500, 503])
def test_a_hub_out_of_order_is_named_with_a_remedy(hub, status):
    hub.failing["/api/"] = status
    trouble = f"answers with error {status}," if status else "cannot be reached (RemoteProtocolError"
    text = refusal()
    assert f"the Hub at {hub.url} {trouble}" in text and "try later" in text


@pytest.mark.parametrize(("where", "status"), [("/tree/", 0), ("/tree/", 500), ("/resolve/", 0), ("/resolve/", 500)])
def test_a_hub_that_fails_later_on_is_explained_too(hub, where, status):
    hub.add("org/model").commit(sharded())
    hub.failing[where] = status
    assert re.search("start again|try later", refusal())


def test_a_hub_that_does_not_answer_is_given_up_in_time(hub, monkeypatch):
    hub.delay = 2.0
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    started = time.monotonic()
    assert "cannot be reached (ReadTimeout" in refusal()
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    "body", [b"<html>Please log in to the hotel</html>", b"[]", b"{}", b'{"id": 1, "siblings": 2}']
)
def test_something_that_is_not_the_hub_is_explained(hub, body):
    hub.body = body
    refusal()


def test_words_of_the_server_cannot_play_with_the_terminal(hub):
    hub.add("org/model").commit({"config.json": CONFIG, "\x1b[2Jevil\n.bin": b"x"})
    refusal()


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1)
    hub.add("org/model").commit(single())
    hub.cuts[SINGLE] = 2
    location = download("org/model", None)
    assert (location.folder / SINGLE).read_bytes() == single()[SINGLE]
    ranges = [entry.range for entry in hub.requests if entry.path.endswith(SINGLE) and entry.method == "GET"]
    half = len(single()[SINGLE]) // 2
    assert ranges[:2] == [None, f"bytes={half}-"] and len(ranges) == 3


def test_a_download_that_keeps_breaking_off_leaves_nothing_that_looks_whole(hub):
    hub.add("org/model").commit(single())
    hub.cuts[SINGLE] = 1000
    assert "start again" in refusal()
    hub.stop()
    assert f"lacks {SINGLE}" in refusal()


def test_the_next_download_takes_up_what_the_last_left(hub):
    hub.add("org/model").commit(sharded())
    hub.cuts["Rest_2.v1.safetensors"] = 1000
    refusal()
    hub.cuts.clear()
    hub.requests.clear()
    download("org/model", None)
    assert "Rest_2.v1.safetensors" in hub.fetched() and INDEX not in hub.fetched()


def test_whatever_the_client_raises_becomes_a_line(hub, monkeypatch):
    hub.add("org/model").commit(single())

    def break_down(*args, **options):
        raise RuntimeError("xet:\n  internal \x1b[31merror")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", break_down)
    assert "(RuntimeError: xet: internal [31merror)" in refusal()


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        TimeoutError(110, "Connection timed out"),
        socket.gaierror(-2, "Name or service not known"),
    ],
)
def test_network_errors_of_the_system_are_not_taken_for_those_of_the_disk(hub, monkeypatch, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", fail)
    assert f"cannot be reached ({type(error).__name__}: " in refusal()


def test_an_interrupt_stays_an_interrupt(hub, monkeypatch):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download("org/model", None)


@pytest.mark.parametrize("place", [".", "hub"])
def test_a_cache_that_cannot_be_written_is_named(hub, home, place):
    hub.add("org/model").commit(single())
    (home / place).parent.mkdir(exist_ok=True)
    (home / place).write_text("a file, where the folder should be")
    text = refusal()
    assert str(home / place) in text and "HF_HOME" in text and "cannot be reached" not in text


@pytest.mark.skipif(sys.platform == "win32", reason="limits are Unix's")
def test_a_disk_without_room_is_named(hub, home):
    hub.add("org/model").commit(single(tokenizer__json=bytes(100_000)))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: download('org/model', None)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = run(hub, home, code)
    assert re.fullmatch(r"ModelError org/model: .*: File too large; check its room and rights.*\n", done.stdout)


# ---- without the network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", [None, "main", "v1", "commit"])
def test_offline_the_cache_serves_what_was_downloaded(hub, monkeypatch, revision):
    commit = hub.add("org/model").commit(sharded() | OTHER_WEIGHTS | BESIDES, "main", "v1")
    revision = commit if revision == "commit" else revision
    before = download("org/model", revision)
    asked = len(hub.requests)
    offline(monkeypatch)
    assert download("org/model", revision) == before
    assert len(hub.requests) == asked


def test_offline_a_commit_serves_whoever_asked_for_a_branch_before(hub, monkeypatch):
    commit = hub.add("org/model").commit(single())
    before = download("org/model", None)
    offline(monkeypatch)
    assert download("org/model", commit) == before


@pytest.mark.parametrize("revision", [None, "v2", "0" * 40])
def test_offline_a_model_that_is_not_in_the_cache_says_so(hub, home, monkeypatch, revision):
    if revision:
        hub.add("org/model").commit(single())
        download("org/model", None)
    offline(monkeypatch)
    text = refusal(revision=revision)
    assert "offline mode is on (HF_HUB_OFFLINE" in text and "unset the variable" in text and str(home / "hub") in text


@pytest.mark.parametrize("gone", ["first-half.safetensors", "README.md", INDEX])
def test_offline_an_incomplete_copy_names_what_it_lacks(hub, monkeypatch, gone):
    hub.add("org/model").commit(sharded() | {"README.md": b"card"})
    (download("org/model", None).folder / gone).resolve().unlink()
    offline(monkeypatch)
    text = refusal()
    assert f"lacks {gone}" in text and "HF_HUB_OFFLINE" in text


@pytest.mark.parametrize("files", [single(), sharded()])
def test_offline_a_cache_that_another_tool_filled_serves_too(hub, monkeypatch, files):
    hub.add("org/model").commit(files | OTHER_WEIGHTS)
    for name in files:
        huggingface_hub.hf_hub_download("org/model", name)
    offline(monkeypatch)
    assert set(files) <= {path.name for path in download("org/model", None).folder.iterdir()}


@pytest.mark.parametrize("left", [["config.json"], ["config.json", INDEX], ["config.json", "first-half.safetensors"]])
def test_offline_a_part_that_another_tool_left_is_not_taken_for_the_model(hub, monkeypatch, left):
    hub.add("org/model").commit(sharded())
    for name in left:
        huggingface_hub.hf_hub_download("org/model", name)
    offline(monkeypatch)
    assert "lacks" in refusal()


def test_unreachable_a_complete_copy_is_used_and_said_to_be(hub, caplog):
    repo = hub.add("org/model")
    repo.commit(single() | OTHER_WEIGHTS)
    before = download("org/model", None)
    hub.stop()
    with caplog.at_level(logging.WARNING, "blockmerge"):
        assert download("org/model", None) == before
    (record,) = [record for record in caplog.records if record.name.startswith("blockmerge")]
    said = record.getMessage()
    assert hub.url in said and f"using commit {before.revision[:12]} from the cache" in said


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_a_hub_out_of_order_is_replaced_by_a_complete_copy(hub, caplog, status):
    hub.add("org/model").commit(single())
    before = download("org/model", None)
    hub.failing["/"] = status
    assert download("org/model", None) == before
    assert "from the cache" in caplog.text


def test_unreachable_without_a_copy_says_both(hub):
    hub.stop()
    text = refusal()
    assert f"{hub.url} cannot be reached (ConnectError" in text
    assert "does not hold it" in text and "check the network" in text


def test_unreachable_with_an_incomplete_copy_says_both(hub):
    hub.add("org/model").commit(single())
    (download("org/model", None).folder / SINGLE).resolve().unlink()
    hub.stop()
    text = refusal()
    assert "cannot be reached" in text and f"lacks {SINGLE}" in text


def test_a_model_taken_off_the_hub_is_not_merged_from_the_cache_unasked(hub, monkeypatch):
    hub.add("org/model").commit(single())
    before = download("org/model", None)
    del hub.repos["org/model"]
    assert "no such model" in refusal()
    offline(monkeypatch)
    assert download("org/model", None) == before


# ---- settings --------------------------------------------------------------------------------------------------------


def test_quiet_shows_nothing_and_its_absence_a_bar(hub, capfd):
    hub.add("org/model").commit(sharded())
    hub.add("org/other").commit(sharded())
    download("org/model", None)
    assert "Fetching" in capfd.readouterr().err
    download("org/other", None, quiet=True)
    assert capfd.readouterr() == ("", "")


def test_bytes_are_told_instead_of_shown(hub, capfd):
    files = single() | {"model.safetensors": bytes(3_000_000)}
    hub.add("org/model").commit(files)
    told: list[tuple[int, int]] = []
    download("org/model", None, on_bytes=lambda here, total: told.append((here, total)))
    assert max(told) == (sum(map(len, files.values())),) * 2
    assert capfd.readouterr() == ("", "")


def test_the_environment_names_mirror_home_and_token(hub, home):
    commit = hub.add("org/model", private=True, readers={TOKEN}).commit(single())
    done = run(hub, home, "print(download('org/model', None).folder)", HF_TOKEN=TOKEN)
    assert Path(done.stdout.strip()) == home / "hub" / "models--org--model" / "snapshots" / commit, done.stderr


def test_the_environment_names_cache_and_offline_mode(hub, home, monkeypatch, tmp_path):
    hub.add("org/model").commit(single())
    cache = str(tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    before = download("org/model", None)
    hub.requests.clear()
    done = run(hub, home, "print(download('org/model', None).folder)", HF_HUB_CACHE=cache, HF_HUB_OFFLINE="1")
    assert Path(done.stdout.strip()) == before.folder, done.stderr
    assert hub.requests == []


def test_an_address_with_a_slip_is_explained(hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "ftp://127.0.0.1")
    assert "check the network and HF_ENDPOINT" in refusal()


def test_an_environment_on_which_the_client_chokes_is_explained(hub, home):
    code = "try: download('org/model', None)\nexcept Exception as error: print(type(error).__name__, error)"
    done = run(hub, home, code, HF_HUB_DOWNLOAD_TIMEOUT="10s")
    assert re.fullmatch(r"ModelError org/model: .*'10s'.*HF_.*\n", done.stdout), done.stderr


# ---- adapters --------------------------------------------------------------------------------------------------------


def adapter() -> dict[str, bytes]:
    """An adapter, and what trainers leave beside it."""
    layout = {
        "base_model.model.a.lora_A.weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "base_model.model.a.lora_B.weight": {"dtype": "F32", "shape": [3, 1], "data_offsets": [8, 20]},
    }
    header = json.dumps(layout).encode()
    return {
        "adapter_config.json": b'{"peft_type": "LORA", "r": 1, "lora_alpha": 1}',
        "adapter_model.safetensors": struct.pack("<Q", len(header)) + header + struct.pack("<5f", 1, 2, 1, 10, 100),
        "README.md": b"---\nlicense: mit\n---\n",
        "optimizer.pt": b"much",
        "tokenizer.json": b"{}",
    }


def matrix() -> dict[str, bytes]:
    """A model of one matrix of 3 x 2 zeros."""
    header = b'{"a.weight": {"dtype": "F16", "shape": [3, 2], "data_offsets": [0, 12]}}'
    return {"config.json": CONFIG, SINGLE: struct.pack("<Q", len(header)) + header + bytes(12)}


def test_an_adapter_comes_with_its_card_and_its_own_revision(hub: hubserver.FakeHub) -> None:
    base = hub.add("org/model").commit(matrix())
    repo = hub.add("org/adapter")
    old = repo.commit(adapter())
    repo.commit(adapter() | {"adapter_config.json": b"{}"})
    place = locate(f"org/model@main+org/adapter@{old}")
    assert place.name == "org/model+org/adapter"
    assert place.published == f"org/model@{base}+org/adapter@{old}"
    assert place.adapter is not None
    assert sorted(path.name for path in place.adapter.folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    source = open_model(place)
    buffer = bytearray(24)
    source.read_into("a.weight", 0, 6, memoryview(buffer))
    assert struct.unpack("<6f", buffer) == (1, 2, 10, 20, 100, 200)
    source.close()


def test_an_adapter_in_the_cache_needs_no_network(hub: hubserver.FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("org/model").commit(matrix())
    hub.add("org/adapter").commit(adapter())
    place = locate("org/model+org/adapter")
    offline(monkeypatch)
    assert locate("org/model+org/adapter") == place
    with pytest.raises(ModelError, match=r"org/other: offline mode is on .* does not hold it"):
        locate("org/model+org/other")


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["adapter_config.json", "adapter_model.pt"], "has no adapter_model.safetensors; after the [+] stands an"),
        (["config.json", SINGLE], "has no adapter_config.json; after the [+] stands an adapter"),
    ],
)
def test_what_is_no_adapter_is_refused_before_it_is_downloaded(
    hub: hubserver.FakeHub, files: list[str], text: str
) -> None:
    hub.add("org/model").commit(matrix())
    hub.add("org/adapter").commit(named(*files))
    with pytest.raises(ModelError, match=f"^org/adapter: {text}"):
        locate("org/model+org/adapter")


# ---- checksums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SINGLE, "pytorch_model.bin"])
def test_damaged_weights_in_the_cache_are_found_by_their_names(hub, tmp_path, name):
    from blockmerge.sources.blobs import damaged_blobs

    hub.add("org/one").commit(single())
    folder = download("org/one", None).folder
    assert damaged_blobs([folder], 2) == []
    (folder / SINGLE).rename(folder / name)
    blob = (folder / name).resolve()
    assert len(blob.name) == 64
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(bytes(content))
    (problem,) = damaged_blobs([folder], 2)
    assert f"{name}: is not what the Hub sent" in str(problem)
    assert damaged_blobs([tmp_path], 2) == []  # a folder of somebody's own has no checksums
