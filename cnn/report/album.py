"""The album: the few images of a run that its report shows, chosen from predictions part by part.

The size of an album is bounded, whatever the number of predictions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnn.manifest import class_indices
from cnn.report import columns
from cnn.report.evaluation import Evaluation, Shown
from cnn.report.suspicion import suspicious, usual_confidence
from cnn.scoring.prediction import answered

GALLERY, SAMPLE = 18, 12
CELL_IMAGES = 360
PER_MISTAKE, PER_HIT = 6, 3

Cell = tuple[int, int]
"""Labels of a true and a predicted class: a cell of the confusion matrix."""


@dataclass(frozen=True)
class Album:
    """What a report shows: images by gallery, the best first, and examples by cell.

    changed: images that are right in only one of two runs, by `lost` or `gained`. suspects: how
    many labels may be wrong, shown or not; None if the labels are unknown.
    """

    galleries: dict[str, list[Shown]]
    cells: dict[Cell, list[Shown]] = field(default_factory=dict)
    changed: dict[str, list[Shown]] = field(default_factory=dict)
    suspects: int | None = None

    def paths(self) -> list[str]:
        """The paths of all images, each once."""
        sections = (self.galleries, self.changed, self.cells)
        groups = (group for section in sections for group in section.values())
        return list(dict.fromkeys(image.path for group in groups for image in group))


class Pick:
    """The `size` best rows seen so far: those with the lowest `by`; ties are ordered by path."""

    def __init__(self, by: str, size: int = GALLERY) -> None:
        self.by, self.size = by, size
        self.rows: pa.Table | None = None

    def see(self, rows: pa.Table) -> None:
        """Take more rows into account."""
        both = rows if self.rows is None else pa.concat_tables([self.rows, rows])
        order = [(self.by, "ascending"), ("path", "ascending")]
        self.rows = both.sort_by(order).slice(0, self.size).combine_chunks()

    def shown(self) -> list[Shown]:
        """The best rows."""
        return shown(self.rows) if self.rows is not None else []


class Examples:
    """The most confident rows of each cell seen so far, at most `sizes` (C * C,) of them."""

    def __init__(self, sizes: NDArray[np.int64]) -> None:
        self.sizes = sizes
        self.rows: pa.Table | None = None

    def see(self, rows: pa.Table) -> None:
        """Take more rows into account."""
        new = rows.filter(pa.array(self.sizes[rows["cell"].to_numpy()] > 0))
        both = new if self.rows is None else pa.concat_tables([self.rows, new])
        both = both.sort_by(
            [(name, "ascending") for name in ("cell", "negated_confidence", "path")]
        )
        cell = both["cell"].to_numpy()
        rank = np.arange(len(cell)) - np.searchsorted(cell, cell)
        self.rows = both.filter(pa.array(rank < self.sizes[cell])).combine_chunks()

    def shown(self, classes: int) -> dict[Cell, list[Shown]]:
        """The rows by cell."""
        found: dict[Cell, list[Shown]] = {}
        if self.rows is not None:
            for cell, image in zip(self.rows["cell"].to_pylist(), shown(self.rows), strict=True):
                found.setdefault(divmod(cell, classes), []).append(image)
        return found


def take_album(
    parts: Iterable[pa.Table], classes: list[str], evaluation: Evaluation | None
) -> Album:
    """Choose images of predictions (a row per image), one part at a time.

    With an `evaluation` of the same predictions: suspected label errors, confident mistakes, the
    least confident, a sample of right ones, and examples for the confusion matrix. Without: the
    least confident only. The album does not depend on how the predictions are cut into parts.
    """
    if evaluation is not None:
        return _judged_album(parts, classes, evaluation)
    pick = Pick("confidence", 2 * SAMPLE)
    for part in parts:
        read = part.filter(pc.is_null(part["error"]))
        pick.see(read.filter(answered(read)))
    return Album({"uncertain": pick.shown()})


def _judged_album(parts: Iterable[pa.Table], classes: list[str], evaluation: Evaluation) -> Album:
    suspects, suspected = Pick("margin"), 0
    mistakes = Pick("negated_confidence")
    uncertain, right = Pick("confidence", SAMPLE), Pick("draw", SAMPLE)
    examples = Examples(cell_sizes(np.asarray(evaluation.confusion_matrix)).ravel())
    usual = usual_confidence(evaluation)
    for part in parts:
        rows = _judged(part, classes, usual)
        doubtful = rows.filter(rows["suspicious"])
        suspected += doubtful.num_rows
        suspects.see(doubtful)
        mistakes.see(rows.filter(pc.invert(pc.or_(rows["right"], rows["suspicious"]))))
        right.see(rows.filter(rows["right"]))
        uncertain.see(rows)
        examples.see(rows)
    galleries = {
        "suspects": suspects.shown(),
        "mistakes": mistakes.shown(),
        "uncertain": uncertain.shown(),
        "right": right.shown(),
    }
    return Album(galleries, examples.shown(len(classes)), suspects=suspected)


def cell_sizes(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many images each cell of the confusion matrix shows, int64 (C, C), CELL_IMAGES in all.

    The cells with the most mistakes come first, then the diagonal.
    """
    hits = np.diag(confusion.diagonal())
    mistakes = confusion - hits
    asked = np.minimum(mistakes, PER_MISTAKE) + np.minimum(hits, PER_HIT)
    # Any mistake comes before any hit.
    order = np.argsort(-(mistakes * (confusion.max() + 1) + hits), axis=None, kind="stable")
    before = asked.ravel()[order].cumsum() - asked.ravel()[order]
    sizes = np.zeros(confusion.size, np.int64)
    sizes[order] = np.clip(CELL_IMAGES - before, 0, asked.ravel()[order])
    return sizes.reshape(confusion.shape)


def _judged(part: pa.Table, classes: list[str], usual: NDArray[np.float64]) -> pa.Table:
    """The evaluated rows of a part, with the columns to pick by; the lowest values come first."""
    rows = part.filter(pc.is_null(columns.reasons_against(part, classes))).combine_chunks()
    true, predicted = (class_indices(rows[name], classes) for name in ("label", "predicted"))
    confidence = rows["confidence"].to_numpy().astype(np.float64)
    known = {
        "right": true == predicted,
        "suspicious": suspicious(rows, classes, usual),
        "cell": true * len(classes) + predicted,
        "negated_confidence": -confidence,
        "margin": columns.own_probability(rows) - confidence,
        "draw": pd.util.hash_array(np.asarray(rows["path"].to_pylist(), dtype=object)),
    }
    for name, values in known.items():
        rows = rows.append_column(name, pa.array(values))
    return rows


def shown(rows: pa.Table) -> list[Shown]:
    """Rows of predictions as images to show."""
    names = [name for name in Shown.model_fields if name in rows.column_names]
    return [Shown(**row) for row in rows.select(names).to_pylist()]
