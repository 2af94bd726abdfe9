"""What all pictures share: page, type, colours.

Pictures are SVG text, without a plotting library, because every published model carries one: the same numbers must give
the same bytes everywhere. PNG is made from the same SVG (extra ``plot``).
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path

from blockmerge.architectures import Block
from blockmerge.errors import BlockmergeError, RecipeError

__all__ = [
    "BAND",
    "COLOURS",
    "FAINT",
    "INK",
    "LINE",
    "RAMP",
    "WIDTH",
    "encoder",
    "page",
    "rectangle",
    "shade",
    "shortened",
    "text",
]

COLOURS = {
    Block.EMBEDDINGS: "#cc79a7",
    Block.ATTENTION: "#0072b2",
    Block.MLP: "#e69f00",
    Block.NORMS: "#009e73",
    Block.HEAD: "#d55e00",
    Block.OTHER: "#6b7280",
}
"""The Okabe-Ito palette, which colour-blind readers can tell apart; the same block has one colour everywhere."""
RAMP = ("#f6f9ea", "#cbe3c5", "#96cfb0", "#57b9a7", "#029fa4", "#028099", "#02628b", "#004283", "#1b226c")
"""From little to much, in even steps of lightness (OKLab): it stays in order in print and for colour-blind readers."""
WIDTH = 960
INK, FAINT, LINE, BAND = "#1f2937", "#6b7280", "#d1d5db", "#f3f4f6"


def page(height: int, title: str, description: str, parts: Sequence[str]) -> str:
    """A whole picture: white page with a title, and what reads it aloud for those who do not see it."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" font-family="system-ui, Segoe UI, Helvetica, Arial, DejaVu Sans, sans-serif" font-size="13">',
        f"<title>{_clean(title)}</title>",
        f"<desc>{_clean(description)}</desc>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def encoder(path: Path) -> Callable[[str], bytes]:
    """What turns SVG into the bytes of the file ``path``, by its ending; a PNG is twice the size.

    Raises :class:`RecipeError` for another ending than .svg and .png, :class:`BlockmergeError` if a PNG cannot be made.
    """
    kind = path.suffix.lower()
    if kind == ".svg":
        return str.encode
    if kind != ".png":
        raise RecipeError(f"{path}: a picture ends in .svg or .png")
    try:
        import resvg_py
    except ImportError as error:
        raise BlockmergeError("a PNG needs the extra plot: pip install 'blockmerge[plot]' (or ask for .svg)") from error
    return lambda svg: bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2))


def text(
    x: float, y: float, content: str, *, size: int = 13, weight: int = 400, anchor: str = "start", colour: str = INK
) -> str:
    """A line of text with its baseline at ``y``."""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" fill="{colour}">'
        f"{_clean(content)}</text>"
    )


def rectangle(x: float, y: float, width: float, height: float, fill: str, more: str = "") -> str:
    """A filled rectangle; ``more`` are further attributes, with a space before."""
    return f'<rect x="{x}" y="{y}" width="{round(width, 1)}" height="{round(height, 1)}" fill="{fill}"{more}/>'


def shade(share: float) -> str:
    """The colour of ``share``, 0 to 1, on :data:`RAMP`."""
    place = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    number = min(int(place), len(RAMP) - 2)
    low, high = (bytes.fromhex(colour[1:]) for colour in RAMP[number : number + 2])
    mixed = (round(a + (b - a) * (place - number)) for a, b in zip(low, high, strict=True))
    return "#" + bytes(mixed).hex()


def shortened(content: str, most: int) -> str:
    """At most so many signs of ``content``."""
    return content if len(content) <= most else content[: most - 1] + "…"


def _clean(content: str) -> str:
    """Text of strangers inside XML: nothing that is markup, or no character of XML at all."""
    return html.escape("".join(sign if sign.isprintable() else "�" for sign in content), quote=False)
