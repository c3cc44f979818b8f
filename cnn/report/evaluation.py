"""An evaluation: what predictions with labels add up to, as evaluation.json."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cnn import metrics
from cnn.atomic import write_atomically
from cnn.place import Place
from cnn.report import columns

CONFUSED_PAIRS = 10
# A label is a folder's name, and some trees have a folder for every image.
UNKNOWN_NAMED = 100
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
    `unjudged` in it counts the others by reason. `unknown_classes` are the labels behind the
    reason unknown_class, the most frequent first: images of each, for the first UNKNOWN_NAMED.
    `calibration_counts` has a row per bin of confidence: predictions, sum of their confidence,
    correct ones.
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
    unknown_classes: dict[str, int] = Field(default_factory=dict)
    calibration_error: float
    calibration_counts: list[tuple[int, float, int]]
    confused_pairs: list[ConfusedPair]

    @property
    def headline(self) -> str:
        """The figures that matter, on one line."""
        low, high = self.accuracy_interval
        return (
            f"accuracy {self.accuracy:.3f} (95% interval {low:.3f} to {high:.3f}), "
            f"macro F1 {self.macro_f1:.3f}, {self.images['judged']:,} images"
        )

    def write(self, path: Place) -> None:
        """Write evaluation.json, whole or not at all."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Place) -> Self:
        """Read evaluation.json; pydantic's ValidationError says which field does not fit."""
        return cls.model_validate_json(path.read_bytes())


@dataclass(frozen=True, eq=False)
class _Tally:
    """What an evaluation needs to know of predictions, in sums: those of parts add up.

    confusion: int64 (C, C), as metrics.confusion_counts; its sum is the images judged.
    calibration: float64 (bins, 3), as metrics.calibration_counts. guessed: judged images that
    carry all the guesses asked for. hits: those whose class is among them. unjudged: the other
    rows by reason. unknown_classes: labels that are no class of the model.
    """

    confusion: NDArray[np.int64]
    calibration: NDArray[np.float64]
    guessed: int
    hits: int
    unjudged: Counter[str]
    unknown_classes: Counter[str]

    def __add__(self, other: Self) -> Self:
        """The tally of both, which must be of the same classes."""
        return type(self)(
            confusion=self.confusion + other.confusion,
            calibration=self.calibration + other.calibration,
            guessed=self.guessed + other.guessed,
            hits=self.hits + other.hits,
            unjudged=self.unjudged + other.unjudged,
            unknown_classes=self.unknown_classes + other.unknown_classes,
        )


def evaluate(parts: Iterable[pa.Table], classes: list[str], images: dict[str, Any]) -> Evaluation:
    """Judge predictions (a row per image) against their labels, one part at a time.

    Columns used: label, predicted (class names or null), confidence (float32 or null, 0..1),
    top_classes (list of class names, best first), error (a short reason or null). A row with an
    error, without a label or prediction, or with a label that is not one of `classes` is not
    judged but counted by reason. `images` is what the caller knows: train, validation, test,
    unreadable, duplicates, each a count. Raises ValueError, in one line, where no row can be
    judged or a predicted class is not one of `classes`.
    """
    # `map` lets go of a part before it asks for the next; a comprehension would hold two.
    tallies = map(partial(_tally, classes=classes), parts)
    return _divided(sum(tallies, start=_nothing(len(classes))), classes, images)


def _nothing(classes: int) -> _Tally:
    """The tally of no predictions."""
    nobody = np.zeros(0, np.int64)
    never = metrics.calibration_counts(np.zeros(0), np.zeros(0, np.bool_))
    return _Tally(
        confusion=metrics.confusion_counts(nobody, nobody, classes),
        calibration=never,
        guessed=0,
        hits=0,
        unjudged=Counter(),
        unknown_classes=Counter(),
    )


def _tally(part: pa.Table, classes: list[str]) -> _Tally:
    """The tally of one part."""
    part = part.combine_chunks()
    reason = _reasons_against(part, classes)
    judged = part.filter(pc.is_null(reason))
    true, predicted = (columns.labels(judged[name], classes) for name in ("label", "predicted"))
    guessed, hits = _guesses(judged, _guesses_asked(classes))
    return _Tally(
        confusion=metrics.confusion_counts(true, predicted, len(classes)),
        calibration=metrics.calibration_counts(judged["confidence"].to_numpy(), true == predicted),
        guessed=guessed,
        hits=hits,
        unjudged=columns.counts(reason),
        unknown_classes=columns.counts(part["label"].filter(pc.equal(reason, "unknown_class"))),
    )


def _reasons_against(part: pa.Table, classes: list[str]) -> pa.ChunkedArray:
    """For each row why it cannot be judged; null where it can."""
    error, label = (part[name].cast(pa.string()) for name in ("error", "label"))
    conditions = (
        pc.is_valid(error),
        pc.is_null(label),
        pc.invert(pc.is_in(label, value_set=pa.array(classes, pa.string()))),
        pc.invert(columns.has_prediction(part)),
    )
    return pc.case_when(
        pc.make_struct(*conditions), error, "no_label", "unknown_class", "no_prediction"
    )


def _guesses_asked(classes: list[str]) -> int:
    """How many guesses the top-5 accuracy looks at."""
    return min(TOP, len(classes))


def _guesses(judged: pa.Table, k: int) -> tuple[int, int]:
    """How many images carry `k` guesses, and of how many the class is among the first `k`."""
    guesses = pc.list_slice(judged["top_classes"].cast(pa.list_(pa.string())), 0, k)
    guessed = pc.sum(pc.equal(pc.list_value_length(guesses), k))
    asked = judged["label"].take(pc.list_parent_indices(guesses))
    hits = pc.sum(pc.equal(pc.list_flatten(guesses), asked.cast(pa.string())))
    return guessed.as_py() or 0, hits.as_py() or 0


def _divided(tally: _Tally, classes: list[str], images: dict[str, Any]) -> Evaluation:
    """The ratios of a tally: here, and nowhere before, sums are divided."""
    judged = int(tally.confusion.sum())
    unjudged = dict(sorted(tally.unjudged.items()))
    if not judged:
        found = ", ".join(f"{count} {name}" for name, count in unjudged.items())
        raise ValueError(f"no image can be judged: {found or 'there are no predictions'}")
    scores = metrics.summarise(tally.confusion)
    per_class = zip(classes, scores.pop("per_class"), strict=True)
    return Evaluation(
        **scores,
        accuracy_interval=metrics.wilson_interval(tally.confusion.trace(), judged),
        top5_accuracy=_top_accuracy(tally, judged, _guesses_asked(classes)),
        classes=classes,
        confusion_matrix=tally.confusion.tolist(),
        per_class=[ClassScores.model_validate({"class": name} | row) for name, row in per_class],
        images=images | {"judged": judged, "unjudged": unjudged},
        unknown_classes=_most_frequent(tally.unknown_classes),
        calibration_error=metrics.calibration_error(tally.calibration),
        calibration_counts=tally.calibration.tolist(),
        confused_pairs=_confused_pairs(tally.confusion, classes),
    )


def _top_accuracy(tally: _Tally, judged: int, k: int) -> float | None:
    """The share of images whose class is among the first `k` guesses, where all carry `k`."""
    return tally.hits / judged if k > 1 and tally.guessed == judged else None


def _most_frequent(counts: Counter[str]) -> dict[str, int]:
    """The first UNKNOWN_NAMED, by count and then by name, so that no order of parts shows."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dict(ranked[:UNKNOWN_NAMED])


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
