"""The tally: the sums that an evaluation needs, which add up over parts of the predictions."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnn import metrics
from cnn.manifest import class_indices
from cnn.report import columns
from cnn.scoring.prediction import TOP

# Rows counted at once. Adding two tallies takes time in proportion to their cells and labels: 0.5 s
# at 5,000 classes. With an addition for every part, a million images would take half an hour.
ROWS = 2**16


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums over predictions with labels: the tallies of parts add up to that of their union.

    confusion: int64 (C, C), as metrics.confusion_counts; its sum is the number of evaluated images.
    calibration: float64 (bins, 3), as metrics.calibration_counts. coverage: int64 (bins, 2), as
    metrics.coverage_counts. own: float64 (C,), the sum over a class's images of the probability
    that they got for it (0 if it is not among their guesses). guessed: evaluated images with
    as many guesses as top-5 accuracy uses. hits: those whose class is among these guesses.
    unjudged: the other rows by reason. unknown_classes: labels that are not classes of the model.
    """

    confusion: NDArray[np.int64]
    calibration: NDArray[np.float64]
    coverage: NDArray[np.int64]
    own: NDArray[np.float64]
    guessed: int
    hits: int
    unjudged: Counter[str]
    unknown_classes: Counter[str]

    def __add__(self, other: Self) -> Self:
        """The tally of both, which must have the same classes."""
        names = [field.name for field in fields(self)]
        return type(self)(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def judged(self) -> int:
        """Images with both a prediction and a label that the model knows."""
        return int(self.confusion.sum())


def nothing(classes: int) -> Tally:
    """The tally of no predictions."""
    no_labels, no_answers = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    return Tally(
        confusion=metrics.confusion_counts(no_labels, no_labels, classes),
        calibration=metrics.calibration_counts(np.zeros(0), no_answers),
        coverage=metrics.coverage_counts(np.zeros(0), no_answers),
        own=np.zeros(classes),
        guessed=0,
        hits=0,
        unjudged=Counter(),
        unknown_classes=Counter(),
    )


def take_tally(part: pa.Table, classes: list[str]) -> Tally:
    """The tally of one part."""
    part = part.combine_chunks()
    reason = columns.reasons_against(part, classes)
    judged = part.filter(pc.is_null(reason))
    true, predicted = (class_indices(judged[name], classes) for name in ("label", "predicted"))
    # A rounded softmax may exceed 1, which is outside the last bin.
    confidence = np.clip(judged["confidence"].to_numpy(), 0, 1)
    guessed, hits = _guesses(judged, guesses_asked(classes))
    own = np.bincount(true, columns.own_probability(judged), len(classes))
    return Tally(
        confusion=metrics.confusion_counts(true, predicted, len(classes)),
        calibration=metrics.calibration_counts(confidence, true == predicted),
        coverage=metrics.coverage_counts(confidence, true == predicted),
        own=own.astype(np.float64),
        guessed=guessed,
        hits=hits,
        unjudged=columns.counts(reason),
        unknown_classes=columns.counts(part["label"].filter(pc.equal(reason, "unknown_class"))),
    )


def together(parts: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The parts, concatenated so that each but the last has at least `rows` rows."""
    held: list[pa.Table] = []
    for part in parts:
        held.append(part)
        del part  # or it would stay in memory while the next is made
        if sum(map(len, held)) >= rows:
            yield pa.concat_tables(held)
            held.clear()
    if held:
        yield pa.concat_tables(held)


def guesses_asked(classes: list[str]) -> int:
    """How many guesses the top-5 accuracy uses."""
    return min(TOP, len(classes))


def _guesses(judged: pa.Table, k: int) -> tuple[int, int]:
    """How many images carry `k` guesses, and how many have their class among the first `k`."""
    guesses = pc.list_slice(judged["top_classes"], 0, k)
    guessed = pc.sum(pc.equal(pc.list_value_length(guesses), k))
    asked = judged["label"].take(pc.list_parent_indices(guesses))
    hits = pc.sum(pc.equal(pc.list_flatten(guesses), asked))
    return guessed.as_py() or 0, hits.as_py() or 0
