"""The studio's page in a real browser: shaping, editing, merging, stopping, with hands, keys and without colours.

Needs chromium (Debian's package, or whatever CHROMIUM names); without it these tests skip and say so.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs its extra")
pytest.importorskip("playwright", reason="the studio's page is tested with playwright")

import yaml
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

import blockmerge
from blockmerge.execution import executor
from blockmerge.studio.launch import StudioServer
from blockmerge.studio.roots import Roots
from blockmerge.studio.server import Studio, create_app

DEMO = Path(blockmerge.__file__).parent / "demo" / "models"
TOKEN = "the-token-of-the-terminal"
NAMES = (os.environ.get("CHROMIUM") or "chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)

if CHROMIUM is None:
    reason = "no chromium here (apt-get install chromium, or CHROMIUM=path): the studio's page is NOT tested"
    warnings.warn(reason, UserWarning, stacklevel=1)
    pytest.skip(reason, allow_module_level=True)

WIDTHS = {"desktop": (1440, 900), "tablet": (820, 1100), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # root may not use the sandbox of chromium; the page that is opened is our own
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "root"
    for name in ("code", "prose"):
        shutil.copytree(DEMO / name, folder / name)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return folder


class Served:
    """A studio that is served from a thread, and can be started again on the same state."""

    def __init__(self, root: Path, state: Path) -> None:
        self._root, self._state = root, state
        self.start()

    def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        self.studio = Studio(Roots([self._root]), self._state)
        app = create_app(self.studio, token=TOKEN, port=port)
        self._server = StudioServer(app, self.studio)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        self.address = f"http://127.0.0.1:{port}/?token={TOKEN}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def served(root: Path, tmp_path: Path) -> Iterator[Served]:
    made = Served(root, tmp_path / "state")
    yield made
    made.stop()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    opened, mistakes = open_page(browser, served)
    yield opened
    opened.context.close()
    assert mistakes == [], "the page itself complained"


def open_page(
    browser: Browser, served: Served, width: str = "desktop", *, together: bool = True, **options: Any
) -> tuple[Page, list[str]]:
    size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
    opened = browser.new_context(viewport=size, **options).new_page()  # pyright: ignore[reportArgumentType]
    mistakes: list[str] = []
    opened.on("pageerror", lambda error: mistakes.append(str(error)))
    opened.on("console", lambda message: mistakes.append(message.text) if is_mistake(message) else None)
    opened.on("request", lambda request: None if "127.0.0.1" in request.url else mistakes.append(request.url))
    opened.goto(served.address)
    expect(opened.locator(".verdict p").first).to_contain_text("ogether" if together else "")
    return opened, mistakes


def is_mistake(message: ConsoleMessage) -> bool:
    """Chromium notes every refusal of a server as an error, also those that the page shows."""
    return message.type == "error" and "status of 422" not in message.text


def recipe(page: Page) -> dict[str, Any]:
    """The recipe that the page shows."""
    return yaml.safe_load(page.get_by_label("Recipe, YAML").input_value())


def settled(page: Page, **wanted: Any) -> dict[str, Any]:
    """The recipe, as soon as it says what is ``wanted``."""
    for _ in range(100):
        found = recipe(page)
        if all(found.get(key) == value for key, value in wanted.items()):
            return found
        time.sleep(0.05)
    raise AssertionError(f"the recipe says {found}, not {wanted}")


def handle(page: Page, k: int) -> Locator:
    return page.get_by_role("slider").nth(k)


def middle(place: Locator) -> tuple[float, float]:
    box = place.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    compute = executor.Computer.compute

    def slowly(self: Any, *args: Any) -> Any:
        time.sleep(seconds)
        yield from compute(self, *args)

    monkeypatch.setattr(executor.Computer, "compute", slowly)


# ---- shaping ---------------------------------------------------------------------------------------------------------


def test_dragging_a_point_changes_recipe_command_and_values(page: Page) -> None:
    settled(page, values=[0.0, 1.0])
    x, y = middle(handle(page, 0))
    top = page.locator(".plot").bounding_box()
    assert top is not None
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y - 40)
    page.mouse.move(x, y - 80)
    page.mouse.up()
    value = float(handle(page, 0).get_attribute("aria-valuenow") or 0)
    assert 0.1 < value < 0.5
    settled(page, values=[value, 1.0])
    expect(page.get_by_label("Values, from the first tensor to the last")).to_have_value(f"{value:g}, 1")
    expect(page.get_by_label("The command that does the same")).to_contain_text(f"--values {value},1.0")
    page.get_by_role("button", name="Undo").click()
    settled(page, values=[0.0, 1.0])
    page.keyboard.press("Control+Shift+z")
    settled(page, values=[value, 1.0])


def test_double_clicks_add_and_remove_points(page: Page) -> None:
    box = page.locator(".plot").bounding_box()
    assert box is not None
    page.mouse.dblclick(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.8)
    expect(page.get_by_role("slider")).to_have_count(3)
    values = page.get_by_label("Values, from the first tensor to the last").input_value().split(", ")
    assert values[0] == "0" and values[2] == "1" and float(values[1]) < 0.35
    page.mouse.dblclick(*middle(handle(page, 1)))
    settled(page, values=[0.0, 1.0])


def test_everything_goes_by_keyboard(page: Page) -> None:
    handle(page, 0).focus()
    for key in ("ArrowUp", "ArrowUp", "Shift+ArrowUp", "PageUp", "ArrowDown"):
        page.keyboard.press(key)
    settled(page, values=[0.21, 1.0])
    page.keyboard.press("ArrowRight")
    expect(handle(page, 1)).to_be_focused()
    page.keyboard.press("Home")
    settled(page, values=[0.21, 0.0])
    page.keyboard.press("Insert")
    expect(page.get_by_role("slider")).to_have_count(3)
    expect(handle(page, 2)).to_be_focused()
    page.keyboard.press("End")
    settled(page, values=[0.21, 0.0, 1.0])
    page.keyboard.press("Delete")
    expect(page.get_by_role("slider")).to_have_count(2)
    assert handle(page, 0).get_attribute("aria-valuetext") == "21 % of model 2"


def test_a_finger_drags_as_a_mouse_does(browser: Browser, served: Served) -> None:
    page, mistakes = open_page(browser, served, "phone", has_touch=True, is_mobile=True)
    handle(page, 0).scroll_into_view_if_needed()
    x, y = middle(handle(page, 0))
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for step in (20, 40, 60):  # a finger takes longer than a frame
        page.wait_for_timeout(40)
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y - step}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    expect(handle(page, 0)).not_to_have_attribute("aria-valuenow", "0")
    value = float(handle(page, 0).get_attribute("aria-valuenow") or 0)
    assert 0.1 < value < 0.6
    settled(page, values=[value, 1.0])
    assert mistakes == []
    page.context.close()


def test_typed_values_and_curve_stay_in_step(page: Page) -> None:
    box = page.get_by_label("Values, from the first tensor to the last")
    box.fill("0.2 0.4; [0.9")
    expect(box).to_have_attribute("aria-invalid", "true")
    assert recipe(page)["values"] == [0.0, 1.0]
    box.fill("0.2, 0.4, 0.9")
    settled(page, values=[0.2, 0.4, 0.9])
    expect(page.get_by_role("slider")).to_have_count(3)
    box.fill("-0.5, 1.5")
    settled(page, values=[-0.5, 1.5])
    expect(handle(page, 1)).to_have_attribute("aria-valuemax", "1.5")


def test_a_curve_for_a_block(page: Page) -> None:
    page.get_by_role("button", name="Attention", exact=True).click()
    page.get_by_role("button", name="Give it a curve").click()
    page.get_by_label("Values, from the first tensor to the last").fill("0.3")
    settled(page, values={"attention": [0.3], "all": [0.0, 1.0]})
    page.get_by_role("button", name="Drop curve").press("Enter")
    settled(page, values=[0.0, 1.0])
    expect(page.get_by_role("button", name="Attention", exact=True)).to_have_attribute("aria-pressed", "true")
    page.get_by_role("button", name="Mythalion").click()
    blocks = {"attention": [0.2, 0.8], "mlp": [0.8, 0.2]} | {name: [0.5] for name in ("embeddings", "norms", "head")}
    settled(page, values=blocks)


@pytest.mark.parametrize("by", ["by tensor", "by layer"])
@pytest.mark.parametrize("preset", ["2 in the middle", "MythoMix", "Half and half"])
def test_what_is_drawn_while_dragging_is_what_the_plan_says(page: Page, by: str, preset: str) -> None:
    """The page's own reading of values, against the plan's, for every tensor."""
    page.get_by_role("button", name=preset, exact=True).click()
    page.get_by_role("button", name=by).click()
    page.get_by_role("button", name="Finer").click()
    page.wait_for_timeout(600)
    ours, plans = page.evaluate(
        """async () => {
            const [store, axes, curves, readings] = await Promise.all(
                ["store", "axis", "curves", "readings"].map((name) => import(`/js/${name}.js`)));
            const form = store.get("form");
            const axis = axes.axisOf(store.get("seen")[form.models[0]].tensors);
            return [[...readings.ratios(axis, curves.curvesOf(form), form)].map((x) => Number.isNaN(x) ? null : x),
                    store.get("plan").tensors.ratio];
        }"""
    )
    assert len(ours) == len(plans) == 75
    for one, other in zip(ours, plans, strict=True):
        assert one == (None if other is None else pytest.approx(other, abs=1e-12))


def test_the_pointer_tells_the_exact_ratio(page: Page) -> None:
    box = page.locator(".plot").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    told = page.locator(".told")
    expect(told.locator("code")).to_contain_text("model.layers.")
    name = told.locator("code").inner_text()
    ratio = next(
        row.ratio
        for row in blockmerge.plan(blockmerge.gradient("code", "prose", values=[0.0, 1.0])).rows
        if row.name == name
    )
    assert float(told.locator(".told-share").get_attribute("title") or -1) == ratio


# ---- recipes and methods ---------------------------------------------------------------------------------------------


def test_yaml_is_edited_with_problems_at_their_lines(page: Page) -> None:
    area = page.get_by_label("Recipe, YAML")
    area.fill("method: gradient\nmodels: [code, prose]\nvalues: [0, x]\n")
    expect(page.locator(".problems")).to_contain_text("line 3")
    expect(page.locator(".line-numbers .wrong")).to_have_text("3")
    area.fill("method: gradient\nmodels: [code, prose]\nvalues: [0.5, 0.25, 0.5]\nby: layer\n")
    expect(page.get_by_role("slider")).to_have_count(3)
    expect(page.get_by_role("button", name="by layer")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".problems li")).to_have_count(0)


def test_a_recipe_file_is_opened_and_saved(page: Page, root: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("method: slerp\nmodels: [code, prose]\nt: [0.1, 0.9]\n")
    page.locator("input[type=file]").set_input_files(file)
    expect(page.get_by_label("t", exact=True)).to_have_value("0.1, 0.9")
    page.get_by_label("Folder for the merged model").fill("mine")
    page.get_by_role("button", name="Save beside the result").click()
    expect(page.get_by_text("Saved as")).to_be_visible()
    assert blockmerge.load_recipe(root / "mine.yaml").method == "slerp"


def test_the_form_of_a_method_follows_its_declaration(page: Page) -> None:
    page.get_by_label("Method").select_option("ties")
    settled(page, method="ties", base="code")
    page.get_by_label("density").fill("0.2, 0.6")
    settled(page, models=[{"model": "prose", "weight": 0.5, "density": [0.2, 0.6]}])
    page.get_by_label("density").fill("attention: 0.2, 0.6; mlp: 0.5; all: 1")
    blocks = {"attention": [0.2, 0.6], "mlp": 0.5, "all": 1}
    settled(page, models=[{"model": "prose", "weight": 0.5, "density": blocks}])
    expect(page.get_by_text("go together")).to_be_visible()
    page.get_by_label("density").fill("attention: 0.2, 7")
    expect(page.get_by_label("density")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("density").fill("7")
    expect(page.get_by_label("density")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("normalize").uncheck()
    settled(page, normalize=False)
    expect(page.get_by_text("go together")).to_be_visible()


def test_a_recipe_that_the_form_cannot_show_is_still_planned(page: Page) -> None:
    text = (
        "method: passthrough\nslices:\n- models:\n  - {model: code, layers: 0:2}\n- models:\n"
        "  - {model: prose, layers: 0:2}\n"
    )
    page.get_by_label("Recipe, YAML").fill(text)
    expect(page.get_by_text("shape it in its YAML")).to_be_visible()
    expect(page.get_by_text("go together")).to_be_visible()


def test_models_that_do_not_fit_say_why_at_once(page: Page, root: Path) -> None:
    config = (root / "prose" / "config.json").read_text()
    (root / "prose" / "config.json").write_text(config.replace("LlamaForCausalLM", "MistralForCausalLM"))
    page.get_by_role("button", name="Swap", exact=True).click()
    expect(page.locator(".verdict")).to_contain_text("only finetunes of one architecture can be blended")
    expect(page.get_by_role("button", name="Merge", exact=True)).to_have_attribute("aria-disabled", "true")


def test_picking_a_model_by_keyboard(page: Page) -> None:
    page.get_by_role("button", name="Model 2: prose").press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    page.keyboard.type("code")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    settled(page, models=["code", "code"])


def test_a_hub_id_that_cannot_be_had_is_told_in_the_dialog(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(repo: str, *_args: object, **_options: object) -> None:
        raise blockmerge.ModelError(f"{repo}: the Hub is far away")

    monkeypatch.setattr("blockmerge.sources.hub.download", refuse)
    page.get_by_role("button", name="Model 2: prose").click()
    page.keyboard.type("org/name")
    page.get_by_role("button", name="downloaded from the Hub").click()
    expect(page.get_by_role("dialog")).to_contain_text("the Hub is far away")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


# ---- merging ---------------------------------------------------------------------------------------------------------


def test_a_merge_from_the_page(page: Page, root: Path) -> None:
    page.get_by_label("Folder for the merged model").fill("made")
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.locator(".badge")).to_have_text("done", timeout=30_000)
    expect(page.get_by_label("Folder for the merged model")).to_have_value("made-2")
    page.get_by_role("button", name="Model 2: prose").click()
    page.get_by_role("button", name="made", exact=False).and_(page.locator(".choice")).click()
    settled(page, models=["code", "made"])
    blockmerge.merge(blockmerge.gradient("code", "prose", values=[0.0, 1.0]), "same")
    assert (root / "made" / "model.safetensors").read_bytes() == (root / "same" / "model.safetensors").read_bytes()


def test_a_merge_in_the_history_has_its_card_and_is_verified(page: Page, root: Path) -> None:
    page.get_by_role("button", name="Merge", exact=True).click()
    page.get_by_role("button", name="Card", exact=True).click()
    dialog = page.get_by_role("dialog", name="Model card")
    expect(dialog.get_by_role("heading", name="code × prose")).to_be_visible()
    expect(dialog.get_by_role("img", name="Share of prose")).to_be_visible()
    assert dialog.locator("img").evaluate("async (image) => (await image.decode(), image.naturalWidth)") > 100
    expect(dialog.get_by_role("cell", name="apache-2.0")).to_have_count(2)
    expect(dialog.locator("pre")).to_contain_text("models: [code, prose]")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("verified: all 75 tensors")).to_be_visible()
    weights = root / "blend" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    page.get_by_role("button", name="Verify").click()
    expect(page.get_by_text("differs from what was written")).to_be_visible()


def test_a_page_that_is_opened_again_has_its_recipe(page: Page) -> None:
    page.get_by_role("button", name="MythoMix").click()
    wanted = {"attention": [0.8, 0.2], "mlp": [0.3, 0.7], "norms": [0.5]}
    settled(page, values=wanted)
    page.wait_for_timeout(500)
    page.reload()
    expect(page.locator(".verdict p").first).to_contain_text("go together")
    settled(page, values=wanted)


def test_a_server_that_is_gone_is_told(browser: Browser, served: Served) -> None:
    page, _ = open_page(browser, served)
    expect(page.get_by_text("The studio does not answer")).to_be_hidden()
    served.stop()
    expect(page.get_by_text("The studio does not answer")).to_be_visible()
    page.context.close()
    served.start()


def test_stop_start_the_server_again_resume(
    browser: Browser, served: Served, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        slow_down(patch, 0.05)
        page, _ = open_page(browser, served)
        page.get_by_role("button", name="Merge", exact=True).click()
        expect(page.locator("progress")).to_be_visible()
        expect(page.locator(".job-line").first).to_contain_text("/s")
        expect(page.locator(".job-line").first).to_contain_text(" of 75, model.")
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".badge")).to_have_text("stopped")
        expect(page.locator(".job-line").first).to_contain_text("Resume goes on from there")
        page.context.close()
    assert not (root / "blend").exists() and (root / "blend.partial").exists()
    served.stop()
    served.start()
    page, mistakes = open_page(browser, served)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".badge")).to_have_text("done", timeout=30_000)
    assert (root / "blend" / "config.json").exists() and not (root / "blend.partial").exists()
    assert mistakes == []
    page.context.close()


def test_discarding_asks_first(page: Page, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, 0.05)
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.locator(".job-line").first).to_contain_text("/s")
    page.get_by_role("button", name="Stop").click()
    discard = page.get_by_role("button", name="Discard")
    page.once("dialog", lambda dialog: dialog.dismiss())
    discard.click()
    assert (root / "blend.partial").exists()
    page.once("dialog", lambda dialog: dialog.accept())
    discard.click()
    expect(page.locator(".job")).to_have_count(0)
    assert not (root / "blend.partial").exists()


def test_three_models_answer_side_by_side(page: Page) -> None:
    pytest.importorskip("transformers")
    page.get_by_role("button", name="Merge", exact=True).click()
    expect(page.locator(".badge")).to_have_text("done", timeout=30_000)
    page.get_by_label("Prompt, for both models and the blend").fill("def area(")
    page.get_by_label("Tokens, at most").fill("2000")
    page.get_by_role("button", name="Ask").click()
    page.locator("#try").get_by_role("button", name="Stop").click()
    page.get_by_label("Tokens, at most").fill("20")
    page.get_by_role("button", name="Ask").click()  # whoever stopped it need not wait for the rest
    expect(page.locator(".answers article")).to_have_count(3)
    expect(page.get_by_role("button", name="Ask")).to_be_visible(timeout=90_000)
    assert all(text.strip() for text in page.locator(".answers pre").all_inner_texts())
    page.get_by_label("Text of your own, to measure them on").fill("def area(width, height):\n    return width")
    page.get_by_role("button", name="Measure").click()
    expect(page.locator(".measured tbody tr")).to_have_count(3, timeout=60_000)


# ---- for everybody ---------------------------------------------------------------------------------------------------

AXE = importlib.util.find_spec("axe_playwright_python")
AUDIT = (Path(__file__).parent / "studio_audit.js").read_text(encoding="utf-8").partition("\n")[2]


def complaints(page: Page) -> list[str]:
    """What axe and our own audit find on the page as it is now."""
    assert AXE is not None and AXE.submodule_search_locations
    expect(page.locator(".plan.stale")).to_have_count(0)  # what is about to change may be faint
    if not page.evaluate("'axe' in window"):
        page.evaluate((Path(AXE.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8") + "; 0")
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return page.evaluate(AUDIT) + [f"{one['impact']} {one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.mark.skipif(AXE is None, reason="axe looks at the page: pip install axe-playwright-python")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_everybody_can_use_it(browser: Browser, served: Served, scheme: str, width: str) -> None:
    """axe at rest, with dialogs and details open, with problems, with another method."""
    page, mistakes = open_page(browser, served, width, color_scheme=scheme, reduced_motion="reduce")
    assert complaints(page) == []
    page.get_by_role("button", name="Merge", exact=True).click()
    page.get_by_role("button", name="Card", exact=True).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert complaints(page) == []
    page.keyboard.press("Escape")
    page.locator("summary", has_text="Every tensor").click()
    page.locator("summary", has_text="Selection").click()
    page.get_by_label("Recipe, YAML").fill("method: gradient\nmodels: [code]\nvalues: x\n")
    expect(page.locator(".problems li").first).to_be_visible()
    assert complaints(page) == []
    page.get_by_label("Recipe, YAML").fill("method: ties\nbase: code\nmodels: [{model: prose, weight: 1}]\n")
    expect(page.get_by_label("density")).to_be_visible()
    assert complaints(page) == []
    page.get_by_role("button", name="Base: code").click()
    assert complaints(page) == []
    assert mistakes == []
    page.context.close()


def test_the_theme_is_chosen_and_kept(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    expect(page.get_by_role("button", name="Dark")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(ground) == dark


def test_the_order_of_tabs_is_the_order_of_reading(page: Page) -> None:
    page.locator("body").press("Tab")
    seen: list[str] = []
    for _ in range(40):
        seen.append(page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()"))
        page.keyboard.press("Tab")
    wanted = ["Skip to the curve", "Models", "Model 1: code", "Model 2: prose", "Whole model", "by tensor"]
    places = [seen.index(text) for text in wanted]
    assert places == sorted(places)
    assert sum("value" in text and " of " in text for text in seen) == 1, "a curve is one stop"


def test_a_drag_over_a_thousand_tensors_stays_fluid(browser: Browser, served: Served, root: Path) -> None:
    from checkpoints import make_llama

    for seed, name in enumerate(("deep-1", "deep-2")):
        make_llama(root / name, seed=seed, layers=110, hidden=16, vocab=64)
    page, mistakes = open_page(browser, served, together=False)
    page.get_by_label("Recipe, YAML").fill("method: gradient\nmodels: [deep-1, deep-2]\nvalues: [0, 0.5, 1]\n")
    expect(page.get_by_text("993 tensors")).to_be_visible()
    elements = page.evaluate("document.querySelectorAll('.plot *').length")
    assert elements < 150, "no element for each tensor"
    x, y = middle(handle(page, 1))
    page.evaluate(
        "new PerformanceObserver((list) => (window.long = [...(window.long ?? []), ...list.getEntries()]))"
        ".observe({ type: 'longtask' })"
    )
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(60):
        page.mouse.move(x, y - step)
    page.mouse.up()
    assert page.evaluate("document.querySelectorAll('.plot *').length") == elements
    assert page.evaluate("(window.long ?? []).filter((task) => task.duration > 150).length") == 0
    assert mistakes == []
    page.context.close()
