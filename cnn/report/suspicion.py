"""Suspicion: the labels that may be wrong, by confident learning in its simplest form.

A label is suspected if the network predicts another class, with at least the confidence that is
usual for images of that class (Northcutt et al., "Confident Learning: Estimating Uncertainty in
Dataset Labels", JAIR, 2021).
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnn.manifest import class_indices
from cnn.report import columns
from cnn.report.evaluation import Evaluation


def usual_confidence(evaluation: Evaluation) -> NDArray[np.float64]:
    """The mean probability that images of each class get for it, float64 (C,), 0..1.

    For a class without images, the mean over the classes that have some.
    """
    own = np.array(evaluation.own_confidence)
    present = np.array([row.support > 0 for row in evaluation.per_class])
    return np.where(present, own, own[present].mean())


def suspicious(
    judged: pa.Table, classes: list[str], usual: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether each evaluated row's label is suspected, (N,), given the usual confidence, (C,)."""
    true, predicted = (class_indices(judged[name], classes) for name in ("label", "predicted"))
    confidence = judged["confidence"].to_numpy().astype(np.float64)
    return np.asarray((true != predicted) & (confidence >= usual[predicted]))


def suspects(parts: Iterable[pa.Table], evaluation: Evaluation) -> Iterator[pa.Table]:
    """The predictions whose labels are suspected, given the evaluation of the same predictions."""
    usual = usual_confidence(evaluation)
    for part in parts:
        judged = part.filter(pc.is_null(columns.reasons_against(part, evaluation.classes)))
        yield judged.filter(pa.array(suspicious(judged, evaluation.classes, usual)))
