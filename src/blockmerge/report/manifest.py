"""blockmerge.json: what made a merged model, and the digests that prove it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from blockmerge import __version__
from blockmerge.planning import Plan
from blockmerge.planning.plan import NUMERICS
from blockmerge.recipes import to_dict

__all__ = ["MANIFEST", "SCHEME", "manifest"]

MANIFEST = "blockmerge.json"
SCHEME = "xxh3-128-1MiB:"
"""What stands before the digest of a tensor; docs/format.md says how it is made."""


def manifest(plan: Plan, digests: Mapping[str, str]) -> str:
    """The text of blockmerge.json; the keys are explained in docs/format.md."""
    import numba  # only merges write a manifest, and they have it already
    import numpy as np

    entries: dict[str, Any] = {
        "format": 1,
        "recipe": to_dict(plan.recipe, plan.names),
        "plan": plan.digest,
        "inputs": [
            {
                "model": model.published,
                "headers": {name: f"sha256:{digest}" for name, digest in sorted(model.fingerprint.headers.items())},
            }
            for model in plan.leaves
        ],
        "tensors": {row.name: SCHEME + digests[row.name] for row in plan.rows},
        "notes": [*plan.warnings, *plan.notes],
        "versions": {
            "blockmerge": __version__,
            "numerics": NUMERICS,
            "numba": numba.__version__,
            "numpy": np.__version__,
        },
    }
    return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
