"""Predictions: one row per image — its path, label, predicted class, confidence, or error."""

import numpy as np
import pyarrow as pa
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


def predictions(
    paths: pa.ChunkedArray, labels: pa.ChunkedArray, probabilities: Tensor, classes: list[str]
) -> pa.Table:
    """Rows of `SCHEMA` from class probabilities, float32 `(N, classes)`.

    `labels` are the class names the images were found under, or null.
    """
    top = torch.topk(probabilities, k=min(TOP, len(classes)), dim=1)
    names = np.array(classes, dtype=object)[top.indices.numpy(force=True)]
    values = top.values.numpy(force=True)
    columns = {
        "path": paths,
        "label": labels,
        "predicted": pa.array(names[:, 0], pa.string()),
        "confidence": pa.array(values[:, 0], pa.float32()),
        "top_classes": pa.array(list(names), SCHEMA.field("top_classes").type),
        "top_probabilities": pa.array(list(values), SCHEMA.field("top_probabilities").type),
        "error": pa.nulls(len(names), pa.string()),
    }
    return pa.table(columns, schema=SCHEMA)
