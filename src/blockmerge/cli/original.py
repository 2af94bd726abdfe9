"""``blockmerge-gradient``: the flags of BlockMerge_Gradient's script, and its bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from blockmerge.cli.commands import merge_into, running
from blockmerge.cli.shell import guarded

__all__ = ["main"]

_FLAGS = ("model_path1", "model_path2", "output_model_path", "gradient_values")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--model_path1", metavar="MODEL", help="Path (or Hub id) of the first model.")
@click.option("--model_path2", metavar="MODEL", help="Path (or Hub id) of the second model.")
@click.option("--output_model_path", metavar="OUT", help="Output path for the merged model.")
@click.option("--gradient_values", metavar="LIST", help="List of gradient values, like '[1.0, 0.5, 0.0]'.")
@click.option("--max_shard_size", default="2000MiB", show_default=True, help="Output shard size.")
@click.option("--layer_only", is_flag=True, help='Only process tensors with names containing "layer".')
@click.option("--no_layers", is_flag=True, help='Only process tensors with names NOT containing "layer".')
@click.option("--custom_filter", metavar="TEXT", help="Only process tensors with this text in their names.")
@click.option(
    "--config", type=click.Path(path_type=Path), help="A file of the YAML edition, instead of the flags above."
)
@running
@guarded
def main(config: Path | None, **words: Any) -> None:
    """Merge two models exactly as BlockMerge_Gradient does, in a fraction of its time and memory.

    Writes float16. For one rounding instead of three, model 1's dtype and curves by block, use `blockmerge gradient`.
    """
    from blockmerge.recipes import load_recipe
    from blockmerge.recipes.blockmerge import from_flags

    how = {
        key: words.pop(key)
        for key in ("threads", "overwrite", "restart", "verify_inputs", "allow_nonfinite", "quiet", "copy_code")
    }
    if config is not None:
        recipe = load_recipe(config)
        out = words["output_model_path"] or recipe.output
        if out is None:
            raise click.UsageError(f"{config} names no output_model_path; give --output_model_path")
        merge_into(recipe, out, **how)
        return
    if missing := [f"--{flag}" for flag in _FLAGS if words[flag] is None]:
        raise click.UsageError(f"missing {', '.join(missing)} (or --config FILE.yaml)")
    out = words.pop("output_model_path")
    merge_into(from_flags(words.pop("model_path1"), words.pop("model_path2"), **words), out, **how)
