"""Columns of predictions, read as labels and counts."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def has_prediction(part: pa.Table) -> pa.ChunkedArray:
    """For each row whether it has a predicted class and a confidence that is a number.

    A network with NaN in its weights is NaN sure of everything: that predicts nothing, and one
    such row would turn every sum that it enters into NaN.
    """
    confidence = part["confidence"].cast(pa.float32())
    sure = pc.fill_null(pc.is_finite(confidence), False)
    return pc.and_(pc.is_valid(part["predicted"]), sure)


def labels(names: pa.ChunkedArray, classes: list[str]) -> NDArray[np.int64]:
    """The label of each predicted class; ValueError for one that is not among `classes`."""
    found = pc.index_in(names.cast(pa.string()), value_set=pa.array(classes, pa.string()))
    if found.null_count:
        unknown = names.filter(pc.is_null(found))[0].as_py()
        raise ValueError(f"predicted class {unknown!r} is not one of the {len(classes)} classes")
    return np.asarray(found, np.int64)


def counts(values: pa.ChunkedArray) -> Counter[str]:
    """How often each value occurs; null is none."""
    found = pc.value_counts(values.drop_null())
    return Counter(dict(zip(*(column.to_pylist() for column in found.flatten()), strict=True)))
