"""Drawings: matplotlib axes as inline SVG that follows the page's light or dark colours.

The page's Content-Security-Policy forbids `style` attributes, so the declarations that matplotlib
writes there become attributes of the same names.
"""

import io
import re
import warnings
from collections.abc import Callable
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Matplotlib does not support CSS: these stand for the page's colours until the SVG is inlined.
INK, MUTED, ACCENT = "#010101", "#020202", "#030303"
THEME = {INK: "currentColor", MUTED: "var(--muted)", ACCENT: "var(--accent)"}
NAME_LENGTH = 24
POINTS_PER_INCH = 72

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cnn",
    "font.size": 12,
    "axes.labelsize": 12,
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.75,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.width": 0.75,
    "ytick.major.width": 0.75,
    "lines.linewidth": 1.75,
    "legend.frameon": False,
}


def drawn(name: str, pixels: tuple[int, int], draw: Callable[[Axes], None]) -> str:
    """One pair of axes as SVG, in the report's style whatever the user's matplotlibrc says."""
    buffer = io.StringIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        # The browser's fonts draw the text, so glyphs missing in matplotlib's do not matter.
        warnings.filterwarnings("ignore", message="Glyph")
        width, height = (side / POINTS_PER_INCH for side in pixels)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue(), name, pixels[0])


def short(name: str) -> str:
    """A class name as a tick label: one printable line (SVG takes no control characters)."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return printable if len(printable) <= NAME_LENGTH else f"{printable[: NAME_LENGTH - 1]}…"


def _inline(svg: str, name: str, width: int) -> str:
    """The SVG element alone: with ids unique on the page, no namespaces, and the page's colours."""
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for style_sheet in parent.findall("{*}style"):
            parent.remove(style_sheet)
        parent.tag = parent.tag.rpartition("}")[2]
        parent.attrib = {
            key.rpartition("}")[2]: _localised(key, value, name)
            for key, value in _without_style(parent.attrib).items()
        }
    height = root.attrib["viewBox"].split()[-1]
    root.attrib |= {"width": f"{width}", "height": height, "stroke-linejoin": "round"}
    return ElementTree.tostring(root, encoding="unicode")


def _without_style(attributes: dict[str, str]) -> dict[str, str]:
    """The attributes of an element, with the declarations of its `style` as attributes."""
    declared = attributes.pop("style", "")
    for declaration in filter(None, declared.split(";")):
        key, value = (part.strip() for part in declaration.split(":", 1))
        if key == "font":  # the size only: the family comes from the page
            size = re.search(r"[\d.]+(?=px)", value)
            key, value = "font-size", size[0] if size else "12"
        attributes[key] = value
    return attributes


def _localised(key: str, value: str, name: str) -> str:
    """An attribute with the figure's name in front of ids, and CSS instead of stand-ins."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href") and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    for stand_in, css in THEME.items():
        value = value.replace(stand_in, css)
    return value.replace("url(#", f"url(#{name}-")
