"""Photograph the studio for the documentation: docs/images/studio*.png.

    python tools/make_screenshots.py [FOLDER]

Needs the extras studio, eval and test, and chromium (or CHROMIUM=path). The pictures show the two
models of the demo, so they are the same on every machine but for fonts and times.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

import blockmerge
from blockmerge.studio.launch import StudioServer
from blockmerge.studio.roots import Roots
from blockmerge.studio.server import Studio, create_app

ROOT = Path(__file__).parents[1]
DEMO = Path(blockmerge.__file__).parent / "demo" / "models"
IMAGES = ROOT / "docs" / "images"
PICTURES = (("desktop", "light"), ("desktop", "dark"), ("phone", "light"))
"""What the documentation shows; another FOLDER gets every size in both colours, to be looked at."""
SIZES = {"desktop": (1440, 900), "tablet": (820, 1100), "phone": (390, 844)}
TOKEN = "only-for-the-photograph"


@contextmanager
def served() -> Iterator[str]:
    """The address of a studio in a folder with the two models of the demo."""
    with tempfile.TemporaryDirectory(prefix="studio-") as scratch:
        os.environ["HOME"] = scratch  # so that the pictures show ~/models
        home = Path(scratch) / "models"
        for name in ("code", "prose"):
            shutil.copytree(DEMO / name, home / name)
        os.chdir(home)
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        studio = Studio(Roots([home]), Path(scratch) / "state")
        server = StudioServer(create_app(studio, token=TOKEN, port=port), studio)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}/?token={TOKEN}"
        finally:
            server.should_exit = True
            thread.join()
            os.chdir(ROOT)


def opened(browser: Browser, address: str, size: str, scheme: str, **options: Any) -> Page:
    """The page, with a recipe of crossing curves shaped a little by hand."""
    viewport = dict(zip(("width", "height"), SIZES[size], strict=True))
    context = browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce", **options)
    page = context.new_page()
    page.goto(address)
    expect(page.get_by_text("go together")).to_be_visible()
    page.get_by_role("button", name="Mythalion").click()
    page.get_by_role("button", name="Attention", exact=True).click()
    page.get_by_label("Values, from the first tensor to the last").fill("0.2, 0.25, 0.62, 0.7, 0.8")
    page.get_by_label("Values, from the first tensor to the last").blur()
    page.get_by_role("button", name="Show where they differ").click()
    expect(page.locator(".heat path").first).to_be_visible()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(600)
    return page


def merged_and_tried(page: Page) -> None:
    """A merge that is done, and what the three models say."""
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.locator(".badge").first).to_have_text("done", timeout=60_000)
    page.get_by_label("Prompt, for both models and the blend").fill("def area(width")
    page.get_by_label("Tokens, at most").fill("60")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("button", name="Ask")).to_be_visible(timeout=120_000)
    page.get_by_label("Text of your own, to measure them on").fill("The river was quiet, and nobody spoke of the road.")
    page.get_by_role("button", name="Measure").click()
    expect(page.locator(".measured tbody tr")).to_have_count(3, timeout=120_000)


def photograph(folder: Path) -> None:
    """Take all pictures."""
    chromium = shutil.which(os.environ.get("CHROMIUM") or "chromium")
    with sync_playwright() as playwright, served() as address:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for size, scheme in PICTURES if folder == IMAGES else product(SIZES, ("light", "dark")):
            page = opened(browser, address, size, scheme, device_scale_factor=1.5)
            page.screenshot(path=folder / f"studio-{size}-{scheme}.png")
            page.context.close()
        page = opened(browser, address, "desktop", "light", device_scale_factor=1.5)
        merged_and_tried(page)
        page.locator("#merges").scroll_into_view_if_needed()
        page.evaluate("scrollTo(0, document.querySelector('#merges').offsetTop - 90)")
        page.wait_for_timeout(300)
        page.screenshot(path=folder / "studio-try.png")
        browser.close()


if __name__ == "__main__":
    photograph(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else IMAGES)
