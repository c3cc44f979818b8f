"""Figures of a report: matplotlib drawings as inline SVG that follows the page's light or dark."""

import io
import warnings
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from cnn.metrics import wilson_interval

# Matplotlib knows no CSS: these stand for the page's colours until the SVG is inlined.
INK, MUTED, ACCENT = "#010101", "#020202", "#030303"
THEME = {INK: "currentColor", MUTED: "var(--muted)", ACCENT: "var(--accent)"}
# One hue from clear to solid, so lightness alone carries the value: safe for the colour-blind,
# and a middle tone, because pixels cannot follow the page's colours.
RAMP = LinearSegmentedColormap.from_list("ramp", [(0.16, 0.47, 0.84, 0.0), (0.16, 0.47, 0.84, 1.0)])
NAMED_CLASSES = 40
NUMBERED_CLASSES = 20
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


def learning_curves(history: pd.DataFrame) -> list[str]:
    """Loss and accuracy by epoch, training and validation, as two SVGs.

    `history` has a row per epoch: epoch, train_loss, val_loss, train_accuracy, val_accuracy.
    """
    return [
        _drawn("loss", (440, 300), lambda axes: _curves(axes, history, "loss")),
        _drawn("accuracy", (440, 300), lambda axes: _curves(axes, history, "accuracy")),
    ]


def confusion_heatmap(matrix: list[list[int]], classes: list[str]) -> str:
    """Counts (C, C), rows true, as shares of the true class.

    Cells carry whole percents up to 20 classes, axes carry names up to 40.
    """
    side = min(680, max(300, 29 * len(classes) + 150))
    room_for_scale = 0 if len(classes) <= NUMBERED_CLASSES else 80
    size = (side + room_for_scale, side)
    shares = np.asarray(matrix) / np.maximum(np.sum(matrix, axis=1, keepdims=True), 1)
    return _drawn("confusion", size, lambda axes: _heatmap(axes, shares, classes))


def reliability_diagram(counts: list[tuple[int, float, int]]) -> str:
    """Accuracy against confidence: a dot per bin of `calibration_counts`, with Wilson's 95%."""
    filled = np.asarray([row for row in counts if row[0]])
    return _drawn("reliability", (440, 420), lambda axes: _reliability(axes, filled))


def confidence_histogram(counts: NDArray[np.int64], min_confidence: float | None) -> str:
    """Images by confidence, `counts` of equal bins over 0..1; a line at the least one asked for."""
    return _drawn("histogram", (440, 300), lambda axes: _histogram(axes, counts, min_confidence))


def _curves(axes: Axes, history: pd.DataFrame, measure: str) -> None:
    # Without dots a run of one epoch, or one that lost its neighbours to NaN, shows nothing.
    marker = "o" if len(history) <= 12 else None
    for split, name, colour in (("train", "training", MUTED), ("val", "validation", ACCENT)):
        values = history[f"{split}_{measure}"]
        axes.plot(history["epoch"], values, color=colour, marker=marker, markersize=4, label=name)
    axes.margins(x=0.02)
    axes.set_title(measure.capitalize())
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    if measure == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.grid(axis="y", color=MUTED, alpha=0.2, linewidth=0.75)
    axes.legend(loc="best", labelcolor=INK)


def _heatmap(axes: Axes, shares: NDArray[np.floating], classes: list[str]) -> None:
    # The square root lifts the few percents, which are the mistakes one looks for, off the page.
    image = axes.imshow(shares, RAMP, norm=PowerNorm(0.5, 0, 1), interpolation="none")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set(visible=True, alpha=0.3)
    axes.tick_params(length=0, labelcolor=INK)
    names = [_short(name) for name in classes] if len(classes) <= NAMED_CLASSES else []
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    if len(classes) <= NUMBERED_CLASSES:
        _number_cells(axes, shares)
        return
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.4, aspect=30, ticks=[0, 0.1, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    bar.outline.set_visible(False)


def _number_cells(axes: Axes, shares: NDArray[np.floating]) -> None:
    for true, predicted in np.argwhere(shares >= 0.005):
        share = shares[true, predicted]
        colour = "white" if share > 0.6 else INK
        axes.text(
            predicted, true, f"{share:.0%}"[:-1], color=colour, size=10, ha="center", va="center"
        )


def _reliability(axes: Axes, filled: NDArray[np.floating]) -> None:
    total, confidence, correct = filled.T
    where, accuracy = confidence / total, correct / total
    low, high = np.array([wilson_interval(c, n) for n, _, c in filled]).T
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.vlines(where, low, high, color=ACCENT, linewidth=1, alpha=0.5)
    axes.scatter(where, accuracy, s=12 + 140 * total / total.max(), color=ACCENT, zorder=3)
    for axis, name in ((axes.xaxis, "confidence"), (axes.yaxis, "accuracy")):
        axis.set_label_text(name)
        axis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    axes.grid(color=MUTED, alpha=0.2, linewidth=0.75)
    axes.set_axisbelow(True)


def _histogram(axes: Axes, counts: NDArray[np.int64], min_confidence: float | None) -> None:
    left = np.arange(len(counts)) / len(counts)
    axes.bar(left, counts, width=0.85 / len(counts), align="edge", color=ACCENT)
    if min_confidence is not None:
        axes.axvline(min_confidence, color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel("confidence")
    axes.set_ylabel("images")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", color=MUTED, alpha=0.2, linewidth=0.75)
    axes.set_axisbelow(True)


def _short(name: str) -> str:
    """A class name as a tick label: one printable line (SVG takes no control characters)."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return printable if len(printable) <= NAME_LENGTH else f"{printable[: NAME_LENGTH - 1]}…"


def _drawn(name: str, pixels: tuple[int, int], draw: Callable[[Axes], None]) -> str:
    """One pair of axes as SVG, in the house style whatever the user's matplotlibrc says."""
    buffer = io.StringIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        # The browser's fonts draw the text; what matplotlib's own font lacks is no matter.
        warnings.filterwarnings("ignore", message="Glyph")
        width, height = (side / POINTS_PER_INCH for side in pixels)
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue(), name, pixels[0])


def _inline(svg: str, name: str, width: int) -> str:
    """The SVG element alone: ids of its own on the page, no namespaces, the page's colours."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {
            key.rpartition("}")[2]: _localised(key, value, name)
            for key, value in element.attrib.items()
        }
    del root.attrib["width"], root.attrib["height"]
    root.attrib["style"] = f"--width:{width}px"
    return ElementTree.tostring(root, encoding="unicode")


def _localised(key: str, value: str, name: str) -> str:
    """An attribute with the figure's name in front of ids, and CSS in place of stand-ins."""
    if key == "id":
        return f"{name}-{value}"
    if key.endswith("href") and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    for stand_in, css in THEME.items():
        value = value.replace(stand_in, css)
    return value.replace("url(#", f"url(#{name}-")
