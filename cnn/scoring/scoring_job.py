"""A scoring job: the images, the model, and the folder of the run."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from cnn.bundle import Bundle
from cnn.config import ScoreConfig
from cnn.dataset.parts import Parts
from cnn.scoring.score_folder import ScoreFolder
from cnn.scoring.worklist import Worklist


@dataclass(frozen=True)
class ScoringJob:
    """What a scoring run works on."""

    settings: ScoreConfig
    run: ScoreFolder
    model: Bundle
    work: Worklist
    parts: Parts

    @property
    def manifest(self) -> pa.Table:
        return self.work.manifest.table

    def predictions(self) -> Iterator[pa.Table]:
        """The predictions, part by part."""
        return self.run.tables(self.parts)
