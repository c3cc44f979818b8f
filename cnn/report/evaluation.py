"""An evaluation: what predictions with labels add up to, as evaluation.json."""

from collections import Counter
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cnn import metrics
from cnn.atomic import write_atomically

CONFUSED_PAIRS = 10
TOP = 5


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class ClassScores(_Frozen):
    """One row of `per_class`; `support` is how many images truly are of the class."""

    class_name: str = Field(alias="class")
    precision: float
    recall: float
    f1: float
    support: int


class ConfusedPair(_Frozen):
    """`count` images of class `true` were taken for `predicted`: `share` of all of `true`."""

    true: str
    predicted: str
    count: int
    share: float


class Evaluation(_Frozen):
    """The content of evaluation.json; every ratio is within 0..1.

    `accuracy_interval` is Wilson's, at 95%. `top5_accuracy` looks at the first min(5, classes)
    guesses; null where there is one class only, or where the predictions carry fewer guesses.
    `confusion_matrix` counts images, its rows are true classes. `images` counts images per
    split, unreadable, duplicates and what else the caller counted, and those `judged` here;
    `unjudged` in it counts the others by reason. `calibration_counts` has a row per bin of
    confidence: predictions, sum of their confidence, correct ones.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    macro_precision: float
    macro_recall: float
    macro_f1: float
    weighted_precision: float
    weighted_recall: float
    weighted_f1: float
    top5_accuracy: float | None
    classes: list[str]
    confusion_matrix: list[list[int]]
    per_class: list[ClassScores]
    images: dict[str, Any]
    calibration_error: float
    calibration_counts: list[tuple[int, float, int]]
    confused_pairs: list[ConfusedPair]

    def write(self, path: Path) -> None:
        """Write evaluation.json, whole or not at all."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read evaluation.json; pydantic's ValidationError says which field does not fit."""
        return cls.model_validate_json(path.read_bytes())


def evaluate(predictions: pa.Table, classes: list[str], images: dict[str, Any]) -> Evaluation:
    """Judge `predictions` (a row per image) against their labels.

    Columns used: label, predicted (class names or null), confidence (float or null, 0..1),
    top_classes (list of class names, best first), error (a short reason or null). A row with an
    error, without a label or prediction, or with a label that is not one of `classes` is not
    judged but counted by reason. `images` is what the caller knows: train, validation, test,
    unreadable, duplicates, each a count. Raises ValueError, in one line, where no row can be
    judged or a predicted class is not one of `classes`.
    """
    judged, unjudged = _judged(predictions.combine_chunks(), classes)
    true, predicted = (_labels(judged[column], classes) for column in ("label", "predicted"))
    confusion = metrics.confusion_counts(true, predicted, len(classes))
    calibration = metrics.calibration_counts(judged["confidence"].to_numpy(), true == predicted)
    scores = metrics.summarise(confusion)
    per_class = zip(classes, scores.pop("per_class"), strict=True)
    return Evaluation(
        **scores,
        accuracy_interval=metrics.wilson_interval(confusion.trace(), judged.num_rows),
        top5_accuracy=_top_accuracy(judged, min(TOP, len(classes))),
        classes=classes,
        confusion_matrix=confusion.tolist(),
        per_class=[ClassScores.model_validate({"class": name} | row) for name, row in per_class],
        images=images | {"judged": judged.num_rows, "unjudged": unjudged},
        calibration_error=metrics.calibration_error(calibration),
        calibration_counts=calibration.tolist(),
        confused_pairs=_confused_pairs(confusion, classes),
    )


def _judged(predictions: pa.Table, classes: list[str]) -> tuple[pa.Table, dict[str, int]]:
    """The rows that can be judged, and how many cannot, by reason."""
    reason = _reasons_against(predictions, classes)
    unjudged = dict(sorted(Counter(reason.drop_null().to_pylist()).items()))
    judged = predictions.filter(pc.is_null(reason))
    if not judged.num_rows:
        found = ", ".join(f"{count} {name}" for name, count in unjudged.items())
        raise ValueError(f"no image can be judged: {found or 'there are no predictions'}")
    return judged, unjudged


def _reasons_against(predictions: pa.Table, classes: list[str]) -> pa.Array:
    """For each row why it cannot be judged; null where it can."""
    error, label, predicted = (
        predictions[column].cast(pa.string()) for column in ("error", "label", "predicted")
    )
    conditions = (
        pc.is_valid(error),
        pc.is_null(label),
        pc.invert(pc.is_in(label, value_set=pa.array(classes))),
        pc.or_(pc.is_null(predicted), pc.is_null(predictions["confidence"])),
    )
    return pc.case_when(
        pc.make_struct(*conditions), error, "no_label", "unknown_class", "no_prediction"
    )


def _labels(names: pa.ChunkedArray, classes: list[str]) -> NDArray[np.int64]:
    """The label of each class name."""
    labels = pc.index_in(names.cast(pa.string()), value_set=pa.array(classes))
    if labels.null_count:
        unknown = names.filter(pc.is_null(labels))[0].as_py()
        raise ValueError(f"predicted class {unknown!r} is not one of the {len(classes)} classes")
    return np.asarray(labels, np.int64)


def _top_accuracy(judged: pa.Table, k: int) -> float | None:
    """The share of images whose class is among the first `k` guesses."""
    guesses = pc.list_slice(judged["top_classes"], 0, k)
    if k < 2 or pc.min(pc.fill_null(pc.list_value_length(guesses), 0)).as_py() < k:
        return None
    asked = judged["label"].take(pc.list_parent_indices(guesses))
    hits = pc.equal(pc.list_flatten(guesses).cast(pa.string()), asked.cast(pa.string()))
    return float(pc.sum(hits).as_py() / judged.num_rows)


def _confused_pairs(confusion: NDArray[np.int64], classes: list[str]) -> list[ConfusedPair]:
    """The most frequent mistakes, first by count, then by share of the true class."""
    support = confusion.sum(axis=1)
    true, predicted = np.nonzero(confusion - np.diag(confusion.diagonal()))
    count = confusion[true, predicted]
    share = count / support[true]
    return [
        ConfusedPair(
            true=classes[true[i]],
            predicted=classes[predicted[i]],
            count=int(count[i]),
            share=float(share[i]),
        )
        for i in np.lexsort((-share, -count))[:CONFUSED_PAIRS]
    ]
