"""The report of a scoring run, and the same in numbers: summary.json."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from cnn.atomic import write_atomically
from cnn.config import ScoreConfig
from cnn.place import Place
from cnn.report.evaluation import Evaluation
from cnn.report.mix import Mix
from cnn.report.page import UNREADABLE_SHOWN, write_report
from cnn.report.provenance import provenance, settings_facts
from cnn.score_folder import ScoreFolder


class Summary(BaseModel):
    """The content of summary.json.

    Every listed image is in `scored`, in `unreadable` or (a network that says NaN) in
    `no_prediction`; `reasons` divides the unreadable, `ignored` counts what is no image. `seconds`
    and `images_per_second` are of the last session, which may have found some images scored; null
    where it found all.
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

    @classmethod
    def of(
        cls, mix: Mix, images: int, ignored: dict[str, int], seconds: float, session: int
    ) -> Self:
        """From the mix of all predictions; `session` images took `seconds`."""
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
            images_per_second=round(session / seconds, 1) if session else None,
        )
        if summary.scored + summary.unreadable + summary.no_prediction != images:
            raise RuntimeError(f"{images} images were listed, and the predictions are not as many")
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
        """The numbers that matter, on one line."""
        parts = [
            f"scored {self.scored:,} of {self.images:,} images, {self.unreadable:,} unreadable"
        ]
        if self.uncertain is not None:
            parts.append(f"{self.uncertain:,} uncertain")
        if self.mean_confidence is not None:
            parts.append(f"mean confidence {self.mean_confidence:.3f}")
        return ", ".join(parts)


def write_scoring_report(
    run: ScoreFolder,
    settings: ScoreConfig,
    evaluation: Evaluation | None,
    mix: Mix,
    summary: Summary,
    remarks: list[str],
    predictions: Iterable[pa.Table],
) -> None:
    """Write report.html, the last file of a run: it says that the run is done."""
    speed = f"{summary.images_per_second:,.0f}" if summary.images_per_second else "none scored now"
    write_report(
        run.report,
        title=run.path.resolve().name,
        evaluation=evaluation,
        mix=mix,
        facts={
            **settings_facts(settings),
            "images per second": speed,
            **provenance(summary.seconds),
        },
        unreadable=list(islice(unreadable(predictions), UNREADABLE_SHOWN)),
        warnings=remarks,
    )


def unreadable(predictions: Iterable[pa.Table]) -> Iterator[tuple[str, str]]:
    """Path and reason of each file without pixels."""
    for table in predictions:
        failed = table.filter(pc.is_valid(table["error"]))
        yield from zip(failed["path"].to_pylist(), failed["error"].to_pylist(), strict=True)
