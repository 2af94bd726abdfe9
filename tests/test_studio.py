"""The studio's server: who gets in, which folders it sees, recipes, plans and the queue of merges."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("fastapi", reason="the studio needs its extra")
pytest.importorskip("httpx", reason="starlette's test client needs httpx")

import httpx
import uvicorn
from starlette.testclient import TestClient

import blockmerge
from blockmerge import execution
from blockmerge.cli import main
from blockmerge.errors import BlockmergeError, ModelError
from blockmerge.execution import executor
from blockmerge.methods import METHODS
from blockmerge.sources import ModelLocation
from blockmerge.studio import launch, trial
from blockmerge.studio.guard import HEADERS, MAX_BODY, Guard
from blockmerge.studio.jobs import Job, Jobs
from blockmerge.studio.roots import Roots
from blockmerge.studio.server import Studio, create_app
from blockmerge.studio.state import state_folder

DEMO = Path(blockmerge.__file__).parent / "demo" / "models"
TOKEN = "the-token-of-the-terminal"
PORT = 8642
HERE = f"http://127.0.0.1:{PORT}"
FORM: dict[str, Any] = {"method": "gradient", "models": ["code", "prose"], "values": [0.0, 1.0, 0.0]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two models of the demo, where the studio is started."""
    folder = tmp_path / "root"
    for name in ("code", "prose"):
        shutil.copytree(DEMO / name, folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def studio(root: Path, tmp_path: Path) -> Iterator[Studio]:
    made = Studio(Roots([root]), tmp_path / "state")
    yield made
    made.jobs.close()


@pytest.fixture
def app(studio: Studio) -> Guard:
    return create_app(studio, token=TOKEN, port=PORT)


@pytest.fixture
def stranger(app: Guard) -> Iterator[TestClient]:
    """A client that knows the address and nothing else."""
    with TestClient(app, base_url=HERE) as client:
        yield client


@pytest.fixture
def page(stranger: TestClient) -> TestClient:
    """The client of the person with the token."""
    assert stranger.get(f"/?token={TOKEN}").status_code == 200
    return stranger


def messages(answer: httpx.Response) -> str:
    return "\n".join(problem["message"] for problem in answer.json()["problems"])


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.01) -> None:
    """Let every block of a merge take its time."""
    compute = executor.Computer.compute

    def slowly(self: Any, *args: Any) -> Any:
        time.sleep(seconds)
        yield from compute(self, *args)

    monkeypatch.setattr(executor.Computer, "compute", slowly)


def until(jobs: Jobs, number: str, *states: str) -> Job:
    """The job, when it is in one of ``states``."""
    for _ in range(1500):
        job = jobs.get(number)
        assert job is not None
        if job.state in states:
            return job
        time.sleep(0.02)
    raise AssertionError(f"it is {job.state}, not {states}: {job.message}")


# ---- who gets in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/js/main.js", "/style.css", "/api/start", "/api/jobs/events", "/nothing"])
def test_without_the_token_nothing_is_shown(stranger: TestClient, path: str) -> None:
    for address in (path, f"{path}?token=", f"{path}?token=wrong", f"{path}?token={TOKEN}x"):
        answer = stranger.get(address)
        assert answer.status_code == 403
        assert "terminal" in answer.text


def test_the_token_becomes_a_cookie_and_leaves_the_address(stranger: TestClient) -> None:
    answer = stranger.get(f"/?token={TOKEN}", follow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert f"blockmerge-studio-{PORT}=" in cookie
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert "Blockmerge" in stranger.get("/").text


def test_a_path_with_the_token_leads_nowhere_else(stranger: TestClient) -> None:
    answer = stranger.get(f"//evil.example/?token={TOKEN}", follow_redirects=False)
    assert answer.headers.get("location", "/") == "/"


def test_the_token_in_the_address_does_not_let_anybody_post(stranger: TestClient) -> None:
    assert stranger.post(f"/api/recipe?token={TOKEN}", json={"form": FORM}).status_code == 403


def test_cookies_that_make_no_sense_are_no_cookies(app: Guard) -> None:
    with TestClient(app, base_url=HERE) as client:
        for cookie in ("\x01=;;=", "a=b; blockmerge-studio-8642", f"blockmerge-studio-8643={TOKEN}", "ä=ö"):
            assert client.get("/", headers={"cookie": cookie.encode()}).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        f"evil.example:{PORT}",
        "127.0.0.1",
        "127.0.0.1:80",
        f"127.0.0.1.evil.example:{PORT}",
        f"192.168.0.5:{PORT}",
        f"localhost:{PORT}@evil.example",
        f"user@localhost:{PORT}",
        f"localhost:{PORT}/x",
        "[::1",
        "localhost:port",
        "",
    ],
)
def test_a_name_that_is_not_ours_gets_no_answer(page: TestClient, host: str) -> None:
    """DNS rebinding: a stranger's name that leads to this machine."""
    answer = page.get("/api/start", headers={"host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", [f"localhost:{PORT}", f"127.0.0.1:{PORT}", f"[::1]:{PORT}", f"LOCALHOST:{PORT}"])
def test_loopback_has_several_names(page: TestClient, host: str) -> None:
    assert page.get("/api/start", headers={"host": host}).status_code == 200


def test_beyond_loopback_numbers_and_own_names_count_but_no_strangers(studio: Studio) -> None:
    app = create_app(studio, token=TOKEN, port=PORT, hosts=("workshop",), any_address=True)
    with TestClient(app, base_url=HERE) as client:
        client.get(f"/?token={TOKEN}")
        assert client.get("/api/start", headers={"host": f"192.168.0.5:{PORT}"}).status_code == 200
        assert client.get("/api/start", headers={"host": f"workshop:{PORT}"}).status_code == 200
        assert client.get("/api/start", headers={"host": f"evil.example:{PORT}"}).status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:8642", "http://127.0.0.1:1"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests_from_other_pages_are_refused(page: TestClient, origin: str, method: str) -> None:
    answer = page.request(method, "/api/recipe", json={"form": FORM}, headers={"origin": origin})
    assert answer.status_code == 403
    assert "other pages" in answer.text


def test_the_pages_own_requests_are_answered(page: TestClient) -> None:
    ours = {"origin": HERE, "sec-fetch-site": "same-origin"}
    assert page.post("/api/recipe", json={"form": FORM}, headers=ours).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_posts_that_the_browser_marks_as_strange_are_refused(page: TestClient, site: str) -> None:
    answer = page.post("/api/recipe", json={"form": FORM}, headers={"sec-fetch-site": site})
    assert answer.status_code == 403


def test_forms_of_other_pages_are_no_json(page: TestClient) -> None:
    """What a page can send without asking first: text, or a form."""
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = page.post("/api/recipe", content=json.dumps({"form": FORM}), headers={"content-type": kind})
        assert answer.status_code == 422


@pytest.mark.parametrize("address", ["/", "/js/main.js", "/api/start", "/nothing"])
def test_every_answer_forbids_what_a_page_needs_not(page: TestClient, address: str) -> None:
    answer = page.get(address)
    assert {name: answer.headers[name] for name in HEADERS} == dict(HEADERS)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_the_page_asks_nobody_else() -> None:
    """No address of another server in what the browser is given."""
    static = Path(launch.__file__).parent / "static"
    for path in static.rglob("*"):
        if path.suffix in (".html", ".css", ".js", ".svg"):
            text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text and "https:" not in text and '"//' not in text, path
            assert " style=" not in text and "innerHTML" not in text, path


def test_requests_are_bounded_whatever_they_claim(page: TestClient) -> None:
    long = b"x" * (MAX_BODY + 1)
    assert page.post("/api/recipe", content=long).status_code == 413

    def pieces() -> Iterator[bytes]:
        for first in range(0, len(long), 100_000):
            yield long[first : first + 100_000]

    assert page.post("/api/recipe", content=pieces(), headers={"content-type": "application/json"}).status_code == 413
    for length in ("-1", "1e9", "٣", "9" * 400):
        assert page.post("/api/recipe", content=b"{}", headers={"content-length": length.encode()}).status_code == 413
    assert page.post("/api/recipe", json={"text": "x" * 200_001}).status_code == 422


def test_requests_with_unknown_or_strange_fields_are_refused(page: TestClient) -> None:
    for body in ({"form": FORM, "more": 1}, {"form": "text"}, {"text": 5}, [], "text", None):
        answer = page.post("/api/recipe", json=body)
        assert answer.status_code == 422
        assert answer.json()["problems"]


def test_files_outside_the_front_end_are_not_served(page: TestClient) -> None:
    for path in ("/../server.py", "/%2e%2e/server.py", "/js/../../server.py", "/..%2fserver.py", "//etc/passwd"):
        assert page.get(path).status_code in (400, 403, 404)


# ---- which folders it sees -------------------------------------------------------------------------------------------


def test_models_are_found_in_roots_and_examples(page: TestClient, root: Path) -> None:
    shutil.copytree(DEMO / "code", root / "deep" / "er" / "model")
    shutil.copytree(DEMO / "code", root / ".hidden" / "model")
    shutil.copytree(DEMO / "code", root / "unfinished.partial")
    (root / "loop").symlink_to(root)
    found = page.get("/api/models").json()["models"]
    own = [model["reference"] for model in found if model["place"] == str(root)]
    assert own == ["code", "deep/er/model", "prose"]
    assert {model["name"] for model in found if model["place"] == "examples"} == {"code", "prose"}
    assert all(model["size"] > 1_000_000 for model in found)


def test_models_of_the_hubs_cache_are_found(page: TestClient, tmp_path: Path) -> None:
    snapshot = tmp_path / "cache" / "models--org--name" / "snapshots" / "0a1b"
    shutil.copytree(DEMO / "code", snapshot)
    (tmp_path / "cache" / "models--org--empty" / "snapshots").mkdir(parents=True)
    found = [model for model in page.get("/api/models").json()["models"] if model["place"] == "Hugging Face cache"]
    assert [model["reference"] for model in found] == ["org/name"]


@pytest.mark.parametrize(
    "how", ["absolute", "dots", "link", "linked weights", "linked template", "adapter", "absent", "home", "nul"]
)
def test_folders_outside_the_roots_are_not_read(page: TestClient, root: Path, tmp_path: Path, how: str) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(DEMO / "code", outside)
    (root / "link").symlink_to(outside)
    shutil.copytree(DEMO / "code", root / "linked")
    (root / "linked" / "model.safetensors").unlink()
    (root / "linked" / "model.safetensors").symlink_to(outside / "model.safetensors")
    shutil.copytree(DEMO / "code", root / "templates" / "model")
    (root / "templates" / "model" / "chat_templates").mkdir()
    (root / "templates" / "model" / "chat_templates" / "x.jinja").symlink_to(outside / "config.json")
    reference = {
        "linked template": "templates/model",
        "absolute": str(outside),
        "dots": "../outside",
        "link": "link",
        "linked weights": "linked",
        "adapter": f"code+{outside}",
        "absent": str(tmp_path / "nothing"),
        "home": "~",
        "nul": "co\0de",
    }[how]
    for answer in (
        page.post("/api/model", json={"reference": reference}),
        page.post("/api/fetch", json={"reference": reference}),
        page.post("/api/plan", json={"form": {**FORM, "models": ["code", reference]}}),
        page.post("/api/jobs", json={"form": {**FORM, "models": ["code", reference]}, "out": "out"}),
        page.post("/api/ask", json={"reference": reference, "prompt": "x"}),
        page.post("/api/perplexity", json={"reference": reference, "text": "x"}),
        page.post("/api/diff", json={"first": "code", "second": reference}),
    ):
        assert "inside the roots" in messages(answer)
        assert answer.json().get("plan") is None and answer.json().get("job") is None
    assert not (root / "out").exists()


def test_stages_are_looked_through_for_folders_outside(page: TestClient, tmp_path: Path) -> None:
    shutil.copytree(DEMO / "code", tmp_path / "outside")
    text = (
        f"name: inner\nmethod: linear\nmodels:\n- {{model: {tmp_path / 'outside'}, weight: 1}}\n- {{model: code, "
        "weight: 1}\n---\nmethod: gradient\nmodels: [inner, prose]\nvalues: 0.5\n"
    )
    assert "inside the roots" in messages(page.post("/api/plan", json={"text": text}))


def test_a_hub_id_is_not_fetched_by_typing_it(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_args: object, **_options: object) -> None:
        raise AssertionError("a plan downloads nothing")

    monkeypatch.setattr("blockmerge.sources.hub.download", fetched)
    answer = page.post("/api/plan", json={"form": {**FORM, "models": ["code", "org/name@main"]}})
    assert "not on this machine yet" in messages(answer)


def test_a_hub_id_is_fetched_when_it_is_asked_for(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(repo: str, *_args: object, **_options: object) -> None:
        raise ModelError(f"{repo}: asked")

    monkeypatch.setattr("blockmerge.sources.hub.download", refuse)
    assert json.loads(page.post("/api/fetch", json={"reference": "org/name"}).text) == {"error": "org/name: asked"}


def test_a_download_tells_how_far_it_is(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repo: str, *_args: object, on_bytes: Any = None, **_options: object) -> ModelLocation:
        if on_bytes is not None:
            on_bytes(30, 100)
        return ModelLocation(DEMO / "code", repo)

    monkeypatch.setattr("blockmerge.sources.hub.download", download)
    first, last = page.post("/api/fetch", json={"reference": "org/name"}).text.splitlines()
    assert json.loads(first) == {"read": 30, "total": 100}
    assert json.loads(last)["model"]["layers"] == 8


@pytest.mark.parametrize("out", ["", " ", ".", "..", "../out", "/tmp/out", "link/out", "~/out", "a\0b"])
def test_results_and_recipes_stay_in_the_roots(page: TestClient, root: Path, tmp_path: Path, out: str) -> None:
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    assert "inside the roots" in messages(page.post("/api/output", json={"out": out}))
    assert "inside the roots" in messages(page.post("/api/jobs", json={"form": FORM, "out": out}))
    if out:
        assert "inside the roots" in messages(page.post("/api/save", json={"text": "x", "path": f"{out}/../../r.yaml"}))
    assert list((tmp_path / "outside").iterdir()) == []


def test_examples_and_the_cache_are_read_only(page: TestClient) -> None:
    assert "inside the roots" in messages(page.post("/api/output", json={"out": str(DEMO / "new")}))


def test_a_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--root takes folders"):
        Roots([tmp_path / "nothing"])


def test_a_pickle_is_not_loaded_for_trying(page: TestClient, root: Path) -> None:
    pytest.importorskip("transformers")
    (root / "code" / "model.safetensors").rename(root / "code" / "pytorch_model.bin")
    answer = page.post("/api/ask", json={"reference": "code", "prompt": "x"})
    assert "cannot load it" in answer.text and "safetensors" in answer.text


def test_code_in_a_model_folder_does_not_run(page: TestClient, root: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = json.loads((root / "code" / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "evil"}
    (root / "code" / "config.json").write_text(json.dumps(config))
    (root / "code" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    page.post("/api/model", json={"reference": "code"})
    answer = page.post("/api/ask", json={"reference": "code", "prompt": "x"})
    assert "cannot load it" in answer.text
    assert not (tmp_path / "ran").exists()


# ---- models, recipes, plans ------------------------------------------------------------------------------------------


def test_a_model_at_a_glance(page: TestClient) -> None:
    seen = page.post("/api/model", json={"reference": "code"}).json()
    told = blockmerge.inspect("code").to_json()
    assert {key: seen[key] for key in ("architecture", "layers", "parameters", "odd")} == {
        key: told[key] for key in ("architecture", "layers", "parameters", "odd")
    }
    assert seen["tensors"]["name"] == [tensor["name"] for tensor in told["tensors"]]
    assert seen["vocabulary"] == 257


@pytest.mark.parametrize(
    "form",
    [
        FORM,
        {**FORM, "values": 0.25, "by": "layer"},
        {**FORM, "values": {"attention": [0.2, 0.8], "mlp": [0.8, 0.2], "all": [0.5]}, "dtype": "float16"},
        {**FORM, "only": "layers", "filters": ["self_attn", "mlp"], "layers": "1:3", "on_missing": "keep"},
        {**FORM, "arithmetic": "original", "max_shard_size": "500kB"},
        {**FORM, "tokenizer": "union", "chat_template": "chatml"},
        {**FORM, "tokenizer": {"source": "union", "pad_to_multiple_of": 8}},
        {"method": "slerp", "models": ["code", "prose"], "t": [0.2, 0.8]},
        {"method": "ties", "base": "code", "models": [{"model": "prose", "weight": 0.5, "density": [0.3, 0.9]}]},
    ],
)
def test_the_command_and_the_yaml_do_what_the_page_plans(page: TestClient, root: Path, form: dict[str, Any]) -> None:
    """All three spellings end in the same plan, told by its digest."""
    said = page.post("/api/recipe", json={"form": form, "out": "new"}).json()
    assert said["problems"] == []
    planned = page.post("/api/plan", json={"form": form, "out": "new"}).json()["plan"]
    (root / "recipe.yaml").write_text(said["text"])
    assert blockmerge.plan(root / "recipe.yaml").digest == planned["digest"]
    program, *words = shlex.split(said["command"])
    assert program == "blockmerge"
    assert "new" in words
    result = CliRunner().invoke(main, [*words, "--quiet"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads((root / "new" / "blockmerge.json").read_text())["plan"] == planned["digest"]


def test_a_form_survives_its_own_yaml(page: TestClient) -> None:
    said = page.post("/api/recipe", json={"form": {**FORM, "by": "layer", "layers": "0:4"}}).json()
    again = page.post("/api/recipe", json={"text": said["text"]}).json()
    assert again["form"] == said["form"]
    assert page.post("/api/recipe", json={"form": again["form"]}).json()["text"] == said["text"]


def test_a_recipe_of_stages_comes_back_whole(page: TestClient) -> None:
    text = (
        "name: inner\nmethod: linear\nmodels:\n- {model: code, weight: 1}\n- {model: prose, weight: 1}\n---\n"
        "method: gradient\nmodels: [inner, prose]\nvalues: 0.5\n"
    )
    said = page.post("/api/recipe", json={"text": text}).json()
    assert said["problems"] == [] and said["form"]["stages"]
    plans = [page.post("/api/plan", json=body).json()["plan"] for body in ({"text": text}, {"form": said["form"]})]
    assert plans[0]["digest"] == plans[1]["digest"]
    assert said["command"] == "blockmerge merge recipe.yaml OUT"


def test_problems_name_their_lines(page: TestClient) -> None:
    said = page.post("/api/recipe", json={"text": "method: gradient\nmodels: [code]\nvalues: zz\n"}).json()
    assert {problem["line"] for problem in said["problems"]} == {2, 3}
    assert said["form"] is None and said["command"] == ""
    broken = page.post("/api/recipe", json={"text": "method: [\n"}).json()
    assert broken["problems"][0]["line"] == 2
    assert "not valid YAML" in broken["problems"][0]["message"]


def test_a_plan_tells_every_tensor(page: TestClient) -> None:
    plan = page.post("/api/plan", json={"form": FORM, "out": "new"}).json()["plan"]
    told = blockmerge.plan(blockmerge.gradient("code", "prose", values=[0.0, 1.0, 0.0])).to_json()
    for key in ("name", "ratio", "position", "layer", "block", "dtype", "shape"):
        assert plan["tensors"][key] == [tensor[key] for tensor in told["tensors"]]
    assert plan["bytes_to_write"] == told["bytes_to_write"]


def test_why_two_models_do_not_go_together(page: TestClient, root: Path) -> None:
    config = json.loads((root / "prose" / "config.json").read_text())
    (root / "prose" / "config.json").write_text(json.dumps({**config, "architectures": ["MistralForCausalLM"]}))
    assert "only finetunes of one architecture" in messages(page.post("/api/plan", json={"form": FORM}))


def test_the_place_of_a_result(page: TestClient, root: Path) -> None:
    place = page.post("/api/output", json={"out": "new"}).json()
    assert place["path"] == str(root / "new") and place["disk_free"] > 0
    assert not place["exists"] and not place["unfinished"]
    assert page.post("/api/output", json={"out": "code"}).json()["exists"]


def test_places_at_home_are_written_as_people_do(
    page: TestClient, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert page.post("/api/output", json={"out": "new"}).json()["path"] == "~/root/new"
    assert page.get("/api/start").json()["roots"] == [{"path": "~/root", "prefix": ""}]


def test_saving_never_replaces(page: TestClient, root: Path) -> None:
    body = {"text": "method: gradient\n", "path": "mine.yaml"}
    assert page.post("/api/save", json=body).json() == {"path": str(root / "mine.yaml")}
    assert (root / "mine.yaml").read_text() == body["text"]
    assert "cannot be written" in messages(page.post("/api/save", json=body))
    assert "ends in .yaml" in messages(page.post("/api/save", json={**body, "path": "code/config.json"}))


def test_every_method_is_declared_to_the_page(page: TestClient) -> None:
    told = page.get("/api/start").json()
    assert [method["name"] for method in told["methods"]] == sorted(METHODS)
    for method in told["methods"]:
        own = METHODS[method["name"]]
        assert [one["name"] for one in method["parameters"]] == [one.name for one in own.parameters]
        assert all(one["help"] for one in method["parameters"])
    assert set(told["colours"]) >= {"attention", "mlp", "norms", "embeddings", "head", "other"}


def test_differences_are_told_while_they_are_read(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def diff(first: str, second: str, *, on_event: Any, quiet: bool) -> None:
        if second == "code":
            raise ModelError("they are one model")
        on_event(execution.Started(2, 100, 0, 1))
        on_event(execution.Progress(20, 0, 0.1))
        on_event(execution.TensorCompared("a", 0.5))
        on_event(execution.TensorCompared("b", None))
        on_event(execution.Progress(100, 0, 0.2))

    monkeypatch.setattr("blockmerge.api.diff", diff)
    answer = page.post("/api/diff", json={"first": "code", "second": "prose"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [
        {"read": 20, "total": 100},
        {"read": 100, "total": 100, "relative": {"a": 0.5, "b": None}},
        {"done": True},
    ]
    answer = page.post("/api/diff", json={"first": "code", "second": "code"})
    assert json.loads(answer.text) == {"error": "they are one model"}


# ---- merges ----------------------------------------------------------------------------------------------------------


def test_a_merge_runs_and_gives_what_the_command_gives(page: TestClient, studio: Studio, root: Path) -> None:
    job = page.post("/api/jobs", json={"form": FORM, "out": "new"}).json()["job"]
    done = until(studio.jobs, job["id"], "done", "failed")
    assert done.state == "done", done.message
    assert done.written == done.total > 0
    assert done.made == done.tensors == 75
    blockmerge.merge(blockmerge.gradient("code", "prose", values=[0.0, 1.0, 0.0]), "other")
    assert (root / "new" / "model.safetensors").read_bytes() == (root / "other" / "model.safetensors").read_bytes()


def test_a_finished_merge_shows_its_card_and_is_verified(
    page: TestClient, studio: Studio, root: Path, tmp_path: Path
) -> None:
    job = page.post("/api/jobs", json={"form": FORM, "out": "new"}).json()["job"]
    until(studio.jobs, job["id"], "done")
    address = f"/api/jobs/{job['id']}"
    card = page.get(f"{address}/card").json()
    assert card == {"text": (root / "new" / "README.md").read_text(), "picture": True}
    picture = page.get(f"{address}/picture")
    assert picture.headers["content-type"] == "image/svg+xml" and picture.text.startswith("<svg")
    assert json.loads(page.post(f"{address}/verify").text.splitlines()[-1]) == {"tensors": 75, "differing": []}
    weights = root / "new" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert len(json.loads(page.post(f"{address}/verify").text.splitlines()[-1])["differing"]) == 1
    (root / "new" / "README.md").unlink()
    assert "its card cannot be read" in messages(page.get(f"{address}/card"))
    (tmp_path / "secret").write_text("not for the page")
    (root / "new" / "README.md").symlink_to(tmp_path / "secret")
    for answer in (page.get(f"{address}/card"), page.get(f"{address}/picture"), page.post(f"{address}/verify")):
        assert "inside the roots" in messages(answer)


def test_merges_wait_for_each_other_and_never_share_a_place(
    page: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(monkeypatch)
    first = page.post("/api/jobs", json={"form": FORM, "out": "one"}).json()["job"]
    second = page.post("/api/jobs", json={"form": FORM, "out": "two"}).json()["job"]
    assert "another merge" in messages(page.post("/api/jobs", json={"form": FORM, "out": "two"}))
    until(studio.jobs, first["id"], "running", "done")
    assert until(studio.jobs, second["id"], "waiting", "running", "done").state == "waiting"
    assert until(studio.jobs, second["id"], "done").state == "done"
    assert until(studio.jobs, first["id"], "done").state == "done"


def test_a_merge_stops_and_goes_on(
    page: TestClient, studio: Studio, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_down(monkeypatch, 0.03)
    job = page.post("/api/jobs", json={"form": FORM, "out": "new"}).json()["job"]
    while (now := studio.jobs.get(job["id"])) is None or now.written == 0:
        time.sleep(0.02)
    page.post(f"/api/jobs/{job['id']}/stop")
    stopped = until(studio.jobs, job["id"], "stopped")
    assert 0 < stopped.written < stopped.total
    assert not (root / "new").exists() and (root / "new.partial.journal").exists()
    assert page.post("/api/output", json={"out": "new"}).json()["unfinished"]
    monkeypatch.undo()
    monkeypatch.chdir(root)
    page.post(f"/api/jobs/{job['id']}/resume")
    done = until(studio.jobs, job["id"], "done", "failed")
    assert done.state == "done", done.message
    assert not (root / "new.partial").exists()


def test_a_merge_goes_on_after_the_server_was_started_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots, folder = Roots([root]), tmp_path / "state"
    text = "method: gradient\nmodels: [code, prose]\nvalues: [0, 1]\n"
    with monkeypatch.context() as patch:
        slow_down(patch, 0.03)
        before = Jobs(folder, roots)
        running, waiting = before.add(text, "new", overwrite=False), before.add(text, "later", overwrite=False)
        while (now := before.get(running.id)) is None or now.written == 0:
            time.sleep(0.02)
        before.close()
    after = Jobs(folder, roots)
    assert [job.state for job in after.all()] == ["stopped", "stopped"]
    assert not (root / "new").exists()
    after.resume(running)
    assert until(after, running.id, "done", "failed").state == "done"
    assert until(after, waiting.id, "stopped").state == "stopped"
    after.close()
    assert [job.state for job in Jobs(folder, roots).all()] == ["done", "stopped"]


def test_the_file_of_a_merge_that_was_killed_tells_of_it(root: Path, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, Roots([root]))
    job = jobs.add("method: gradient\nmodels: [code, prose]\nvalues: 1\n", "new", overwrite=False)
    until(jobs, job.id, "done")
    jobs.close()
    path = tmp_path / f"{job.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running"}))
    again = Jobs(tmp_path, Roots([root])).get(job.id)
    assert again is not None and again.state == "stopped"


def test_files_that_are_no_merges_are_left_alone(root: Path, tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, Roots([root]))
    good = json.loads(json.dumps(Job("good", "x", "y").to_json()))
    for name, content in {
        "text": "{",
        "list": "[]",
        "empty": "{}",
        "other-name": json.dumps(good),
        "good": json.dumps(good),
        "state": json.dumps(good | {"id": "state", "state": "flying"}),
        "type": json.dumps(good | {"id": "type", "written": "many"}),
        "more": json.dumps(good | {"id": "more", "extra": 1}),
    }.items():
        (tmp_path / f"{name}.json").write_text(content)
    assert [job.id for job in Jobs(tmp_path, Roots([root])).all()] == ["good"]
    assert len(list(tmp_path.glob("*.json"))) == 8
    jobs.close()


def test_a_merge_that_cannot_be_says_why_and_the_queue_goes_on(page: TestClient, studio: Studio) -> None:
    wrong = page.post("/api/jobs", json={"form": FORM, "out": "code"}).json()["job"]
    right = page.post("/api/jobs", json={"form": FORM, "out": "new"}).json()["job"]
    assert "choose another place" in until(studio.jobs, wrong["id"], "failed").message
    assert until(studio.jobs, right["id"], "done").state == "done"


def test_a_mistake_of_ours_does_not_end_the_queue(
    page: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("blockmerge.api.merge", lambda *_args, **_options: 1 / 0)
        wrong = page.post("/api/jobs", json={"form": FORM, "out": "one"}).json()["job"]
        assert "ZeroDivisionError" in until(studio.jobs, wrong["id"], "failed").message
    right = page.post("/api/jobs", json={"form": FORM, "out": "two"}).json()["job"]
    assert until(studio.jobs, right["id"], "done").state == "done"


def test_forgetting_discards_what_is_unfinished_and_keeps_what_is_done(
    page: TestClient, studio: Studio, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = page.post("/api/jobs", json={"form": FORM, "out": "done"}).json()["job"]
    until(studio.jobs, done["id"], "done")
    slow_down(monkeypatch, 0.03)
    job = page.post("/api/jobs", json={"form": FORM, "out": "new"}).json()["job"]
    while (now := studio.jobs.get(job["id"])) is None or now.written == 0:
        time.sleep(0.02)
    assert "stop it first" in messages(page.delete(f"/api/jobs/{job['id']}"))
    page.post(f"/api/jobs/{job['id']}/stop")
    until(studio.jobs, job["id"], "stopped")
    for number in (job["id"], done["id"]):
        assert page.delete(f"/api/jobs/{number}").status_code == 200
    assert not (root / "new.partial").exists() and (root / "done" / "config.json").exists()
    assert studio.jobs.all() == []
    assert page.post(f"/api/jobs/{job['id']}/stop").status_code == 404


def test_what_another_merge_left_is_not_discarded(page: TestClient, studio: Studio, root: Path) -> None:
    """A job that never began to write does not own what lies at its place."""

    def stop(event: object) -> None:
        if isinstance(event, execution.Started):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blockmerge.merge(blockmerge.gradient("code", "prose", values=[0.5]), "new", on_event=stop)
    left = sorted(path.name for path in root.iterdir() if path.name.startswith("new.partial"))
    job = page.post("/api/jobs", json={"form": FORM, "out": "new"}).json()["job"]
    assert "another model" in until(studio.jobs, job["id"], "failed").message
    assert page.delete(f"/api/jobs/{job['id']}").status_code == 200
    assert left and sorted(path.name for path in root.iterdir() if path.name.startswith("new.partial")) == left


def test_other_roots_are_asked_again_before_a_merge_goes_on(root: Path, tmp_path: Path) -> None:
    shutil.copytree(DEMO / "code", tmp_path / "elsewhere" / "code")
    state = tmp_path / "state"
    job = Job("abc", f"method: gradient\nmodels: [{root / 'code'}, prose]\nvalues: 1\n", str(root / "new"))
    state.mkdir()
    (state / "abc.json").write_text(json.dumps(job.to_json()))
    jobs = Jobs(state, Roots([tmp_path / "elsewhere"]))
    jobs.resume(job)
    assert "inside the roots" in until(jobs, "abc", "failed").message
    jobs.close()


# ---- trying models ---------------------------------------------------------------------------------------------------


def test_a_model_answers_piece_by_piece(page: TestClient) -> None:
    pytest.importorskip("transformers")
    answer = page.post("/api/ask", json={"reference": "code", "prompt": "def area(", "tokens": 12})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[-1] == {"done": 12}
    assert len(lines) > 3 and all(set(line) == {"text"} for line in lines[:-1])
    again = page.post("/api/ask", json={"reference": "code", "prompt": "def area(", "tokens": 12})
    assert again.text == answer.text


def test_each_model_foretells_its_own_kind_of_text_better(page: TestClient) -> None:
    pytest.importorskip("transformers")
    texts = {kind: (DEMO.parent / "text" / f"{kind}.txt").read_text()[:4000] for kind in ("code", "prose")}
    found = {
        (model, kind): page.post("/api/perplexity", json={"reference": model, "text": text}).json()["nats_per_byte"]
        for model in texts
        for kind, text in texts.items()
    }
    assert found["code", "code"] < found["prose", "code"]
    assert found["prose", "prose"] < found["code", "prose"]


def test_perplexity_agrees_with_the_demos_own_loss(page: TestClient) -> None:
    """Two implementations of one number: transformers', and the numpy forward pass of the demo."""
    pytest.importorskip("transformers")
    from blockmerge.demo.forward import encode, loss
    from blockmerge.demo.measure import weights_of

    text = (DEMO.parent / "text" / "code.txt").read_text()[:200]
    config = json.loads((DEMO / "code" / "config.json").read_text())
    found = page.post("/api/perplexity", json={"reference": "code", "text": text}).json()
    ours = loss(weights_of(DEMO / "code"), config, encode(text))
    assert found["nats_per_byte"] == pytest.approx(ours, rel=0.05)


def test_without_torch_the_page_says_what_to_install(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial.importlib.util, "find_spec", lambda _name: None)
    assert page.get("/api/start").json()["trial"] == ["torch", "transformers"]
    answer = page.post("/api/ask", json={"reference": "code", "prompt": "x"})
    assert "blockmerge[eval]" in answer.text


# ---- starting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
def test_starting_prints_an_address_with_a_token_and_warns_beyond_loopback(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, warned: bool
) -> None:
    said: list[str] = []
    opened: list[str] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    monkeypatch.setattr(launch.webbrowser, "open", opened.append)
    launch.launch([root], host=host, port=0, state=tmp_path / "state", browser=True, say=said.append)
    address = said[-1].splitlines()[0].removeprefix("Blockmerge studio: ")
    token = address.partition("?token=")[2]
    assert len(token) >= 43
    assert opened == [address]
    assert any(line.startswith("warning:") for line in said) == warned


@pytest.mark.parametrize("host", ["192.168.0.5", "workshop", "[fd00::5]"])
def test_beyond_loopback_nobody_gets_in_without_the_token(studio: Studio, host: str) -> None:
    app = create_app(studio, token=TOKEN, port=PORT, hosts=("workshop",), any_address=True)
    with TestClient(app, base_url=f"http://{host}:{PORT}") as client:
        for path in ("/", "/api/start", "/api/models", "/?token=", "/?token=wrong"):
            assert client.get(path).status_code == 403
        assert client.post("/api/jobs", json={"form": FORM, "out": "new"}).status_code == 403
        evil = {"origin": "http://evil.example"}
        assert client.get(f"/?token={TOKEN}", headers=evil).status_code == 403
        assert client.get(f"/?token={TOKEN}").status_code == 200


def test_a_link_that_appears_in_the_place_of_a_result_is_not_followed(
    page: TestClient, studio: Studio, root: Path, tmp_path: Path
) -> None:
    """Between queueing and resuming, the folder became a link out of the roots."""
    job = page.post("/api/jobs", json={"form": FORM, "out": "code"}).json()["job"]
    until(studio.jobs, job["id"], "failed")  # a model is there
    shutil.rmtree(root / "code")
    shutil.copytree(DEMO / "code", tmp_path / "outside")
    (root / "code").symlink_to(tmp_path / "outside")
    page.post(f"/api/jobs/{job['id']}/resume")
    assert "inside the roots" in until(studio.jobs, job["id"], "failed").message
    assert sorted(path.name for path in (tmp_path / "outside").iterdir()) == sorted(
        path.name for path in (DEMO / "code").iterdir()
    )


def test_a_port_that_is_taken_is_said(root: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BlockmergeError, match="choose another --port"):
            launch.launch([root], host="127.0.0.1", port=port, state=tmp_path, browser=False, say=print)


def test_the_command_starts_it(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    words = ["studio", "--root", str(root), "--port", "0", "--no-browser", "--state", str(tmp_path / "state")]
    result = CliRunner().invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "?token=" in result.output


def test_ctrl_c_ends_it_in_silence(root: Path, tmp_path: Path) -> None:
    words = ["-m", "blockmerge", "studio", "--port", "0", "--no-browser", "--state", str(tmp_path / "state")]
    environment = os.environ | {"PYTHONPATH": str(Path(blockmerge.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("Blockmerge studio: ").strip()
        for _ in range(100):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(address, follow_redirects=True).status_code == 200:
                    break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


def test_without_its_extra_the_command_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "blockmerge.studio.launch")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = CliRunner().invoke(main, ["studio", "--no-browser"])
    assert result.exit_code == 1
    assert "pip install 'blockmerge[studio]'" in result.output


def test_the_state_is_kept_where_the_platform_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockmerge.studio.state.sys.platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "blockmerge" / "studio"


def test_events_arrive_over_a_real_connection(studio: Studio) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = create_app(studio, token=TOKEN, port=port)
        server = launch.StudioServer(app, studio)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            cookies = {f"blockmerge-studio-{port}": TOKEN}
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", cookies=cookies) as client:
                client.post("/api/jobs", json={"form": FORM, "out": "new"})
                with client.stream("GET", "/api/jobs/events") as events:
                    states = set()
                    for line in events.iter_lines():
                        if line.startswith("data: "):
                            states |= {job["state"] for job in json.loads(line.removeprefix("data: "))}
                        if states & {"done", "failed"}:
                            break
                assert "done" in states
                with client.stream(
                    "GET", "/api/jobs/events"
                ) as events:  # one that listens does not keep it from ending
                    next(events.iter_lines())
                    ending = time.monotonic()
                    server.should_exit = True
                    thread.join()
                    assert time.monotonic() - ending < 1.5
        finally:
            server.should_exit = True
            thread.join()
    assert Path("new").is_dir()
