"""Figures of training, an evaluation and a mix, as inline SVG."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from cnn.metrics import wilson_interval
from cnn.report.drawing import ACCENT, INK, MUTED, drawn, short

# One hue from clear to solid, so lightness alone carries the value: safe for the colour-blind,
# and a middle tone, because pixels cannot follow the page's colours.
RAMP = LinearSegmentedColormap.from_list("ramp", [(0.16, 0.47, 0.84, 0.0), (0.16, 0.47, 0.84, 1.0)])
NAMED_CLASSES = 40
NUMBERED_CLASSES = 20


def learning_curves(history: pd.DataFrame) -> list[str]:
    """Loss and accuracy by epoch, training and validation, as two SVGs.

    `history` has a row per epoch: epoch, train_loss, val_loss, train_accuracy, val_accuracy.
    """
    return [
        drawn("loss", (440, 300), lambda axes: _curves(axes, history, "loss")),
        drawn("accuracy", (440, 300), lambda axes: _curves(axes, history, "accuracy")),
    ]


def confusion_heatmap(matrix: list[list[int]], classes: list[str]) -> str:
    """Counts (C, C), rows true, as shares of the true class.

    Cells carry whole percents up to 20 classes, axes carry names up to 40.
    """
    side = min(680, max(300, 29 * len(classes) + 150))
    room_for_scale = 0 if len(classes) <= NUMBERED_CLASSES else 80
    size = (side + room_for_scale, side)
    shares = np.asarray(matrix) / np.maximum(np.sum(matrix, axis=1, keepdims=True), 1)
    return drawn("confusion", size, lambda axes: _heatmap(axes, shares, classes))


def reliability_diagram(counts: list[tuple[int, float, int]]) -> str:
    """Accuracy against confidence: a dot per bin of `calibration_counts`, with Wilson's 95%."""
    filled = np.asarray([row for row in counts if row[0]])
    return drawn("reliability", (440, 420), lambda axes: _reliability(axes, filled))


def confidence_histogram(counts: NDArray[np.int64], min_confidence: float | None) -> str:
    """Images by confidence, `counts` of equal bins over 0..1; a line at the least one asked for."""
    return drawn("histogram", (440, 300), lambda axes: _histogram(axes, counts, min_confidence))


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
    names = [short(name) for name in classes] if len(classes) <= NAMED_CLASSES else []
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
