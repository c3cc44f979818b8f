"""Scores are functions of counts; counts add up."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_score,
    recall_score,
)

from cnn.metrics import (
    calibration_counts,
    calibration_error,
    confusion_counts,
    mcnemar,
    shortfall,
    summarise,
    wilson_interval,
)

CLASSES = 5
Labels = NDArray[np.int64]
pairs = st.lists(
    st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=60
).map(lambda rows: np.array(rows).T)
guesses = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


@given(pairs, st.integers(0, 60))
def test_confusion_counts_of_parts_add_up_to_those_of_the_whole(labels: Labels, cut: int) -> None:
    parts = (labels[:, :cut], labels[:, cut:])
    whole, head, tail = (
        confusion_counts(true, predicted, CLASSES) for true, predicted in (labels, *parts)
    )
    assert np.array_equal(whole, head + tail)
    assert whole.sum() == labels.shape[1]
    assert np.array_equal(whole, confusion_matrix(*labels, labels=range(CLASSES)))


@settings(max_examples=30)
@given(pairs)
def test_scores_from_counts_equal_those_of_scikit_learn_from_labels(labels: Labels) -> None:
    true, predicted = labels
    scores = summarise(confusion_counts(true, predicted, CLASSES))
    assert scores["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    measures = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
    for name, measure in measures.items():
        for average in ("macro", "weighted"):
            expected = measure(
                true, predicted, labels=np.unique(true), average=average, zero_division=0
            )
            assert scores[f"{average}_{name}"] == pytest.approx(expected)
        expected = measure(true, predicted, labels=range(CLASSES), average=None, zero_division=0)
        assert [row[name] for row in scores["per_class"]] == pytest.approx(expected)
    support = np.bincount(true, minlength=CLASSES)
    assert [row["support"] for row in scores["per_class"]] == support.tolist()


def test_perfect_predictions_score_one_and_inverse_predictions_zero() -> None:
    true = np.array([0, 1, 1, 0, 1])
    ratios = ("accuracy", "macro_f1", "weighted_precision", "weighted_recall")
    for predicted, expected in ((true, 1.0), (1 - true, 0.0)):
        scores = summarise(confusion_counts(true, predicted, 2))
        assert [scores[name] for name in ratios] == [expected] * len(ratios)


def test_the_macro_mean_is_over_the_classes_that_have_images() -> None:
    assert summarise(np.diag([3, 4, 0]))["macro_f1"] == 1
    predicted_as_the_third = np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    found = summarise(predicted_as_the_third)
    assert found["macro_recall"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["per_class"][2] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_out_of_range_is_refused_rather_than_counted_elsewhere(label: int) -> None:
    with pytest.raises(ValueError, match=r"0\.\.4"):
        confusion_counts(np.array([0, label]), np.array([0, 1]), CLASSES)


def test_empty_counts_have_no_scores() -> None:
    with pytest.raises(ValueError, match="empty"):
        summarise(np.zeros((3, 3), np.int64))


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [  # Newcombe, "Two-sided confidence intervals for the single proportion" (1998), table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_intervals_equal_the_published_ones(
    correct: int, total: int, low: float, high: float
) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_wilson_interval_contains_the_share_and_mirrors_with_it(
    counts: tuple[int, int],
) -> None:
    correct, total = counts
    low, high = wilson_interval(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1
    assert wilson_interval(total - correct, total) == pytest.approx((1 - high, 1 - low))


def test_without_images_the_interval_is_the_widest() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(guesses, st.integers(0, 60))
def test_calibration_counts_of_parts_add_up_to_those_of_the_whole(
    rows: list[tuple[float, bool]], cut: int
) -> None:
    confidence, correct = np.array(rows).T
    whole = calibration_counts(confidence, correct)
    parts = calibration_counts(confidence[:cut], correct[:cut])
    parts = parts + calibration_counts(confidence[cut:], correct[cut:])
    assert whole == pytest.approx(parts)
    assert whole.sum(axis=0) == pytest.approx([len(rows), confidence.sum(), correct.sum()])


def test_calibrated_predictions_have_almost_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=100_000)
    correct = rng.uniform(size=100_000) < confidence
    assert calibration_error(calibration_counts(confidence, correct)) < 0.01


@pytest.mark.parametrize("confidence", [0.0, 0.5, 1.0])
def test_the_calibration_error_of_wrong_predictions_is_their_confidence(confidence: float) -> None:
    counts = calibration_counts(np.full(10, confidence), np.zeros(10, bool))
    assert math.isclose(calibration_error(counts), confidence)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below() -> None:
    counts = calibration_counts(np.array([0.0, 0.5, 1.0]), np.ones(3, bool), bins=2)
    assert counts[:, 0].tolist() == [2, 1]


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (3, 3, 1.0), (1, 5, 14 / 64), (0, 10, 2 / 1024)]
)
def test_mcnemar_is_the_chance_that_a_fair_coin_falls_as_unevenly(
    gained: int, lost: int, p: float
) -> None:
    assert mcnemar(gained, lost) == mcnemar(lost, gained) == pytest.approx(p)


@pytest.mark.parametrize(
    ("correct", "total", "accuracy", "p"),
    [(0, 2, 0.5, 1 / 4), (1, 2, 0.5, 3 / 4), (9, 10, 0.9, 1 - 0.9**10), (0, 1, 0.0, 1.0)],
)
def test_a_shortfall_is_as_likely_as_so_few_right_answers_by_chance(
    correct: int, total: int, accuracy: float, p: float
) -> None:
    assert shortfall(correct, total, accuracy) == pytest.approx(p)
