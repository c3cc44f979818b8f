"""The report of a training run."""

import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cnn.census import Census
from cnn.config import TrainConfig
from cnn.console import clock
from cnn.manifest import LEAKS, Manifest
from cnn.report.evaluation import Evaluation
from cnn.report.page import write_report
from cnn.run_folder import RunFolder, flat

LIBRARIES = ("ray", "torch", "torchvision", "pillow", "scikit-learn")


def write_run_report(
    run: RunFolder,
    settings: TrainConfig,
    manifest: Manifest,
    census: Census,
    evaluation: Evaluation,
    seconds: float,
    about: dict[str, str],
) -> None:
    """Write report.html, the last file of a run: it says that the run is done.

    `about` are the lines that told the user of data, network and plan, by name.
    """
    write_report(
        run.report,
        title=run.path.resolve().name,
        evaluation=evaluation,
        facts={**settings_facts(settings), **about, **provenance(seconds)},
        history=pd.read_csv(run.history),
        unreadable=unreadable(manifest.table),
        warnings=census.warnings(),
    )


def provenance(seconds: float) -> dict[str, str]:
    """The command, how long it took, and with what."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return {
        "command": shlex.join(["python", "-m", f"jobs.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "duration": clock(seconds),
        "versions": f"Python {platform.python_version()}, {libraries}",
    }


def settings_facts(settings: TrainConfig) -> dict[str, str]:
    """Every setting, as text."""
    return {
        name.split(".")[-1].replace("_", " "): str(value)
        for name, value in flat(settings.model_dump(mode="json")).items()
        if value is not None
    }


def unreadable(table: pa.Table) -> list[tuple[str, str]]:
    """Path and reason of each file without pixels; leaks are readable, and no part of it."""
    failed = table.filter(pc.is_valid(table["error"]))
    rows = zip(failed["path"].to_pylist(), failed["error"].to_pylist(), strict=True)
    return [(path, error) for path, error in rows if error not in LEAKS.values()]
