"""``blockmerge demo``: a merge of two tiny models, and what it did."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from blockmerge.cli.terminal import show

__all__ = ["demonstrate"]

VALUES = [0.0, 1.0, 0.0]


def demonstrate(out: Path | None, *, overwrite: bool) -> None:
    """Merge the two models of the package, draw the gradient, and print the losses before and after."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: matrices this small lose by being shared out
    with tempfile.TemporaryDirectory(prefix="blockmerge-") as scratch:
        if out is not None:
            _keep(out, overwrite=overwrite)
        _demonstrate((out or Path(scratch)) / "blend", kept=out, overwrite=overwrite)


def _keep(out: Path, *, overwrite: bool) -> None:
    """Copy the two models into ``out``, to be merged by hand."""
    from blockmerge.demo.measure import MODELS
    from blockmerge.errors import OutputError, raise_all

    places = {out / kind: folder for kind, folder in MODELS.items()}
    raise_all(
        OutputError(f"{place}: exists already; give another folder, or --overwrite to replace it")
        for place in (*places, out / "blend")
        if place.exists() and not overwrite
    )
    try:
        for place, folder in places.items():
            shutil.copytree(folder, place, dirs_exist_ok=True, copy_function=shutil.copyfile)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror or error}") from error


def _demonstrate(target: Path, *, kept: Path | None, overwrite: bool) -> None:
    import blockmerge
    from blockmerge.demo.measure import KINDS, MODELS, losses
    from blockmerge.planning.explain import gradient_chart

    show("Two finetunes of one tiny Llama: model 1 learned code, model 2 learned prose.")
    show("A gradient blends them: model 1 at both ends, model 2 in the middle.\n")
    plan = blockmerge.plan(blockmerge.gradient(*(str(MODELS[kind]) for kind in KINDS), values=VALUES))
    show(gradient_chart(plan) + "\n")
    finished = blockmerge.merge(plan, target, overwrite=overwrite)
    show("Loss on text that none of them has seen, in nats per byte (lower is better):\n")
    show(f"{'':<10}" + "".join(f"{kind:>8}" for kind in (*KINDS, "mean")))
    models = {"model 1": MODELS[KINDS[0]], "model 2": MODELS[KINDS[1]], "the blend": finished.path}
    for name, folder in models.items():
        found = losses(folder)
        figures = [found[kind] for kind in KINDS]
        show(f"{name:<10}" + "".join(f"{value:>8.3f}" for value in (*figures, sum(figures) / len(figures))))
    if kept is None:
        show("\nblockmerge demo --out FOLDER keeps all three; blockmerge gradient --help merges your own.")
    else:
        show(f"\nAll three are in {kept.resolve()}: {', '.join(KINDS)}, {target.name}.")
