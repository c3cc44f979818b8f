"""Scores from counts, and how far to trust them (scikit-learn and SciPy do the arithmetic)."""

from functools import partial
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

COVERAGE_BINS = 100


def confusion_counts(
    true: NDArray[np.integer], predicted: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """How often each true label was predicted as each label.

    `true` and `predicted` are labels of shape (N,), in 0..classes-1. Returns int64 of shape
    (classes, classes): rows are true, columns predicted. Counts of batches, or of workers, add
    up to the counts of their union. Raises ValueError for a label out of range.
    """
    true, predicted = np.asarray(true, np.int64), np.asarray(predicted, np.int64)
    for name, labels in (("true", true), ("predicted", predicted)):
        # Unchecked, label -1 or `classes` would silently count in a neighbouring cell.
        if labels.size and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f"{name} labels must be in 0..{classes - 1}")
    cells = np.bincount(true * classes + predicted, minlength=classes * classes)
    return cells.reshape(classes, classes)


def summarise(confusion: NDArray[np.integer]) -> dict[str, Any]:
    """The scores that confusion counts of shape (C, C) contain.

    Returns `accuracy`; `macro_` and `weighted_` `precision`, `recall` and `f1`; and `per_class`,
    for each label in order its `precision`, `recall`, `f1` and `support` (images truly of it).
    As scikit-learn defines them: macro is the plain mean over the classes that have an image,
    because these images cannot measure the others; weighted is the mean by support; a ratio over
    nothing is 0. Raises ValueError if nothing was counted.
    """
    if not confusion.any():
        raise ValueError("no scores: the confusion counts are empty")
    true, predicted = confusion.nonzero()
    counts = confusion[true, predicted]
    score = partial(
        precision_recall_fscore_support,
        true,
        predicted,
        sample_weight=counts,
        zero_division=0,
    )
    names = ("precision", "recall", "f1")
    scores: dict[str, Any] = {
        "accuracy": float(accuracy_score(true, predicted, sample_weight=counts))
    }
    for average in ("macro", "weighted"):
        means = score(labels=np.unique(true), average=average)[:3]
        scores |= {f"{average}_{name}": float(m) for name, m in zip(names, means, strict=True)}
    each = score(labels=range(len(confusion)), average=None)
    scores["per_class"] = [
        dict(zip(names, map(float, ratios), strict=True)) | {"support": int(support)}
        for *ratios, support in zip(*each, strict=True)
    ]
    return scores


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95% interval (low, high) around the share `correct / total`.

    Wilson, "Probable inference, the law of succession, and statistical inference" (JASA, 1927).
    Within 0..1, and of realistic width also at shares of 0 and 1, where the normal one has none.
    """
    if total == 0:
        return 0.0, 1.0
    z = 1.96
    centre = correct + z * z / 2
    spread = z * sqrt(correct * (total - correct) / total + z * z / 4)
    scale = total + z * z
    low = (centre - spread) / scale if correct else 0.0
    high = (centre + spread) / scale if correct < total else 1.0  # which rounding may miss
    return low, high


def calibration_counts(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = 15
) -> NDArray[np.float64]:
    """The sums from which `calibration_error` is computed; those of batches add up.

    `confidence` in 0..1 and `correct` have shape (N,). Returns float64 of shape (bins, 3): for
    each of equally wide bins of confidence, open below and closed above, how many predictions
    fell in, the sum of their confidence, and how many of them were correct.
    """
    confidence = np.asarray(confidence, np.float64)
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    columns = (np.ones_like(confidence), confidence, np.asarray(correct, np.float64))
    return np.stack([np.bincount(bin_of, column, minlength=bins) for column in columns], axis=1)


def calibration_error(counts: NDArray[np.floating]) -> float:
    """The expected calibration error, 0..1, of `calibration_counts`.

    Guo et al., "On Calibration of Modern Neural Networks" (ICML, 2017): the mean over bins,
    weighted by their predictions, of |accuracy - mean confidence|. 0 if nothing was counted.
    """
    total, confidence, correct = counts.T
    return float(np.abs(confidence - correct).sum() / max(total.sum(), 1.0))


def coverage_counts(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The counts from which accuracy by coverage is computed; those of batches add up.

    `confidence` in 0..1 and `correct` have shape (N,). Returns int64 of shape (COVERAGE_BINS, 2):
    for each of equally wide bins of confidence, closed below, predictions and correct ones.
    """
    # As float32, like predictions themselves: a confidence of 0.7 is not below 0.7.
    edges = (np.arange(COVERAGE_BINS) / COVERAGE_BINS).astype(np.float32)
    bin_of = np.searchsorted(edges, np.asarray(confidence, np.float32), side="right") - 1
    groups = (bin_of, bin_of[correct])
    return np.stack([np.bincount(group, minlength=COVERAGE_BINS) for group in groups], axis=1)


def shortfall(correct: int, total: int, accuracy: float) -> float:
    """The exact p-value: how likely `correct` or fewer of `total` answers are right by chance.

    `accuracy` is the probability that an answer is right. A one-sided binomial test: near 1, where
    an interval around the share `correct / total` is too narrow, it stays exact.
    """
    return float(binomtest(correct, total, accuracy, "less").pvalue)


def mcnemar(gained: int, lost: int) -> float:
    """The exact p-value: how likely chance alone makes two classifiers differ at least this much.

    `gained` and `lost` count images that only one, or only the other, predicts correctly. McNemar,
    "Note on the sampling error of the difference between correlated proportions" (Psychometrika,
    1947), by the binomial test. 1 if there is no such image.
    """
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
