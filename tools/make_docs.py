"""Write the parts of the documentation that follow from the code: docs/cli.md, docs/methods.md and the pictures.

    python tools/make_docs.py

The tests fail where the files differ from what this makes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click

import blockmerge
from blockmerge.cli import main as commands
from blockmerge.cli.original import main as original
from blockmerge.comparison import difference_svg
from blockmerge.report import methods_page, plan_svg

ROOT = Path(__file__).parents[1]
DEMO = Path(blockmerge.__file__).parent / "demo" / "models"

EXIT_CODES = """\
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | the system: no memory, an extra that is not installed, any other error of its own |
| 2 | the request: arguments, gradient text, recipe |
| 3 | a model cannot be used: missing, incomplete, broken, quantised, not permitted |
| 4 | the models do not fit each other |
| 5 | a weight is not finite |
| 6 | the output cannot be written: exists, no room, no permission |
| 70 | a mistake of Blockmerge; please report it with the output of `--debug` |
| 130, 143, 129 | stopped by Ctrl-C, by SIGTERM, by SIGHUP (the terminal was closed) |

Errors are one line each on standard error. `--debug` shows where in the code they arose.

## Environment

| variable | meaning |
|---|---|
| `HF_TOKEN`, `HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT` ... | as for every tool of the Hub |
| `BLOCKMERGE_CACHE` | where compiled kernels are kept; default the user's cache folder |
"""


def context_of(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    """A context in which ``name`` was called, at a fixed width."""
    return command.make_context(name, [], parent, resilient_parsing=True, terminal_width=110, max_content_width=110)


def help_of(context: click.Context) -> str:
    """What ``--help`` prints."""
    return f"## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"


def with_commands(context: click.Context) -> Iterator[click.Context]:
    """The context of a command, and those of the commands inside it."""
    yield context
    if isinstance(context.command, click.Group):
        for name, command in sorted(context.command.commands.items()):
            yield from with_commands(context_of(command, name, context))


def cli_page() -> str:
    """The text of docs/cli.md."""
    contexts = [*with_commands(context_of(commands, "blockmerge")), context_of(original, "blockmerge-gradient")]
    pages = [help_of(context) for context in contexts]
    return "\n".join(["# Command line\n\nEvery command, as `--help` prints it.\n", *pages, EXIT_CODES])


METHODS = """\
# Methods

Besides the [gradient](gradients.md), Blockmerge merges any number of models by the methods below. A recipe names the
method, its models and its settings:

```yaml
# linear.yaml
method: linear
models:
  - {model: code, weight: 0.6}
  - {model: prose, weight: [0.2, 0.8]}
```

```console
$ blockmerge merge linear.yaml averaged
```

Every number may be a gradient (a list, read `by: tensor` or `by: layer`), or one number or list for each block
(`{attention: 0.3, mlp: [0.2, 0.8], all: 0.5}`). A setting that is given for each model stands beside the model; given
beside `method`, it holds for all models that do not have their own.

A `base` is the model that the others were finetuned from. Methods that need one work on *task vectors*, the differences
from it. Config, tokenizer and vocabulary are the base's, or without a base the first model's.

Everything is computed tensor by tensor, in float32 or float64, and rounded once; memory does not grow with the models.
Methods that must know something of a whole tensor before they can write it (an angle, a threshold) read it more than
once. Random choices follow from `seed` and the name of the tensor alone, so they do not depend on threads or order.

## What papers say and what mergekit does

A native recipe means the paper. A [file of mergekit's](recipes.md#mergekits-yaml) means what mergekit documents, with
its bugs repaired. Where the two differ, `variant: mergekit` (or `scope`, for `ties`) turns a native recipe to the other
side. `python bench/variants.py` measures how far results are apart, in units of what the method changes in the base:

```text
dare_linear: 1/density, or one L1 factor            0.14%
della: 1/chance, or one L1 factor                  23.92%
ties: trimmed by tensor, or over the model          0.54%
breadcrumbs: gamma first, or density first         28.78%
sce: shares as they are, or equal when small       21.83%
model_stock: base below zero, or past it          100.00%
slerp: always, or linear above 0.9995               0.00%
```

## All methods

"""


def picture() -> str:
    """The picture at the top of the README: the published curves of Mythalion, on the models of the demo."""
    values = {"attention": [0.2, 0.8], "mlp": [0.8, 0.2], "norms": 0.5, "embeddings": 0.5, "head": 0.5}
    plan = blockmerge.plan(blockmerge.gradient(str(DEMO / "code"), str(DEMO / "prose"), values=values))
    return plan_svg(plan)


def difference() -> str:
    """How far the models of the demo are from each other."""
    return difference_svg(blockmerge.diff(DEMO / "code", DEMO / "prose"))


def recipe_picture(name: str) -> Callable[[], str]:
    """What draws the recipe called ``name`` in docs/gallery.md, on the models of the demo."""

    def draw() -> str:
        page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
        (recipe,) = re.findall(rf"^```yaml\n(# {name}\.yaml\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
        for model in ("code", "prose"):
            recipe = re.sub(rf"\b(base|model): {model}\b", rf"\1: '{DEMO / model}'", recipe)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.yaml"
            path.write_text(recipe, encoding="utf-8")
            return plan_svg(blockmerge.plan(path))

    return draw


MADE = {
    "docs/cli.md": cli_page,
    "docs/methods.md": lambda: METHODS + methods_page(),
    "docs/images/difference.svg": difference,
    "docs/images/gradient.svg": picture,
    **{f"docs/images/{name}.svg": recipe_picture(name) for name in ("layers", "settings", "table")},
}

if __name__ == "__main__":
    for name, make in MADE.items():
        (ROOT / name).write_text(make(), encoding="utf-8")
