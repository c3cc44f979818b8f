"""A report: one HTML file, complete in itself, that shows a person what predictions add up to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cnn.atomic import write_atomically
from cnn.place import Place
from cnn.report import figures, tuning_figures
from cnn.report.evaluation import Evaluation
from cnn.report.mix import Mix
from cnn.report.tuning import Tuning, columns_of, ranked

UNREADABLE_SHOWN = 200
WEAKEST_SHOWN = 5
UNKNOWN_SHOWN = 10
# Beyond it classes fold away: twenty fit on a screen, and a fold of two or three is a nuisance.
MIX_SHOWN = 20
MIX_FOLDED = 5
TRIALS_OPEN = 10
TRIALS_SHOWN = 50


class ClassMix(NamedTuple):
    """A row of the class mix: `share` of all images, `bar` of the most frequent class."""

    class_name: str
    images: int
    share: float
    bar: float
    confidence: float | None


def write_report(
    path: Place,
    *,
    title: str,
    evaluation: Evaluation | None,
    facts: Mapping[str, str],
    mix: Mix | None = None,
    history: pd.DataFrame | None = None,
    unreadable: Sequence[tuple[str, str]] | None = None,
    warnings: Sequence[str] | None = None,
    tuning: Tuning | None = None,
) -> None:
    """Write the report, whole or not at all.

    `evaluation` is None where no image could be judged; `facts` are shown as they are (command
    and settings); `mix` is that of a scoring run; `history` has a row per epoch, as in
    history.csv; `unreadable` are pairs of path and reason, with a `mix` no more than are shown,
    for it knows how many there are; `warnings` are sentences for the top of the page;
    `tuning` is the search whose best trial is evaluated. All text is escaped.
    """
    unreadable = unreadable or ()
    reasons = mix.unreadable if mix else Counter(reason for _, reason in unreadable)
    shown = unreadable[:UNREADABLE_SHOWN]
    template = _environment().get_template("template.html.jinja")
    page = template.render(
        title=title,
        evaluation=evaluation,
        facts=facts,
        warnings=warnings or (),
        mix=mix,
        counts=(_judged_counts(evaluation) if evaluation else {}) | (_counts(mix) if mix else {}),
        unreadable=shown,
        unreadable_reasons=dict(reasons.most_common()),
        unreadable_rest=reasons.total() - len(shown),
        **_judgement(evaluation) if evaluation else {},
        **_mixture(mix) if mix and mix.scored else {},
        **_training(history) if history is not None and len(history) else {},
        **_search(tuning) if tuning else {},
    )
    write_atomically(path, page)


def _judged_counts(evaluation: Evaluation) -> dict[str, str]:
    """The small figures under the accuracy, by name."""
    counts = {"macro F1": _percent(evaluation.macro_f1)}
    if evaluation.top5_accuracy is not None and len(evaluation.classes) > 5:
        counts["top 5"] = _percent(evaluation.top5_accuracy)
    counts["classes"] = _count(len(evaluation.classes))
    known = {name: n for name, n in evaluation.images.items() if isinstance(n, int | float)}
    return counts | {name: _count(n) for name, n in known.items() if name != "judged"}


def _counts(mix: Mix) -> dict[str, str]:
    """The small figures that need no labels, by name."""
    counts = {"classes": _count(len(mix.classes)), "scored": _count(mix.scored)}
    if mix.min_confidence is not None:
        counts["uncertain"] = _count(mix.uncertain)
    if mix.no_prediction:
        counts["without prediction"] = _count(mix.no_prediction)
    return counts | {"unreadable": _count(mix.unreadable.total())}


def _judgement(evaluation: Evaluation) -> dict[str, Any]:
    """What the template shows of an evaluation beyond its own fields."""
    present = (row for row in evaluation.per_class if row.support)
    return {
        "unknown": list(evaluation.unknown_classes.items())[:UNKNOWN_SHOWN],
        "weakest": sorted(present, key=lambda row: row.f1)[:WEAKEST_SHOWN],
        "confusion": Markup(
            figures.confusion_heatmap(evaluation.confusion_matrix, evaluation.classes)
        ),
        "reliability": Markup(figures.reliability_diagram(evaluation.calibration_counts)),
    }


def _mixture(mix: Mix) -> dict[str, Any]:
    """What the template shows of a mix that is not empty, beyond its own fields."""
    most_frequent_first = np.argsort(-mix.images, kind="stable")
    rows = [_class_mix(mix, label) for label in most_frequent_first]
    shown = MIX_SHOWN if len(rows) > MIX_SHOWN + MIX_FOLDED else len(rows)
    return {
        "class_mix": rows[:shown],
        "class_mix_rest": rows[shown:],
        "histogram": Markup(figures.confidence_histogram(mix.histogram, mix.min_confidence)),
    }


def _class_mix(mix: Mix, label: int) -> ClassMix:
    images = int(mix.images[label])
    return ClassMix(
        class_name=mix.classes[label],
        images=images,
        share=images / mix.scored,
        bar=images / int(mix.images.max()),
        confidence=mix.confidence[label] / images if images else None,
    )


def _training(history: pd.DataFrame) -> dict[str, Any]:
    """The learning curves, and the epoch that did best on validation (if one was measured)."""
    measured = history.dropna(subset="val_accuracy")
    best = measured.loc[measured["val_accuracy"].idxmax()] if len(measured) else None
    return {"curves": [Markup(svg) for svg in figures.learning_curves(history)], "best": best}


def _search(tuning: Tuning) -> dict[str, Any]:
    """What the template shows of a search."""
    rows = ranked(tuning.trials)
    failed = [trial for trial in rows if trial.outcome == "failed"]
    others = [trial for trial in rows if trial.outcome != "failed"]
    return {
        "search": tuning,
        "importances": _bars(tuning.importances),
        "columns": columns_of(tuning.dimensions),
        "leaders": others[:TRIALS_OPEN],
        "followers": others[TRIALS_OPEN:TRIALS_SHOWN],
        "trials_rest": len(others[TRIALS_SHOWN:]),
        "failures": failed[:TRIALS_SHOWN],
        "failures_rest": len(failed[TRIALS_SHOWN:]),
        **(_search_figures(tuning) if tuning.best else {}),
    }


def _search_figures(tuning: Tuning) -> dict[str, Any]:
    """The curves of all trials, and a slice per dimension by its name."""
    slices = {name: tuning_figures.trial_slice(tuning, name) for name in tuning.dimensions}
    return {
        "trial_curves": Markup(tuning_figures.trial_curves(tuning)),
        "slices": {name: Markup(svg) for name, svg in slices.items()},
    }


def _bars(importances: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Name and share of each dimension, and the length of its bar against the longest."""
    longest = max(importances.values(), default=0.0) or 1.0
    return [(name, share, share / longest) for name, share in importances.items()]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cnn.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "count": _count, "text": tuning_figures.text_of}
    return environment


def _percent(share: float, decimals: int = 1) -> str:
    return f"{share:.{decimals}%}"


def _count(number: float) -> str:
    return f"{number:,}"
