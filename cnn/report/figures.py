"""Figures of a training run, an evaluation and a mix, as inline SVG."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from cnn.metrics import wilson_interval
from cnn.report.confusion import View
from cnn.report.drawing import ACCENT, INK, MUTED, drawn, short
from cnn.report.evaluation import Coverage, Evaluation

# One hue from clear to solid: lightness alone carries the value, which is safe for the
# colour-blind. A middle tone, because pixels cannot follow the page's colours.
RAMP = LinearSegmentedColormap.from_list("ramp", [(0.16, 0.47, 0.84, 0.0), (0.16, 0.47, 0.84, 0.8)])
# With more classes, numbers do not fit into the cells.
NUMBERED_CLASSES = 30


def learning_curves(history: pd.DataFrame) -> list[str]:
    """Loss and accuracy by epoch, training and validation, as two SVGs.

    `history` has a row per epoch: epoch, train_loss, val_loss, train_accuracy, val_accuracy.
    """
    return [
        drawn("loss", (440, 300), lambda axes: _curves(axes, history, "loss")),
        drawn("accuracy", (440, 300), lambda axes: _curves(axes, history, "accuracy")),
    ]


def confusion_heatmap(evaluation: Evaluation, view: View) -> str:
    """A view of the confusion matrix, rows true, as shares of all images of the true class.

    Cells show whole percents, and axes show class names, if there is room.
    """
    matrix = np.asarray(evaluation.confusion_matrix)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    names = [evaluation.classes[label] for label in view.order] if view.named else []
    side = min(900, max(300, 29 * len(names) + 150)) if names else 900
    chosen = shares[np.ix_(view.order, view.order)]
    return drawn(f"confusion-{view.key}", (side, side), lambda axes: _heatmap(axes, chosen, names))


def reliability_diagram(counts: list[tuple[int, float, int]]) -> str:
    """Accuracy against confidence: a dot per bin of `calibration_counts`, with Wilson's 95%."""
    filled = np.asarray([row for row in counts if row[0]])
    return drawn("reliability", (440, 420), lambda axes: _reliability(axes, filled))


def coverage_curve(points: list[Coverage], accuracy: float) -> str:
    """Accuracy of the answers that reach a confidence threshold, by their share of the images."""
    return drawn("coverage", (440, 420), lambda axes: _coverage(axes, points, accuracy))


def confidence_histogram(counts: NDArray[np.int64], min_confidence: float | None) -> str:
    """Images by confidence, `counts` of equal bins over 0..1; a line at `min_confidence`."""
    return drawn("histogram", (440, 300), lambda axes: _histogram(axes, counts, min_confidence))


def _curves(axes: Axes, history: pd.DataFrame, measure: str) -> None:
    # Without dots, a single epoch, or one with NaN on both sides, would be invisible.
    marker = "o" if len(history) <= 12 else None
    for split, name, colour in (("train", "training", MUTED), ("val", "validation", ACCENT)):
        values = history[f"{split}_{measure}"]
        if values.notna().any():  # validation images that were trained on are not measured
            axes.plot(
                history["epoch"], values, color=colour, marker=marker, markersize=4, label=name
            )
    axes.margins(x=0.02)
    axes.set_title(measure.capitalize())
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    if measure == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    axes.grid(axis="y", color=MUTED, alpha=0.2, linewidth=0.75)
    axes.legend(loc="best", labelcolor=INK)


def _heatmap(axes: Axes, shares: NDArray[np.floating], names: list[str]) -> None:
    # The square root makes shares of a few percent visible: these are the mistakes to look for.
    # Cells of a few pixels need a smaller exponent.
    gamma = 0.5 if names else 0.3
    axes.imshow(shares, RAMP, norm=PowerNorm(gamma, 0, 1), interpolation="none")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.spines[:].set(visible=True, alpha=0.3)
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_xticks(range(len(names)), list(map(short, names)), rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), list(map(short, names)), parse_math=False)
    if len(shares) <= NUMBERED_CLASSES:
        _number_cells(axes, shares)


def _number_cells(axes: Axes, shares: NDArray[np.floating]) -> None:
    for true, predicted in np.argwhere(shares >= 0.005):
        share = shares[true, predicted]
        whole = share if share == 1 else np.clip(share, 0.01, 0.99)  # all only if it is all
        axes.text(predicted, true, f"{whole:.0%}"[:-1], size=10, ha="center", va="center")


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


def _coverage(axes: Axes, points: list[Coverage], accuracy: float) -> None:
    covered = [point.coverage for point in points]
    axes.axhline(accuracy, color=MUTED, linewidth=1, linestyle=(0, (4, 4)))
    axes.plot(covered, [point.accuracy for point in points], color=ACCENT)
    named = _milestones(points)
    axes.plot([p.coverage for p in named], [p.accuracy for p in named], "o", color=ACCENT)
    for point in named:
        at, beside = (point.coverage, point.accuracy), (4, 5)
        label = f"{point.confidence:.1f}"
        axes.annotate(label, at, beside, textcoords="offset points", color=MUTED, size=10)
    for axis, name in ((axes.xaxis, "images answered"), (axes.yaxis, "accuracy of these answers")):
        axis.set_label_text(name)
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlim(-0.03, 1.03)
    axes.margins(y=0.1)
    axes.grid(color=MUTED, alpha=0.2, linewidth=0.75)
    axes.set_axisbelow(True)


def _milestones(points: list[Coverage]) -> list[Coverage]:
    """The points at tenths of confidence, less those without room for their number."""
    found: list[Coverage] = []
    for point in points:
        apart = not found or found[-1].coverage - point.coverage > 0.04
        if round(100 * point.confidence) % 10 == 0 and point.coverage < 1 and apart:
            found.append(point)
    return found


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
