"""Predictions: one row per image — its path, label, predicted class, confidence, or error."""

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

TOP = 5

SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "label": pa.string(),
        "predicted": pa.string(),
        "confidence": pa.float32(),
        "top_classes": pa.list_(pa.string()),
        "top_probabilities": pa.list_(pa.float32()),
        "error": pa.string(),
    }
)


def predictions(rows: pa.Table, probabilities: Tensor, classes: list[str]) -> pa.Table:
    """A row of `SCHEMA` for each of `rows` (path, label, error), in their order.

    `probabilities`, float32 `(N, classes)`, belong to the rows without an error, in their order.
    A row with an error has nulls as its prediction; so has one whose probabilities are no numbers,
    as damaged weights make them: they would turn every sum that includes them into NaN.
    """
    readable = rows["error"].is_null().to_numpy()
    sound = readable.copy()
    sound[readable] = probabilities.isfinite().all(dim=1).numpy(force=True)
    place = pa.array(np.cumsum(readable) - 1, mask=~sound)  # row of `probabilities`, or null
    columns = {name: column.take(place) for name, column in guesses(probabilities, classes).items()}
    columns |= {name: rows[name] for name in ("path", "label", "error")}
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)


def guesses(probabilities: Tensor, classes: list[str]) -> dict[str, pa.Array]:
    """The likeliest classes of each image and their probabilities, best first."""
    top = torch.topk(probabilities, k=min(TOP, len(classes)), dim=1)
    values, places = (found.numpy(force=True) for found in top)
    names, starts = pa.array(classes, pa.string()), np.arange(0, values.size + 1, values.shape[1])
    of_each = partial(pa.ListArray.from_arrays, starts.astype(np.int32))
    return {
        "predicted": names.take(pa.array(places[:, 0])),
        "confidence": pa.array(values[:, 0]),
        "top_classes": of_each(names.take(pa.array(places.ravel()))),
        "top_probabilities": of_each(pa.array(values.ravel())),
    }


def answered(table: pa.Table) -> pa.ChunkedArray:
    """For each row, whether it has a prediction."""
    return pc.is_valid(table["predicted"])


def confident(table: pa.Table, limit: float) -> pa.ChunkedArray:
    """For each row, whether its confidence is at least `limit`; null if it has no prediction.

    Compared as float32, so that a confidence of 0.7 is not below 0.7.
    """
    return pc.greater_equal(table["confidence"], pa.scalar(limit, pa.float32()))


def uncertain(table: pa.Table, limit: float) -> pa.Table:
    """The predictions with less confidence than `limit`."""
    return table.filter(pc.invert(confident(table, limit)))
