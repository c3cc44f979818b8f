"""Sections: the content of each section of a report, as its template needs it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from cnn.report import confusion, figures, tuning_figures
from cnn.report.album import Album
from cnn.report.evaluation import ClassChange, Comparison, Evaluation, Shown
from cnn.report.mix import Mix
from cnn.report.tuning import Tuning, columns_of, ranked
from cnn.text.ratio import percent

UNREADABLE_SHOWN = 200
WEAKEST_SHOWN = 10
UNKNOWN_SHOWN = 10
# Twenty classes fit on a screen and the rest fold away, unless only a few (MIX_FOLDED) are left.
MIX_SHOWN = 20
MIX_FOLDED = 5
TRIALS_OPEN = 10
TRIALS_SHOWN = 50

GALLERIES = {
    "suspects": (
        "Suspected label errors",
        "The network predicts another class, and is at least as sure as it usually is for images "
        "of that class (of all classes, if that one has no images here). Either the label is "
        "wrong, or the network is wrong and too sure of itself.",
    ),
    "mistakes": (
        "Other confident mistakes",
        "The most confident wrong answers whose labels seem right.",
    ),
    "uncertain": ("Least confident", "The answers with the lowest confidence, right or wrong."),
    "right": ("Right answers, a sample", "Chosen at random."),
}


class ClassMix(NamedTuple):
    """A row of the class mix: `share` of all images; `bar`, relative to the most frequent class."""

    class_name: str
    images: int
    share: float
    bar: float
    confidence: float | None


class ClassRow(NamedTuple):
    """A row of the scores by class; a ratio over no images is None: it would be no true 0."""

    class_name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


def counts(evaluation: Evaluation | None, mix: Mix | None) -> dict[str, str]:
    """The small figures at the top, by name."""
    return (_judged_counts(evaluation) if evaluation else {}) | (_mix_counts(mix) if mix else {})


def _judged_counts(evaluation: Evaluation) -> dict[str, str]:
    found = {"macro F1": percent(evaluation.macro_f1)}
    if evaluation.top5_accuracy is not None and len(evaluation.classes) > 5:
        found["top 5"] = percent(evaluation.top5_accuracy)
    found["classes"] = count(len(evaluation.classes))
    known = {name: n for name, n in evaluation.images.items() if isinstance(n, int | float)}
    # Zero unreadable files and zero duplicates are shown; other counts of zero are left out.
    shown = {name: n for name, n in known.items() if n or name in ("unreadable", "duplicates")}
    return found | {name: count(n) for name, n in shown.items() if name != "judged"}


def _mix_counts(mix: Mix) -> dict[str, str]:
    found = {"classes": count(len(mix.classes)), "scored": count(mix.scored)}
    if mix.min_confidence is not None:
        found["uncertain"] = count(mix.uncertain)
    if mix.no_prediction:
        found["without prediction"] = count(mix.no_prediction)
    return found | {"unreadable": count(mix.unreadable.total())}


def unreadable(files: Sequence[tuple[str, str]], mix: Mix | None) -> dict[str, Any]:
    """The files without pixels: the first of them, and all by reason."""
    reasons = mix.unreadable if mix else Counter(reason for _, reason in files)
    shown = files[:UNREADABLE_SHOWN]
    return {
        "unreadable": shown,
        "unreadable_reasons": dict(reasons.most_common()),
        "unreadable_rest": reasons.total() - len(shown),
    }


def galleries(album: Album) -> list[tuple[str, str, list[Shown]]]:
    """Title, explanation and images of each gallery that has any."""
    return [
        (GALLERIES[name][0], GALLERIES[name][1] + _others(album, name), images)
        for name, images in album.galleries.items()
        if images
    ]


def _others(album: Album, name: str) -> str:
    """Where to find the suspects that a gallery leaves out, as a sentence."""
    shown, suspects = len(album.galleries[name]), album.suspects or 0
    if name != "suspects" or suspects <= shown:
        return ""
    return f" These are the {shown} most suspicious of {count(suspects)}; all are in suspects.csv."


def evaluated(
    evaluation: Evaluation, album: Album | None, thumbnails: Mapping[str, str]
) -> dict[str, Any]:
    """The content of the sections about an evaluation."""
    rows = class_rows(evaluation)
    worst_first = (rows[label] for label in confusion.by_trouble(evaluation))
    return {
        "class_rows": rows,
        "unknown": list(evaluation.unknown_classes.items())[:UNKNOWN_SHOWN],
        "weakest": [row for row in worst_first if row.support][:WEAKEST_SHOWN],
        "pairs": _pairs(evaluation),
        **_matrix(evaluation, album, thumbnails),
        "reliability": Markup(figures.reliability_diagram(evaluation.calibration_counts)),
        "coverage": Markup(figures.coverage_curve(evaluation.coverage, evaluation.accuracy)),
        **(_comparison(evaluation.comparison, album) if evaluation.comparison else {}),
    }


def class_rows(evaluation: Evaluation) -> list[ClassRow]:
    """The scores of every class, in order."""
    predicted = np.sum(evaluation.confusion_matrix, axis=0)
    return [
        ClassRow(
            class_name=row.class_name,
            precision=row.precision if times else None,
            recall=row.recall if row.support else None,
            f1=row.f1 if row.support else None,
            support=row.support,
        )
        for row, times in zip(evaluation.per_class, predicted, strict=True)
    ]


def _pairs(evaluation: Evaluation) -> list[tuple[Any, str]]:
    """The most confused pairs, each with its cell of the matrix."""
    label = {name: number for number, name in enumerate(evaluation.classes)}
    return [(p, f"{label[p.true]},{label[p.predicted]}") for p in evaluation.confused_pairs]


def _matrix(
    evaluation: Evaluation, album: Album | None, thumbnails: Mapping[str, str]
) -> dict[str, Any]:
    """The confusion matrix: a drawing per view, and the data that the script shows of its cells."""
    matrix = np.asarray(evaluation.confusion_matrix)
    views = confusion.views(evaluation)
    examples = album.cells if album else {}
    data = {
        "classes": evaluation.classes,
        "support": matrix.sum(axis=1).tolist(),
        "counts": [_cell(matrix, *cell) for cell in np.argwhere(matrix).tolist()],
        "views": {view.key: view.order for view in views},
        "examples": {
            f"{true},{predicted}": [
                (image.path, percent(image.confidence, 0), thumbnails[image.path])
                for image in images
                if image.path in thumbnails
            ]
            for (true, predicted), images in examples.items()
        },
    }
    drawn = [
        {
            "key": view.key,
            "title": view.title,
            "drawing": Markup(figures.confusion_heatmap(evaluation, view)),
        }
        for view in views
    ]
    return {"views": drawn, "confusion_data": data}


def _cell(matrix: NDArray[np.int64], true: int, predicted: int) -> tuple[int, int, int, str]:
    """A cell that has images: its labels, their number, and their share of the true class."""
    number = int(matrix[true, predicted])
    return true, predicted, number, percent(number / matrix[true].sum(), 0)


def _comparison(comparison: Comparison, album: Album | None) -> dict[str, Any]:
    rows = [row for row in comparison.per_class if row.support]
    galleries = album.changed if album else {}
    return {
        "comparison": comparison,
        "class_changes": sorted(rows, key=_gain),
        "changed": [
            ("Right before, wrong now", galleries.get("lost", [])),
            ("Wrong before, right now", galleries.get("gained", [])),
        ],
    }


def _gain(row: ClassChange) -> float:
    return (row.now - row.before) / row.support


def mixture(mix: Mix) -> dict[str, Any]:
    """The class mix and the histogram of a mix that is not empty."""
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


def training(history: pd.DataFrame, best: int | None) -> dict[str, Any]:
    """The learning curves, and the row of the epoch kept; None if validation did not choose it."""
    kept = history[history["epoch"] == best].dropna(subset="val_accuracy")
    return {
        "curves": {
            name: Markup(svg)
            for name, svg in zip(
                ("Loss", "Accuracy"), figures.learning_curves(history), strict=True
            )
        },
        "best": kept.iloc[0] if len(kept) else None,
    }


def search(tuning: Tuning) -> dict[str, Any]:
    """The trials of a search, and which settings mattered."""
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
    """Name and share of each dimension, and the length of its bar relative to the longest."""
    longest = max(importances.values(), default=0.0) or 1.0
    return [(name, share, share / longest) for name, share in importances.items()]


def count(number: float) -> str:
    """A number with its thousands separated."""
    return f"{number:,}"
