"""The documentation is true: its examples run, its links lead somewhere, its generated parts are current."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import blockmerge
from blockmerge.cli import main
from blockmerge.cli.original import main as original
from blockmerge.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMANDS = {"blockmerge": main, "blockmerge-gradient": original}
DEMO = Path(blockmerge.__file__).parent / "demo" / "models"
EXECUTED = {"console", "python", "yaml"}
SHOWN = {"text", "sh"}
"""Kinds of blocks that are only shown: output, and shell commands that .ci/run carries out to the letter."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(METHODS, "_added", {})  # methods that an example adds are gone after it
    for name in ("code", "prose"):
        shutil.copytree(DEMO / name, tmp_path / name)
    for kind, content in BLOCK.findall(page.read_text(encoding="utf-8")):
        assert kind in EXECUTED | SHOWN, f"{page.name}: a block says what it is, not {kind!r}"
        if kind == "python":
            exec(compile(content, page.name, "exec"), {"__name__": "docs"})
        elif kind == "yaml":
            _write_recipe(content, tmp_path)
        elif kind == "console":
            for line in content.splitlines():
                _run(line)


def _write_recipe(content: str, folder: Path) -> None:
    name = content.splitlines()[0].removeprefix("# ")
    assert re.fullmatch(r"[\w-]+\.yaml", name), "a recipe starts with its file name as a comment"
    (folder / name).write_text(content)
    blockmerge.plan(folder / name)


def _run(line: str) -> None:
    assert line.startswith("$ "), "a console block holds commands; output stands in a block of text"
    program, *arguments = shlex.split(line[2:])
    result = CliRunner().invoke(COMMANDS[program], arguments, catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


def test_generated_parts_are_current() -> None:
    made = runpy.run_path(str(ROOT / "tools" / "make_docs.py"))["MADE"]
    for name, make in made.items():
        assert (ROOT / name).read_text(encoding="utf-8") == make(), f"{name}: run python tools/make_docs.py"
    assert {f"docs/images/{path.name}" for path in (ROOT / "docs" / "images").glob("*.svg")} <= made.keys()


def test_every_option_is_explained() -> None:
    groups = [command for command in main.commands.values() if isinstance(command, click.Group)]
    inner = [command for group in groups for command in group.commands.values()]
    for command in (*main.commands.values(), *inner, original):
        assert command.help
        for option in command.params:
            assert option.param_type_name == "argument" or getattr(option, "help", None), (
                f"{command.name}: {option.name}"
            )
