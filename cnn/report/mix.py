"""The mix: predictions counted by class and confidence, without labels."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnn.manifest import class_indices
from cnn.report import columns
from cnn.scoring.prediction import answered, uncertain

BINS = 20


@dataclass(frozen=True, eq=False)
class Mix:
    """Sums over predictions: the mixes of parts add up to the mix of their union.

    Every row is counted once: in `images`, in `unreadable` or in `no_prediction`.

    images: int64 (C,), how many are predicted as each of `classes`. confidence: float64 (C,), the
    sum of their confidences. histogram: int64 (BINS,), images in equally wide bins of confidence,
    closed below and open above, the last one closed. uncertain: images with less confidence than
    `min_confidence`; 0 if that is None. unreadable: files without pixels, by reason.
    no_prediction: rows with neither a reason nor a prediction.
    """

    classes: list[str]
    min_confidence: float | None
    images: NDArray[np.int64]
    confidence: NDArray[np.float64]
    histogram: NDArray[np.int64]
    uncertain: int
    unreadable: Counter[str]
    no_prediction: int

    def __add__(self, other: Self) -> Self:
        """The mix of both, which must have the same classes and the same `min_confidence`."""
        return replace(
            self,
            images=self.images + other.images,
            confidence=self.confidence + other.confidence,
            histogram=self.histogram + other.histogram,
            uncertain=self.uncertain + other.uncertain,
            unreadable=self.unreadable + other.unreadable,
            no_prediction=self.no_prediction + other.no_prediction,
        )

    @property
    def scored(self) -> int:
        """Images with a prediction."""
        return int(self.images.sum())

    @property
    def mean_confidence(self) -> float | None:
        """The mean over all scored images, 0..1; None if there are none."""
        return float(self.confidence.sum() / self.scored) if self.scored else None


def take_mix(
    parts: Iterable[pa.Table], classes: list[str], min_confidence: float | None = None
) -> Mix:
    """Add up predictions (a row per image), one part at a time.

    Columns used: predicted (class name or null), confidence (float32 or null, 0..1), error (a
    short reason or null). A row with an error counts as unreadable, whatever else it holds.
    Raises ValueError, in one line, if a predicted class is not one of `classes`.
    """
    # `map` releases a part before it takes the next; a comprehension would hold two.
    mixes = map(partial(_mix, classes=classes, min_confidence=min_confidence), parts)
    return sum(mixes, start=_nothing(classes, min_confidence))


def _nothing(classes: list[str], min_confidence: float | None) -> Mix:
    """The mix of no predictions."""
    return Mix(
        classes=classes,
        min_confidence=min_confidence,
        images=np.zeros(len(classes), np.int64),
        confidence=np.zeros(len(classes)),
        histogram=np.zeros(BINS, np.int64),
        uncertain=0,
        unreadable=Counter(),
        no_prediction=0,
    )


def _mix(part: pa.Table, classes: list[str], min_confidence: float | None) -> Mix:
    """The mix of one part."""
    read = part.filter(pc.is_null(part["error"]))
    scored = read.filter(answered(read))
    label = class_indices(scored["predicted"], classes)
    # Clipped, because a rounded softmax may exceed 1, which is outside the histogram.
    confidence = np.clip(scored["confidence"].to_numpy().astype(np.float32), 0, 1)
    return Mix(
        classes=classes,
        min_confidence=min_confidence,
        images=np.bincount(label, minlength=len(classes)),
        confidence=np.bincount(label, confidence, len(classes)).astype(np.float64),
        histogram=np.histogram(confidence, BINS, (0, 1))[0],
        uncertain=len(uncertain(scored, min_confidence or 0.0)),
        unreadable=columns.counts(part["error"]),
        no_prediction=read.num_rows - scored.num_rows,
    )
