"""Laws of a scoring run's page and summary: the speed is told, however slow."""

import pyarrow as pa
import pytest

from cnn.config import ScoreConfig
from cnn.report.mix import take_mix
from cnn.report.scoring import Summary, scoring_report, summarise_scores

CLASSES = ["cat", "dog"]
SETTINGS = ScoreConfig(model="model", images=("photos",), out="out")
PREDICTIONS = pa.table(
    {
        "path": ["1.jpg", "2.jpg"],
        "label": pa.nulls(2, pa.string()),
        "predicted": CLASSES,
        "confidence": pa.array([0.9, 0.6], pa.float32()),
        "top_classes": [CLASSES, CLASSES[::-1]],
        "top_probabilities": pa.array([[0.9, 0.1], [0.6, 0.4]], pa.list_(pa.float32())),
        "error": pa.nulls(2, pa.string()),
    }
)


def summary_of(predictions: pa.Table, min_confidence: float | None = None) -> Summary:
    mix = take_mix([predictions], CLASSES, min_confidence)
    scored = summarise_scores(lambda: [predictions], mix, None, None)
    return Summary.of(scored, predictions.num_rows, {}, 1.0, predictions.num_rows)


def told(session: int, seconds: float) -> tuple[float | None, str]:
    """The speed in summary.json, and the page of a run whose last session scored `session`."""
    mix = take_mix([PREDICTIONS], CLASSES)
    scored = summarise_scores(lambda: [PREDICTIONS], mix, None, None)
    summary = Summary.of(scored, 2, {}, seconds, session)
    page = scoring_report(
        "run", SETTINGS, scored, summary, [], lambda: [PREDICTIONS], lambda paths: {}, False
    )
    return summary.images_per_second, page


@pytest.mark.parametrize(
    ("session", "seconds", "rate", "words"),
    [
        (2000, 1.5, 1333.3, "1,333 images/s"),
        (32, 68.0, 0.47, "28.2 images/min"),
        (1, 90.0, 0.011, "0.7 images/min"),
        (0, 3.0, None, "none scored now"),
    ],
)
def test_a_slow_run_has_a_speed_and_only_a_session_without_images_has_none(
    session: int, seconds: float, rate: float | None, words: str
) -> None:
    found, page = told(session, seconds)
    assert found == rate
    assert words in page and (session == 0) == ("none scored now" in page)


def test_the_headline_counts_every_image_once() -> None:
    names = pa.array(["cat", None], pa.string())
    half = PREDICTIONS.set_column(2, "predicted", names)
    assert summary_of(half, 0.95).headline == (
        "scored 1 of 2 images, 0 unreadable, 1 without prediction, 1 uncertain, "
        "mean confidence 0.900"
    )
    assert "without prediction" not in summary_of(PREDICTIONS).headline


def test_a_mean_confidence_looks_like_1_only_if_it_is() -> None:
    sure = PREDICTIONS.set_column(3, "confidence", pa.array([0.9999, 0.9993], pa.float32()))
    assert summary_of(sure).headline.endswith("mean confidence 0.9996")
