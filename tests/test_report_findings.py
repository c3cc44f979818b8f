"""Laws of findings: a finding is reported if the numbers support it, and only then."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cnn.dataset.census import Census
from cnn.metrics import mcnemar
from cnn.report import findings
from cnn.report.evaluation import Comparison, Evaluation, Finding, evaluate
from cnn.report.mix import take_mix
from cnn.report.training import evaluate_test
from tests.test_report import predictions


def of_counts(confusion: list[list[int]], confidence: float = 0.9) -> Evaluation:
    """The evaluation with this confusion matrix, of the classes `a`, `b`, `c` …"""
    names = [chr(ord("a") + label) for label in range(len(confusion))]
    cells = [(t, p) for t, row in enumerate(confusion) for p, n in enumerate(row) for _ in range(n)]
    label, predicted = ([names[cell[side]] for cell in cells] for side in (0, 1))
    guesses = [[name, *(other for other in names if other != name)] for name in predicted]
    sure = pa.array([confidence] * len(cells), pa.float32())
    table = predictions(
        names, len(cells), label=label, predicted=predicted, top_classes=guesses, confidence=sure
    )
    return evaluate([table], names, {})


def only(found: Any) -> Finding:
    (finding,) = found
    return finding


def compared(gained: int, lost: int) -> Comparison:
    """A comparison with the run `x`."""
    p = mcnemar(gained, lost)
    return Comparison(
        other="x", both_right=9, both_wrong=9, gained=gained, lost=lost, p_value=p, per_class=[]
    )


GOOD = [[400, 0, 0], [0, 400, 0], [0, 0, 400]]


def test_a_weak_class_is_named_with_the_class_it_is_predicted_as() -> None:
    found = only(findings.troubled_classes(of_counts([[69, 31, 0], [0, 100, 0], [2, 0, 98]])))
    assert found.title == "a is recognised 69% of the time"
    assert "69 of 100 images" in found.text
    assert "31% are predicted as b" in found.text
    assert "predicted as b" in found.step
    assert list(findings.troubled_classes(of_counts(GOOD))) == []


@pytest.mark.parametrize(
    ("classes", "images", "accuracy"), [(100, 50, 0.8), (10, 15, 0.99), (100, 100, 0.99)]
)
def test_chance_alone_rarely_makes_a_finding_among_equal_classes(
    classes: int, images: int, accuracy: float
) -> None:
    draws = np.random.default_rng(0).binomial(images, accuracy, (20, classes))
    named = 0
    for hits in draws:  # 20 runs
        matrix = np.diag(hits) + np.diag(images - hits[:-1], 1)
        matrix[-1, 0] = images - hits[-1]
        named += bool(list(findings.troubled_classes(of_counts(matrix.tolist()))))
    assert named <= 2


def test_different_shares_are_printed_differently() -> None:
    matrix = [[9960, 40], [0, 10000]]
    found = only(findings.troubled_classes(of_counts(matrix)))
    assert found.title == "a is recognised 99.6% of the time"
    assert "99.8% of all" in found.text and "0.4% are predicted as b" in found.text


def test_a_class_with_scattered_mistakes_gets_other_advice() -> None:
    matrix = (100 * np.eye(8, dtype=int)).tolist()
    matrix[0] = [30, 10, 10, 10, 10, 10, 10, 10]
    assert "spread over many classes" in only(findings.troubled_classes(of_counts(matrix))).step


@pytest.mark.parametrize(
    ("images", "train", "title"),
    [
        (100, 0.95, "The model over-fits by 25 points"),
        (100, 0.72, "The model has room to learn more"),
        (100, 0.77, None),
        (10, 0.85, None),  # 0.7 of 20 test images: it may be 0.85 in truth
    ],
)
def test_over_fitting_and_room_to_learn_are_reported(
    images: int, train: float, title: str | None
) -> None:
    wrong = images * 3 // 10
    counts = [[images - wrong, wrong], [wrong, images - wrong]]
    found = list(findings.over_fitting(of_counts(counts).recognising(train)))
    assert [one.title for one in found] == ([title] if title else [])


def test_scored_folders_say_nothing_of_over_fitting() -> None:
    assert [*findings.over_fitting(of_counts([[70, 30], [30, 70]]))] == []


@pytest.mark.parametrize(("sure", "title"), [(0.95, "over"), (0.4, "under"), (0.71, None)])
def test_over_and_under_confidence_beyond_chance_are_reported(
    sure: float, title: str | None
) -> None:
    found = [f.title for f in findings.calibration(of_counts([[70, 30], [30, 70]], sure))]
    assert found == (
        [f"The model is {title}-confident by {abs(sure - 0.7) * 100:.0f} points"] if title else []
    )


def test_a_small_test_split_gives_the_number_of_images_needed() -> None:
    found = only(findings.small_test(of_counts([[7, 3], [3, 7]])))
    assert "10 test images or fewer" in found.text
    assert "323 test images" in found.step
    assert list(findings.small_test(of_counts(GOOD))) == []


@pytest.mark.parametrize("images", [1000, 100])
def test_an_accuracy_goal_is_reported_with_the_confidence_that_reaches_it(
    images: int,
) -> None:
    right = ([True] * 4 + [False]) * (images // 5)
    table = predictions(
        ["a", "b"],
        rows=images,
        label=["a"] * images,
        predicted=["a" if hit else "b" for hit in right],
        confidence=pa.array([0.9 if hit else 0.55 for hit in right], pa.float32()),
    )
    reported = list(findings.acceptance(evaluate([table], ["a", "b"], {})))
    if images == 100:  # 80 answers may all be right by luck
        assert reported == []
        return
    found = only(reported)
    assert found.title == "80% of the images can be answered with 99% accuracy"
    assert "--min-confidence 0.56" in found.step


@pytest.mark.parametrize(
    ("gained", "lost", "title", "step"),
    [
        (10, 9, "do not show which", "on more images"),
        (40, 5, "This model is significantly better", "from right to wrong"),
        (5, 40, "The other model is", "from wrong to right"),
        (40, 0, "This model is", "it has right whatever the worse one has right"),
        (0, 40, "The other model is", "it has right whatever the worse one has right"),
    ],
)
def test_a_better_model_is_named_only_beyond_chance_with_the_images_that_it_gets_wrong(
    gained: int, lost: int, title: str, step: str
) -> None:
    found = only(findings.change(compared(gained, lost)))
    assert title in found.title
    assert step in found.step


def test_problems_with_the_files_are_counted() -> None:
    counts = {
        "a": {"train": 90, "validation": 0, "test": 9},
        "b": {"train": 9, "validation": 0, "test": 9},
    }
    conflicts = {"hash": [("a/1", "a"), ("b/1", "b")]}
    census = Census(counts, {"bomb": 2, "truncated": 1}, {}, {}, 4, conflicts)  # type: ignore[arg-type]
    titles = [f.title for f in [*findings.files(census), *findings.imbalance(census, "none")]]
    assert titles == [
        "3 files could not be read",
        "Identical images under more than one label: 1",
        "Exact copies in the data: 4",
        "Class sizes differ by up to 10.0 to 1",
    ]
    clean = Census({"a": counts["a"]}, {}, {}, {}, 0, {})  # type: ignore[dict-item]
    assert [*findings.files(clean), *findings.imbalance(clean, "none")] == []


def test_scoring_without_labels_reports_what_it_can() -> None:
    table = predictions(
        list("abc"),
        rows=10,
        predicted=["a"] * 10,
        confidence=pa.array([0.3] * 4 + [0.9] * 6, pa.float32()),
        error=["bomb"] + [None] * 9,
    )
    found = findings.findings_of_scoring(take_mix([table], list("abc"), 0.5), None)
    assert [finding.title for finding in found] == [
        "1 file could not be read",
        "33% of the answers are uncertain",
        "100% of the images are predicted as a",
    ]


@pytest.mark.parametrize(("images", "some"), [(299, "label them"), (300, "label a few hundred")])
def test_no_more_uncertain_images_are_to_be_labelled_than_there_are(images: int, some: str) -> None:
    unsure = pa.array([0.3] * images, pa.float32())
    table = predictions(["a", "b"], images, confidence=unsure)
    assert some in only(findings.uncertainty(take_mix([table], ["a", "b"], 0.5))).step


def test_images_without_a_prediction_are_a_finding() -> None:
    table = predictions(list("ab"), rows=3, predicted=["a", None, None])
    titles = [f.title for f in findings.findings_of_scoring(take_mix([table], list("ab")), None)]
    assert titles == ["2 images got no prediction"]


def test_a_training_run_without_problems_has_no_findings() -> None:
    row = {"train": 400, "validation": 40, "test": 400}
    census = Census({"a": row, "b": row, "c": row}, {}, {}, {}, 0, {})  # type: ignore[dict-item]
    good = of_counts(GOOD, 0.99).recognising(0.999)
    assert findings.findings_of_training(good, census, "none") == []


def test_training_images_are_judged_by_how_many_are_predicted_as_their_label() -> None:
    row = {"train": 400, "validation": 40, "test": 400}
    census = Census({"a": row, "b": row, "c": row}, {}, {}, {}, 0, {})  # type: ignore[dict-item]
    learned = predictions(
        list("abc"), rows=4, label=["a", "b", "b", "c"], predicted=["a", "b", "c", None]
    )
    found, _ = evaluate_test(predictions(list("abc")), learned, list("abc"), census, "none")
    assert found.train_accuracy == 0.5


def test_balanced_training_is_not_advised_twice() -> None:
    counts = {"a": {"train": 90, "validation": 9, "test": 9}, "b": {"train": 9}}
    census = Census(counts, {}, {}, {}, 0, {})  # type: ignore[arg-type]
    steps = [only(findings.imbalance(census, balance)).step for balance in ("none", "sampling")]
    assert ["--balance" in step for step in steps] == [True, False]


def test_many_suspected_labels_are_counted_with_the_file_that_lists_them() -> None:
    evaluation = of_counts([[90, 10], [0, 100]]).showing({}, 10)
    found = only(findings.suspected_labels(evaluation))
    assert found.title == "10 labels may be wrong"
    assert "suspects.csv" in found.step


@pytest.mark.parametrize(("images", "least"), [(10, 1), (100, 2), (200, 4)])
def test_suspected_labels_are_a_finding_from_a_fiftieth_of_the_images(
    images: int, least: int
) -> None:
    evaluation = of_counts([[images // 2, 0], [0, images // 2]])
    for number in (None, 0, least - 1, least):
        found = list(findings.suspected_labels(evaluation.showing({}, number)))
        assert bool(found) == (number == least)


def test_one_image_is_not_counted_as_several() -> None:
    found = only(findings.change(compared(1, 30))).text
    assert found.startswith("1 image is right now and was wrong in x, 30 the reverse.")
    assert (
        "have 1 test image or fewer" in only(findings.small_test(of_counts([[1, 0], [0, 1]]))).text
    )


def test_almost_all_images_are_not_reported_as_all() -> None:
    sure = pa.array([0.9] * 500, pa.float32())
    table = predictions(list("abc"), 500, predicted=["a"] * 499 + ["b"], confidence=sure)
    found = only(findings.one_sided(take_mix([table], list("abc"))))
    assert found.title == "99.8% of the images are predicted as a"
