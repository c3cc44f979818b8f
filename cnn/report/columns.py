"""Columns of predictions, read as labels, counts, and reasons not to evaluate a row."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cnn.scoring.prediction import answered


def counts(values: pa.ChunkedArray) -> Counter[str]:
    """How often each value occurs; nulls are not counted."""
    found = pc.value_counts(values.drop_null())
    return Counter(dict(zip(*(column.to_pylist() for column in found.flatten()), strict=True)))


def reasons_against(part: pa.Table, classes: list[str]) -> pa.ChunkedArray:
    """For each row, why it cannot be evaluated; null if it can."""
    error, label = part["error"], part["label"]
    conditions = (
        pc.is_valid(error),
        pc.is_null(label),
        pc.invert(pc.is_in(label, value_set=pa.array(classes, pa.string()))),
        pc.invert(answered(part)),
    )
    return pc.case_when(
        pc.make_struct(*conditions), error, "no_label", "unknown_class", "no_prediction"
    )


def own_probability(judged: pa.Table) -> NDArray[np.float64]:
    """The probability of each row's own label, (N,); 0 if it is not among the guesses."""
    guesses = judged["top_classes"]
    row = np.asarray(pc.list_parent_indices(guesses), np.int64)
    asked = judged["label"].take(pa.array(row))
    hit = np.asarray(pc.equal(pc.list_flatten(guesses), asked), np.bool_)
    # Stored as float32: float64 adds these up without rounding, in any order.
    probability = np.asarray(pc.list_flatten(judged["top_probabilities"]))
    return np.bincount(row[hit], probability[hit], judged.num_rows).astype(np.float64)
