"""A report: one HTML file, complete in itself, that shows an evaluation to a person."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cnn.atomic import write_atomically
from cnn.report import figures
from cnn.report.evaluation import Evaluation

UNREADABLE_SHOWN = 200
WEAKEST_SHOWN = 5


def write_report(
    path: Path,
    *,
    title: str,
    evaluation: Evaluation | None,
    facts: Mapping[str, str],
    history: pd.DataFrame | None = None,
    unreadable: Sequence[tuple[str, str]] | None = None,
    warnings: Sequence[str] | None = None,
) -> None:
    """Write the report, whole or not at all.

    `evaluation` is None where the images have no labels; `facts` are shown as they are (command
    and settings); `history` has a row per epoch, as in history.csv; `unreadable` are pairs of
    path and reason; `warnings` are sentences for the top of the page. All text is escaped.
    """
    unreadable = unreadable or ()
    template = _environment().get_template("template.html.jinja")
    page = template.render(
        title=title,
        evaluation=evaluation,
        facts=facts,
        warnings=warnings or (),
        unreadable=unreadable[:UNREADABLE_SHOWN],
        unreadable_rest=len(unreadable) - UNREADABLE_SHOWN,
        **_judgement(evaluation) if evaluation else {},
        **_training(history) if history is not None and len(history) else {},
    )
    write_atomically(path, page)


def _judgement(evaluation: Evaluation) -> dict[str, Any]:
    """What the template shows of an evaluation beyond its own fields."""
    present = (row for row in evaluation.per_class if row.support)
    return {
        "weakest": sorted(present, key=lambda row: row.f1)[:WEAKEST_SHOWN],
        "confusion": Markup(
            figures.confusion_heatmap(evaluation.confusion_matrix, evaluation.classes)
        ),
        "reliability": Markup(figures.reliability_diagram(evaluation.calibration_counts)),
    }


def _training(history: pd.DataFrame) -> dict[str, Any]:
    """The learning curves, and the epoch that did best on validation (if one was measured)."""
    measured = history.dropna(subset="val_accuracy")
    best = measured.loc[measured["val_accuracy"].idxmax()] if len(measured) else None
    return {"curves": [Markup(svg) for svg in figures.learning_curves(history)], "best": best}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cnn.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, decimals=1: f"{share:.{decimals}%}"
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment
