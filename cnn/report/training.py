"""The report of a training run, or of a search and the model that it found."""

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cnn.config import Experiment
from cnn.dataset.census import Census
from cnn.dataset.parts import most_rows
from cnn.dataset.pixels import Gather
from cnn.dataset.prepared import Prepared
from cnn.report.album import Album, take_album
from cnn.report.evaluation import Evaluation, evaluate
from cnn.report.findings import findings_of_training
from cnn.report.page import Report, render
from cnn.report.provenance import provenance, settings_facts
from cnn.report.thumbnail import thumbnails
from cnn.report.tuning import Tuning
from cnn.runs.preflight import Briefing


@dataclass(frozen=True)
class TestResult:
    """How a trained model does on its test split.

    `history` has a row per epoch, as in history.csv. The model is from epoch `best`; None if it was
    trained on the validation images too. `temperature` has calibrated its confidence; None if its
    training began with a version that did not.
    """

    evaluation: Evaluation
    album: Album
    history: pd.DataFrame
    best: int | None
    temperature: float | None

    @property
    def calibration(self) -> str:
        """How the confidence was calibrated, in words."""
        if self.temperature is None:
            return "none: the training began with an earlier version"
        images = "the validation images" if self.best is not None else "those of the best trial"
        return f"temperature {self.temperature:.2f}, from {images}"


def evaluate_test(
    predictions: pa.Table,
    learned: pa.Table,
    classes: list[str],
    census: Census,
    balance: str,
) -> tuple[Evaluation, Album]:
    """Evaluate the predictions of the test split: with findings, and the images to show.

    learned: predictions of some of the training images. balance: as the model was trained.
    """
    evaluation = evaluate([predictions], classes, census.totals()).recognising(accuracy(learned))
    album = take_album([predictions], classes, evaluation)
    evaluation = evaluation.showing(album.galleries, album.suspects)
    return evaluation.saying(findings_of_training(evaluation, census, balance)), album


def accuracy(predictions: pa.Table) -> float:
    """The share of labelled images that are predicted as their label."""
    right = pc.equal(predictions["predicted"], predictions["label"])
    return float((pc.sum(right).as_py() or 0) / predictions.num_rows)


def training_report(
    title: str,
    settings: Experiment,
    dataset: Prepared,
    test: TestResult,
    seconds: float,
    resumed: bool,
    briefing: Briefing,
    tuning: Tuning | None = None,
    learned: Experiment | None = None,
) -> str:
    """The content of report.html, for a run whose last session took `seconds`.

    `briefing` is what the user has been told before it. `learned` are the settings that the model
    was trained with, if a search found them.
    """
    look = thumbnails(Gather(dataset), dataset.manifest.table, most_rows(dataset.card.image_size))
    report = Report(
        title=title,
        evaluation=test.evaluation,
        made={
            "images": settings.images or "the embedded digits",
            "network": briefing.lines["network"],
            "seed": str(settings.seed),
            **provenance(seconds, resumed),
        },
        facts={
            **settings_facts(settings),
            **(settings_facts(learned) if learned else {}),
            **briefing.lines,
            "calibration": test.calibration,
        },
        findings=test.evaluation.findings,
        history=test.history,
        best_epoch=test.best,
        unreadable=dataset.manifest.unreadable(),
        warnings=briefing.warnings,
        tuning=tuning,
        album=test.album,
        thumbnails=look(test.album.paths()),
    )
    return render(report)
