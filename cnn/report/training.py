"""The report of a training run, or of a search and the model that it found."""

import pyarrow as pa
import pyarrow.compute as pc

from cnn.census import Census
from cnn.config import Experiment
from cnn.manifest import LEAKS, Manifest
from cnn.report.evaluation import Evaluation
from cnn.report.page import write_report
from cnn.report.provenance import provenance, settings_facts
from cnn.report.tuning import Tuning
from cnn.run_folder import TrainFolder


def write_training_report(
    run: TrainFolder,
    settings: Experiment,
    manifest: Manifest,
    census: Census,
    evaluation: Evaluation,
    seconds: float,
    about: dict[str, str],
    tuning: Tuning | None = None,
) -> None:
    """Write report.html, the last file of a run: it says that the run is done.

    `about` are the lines that told the user of data, network and plan, by name.
    """
    write_report(
        run.report,
        title=run.path.resolve().name,
        evaluation=evaluation,
        facts={**settings_facts(settings), **about, **provenance(seconds)},
        history=run.read_history(),
        unreadable=unreadable(manifest.table),
        warnings=census.warnings(),
        tuning=tuning,
    )


def unreadable(table: pa.Table) -> list[tuple[str, str]]:
    """Path and reason of each file without pixels; leaks are readable, and no part of it."""
    failed = table.filter(pc.is_valid(table["error"]))
    rows = zip(failed["path"].to_pylist(), failed["error"].to_pylist(), strict=True)
    return [(path, error) for path, error in rows if error not in LEAKS.values()]
