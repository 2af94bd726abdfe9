"""From a plan and its results to what people read: card, manifest, tables, pictures. Pure; execution writes it."""

from __future__ import annotations

from blockmerge.report.card import model_card
from blockmerge.report.figure import gradient_png, gradient_svg
from blockmerge.report.manifest import manifest
from blockmerge.report.methods import methods_page, methods_text
from blockmerge.report.published import published_files

__all__ = ["gradient_png", "gradient_svg", "manifest", "methods_page", "methods_text", "model_card", "published_files"]
