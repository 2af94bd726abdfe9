"""The commands of ``blockmerge``. Each is one call of the api; see there for what the words mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from blockmerge import __version__
from blockmerge.cli.shell import guarded
from blockmerge.cli.studio import studio
from blockmerge.cli.terminal import say, show

if TYPE_CHECKING:
    from blockmerge.planning import Plan
    from blockmerge.recipes import Recipe

__all__ = ["main"]

Command = TypeVar("Command", bound=Callable[..., Any])


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, shown in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


code = click.option(
    "--copy-code", is_flag=True, help="Copy the code that model 1 brings along (trust_remote_code). It is not run here."
)
running = _options(
    click.option("--threads", type=click.IntRange(1, 1024), help="Default: one per core. Results do not depend on it."),
    click.option("--overwrite", is_flag=True, help="Replace a model that is at OUT."),
    click.option("--restart", is_flag=True, help="Begin anew instead of going on where a merge was interrupted."),
    click.option("--verify-inputs", is_flag=True, help="First compare weights from the Hub with their checksums."),
    click.option("--allow-nonfinite", is_flag=True, help="Write NaN and infinity instead of stopping at them."),
    code,
    click.option("--quiet", is_flag=True, help="No progress, no summary; errors only."),
)
showing = _options(
    click.option("--json", "as_json", is_flag=True, help="The plan as JSON."),
    click.option("--plot", type=click.Path(path_type=Path), help="Draw it into FILE.svg or FILE.png."),
)


class _InOrder(click.Group):
    """Commands in the order in which they stand here, the ways to merge first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__)
def main() -> None:
    """Merge finetuned language models.

    Two by a gradient, a few numbers laid along the model (model 2's share from the first tensor to the last); any
    number by a recipe, a YAML file, mergekit's too.
    """


@main.command(short_help="Blend two models by a gradient.")
@click.argument("model1")
@click.argument("model2")
@click.argument("out", required=False)
@click.option(
    "--values",
    "values",
    multiple=True,
    required=True,
    metavar="[BLOCK:]V,V,...",
    help="Model 2's share along the model, like 1.0,0.5,0.0. Several times with a block (embeddings, attention, mlp, "
    "norms, head) for a curve over that block's tensors.",
)
@click.option(
    "--by", default="tensor", metavar="tensor|layer", help="Lay values over tensors, or one per layer.  [tensor]"
)
@click.option("--only", metavar="layers|non-layers", help="Blend only tensors inside, or outside, the stack of layers.")
@click.option(
    "--filter", "filters", multiple=True, metavar="TEXT", help="Blend only tensors with a TEXT in their name."
)
@click.option("--layers", metavar="A:B", help="Blend only layers A up to, but without, B.")
@click.option("--dtype", metavar="NAME", help="bfloat16, float16 or float32.  [model 1's]")
@click.option(
    "--arithmetic",
    default="exact",
    metavar="exact|original",
    help="Round once, or as BlockMerge_Gradient does.  [exact]",
)
@click.option("--on-missing", default="error", metavar="error|keep", help="Tensors that only one model has.  [error]")
@click.option(
    "--tokenizer",
    metavar="SOURCE",
    help="Align vocabularies by token: union, base (model 1's tokens) or a model.  [model 1's, row by row]",
)
@click.option(
    "--chat-template", metavar="NAME", help="auto (what most models have), a known one, or a template.  [model 1's]"
)
@click.option("--max-shard-size", default="2GB", metavar="SIZE", help="Weight files of at most this size.  [2GB]")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop; OUT may be left out.")
@showing
@running
@guarded
def gradient(
    model1: str,
    model2: str,
    out: str | None,
    values: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    plot: Path | None,
    **words: Any,
) -> None:
    """Blend MODEL1 and MODEL2 by a gradient into OUT.

    Models are folders or Hub ids (org/name, org/name@revision), or such a model with an adapter (base+adapter). Tensors
    that no curve covers stay MODEL1's, as do config and, without --tokenizer, tokenizer and extra vocabulary rows.
    """
    from blockmerge.recipes import gradient as build

    how = {
        key: words.pop(key)
        for key in ("threads", "overwrite", "restart", "verify_inputs", "allow_nonfinite", "quiet", "copy_code")
    }
    recipe = build(model1, model2, values=_curves(values), **words)
    if dry_run:
        _show_plan(recipe, as_json=as_json, plot=plot, copy_code=how["copy_code"])
    elif as_json:
        raise click.UsageError("--json shows a plan and goes with --dry-run")
    elif out is None:
        raise click.UsageError("give OUT, or --dry-run to see the plan only")
    else:
        merge_into(recipe, out, plot=plot, **how)


def _curves(texts: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    from blockmerge.errors import RecipeError
    from blockmerge.recipes.values import parse_values

    curves: dict[str, tuple[float, ...]] = {}
    for text in texts:
        block, colon, numbers = text.rpartition(":")
        name = block.strip() if colon else "all"
        if name in curves:
            raise RecipeError(f"--values: {name} is given twice; put all its numbers into one list")
        curves[name] = parse_values(numbers, f"--values {text}")
    return curves


@main.command(short_help="Show what a recipe will do; reads no weights.")
@click.argument("recipe", type=click.Path(path_type=Path))
@showing
@code
@guarded
def plan(recipe: Path, as_json: bool, plot: Path | None, copy_code: bool) -> None:
    """Show what RECIPE will do: every tensor with its ratio, bytes, disk and memory. Reads no weights."""
    from blockmerge.recipes import load_recipe

    _show_plan(load_recipe(recipe), as_json=as_json, plot=plot, copy_code=copy_code)


@main.command(short_help="Carry out a recipe, a YAML file.")
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("out", required=False)
@running
@guarded
def merge(recipe: Path, out: str | None, **how: Any) -> None:
    """Carry out RECIPE, a YAML file, into OUT (a BlockMerge_Gradient YAML may name its own).

    Takes native recipes (docs/recipes.md), the files of mergekit, and those of BlockMerge_Gradient's YAML edition.
    """
    from blockmerge.recipes import load_recipe

    loaded = load_recipe(recipe)
    target = out or loaded.output
    if target is None:
        raise click.UsageError("give OUT: the recipe does not name one")
    merge_into(loaded, target, **how)


@main.command(short_help="Compare a merged model with its digests and inputs.")
@click.argument("out")
@click.option("--inputs", is_flag=True, help="Compute tensors again from the inputs, and compare byte for byte.")
@click.option("--sample", default="100%", metavar="SHARE", help="How much of the bytes to compute again.  [100%]")
@click.option("--root", "roots", multiple=True, metavar="FOLDER", help="Where inputs that are folders lie.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Default: one per core.")
@click.option("--quiet", is_flag=True, help="No progress.")
@guarded
def verify(out: str, inputs: bool, sample: str, roots: tuple[str, ...], threads: int | None, quiet: bool) -> None:
    """Compare the model at OUT with the digests that it carries, and with its inputs. Ends with 7 if it differs."""
    import blockmerge
    from blockmerge.cli.progress import Display
    from blockmerge.errors import raise_all
    from blockmerge.recipes.values import parse_share

    share = parse_share(sample, "--sample")
    with Display(quiet=quiet, doing="verifying", last_line=False) as listen:
        found = blockmerge.verify(out, inputs=inputs, sample=share, roots=roots, threads=threads, on_event=listen)
    raise_all(blockmerge.VerificationError(f"{out}: {line}") for line in found.differing)
    again = f", {found.recomputed} of them computed again from the inputs" if inputs else ""
    show(f"{out}: {found.tensors} tensors are as they were written{again}")


@main.command(short_help="Discard what an interrupted merge left.")
@click.argument("out")
@guarded
def clean(out: str) -> None:
    """Discard what an interrupted merge into OUT left; the model at OUT, if there is one, stays."""
    import blockmerge

    show(f"{out}: " + ("discarded" if blockmerge.clean(out) else "nothing to discard"))


@main.command(short_help="Show what a model is made of.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@guarded
def inspect(model: str, as_json: bool) -> None:
    """Show MODEL: architecture, tensors in module order, dtypes, sizes, ties, vocabulary, and what is odd."""
    import blockmerge

    seen = blockmerge.inspect(model)
    show(json.dumps(seen.to_json(), indent=2) if as_json else str(seen))


@main.command(short_help="Show where two models differ.")
@click.argument("model1")
@click.argument("model2")
@click.option(
    "--by", type=click.Choice(["layer", "tensor"]), default="layer", help="A table of layers, or every tensor.  [layer]"
)
@click.option("--json", "as_json", is_flag=True, help="As JSON, every tensor included.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw layers and blocks into FILE.svg or FILE.png.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Default: one per core. Results do not depend on it.")
@click.option("--quiet", is_flag=True, help="No progress.")
@guarded
def diff(
    model1: str,
    model2: str,
    by: Literal["layer", "tensor"],
    as_json: bool,
    plot: Path | None,
    quiet: bool,
    threads: int | None,
) -> None:
    """Show where MODEL2 differs from MODEL1: by layer and block, in all, and the tensors that differ most.

    Reads both once, in constant memory. Models are what they are for merging: folders, Hub ids, base+adapter.
    """
    import blockmerge
    from blockmerge.cli.progress import Display
    from blockmerge.cli.warmup import warm_up
    from blockmerge.report import encoder

    warm_up()
    if plot is not None:
        encoder(plot)  # a wrong ending is told before everything is read
    with Display(quiet=quiet, doing="comparing", last_line=False) as listen:
        found = blockmerge.diff(model1, model2, on_event=listen, quiet=quiet, threads=threads)
    if plot is not None:
        blockmerge.draw(found, plot)
    show(json.dumps(found.to_json(), indent=2) if as_json else found.text(by))


@main.group()
def lora() -> None:
    """Adapters. (To merge with one, write base+adapter wherever a model may stand.)"""


@lora.command()
@click.argument("model")
@click.argument("base")
@click.argument("out")
@click.option("--rank", type=int, required=True, help="Rank of the products; smaller layers get a smaller one.")
@click.option("--dtype", default="float32", metavar="NAME", help="bfloat16, float16 or float32.  [float32]")
@click.option("--include", multiple=True, metavar="TEXT", help="Only layers with a TEXT in their name.")
@click.option("--exclude", multiple=True, metavar="TEXT", help="No layers with a TEXT in their name.")
@click.option("--save-embeddings", is_flag=True, help="Keep embedding and head whole where they differ.")
@click.option("--overwrite", is_flag=True, help="Replace an adapter that is at OUT.")
@click.option("--quiet", is_flag=True, help="No progress, no table; errors only.")
@click.option("--json", "as_json", is_flag=True, help="What was kept as JSON.")
@guarded
def extract(model: str, base: str, out: str, quiet: bool, as_json: bool, **how: Any) -> None:
    """Write what MODEL learned beyond BASE into OUT, as a LoRA adapter.

    OUT works as BASE+OUT, and with peft. The table tells of each layer which share of its change the adapter keeps (of
    the squared Frobenius norm), and which tensors differ that it does not hold.
    """
    import blockmerge
    from blockmerge.cli.progress import Display

    with Display(quiet=quiet, doing="extracting", last_line=False) as listen:
        result = blockmerge.extract_lora(model, base, out, quiet=quiet, on_event=listen, **how)
    if as_json:
        show(json.dumps(result.to_json(), indent=2))
    elif not quiet:
        show(str(result))


@main.command(short_help="List the merge methods and their parameters.")
@guarded
def methods() -> None:
    """List the merge methods: what each does, its equation, paper and parameters."""
    from blockmerge.report import methods_text

    show(methods_text())


@main.command(short_help="Print the JSON Schema of recipes, for editors.")
@click.argument("dialect", required=False, type=click.Choice(["native", "mergekit", "blockmerge"]))
@guarded
def schema(dialect: str | None) -> None:
    """Print the JSON Schema of recipes, of one DIALECT or of all, for editors that complete and check YAML."""
    from blockmerge.recipes.schema import schema as make

    show(json.dumps(make(dialect), indent=2))


@main.command(short_help="Merge two tiny models that come with the package.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Keep both models and the blend there.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@guarded
def demo(out: Path | None, overwrite: bool) -> None:
    """Merge two tiny models that come with the package, and measure what that did."""
    from blockmerge.cli.demo import demonstrate

    demonstrate(out, overwrite=overwrite)


main.add_command(studio)


def merge_into(
    recipe: Recipe, out: str, *, quiet: bool, plot: Path | None = None, copy_code: bool = False, **how: Any
) -> None:
    """Plan and merge ``recipe``, showing progress unless ``quiet``."""
    import blockmerge
    from blockmerge.cli.progress import Display
    from blockmerge.cli.warmup import warm_up

    warm_up()
    planned = blockmerge.plan(recipe, quiet=quiet, copy_code=copy_code)
    if plot is not None:
        blockmerge.draw(planned, plot)
    if not quiet:
        _remark(planned)
    with Display(quiet=quiet) as listen:
        blockmerge.merge(planned, out, on_event=listen, **how)


def _remark(planned: Plan) -> None:
    for kind, lines in (("warning", planned.warnings), ("note", planned.notes)):
        for line in lines:
            say(f"{kind}: {line}")


def _show_plan(recipe: Recipe, *, as_json: bool, plot: Path | None, copy_code: bool) -> None:
    import blockmerge

    planned = blockmerge.plan(recipe, copy_code=copy_code)
    if plot is not None:
        blockmerge.draw(planned, plot)
    show(json.dumps(planned.to_json(), indent=2) if as_json else str(planned))
