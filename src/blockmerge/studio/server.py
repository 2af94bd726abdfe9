"""The studio's server: what the page asks for, each a call of the api. Everything that decides is elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Scope, Send

from blockmerge import api
from blockmerge.errors import BlockmergeError, OutputError
from blockmerge.studio import views
from blockmerge.studio.drafts import Draft, command_of, draft_of_form, draft_of_text, problems_of
from blockmerge.studio.guard import Guard
from blockmerge.studio.jobs import Job, Jobs
from blockmerge.studio.roots import Roots, shown
from blockmerge.studio.streams import compared, fetched, verified
from blockmerge.studio.trial import Trial

__all__ = ["Studio", "create_app"]

_STATIC = Path(__file__).parent / "static"
_PULSE = 0.1
"""Seconds between looks at the jobs for those who listen."""
_LONGEST = 200_000
"""Characters of a recipe, a prompt or a text at most."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Wanted(_Body):
    """A recipe, as YAML or as the page's form, and the folder for its result."""

    text: str | None = Field(default=None, max_length=_LONGEST)
    form: dict[str, Any] | None = None
    out: str = Field(default="", max_length=4096)

    def draft(self) -> Draft:
        return draft_of_form(self.form) if self.form is not None else draft_of_text(self.text or "")


class _Output(_Body):
    out: str = Field(max_length=4096)


class _Merge(_Wanted):
    overwrite: bool = False


class _Model(_Body):
    reference: str = Field(min_length=1, max_length=4096)


class _Pair(_Body):
    first: str = Field(min_length=1, max_length=4096)
    second: str = Field(min_length=1, max_length=4096)


class _Saved(_Body):
    text: str = Field(max_length=_LONGEST)
    path: str = Field(min_length=1, max_length=4096)


class _Prompt(_Body):
    reference: str = Field(min_length=1, max_length=4096)
    prompt: str = Field(min_length=1, max_length=_LONGEST)
    chat: bool = False
    tokens: int = Field(default=200, ge=1, le=2000)


class _Text(_Body):
    reference: str = Field(min_length=1, max_length=4096)
    text: str = Field(min_length=1, max_length=_LONGEST)


class Studio:
    """Everything behind one page: the roots, the queue, the models that are tried. Its methods answer requests."""

    def __init__(self, roots: Roots, state: Path) -> None:
        self.roots = roots
        self.jobs = Jobs(state / "jobs", roots)
        self.trial = Trial()
        self._leaving = False

    def leave(self) -> None:
        """Let go of those who listen to events, so that the server can end."""
        self._leaving = True

    # ---- models ------------------------------------------------------------------------------------------------------

    def start(self) -> dict[str, Any]:
        """What the page needs before anything else."""
        return {
            **views.methods_view(),
            "roots": self.roots.prefixes(),
            "trial": self.trial.missing(),
        }

    def models(self) -> dict[str, Any]:
        """Every model that may be picked."""
        return {"models": [found.to_json() for found in self.roots.models()]}

    def model(self, body: _Model) -> dict[str, Any]:
        """A model at a glance."""
        self.roots.check_model(body.reference)
        return views.model_view(body.reference, api.inspect(body.reference))

    def fetch(self, body: _Model) -> StreamingResponse:
        """The same, from the Hub if need be: a line of JSON now and then while it is downloaded, and one at the end."""
        self.roots.check_model(body.reference, fetch=True)
        return _Lines(fetched(body.reference))

    def difference(self, body: _Pair) -> StreamingResponse:
        """Where two models differ, a line of JSON now and then while they are read and one at the end."""
        for reference in (body.first, body.second):
            self.roots.check_model(reference)
        return _Lines(compared(body.first, body.second))

    # ---- recipes and plans -------------------------------------------------------------------------------------------

    def recipe(self, body: _Wanted) -> dict[str, Any]:
        """The recipe in all its spellings, and what is wrong with it."""
        draft = body.draft()
        command = "" if draft.recipe is None else command_of(draft.recipe, body.out or "OUT")
        return {
            "text": draft.text,
            "form": draft.form,
            "command": command,
            "problems": [problem.to_json() for problem in draft.problems],
        }

    def plan(self, body: _Wanted) -> dict[str, Any]:
        """Everything that the merge will do, or why it cannot be done."""
        draft = body.draft()
        if draft.recipe is None:
            return {"plan": None, "problems": [problem.to_json() for problem in draft.problems]}
        try:
            self.roots.check_recipe(draft.recipe)
            planned = api.plan(draft.recipe, quiet=True)
        except BlockmergeError as error:
            return {"plan": None, "problems": [problem.to_json() for problem in problems_of(error)]}
        return {"plan": views.plan_view(planned), "problems": []}

    def output(self, body: _Output) -> dict[str, Any]:
        """What is at the place for a result: nothing, a model, an unfinished one; and the room on its disk."""
        return views.output_view(self.roots.output(body.out))

    def save(self, body: _Saved) -> dict[str, Any]:
        """Write a recipe into a root, under a name that is free."""
        path = self.roots.output(body.path)
        if path.suffix not in (".yaml", ".yml"):
            raise OutputError(f"{body.path}: the name of a recipe ends in .yaml")
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(body.text)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
        return {"path": shown(path)}

    # ---- merges ------------------------------------------------------------------------------------------------------

    def add_job(self, body: _Merge) -> dict[str, Any]:
        """Put a merge into the queue."""
        draft = body.draft()
        if draft.recipe is None:
            return {"job": None, "problems": [problem.to_json() for problem in draft.problems]}
        self.roots.check_recipe(draft.recipe)
        job = self.jobs.add(draft.text, body.out, overwrite=body.overwrite)
        return {"job": job.to_json(), "problems": []}

    def stop_job(self, number: str) -> dict[str, Any]:
        """Stop a merge, so that it can go on."""
        self.jobs.stop(self._job(number))
        return {}

    def resume_job(self, number: str) -> dict[str, Any]:
        """Let a merge go on."""
        self.jobs.resume(self._job(number))
        return {}

    def forget_job(self, number: str) -> dict[str, Any]:
        """Take a merge out of the history."""
        self.jobs.forget(self._job(number))
        return {}

    def verify_job(self, number: str) -> StreamingResponse:
        """Whether a finished merge still is what it was written as."""
        return _Lines(verified(self._made(number)))

    def card(self, number: str) -> dict[str, Any]:
        """The model card of a finished merge."""
        return views.card_view(self._made(number))

    def picture(self, number: str) -> Response:
        """The picture on that card."""
        path = views.picture_of(self._made(number))
        if path is None:
            raise HTTPException(404, "it has no picture")
        return FileResponse(path, media_type="image/svg+xml")

    def _made(self, number: str) -> Path:
        """The folder of a finished merge; what lies there may have been exchanged since."""
        out = self._job(number).out
        self.roots.check_model(out)
        return Path(out)

    def _job(self, number: str) -> Job:
        job = self.jobs.get(number)
        if job is None:
            raise HTTPException(404, "there is no such merge any more")
        return job

    async def events(self, request: Request) -> StreamingResponse:
        """Server-sent events: all merges now, and again whenever one of them changed."""
        return StreamingResponse(self._changes(request), media_type="text/event-stream")

    async def _changes(self, request: Request) -> AsyncIterator[str]:
        seen = -1
        while not self._leaving and not await request.is_disconnected():
            if self.jobs.version != seen:
                seen = self.jobs.version
                yield f"data: {json.dumps([job.to_json() for job in self.jobs.all()])}\n\n"
            await asyncio.sleep(_PULSE)

    # ---- trying models -----------------------------------------------------------------------------------------------

    def ask(self, body: _Prompt) -> StreamingResponse:
        """What a model answers, a line of JSON for each piece of text."""
        self.roots.check_model(body.reference)
        return _Lines(self.trial.answer(body.reference, body.prompt, chat=body.chat, tokens=body.tokens))

    def perplexity(self, body: _Text) -> dict[str, Any]:
        """How well a model foretells a text."""
        self.roots.check_model(body.reference)
        return self.trial.perplexity(body.reference, body.text)


class _Lines(StreamingResponse):
    """A stream of JSON, one value a line; an error on the way is the last.

    ``values`` are closed at the end, also when nobody reads any more: what they hold is then free at once.
    """

    def __init__(self, values: Generator[dict[str, Any]]) -> None:
        self._values = values
        super().__init__(self._spelled(), media_type="application/x-ndjson")

    def _spelled(self) -> Iterator[str]:
        try:
            for value in self._values:
                yield json.dumps(value) + "\n"
        except BlockmergeError as error:
            yield json.dumps({"error": str(error)}) + "\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._values.close()


def create_app(
    studio: Studio, *, token: str, port: int, hosts: tuple[str, ...] = (), any_address: bool = False
) -> Guard:
    """The application, behind its guard. ``port`` is the one that the browser is to name."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        yield
        await asyncio.to_thread(studio.jobs.close)

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    app.add_exception_handler(BlockmergeError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    routes: dict[tuple[str, str], Callable[..., Any]] = {
        ("GET", "/api/start"): studio.start,
        ("GET", "/api/models"): studio.models,
        ("POST", "/api/model"): studio.model,
        ("POST", "/api/fetch"): studio.fetch,
        ("POST", "/api/diff"): studio.difference,
        ("POST", "/api/recipe"): studio.recipe,
        ("POST", "/api/plan"): studio.plan,
        ("POST", "/api/output"): studio.output,
        ("POST", "/api/save"): studio.save,
        ("POST", "/api/jobs"): studio.add_job,
        ("GET", "/api/jobs/events"): studio.events,
        ("POST", "/api/jobs/{number}/stop"): studio.stop_job,
        ("POST", "/api/jobs/{number}/resume"): studio.resume_job,
        ("POST", "/api/jobs/{number}/verify"): studio.verify_job,
        ("GET", "/api/jobs/{number}/card"): studio.card,
        ("GET", "/api/jobs/{number}/picture"): studio.picture,
        ("DELETE", "/api/jobs/{number}"): studio.forget_job,
        ("POST", "/api/ask"): studio.ask,
        ("POST", "/api/perplexity"): studio.perplexity,
    }
    for (method, path), endpoint in routes.items():
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    app.mount("/", StaticFiles(directory=_STATIC, html=True))
    return Guard(app, token=token, port=port, hosts=hosts, any_address=any_address)


def _told(_request: Request, error: Exception) -> JSONResponse:
    """What Blockmerge refuses, in its own words."""
    assert isinstance(error, BlockmergeError)
    return JSONResponse({"problems": [problem.to_json() for problem in problems_of(error)]}, status_code=422)


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    message = f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
    return JSONResponse({"problems": [{"message": message, "line": None}]}, status_code=422)
