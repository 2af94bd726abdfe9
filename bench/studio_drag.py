"""How fluid the studio is on 64 layers and 1,027 tensors: frames while a point is dragged, and the first heat.

    python bench/studio_drag.py [--frames 120]

Needs the extras studio and test, and chromium (or CHROMIUM=path). A frame at 60 Hz is 16.7 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from playwright.sync_api import CDPSession, Page, expect, sync_playwright

from blockmerge.dtypes import BF16
from blockmerge.formats.safetensors import build_header
from blockmerge.studio.launch import StudioServer
from blockmerge.studio.roots import Roots
from blockmerge.studio.server import Studio, create_app
from blockmerge.tensors import TensorSpec

LAYERS, HIDDEN, MLP, VOCABULARY = 64, 512, 1408, 16000
TOKEN = "only-for-the-bench"
COUNT_FRAMES = """
() => {
    window.gaps = [];
    let last = null;
    const tick = (now) => {
        if (last !== null) window.gaps.push(now - last);
        last = now;
        requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
}
"""


def tensors() -> list[TensorSpec]:
    """A Llama with biases, in module order."""
    shapes = {f"self_attn.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
    shapes |= {"mlp.gate_proj": (MLP, HIDDEN), "mlp.up_proj": (MLP, HIDDEN), "mlp.down_proj": (HIDDEN, MLP)}
    inside = {f"{name}.weight": shape for name, shape in shapes.items()}
    inside |= {f"{name}.bias": shape[:1] for name, shape in shapes.items()}
    inside |= {f"{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    layers = [
        TensorSpec(f"model.layers.{layer}.{name}", BF16, shape)
        for layer in range(LAYERS)
        for name, shape in inside.items()
    ]
    rows = (VOCABULARY, HIDDEN)
    ends = [TensorSpec("model.norm.weight", BF16, (HIDDEN,)), TensorSpec("lm_head.weight", BF16, rows)]
    return [TensorSpec("model.embed_tokens.weight", BF16, rows), *layers, *ends]


def write(folder: Path, seed: int) -> None:
    """A model of 0.44 GB."""
    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": LAYERS}
    sizes = {"hidden_size": HIDDEN, "intermediate_size": MLP, "vocab_size": VOCABULARY, "num_attention_heads": 8}
    (folder / "config.json").write_text(json.dumps(config | sizes | {"attention_bias": True, "mlp_bias": True}))
    random = np.random.default_rng(seed)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(build_header(tensors(), {"format": "pt"}))
        for spec in tensors():
            numbers = random.standard_normal(spec.nbytes // 2, dtype=np.float32) * 0.02
            file.write((numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes())


@contextmanager
def served(home: Path) -> Iterator[str]:
    """The address of a studio in ``home``."""
    os.chdir(home)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    studio = Studio(Roots([home]), home / ".state")
    server = StudioServer(create_app(studio, token=TOKEN, port=port), studio)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/?token={TOKEN}"
    finally:
        server.should_exit = True
        thread.join()


def busy(devtools: CDPSession) -> float:
    """Milliseconds that the page has computed: scripts, styles, layout."""
    metrics = {metric["name"]: metric["value"] for metric in devtools.send("Performance.getMetrics")["metrics"]}
    return 1000 * sum(metrics[f"{name}Duration"] for name in ("Script", "RecalcStyle", "Layout"))


def drag(page: Page, frames: int) -> tuple[list[float], float]:
    """Milliseconds between frames while a point goes up and down, and how many the page computed for each move."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable")
    box = page.get_by_role("slider").nth(2).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.evaluate(COUNT_FRAMES)
    page.mouse.move(x, y)
    page.mouse.down()
    page.evaluate("window.gaps.length = 0")
    before = busy(devtools)
    for step in range(frames):
        page.mouse.move(x, y - 60 + 60 * abs((step / 15) % 2 - 1))
        page.wait_for_timeout(16)
    page.mouse.up()
    gaps: list[float] = page.evaluate("window.gaps")
    return gaps, (busy(devtools) - before) / frames


def measure(page: Page, frames: int) -> None:
    """Print what was measured."""
    recipe = page.get_by_label("Recipe, YAML")
    expect(page.get_by_text("go together")).to_be_visible()
    recipe.fill("method: gradient\nmodels: [one, two]\nvalues: [0, 0.2, 0.5, 0.7, 1]\n")
    expect(page.get_by_role("slider")).to_have_count(5)
    gaps, computed = drag(page, frames)
    gaps.sort()
    within = sum(gap < 1.5 * 1000 / 60 for gap in gaps) / len(gaps)
    print(f"{len(tensors()):,} tensors, {len(gaps)} frames while dragging")
    print(f"between two frames: median {median(gaps):.1f} ms, 95% below {gaps[int(0.95 * len(gaps))]:.1f} ms")
    print(f"computed for each move: {computed:.1f} ms")
    print(f"drawn in the next frame: {within:.0%}")
    started = time.perf_counter()
    page.get_by_role("button", name="Show where they differ").click()
    expect(page.locator(".heat path").first).to_be_attached()
    first = time.perf_counter() - started
    expect(page.locator("figcaption button")).to_be_hidden(timeout=60_000)
    print(f"where they differ: first after {first:.1f} s, all after {time.perf_counter() - started:.1f} s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=120)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        for seed, name in enumerate(("one", "two")):
            write(Path(scratch) / name, seed)
        chromium = shutil.which(os.environ.get("CHROMIUM") or "chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with served(Path(scratch)) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(address)
            measure(page, arguments.frames)
        browser.close()
        os.chdir("/")


if __name__ == "__main__":
    main()
