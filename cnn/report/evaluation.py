"""Evaluations: the scores of predictions with labels, as evaluation.json."""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from cnn import metrics
from cnn.files.atomic import write_atomically
from cnn.files.place import Place
from cnn.report.tally import ROWS, Tally, guesses_asked, nothing, take_tally, together
from cnn.text.plural import by_reason, counted
from cnn.text.ratio import decimal

CONFUSED_PAIRS = 10
# Labels are folder names, and some trees have a folder for every image.
UNKNOWN_NAMED = 100


class Frozen(BaseModel):
    """A part of evaluation.json."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


class ClassScores(Frozen):
    """One row of `per_class`; `support` is how many images truly are of the class."""

    class_name: str = Field(alias="class")
    precision: float
    recall: float
    f1: float
    support: int


class ConfusedPair(Frozen):
    """`count` images of class `true` were predicted as `predicted`: `share` of all of `true`."""

    true: str
    predicted: str
    count: int
    share: float


class Coverage(Frozen):
    """The effect of accepting only answers with at least this `confidence`.

    `coverage` is the share of images with such an answer, `accuracy` the accuracy of these answers.
    """

    confidence: float
    coverage: float
    accuracy: float


class Finding(Frozen):
    """Something a person should know about a run, in words, and the next step."""

    title: str
    text: str
    step: str


class Shown(Frozen):
    """An image that the report shows; `before` is the class that another model predicted."""

    path: str
    label: str | None
    predicted: str
    confidence: float
    before: str | None = None


class ClassChange(Frozen):
    """How many of a class's images each of two models gets right."""

    class_name: str = Field(alias="class")
    support: int
    before: int
    now: int


class Comparison(Frozen):
    """A run compared with another over the same images; each judged image is in exactly one count.

    `gained` images are right now and were wrong in the `other` run, `lost` the reverse. `p_value`
    is from McNemar's exact test: the probability of a split at least as uneven as that between
    `gained` and `lost` if the two models were equally good.
    """

    other: str
    both_right: int
    both_wrong: int
    gained: int
    lost: int
    p_value: float
    per_class: list[ClassChange]

    @property
    def judged(self) -> int:
        """Images with a prediction of both runs and a label that the model knows."""
        return self.both_right + self.both_wrong + self.gained + self.lost


class Evaluation(Frozen):
    """The content of evaluation.json; every ratio is within 0..1.

    `accuracy_interval` is Wilson's, at 95%. `top5_accuracy` uses the first min(5, classes)
    guesses; null if there is only one class, or if a prediction carries fewer guesses.
    `confusion_matrix` counts images; its rows are true classes. `images` has the caller's counts
    (per split, unreadable, duplicates and others) and how many are `judged` here; its `unjudged`
    counts the other rows by reason. `unknown_classes` counts images by label behind the reason
    unknown_class: the UNKNOWN_NAMED most frequent labels, the most frequent first.
    `calibration_counts` has a row per bin of confidence: predictions, sum of their confidence,
    correct ones. `own_confidence` is, for each class, the mean probability that its images get
    for it. `train_accuracy` is that on a sample of the training images, scored as the others; null
    unless the run has trained. `galleries` names the images that the report shows, by the reason
    for showing them; `label_suspects` is how many labels may be wrong, shown or not.
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
    mean_confidence: float
    coverage: list[Coverage]
    own_confidence: list[float]
    train_accuracy: float | None = None
    findings: list[Finding] = Field(default_factory=list)
    label_suspects: int | None = None
    galleries: dict[str, list[Shown]] = Field(default_factory=dict)
    comparison: Comparison | None = None

    @property
    def headline(self) -> str:
        """The most important figures, on one line."""
        low, high = map(decimal, self.accuracy_interval)
        return (
            f"accuracy {decimal(self.accuracy)} (95% interval {low} to {high}), "
            f"macro F1 {decimal(self.macro_f1)}, {counted(self.images['judged'], 'image')}"
        )

    def recognising(self, train_accuracy: float) -> Self:
        """The evaluation with the accuracy on training images."""
        return self.model_copy(update={"train_accuracy": train_accuracy})

    def showing(self, galleries: dict[str, list[Shown]], suspects: int | None) -> Self:
        """The evaluation with the images of the report."""
        return self.model_copy(update={"galleries": galleries, "label_suspects": suspects})

    def against(self, comparison: Comparison) -> Self:
        """The evaluation with the comparison with another run."""
        return self.model_copy(update={"comparison": comparison})

    def saying(self, findings: list[Finding]) -> Self:
        """The evaluation with its findings."""
        return self.model_copy(update={"findings": findings})

    def write(self, path: Place) -> None:
        """Write evaluation.json, whole or not at all."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Place) -> Self:
        """Read evaluation.json; pydantic's ValidationError names the field that does not fit."""
        return cls.model_validate_json(path.read_bytes())


def evaluate(parts: Iterable[pa.Table], classes: list[str], images: dict[str, Any]) -> Evaluation:
    """Evaluate predictions (a row per image) against their labels, one part at a time.

    Columns used: label, predicted (class names or null), confidence (float32 or null, 0..1),
    top_classes (list of class names, best first), top_probabilities (theirs), error (a short
    reason or null). A row with an error, without a label or prediction, or with a label that is
    not one of `classes` is not evaluated but counted by reason. `images` is what the caller knows:
    train, validation, test, unreadable, duplicates, each a count. Raises ValueError, in one line,
    if no row can be evaluated or a predicted class is not one of `classes`.
    """
    # `map` releases a part before it takes the next; a comprehension would hold two.
    tallies = map(partial(take_tally, classes=classes), together(parts, ROWS))
    return _divided(sum(tallies, start=nothing(len(classes))), classes, images)


def _divided(tally: Tally, classes: list[str], images: dict[str, Any]) -> Evaluation:
    """The ratios of a tally. Sums are divided only here, so that parts can be added up."""
    judged = tally.judged
    unjudged = dict(sorted(tally.unjudged.items()))
    if not judged:
        found = by_reason(unjudged) or "there are no predictions"
        raise ValueError(f"no image can be evaluated: {found}")
    scores = metrics.summarise(tally.confusion)
    per_class = zip(classes, scores.pop("per_class"), strict=True)
    support = tally.confusion.sum(axis=1)
    return Evaluation(
        **scores,
        accuracy_interval=metrics.wilson_interval(tally.confusion.trace(), judged),
        top5_accuracy=_top_accuracy(tally, guesses_asked(classes)),
        classes=classes,
        confusion_matrix=tally.confusion.tolist(),
        per_class=[ClassScores.model_validate({"class": name} | row) for name, row in per_class],
        images=images | {"judged": judged, "unjudged": unjudged},
        unknown_classes=_most_frequent(tally.unknown_classes),
        calibration_error=metrics.calibration_error(tally.calibration),
        calibration_counts=tally.calibration.tolist(),
        confused_pairs=_confused_pairs(tally.confusion, classes),
        mean_confidence=tally.calibration[:, 1].sum() / judged,
        coverage=_coverage(tally.coverage),
        own_confidence=(tally.own / np.maximum(support, 1)).tolist(),
    )


def _top_accuracy(tally: Tally, k: int) -> float | None:
    """The share of images whose class is among `k` guesses; None if k is 1 or not all have k."""
    return tally.hits / tally.judged if k > 1 and tally.guessed == tally.judged else None


def _coverage(counts: NDArray[np.int64]) -> list[Coverage]:
    """A point for each confidence threshold that some image reaches, from the lowest."""
    accepted, right = counts[::-1].cumsum(axis=0)[::-1].T
    return [
        Coverage(
            confidence=bin_of / len(counts),
            coverage=accepted[bin_of] / accepted[0],
            accuracy=right[bin_of] / accepted[bin_of],
        )
        for bin_of in range(len(counts))
        if accepted[bin_of]
    ]


def _most_frequent(counts: Counter[str]) -> dict[str, int]:
    """The first UNKNOWN_NAMED, by count and then by name: the order of the parts has no effect."""
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
