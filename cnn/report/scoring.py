"""The report of a scoring run, and its numbers: summary.json."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from cnn.config import ScoreConfig
from cnn.files.atomic import write_atomically
from cnn.files.place import Place
from cnn.report.album import Album, take_album
from cnn.report.comparison import compare
from cnn.report.evaluation import Evaluation, Finding
from cnn.report.findings import findings_of_scoring
from cnn.report.mix import Mix
from cnn.report.page import Report, render
from cnn.report.provenance import provenance, settings_facts
from cnn.report.sections import UNREADABLE_SHOWN
from cnn.report.thumbnail import Thumbnails
from cnn.text.console import pace
from cnn.text.plural import by_reason
from cnn.text.ratio import decimal

Predictions = Callable[[], Iterable[pa.Table]]
"""Returns the predictions part by part; each call starts from the first part."""


@dataclass(frozen=True)
class Baseline:
    """A run to compare with, by its name."""

    name: str
    predictions: Predictions


@dataclass(frozen=True)
class Scored:
    """The results of a scoring run; `evaluation` is None if no image could be evaluated."""

    mix: Mix
    evaluation: Evaluation | None
    album: Album
    findings: list[Finding]


class Summary(BaseModel):
    """The content of summary.json.

    Every listed image is counted in `scored`, in `unreadable` or (if the network returns NaN) in
    `no_prediction`. `reasons` counts the unreadable by reason, `ignored` what is not an image.
    `seconds` and `images_per_second` are of the last session, which may have found some images
    already scored; if it found all, `images_per_second` is null. `predicted` counts images by
    predicted class, `confidence_histogram` by confidence, in equally wide bins over 0..1.
    """

    model_config = ConfigDict(frozen=True)

    images: int
    scored: int
    unreadable: int
    no_prediction: int
    reasons: dict[str, int]
    ignored: dict[str, int]
    uncertain: int | None
    mean_confidence: float | None
    seconds: float
    images_per_second: float | None
    predicted: dict[str, int] = Field(default_factory=dict)
    confidence_histogram: list[int] = Field(default_factory=list)
    findings: list[Finding] = Field(default_factory=list)

    @classmethod
    def of(
        cls, scored: Scored, images: int, ignored: dict[str, int], seconds: float, session: int
    ) -> Self:
        """The summary of `scored`; the last session scored `session` images in `seconds`."""
        mix = scored.mix
        summary = cls(
            images=images,
            scored=mix.scored,
            unreadable=mix.unreadable.total(),
            no_prediction=mix.no_prediction,
            reasons=dict(mix.unreadable.most_common()),
            ignored=ignored,
            uncertain=None if mix.min_confidence is None else mix.uncertain,
            mean_confidence=mix.mean_confidence,
            seconds=round(seconds, 3),
            images_per_second=significant(session / seconds) if session else None,
            predicted=dict(zip(mix.classes, mix.images.tolist(), strict=True)),
            confidence_histogram=mix.histogram.tolist(),
            findings=scored.findings,
        )
        if summary.scored + summary.unreadable + summary.no_prediction != images:
            raise RuntimeError(
                f"{images} images were listed, but the number of predictions differs"
            )
        return summary

    def write(self, path: Place) -> None:
        """Write summary.json, whole or not at all."""
        write_atomically(path, self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, path: Place) -> Self:
        """Read summary.json."""
        return cls.model_validate_json(path.read_bytes())

    @property
    def headline(self) -> str:
        """The most important numbers, on one line."""
        parts = [
            f"scored {self.scored:,} of {self.images:,} images, {self.unreadable:,} unreadable"
        ]
        if self.no_prediction:
            parts.append(f"{self.no_prediction:,} without prediction")
        if self.uncertain is not None:
            parts.append(f"{self.uncertain:,} uncertain")
        if self.mean_confidence is not None:
            parts.append(f"mean confidence {decimal(self.mean_confidence)}")
        return ", ".join(parts)


def significant(rate: float) -> float:
    """The rate with one decimal, or with two digits if it is below one."""
    return round(rate, 1) if rate >= 1 else float(f"{rate:.2g}")


def summarise_scores(
    predictions: Predictions,
    mix: Mix,
    evaluation: Evaluation | None,
    baseline: Baseline | None,
) -> Scored:
    """The results of a scoring run, compared with those of `baseline`."""
    album = take_album(predictions(), mix.classes, evaluation)
    if evaluation is None:
        return Scored(mix, None, album, findings_of_scoring(mix, None))
    if baseline is not None:
        before = baseline.predictions()
        comparison, changed = compare(predictions(), before, mix.classes, baseline.name)
        evaluation = evaluation.against(comparison)
        album = replace(album, changed=changed)
    evaluation = evaluation.showing(album.galleries | album.changed, album.suspects)
    findings = findings_of_scoring(mix, evaluation)
    return Scored(mix, evaluation.saying(findings), album, findings)


def scoring_report(
    title: str,
    settings: ScoreConfig,
    scored: Scored,
    summary: Summary,
    remarks: list[str],
    predictions: Predictions,
    look: Thumbnails,
    resumed: bool,
) -> str:
    """The content of report.html; `remarks` are the warnings about folders and labels.

    resumed: whether some images were scored in an earlier session.
    """
    rate = summary.images_per_second
    speed = "none scored now" if rate is None else pace(rate, "images")
    report = Report(
        title=title,
        evaluation=scored.evaluation,
        mix=scored.mix,
        made={
            "model": settings.model,
            "images": ", ".join(settings.images),
            **provenance(summary.seconds, resumed),
            "speed": speed,
            **({"ignored": by_reason(summary.ignored)} if summary.ignored else {}),
        },
        facts=settings_facts(settings),
        findings=scored.findings,
        unreadable=list(islice(unreadable(predictions()), UNREADABLE_SHOWN)),
        warnings=remarks,
        album=scored.album,
        thumbnails=look(scored.album.paths()),
    )
    return render(report)


def unreadable(predictions: Iterable[pa.Table]) -> Iterator[tuple[str, str]]:
    """Path and reason of each file without pixels."""
    for table in predictions:
        failed = table.filter(pc.is_valid(table["error"]))
        yield from zip(failed["path"].to_pylist(), failed["error"].to_pylist(), strict=True)
