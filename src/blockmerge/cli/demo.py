"""``blockmerge demo``: a merge of two tiny models, and what it did."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from blockmerge.cli.terminal import show

__all__ = ["demonstrate"]

VALUES = [0.0, 1.0, 0.0]


def demonstrate(out: Path | None, *, overwrite: bool) -> None:
    """Merge the two models of the package, draw the gradient, and print the losses before and after."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: matrices this small lose by being shared out
    with tempfile.TemporaryDirectory(prefix="blockmerge-") as scratch:
        _demonstrate(out or Path(scratch) / "merged", kept=out is not None, overwrite=overwrite)


def _demonstrate(target: Path, *, kept: bool, overwrite: bool) -> None:
    import blockmerge
    from blockmerge.cli.progress import summary
    from blockmerge.demo.measure import KINDS, MODELS, losses
    from blockmerge.planning.explain import gradient_chart

    show("Two finetunes of one tiny Llama: model 1 learned code, model 2 learned prose.")
    show("A gradient blends them: model 1 at both ends, model 2 in the middle.\n")
    plan = blockmerge.plan(blockmerge.gradient(*(str(MODELS[kind]) for kind in KINDS), values=VALUES))
    show(gradient_chart(plan) + "\n")
    finished = blockmerge.merge(plan, target, overwrite=overwrite)
    if kept:
        show(summary(finished) + "\n")
    show("Loss on text that none of them has seen, in nats per byte (lower is better):\n")
    show(f"{'':<10}" + "".join(f"{kind:>8}" for kind in (*KINDS, "mean")))
    models = {"model 1": MODELS[KINDS[0]], "model 2": MODELS[KINDS[1]], "the blend": finished.path}
    for name, folder in models.items():
        found = losses(folder)
        figures = [found[kind] for kind in KINDS]
        show(f"{name:<10}" + "".join(f"{value:>8.3f}" for value in (*figures, sum(figures) / len(figures))))
    if not kept:
        show("\nblockmerge demo --out FOLDER keeps the blend; blockmerge gradient --help merges your own.")
