"""Columns of predictions, read as labels, counts, and reasons not to evaluate a row."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def has_prediction(part: pa.Table) -> pa.ChunkedArray:
    """For each row, whether it has a predicted class and a finite confidence.

    A network with NaN in its weights gives every image a confidence of NaN. Such a row is no
    prediction: it would turn every sum that includes it into NaN.
    """
    confidence = part["confidence"].cast(pa.float32())
    sure = pc.fill_null(pc.is_finite(confidence), False)
    return pc.and_(pc.is_valid(part["predicted"]), sure)


def counts(values: pa.ChunkedArray) -> Counter[str]:
    """How often each value occurs; nulls are not counted."""
    found = pc.value_counts(values.drop_null())
    return Counter(dict(zip(*(column.to_pylist() for column in found.flatten()), strict=True)))


def reasons_against(part: pa.Table, classes: list[str]) -> pa.ChunkedArray:
    """For each row, why it cannot be evaluated; null if it can."""
    error, label = (part[name].cast(pa.string()) for name in ("error", "label"))
    conditions = (
        pc.is_valid(error),
        pc.is_null(label),
        pc.invert(pc.is_in(label, value_set=pa.array(classes, pa.string()))),
        pc.invert(has_prediction(part)),
    )
    return pc.case_when(
        pc.make_struct(*conditions), error, "no_label", "unknown_class", "no_prediction"
    )


def own_probability(judged: pa.Table) -> NDArray[np.float64]:
    """The probability of each row's own label, (N,); 0 if it is not among the guesses."""
    guesses = judged["top_classes"].cast(pa.list_(pa.string()))
    row = np.asarray(pc.list_parent_indices(guesses), np.int64)
    asked = judged["label"].cast(pa.string()).take(pa.array(row))
    hit = np.asarray(pc.equal(pc.list_flatten(guesses), asked), np.bool_)
    # Stored as float32: float64 adds these up without rounding, in any order.
    given = pc.list_flatten(judged["top_probabilities"].cast(pa.list_(pa.float32())))
    probability = np.asarray(given)
    return np.bincount(row[hit], probability[hit], judged.num_rows).astype(np.float64)
