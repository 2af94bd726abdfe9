"""From a plan and its results to what people read: card, manifest, tables, pictures. Pure; execution writes it."""

from __future__ import annotations

from blockmerge.report.card import model_card
from blockmerge.report.manifest import manifest
from blockmerge.report.methods import methods_page, methods_text
from blockmerge.report.picture import plan_svg
from blockmerge.report.published import published_files
from blockmerge.report.svg import encoder

__all__ = ["encoder", "manifest", "methods_page", "methods_text", "model_card", "plan_svg", "published_files"]
