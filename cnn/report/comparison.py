"""Comparisons: the predictions of two models for the same images, image by image."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnn import metrics
from cnn.errors import UserError
from cnn.manifest import class_indices
from cnn.report import columns
from cnn.report.album import Pick
from cnn.report.evaluation import ClassChange, Comparison, Shown
from cnn.scoring.prediction import answered
from cnn.scoring.worklist import spelled_as


def compare(
    parts: Iterable[pa.Table], others: Iterable[pa.Table], classes: list[str], name: str
) -> tuple[Comparison, dict[str, list[Shown]]]:
    """Compare predictions with those of another run, called `name`, one part at a time.

    An image counts if both runs have a prediction for it and its label is one of `classes`. Also
    returns the most confident of the images `lost` and `gained`. The parts of the two runs may
    differ in size. Raises UserError if the runs have not listed the same images.
    """
    # Images by class, by whether the other run is right, and by whether this run is right.
    counts = np.zeros((len(classes), 2, 2), np.int64)
    picks = {"lost": Pick("negated_confidence"), "gained": Pick("negated_confidence")}
    for part, other in aligned(parts, others, name):
        rows = _answered(part, other, classes)
        before, now = (rows[column].to_numpy() for column in ("was_right", "is_right"))
        label = class_indices(rows["label"], classes)
        np.add.at(counts, (label, before.astype(int), now.astype(int)), 1)
        picks["lost"].see(rows.filter(pa.array(before & ~now)))
        picks["gained"].see(rows.filter(pa.array(now & ~before)))
    galleries = {change: pick.shown() for change, pick in picks.items()}
    return _added_up(counts, classes, name), galleries


def lost(
    parts: Iterable[pa.Table], others: Iterable[pa.Table], classes: list[str], name: str
) -> Iterator[pa.Table]:
    """The predictions that are wrong for images that the run called `name` has right."""
    for part, other in aligned(parts, others, name):
        rows = _answered(part, other, classes)
        yield rows.filter(pc.and_(rows["was_right"], pc.invert(rows["is_right"])))


def aligned(
    parts: Iterable[pa.Table], others: Iterable[pa.Table], name: str
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Both runs' rows of the same images, in equal slices; UserError if the images differ."""
    coming, rest = iter(others), None
    for part in parts:
        while part.num_rows:
            while rest is None or not rest.num_rows:
                if (rest := next(coming, None)) is None:
                    raise _differ(name)
            size = min(part.num_rows, rest.num_rows)
            here, there = part.slice(0, size), rest.slice(0, size)
            if not here["path"].equals(there["path"]):
                raise _differ(name)
            yield here, there
            part, rest = part.slice(size), rest.slice(size)
    if (rest is not None and rest.num_rows) or any(table.num_rows for table in coming):
        raise _differ(name)


def _differ(name: str) -> UserError:
    return UserError(f"--compare {name} has scored other images: score the same folders with both")


def _answered(part: pa.Table, other: pa.Table, classes: list[str]) -> pa.Table:
    """The rows with a prediction of both runs, with `was_right`, `is_right` and `before`."""
    # One class may be spelled in two Unicode forms: the labels are spelled as in `classes`.
    both = part.append_column("before", spelled_as(classes, other["predicted"]))
    judged = pc.is_null(columns.reasons_against(part, classes))
    rows = both.filter(pc.and_(judged, answered(other))).combine_chunks()
    rows = rows.append_column("was_right", pc.equal(rows["before"], rows["label"]))
    rows = rows.append_column("is_right", pc.equal(rows["predicted"], rows["label"]))
    return rows.append_column("negated_confidence", pc.negate(rows["confidence"]))


def _added_up(counts: NDArray[np.int64], classes: list[str], name: str) -> Comparison:
    (both_wrong, gained), (lost, both_right) = counts.sum(axis=0).tolist()
    per_class = zip(
        classes, counts.sum(axis=(1, 2)), counts[:, 1].sum(axis=1), counts[:, :, 1].sum(axis=1),
        strict=True,
    )  # fmt: skip
    return Comparison(
        other=name,
        both_right=both_right,
        both_wrong=both_wrong,
        gained=gained,
        lost=lost,
        p_value=metrics.mcnemar(gained, lost),
        per_class=[
            ClassChange.model_validate({"class": c, "support": n, "before": b, "now": a})
            for c, n, b, a in per_class
        ],
    )
