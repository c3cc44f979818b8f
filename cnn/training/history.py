"""The history of a training run: a row per epoch, on the console and in history.csv."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import pandas as pd

from cnn.files.atomic import write_atomically
from cnn.files.place import Place
from cnn.text.duration import clock

STARVED = 0.3  # fraction of the training time; runs that wait longer for batches get a warning

TABLE = (
    "{epoch:>7}  {train_loss:>10}  {train_accuracy:>9}  {val_loss:>8}  {val_accuracy:>7}"
    "  {lr:>8}  {rate:>8}  {left:>8}"
)
TABLE_HEAD = TABLE.format(
    epoch="epoch", train_loss="train loss", train_accuracy="train acc", val_loss="val loss",
    val_accuracy="val acc", lr="lr", rate="images/s", left="left",
)  # fmt: skip


class Epoch(TypedDict):
    """One row of a history; losses are cross-entropies in nats per image, `side` is in pixels.

    `train_loss` and `train_accuracy` are counted during the epoch, on augmented and CutMixed
    images, against the label of the image that the square was pasted into. So they can look worse
    than validation's, whose images are unchanged.

    Without validation, because its images are trained on, its figures are NaN. `temperature` is
    the one at which the network's confidence suits the validation images best. `seconds` includes
    the time to save the previous epoch. `data_wait` is the fraction of the training time that this
    process spent waiting for batches: if it is not small, faster arithmetic would not make the
    epoch faster. It is 0 for batches in memory: the time that fetching one takes may be a CPU
    waiting for the GPU.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    temperature: float
    side: int
    lr: float
    seconds: float
    images_per_second: float
    data_wait: float


def read(file: Place) -> pd.DataFrame:
    """A history.csv, a row per epoch."""
    return pd.read_csv(io.BytesIO(file.read_bytes()))


def write(file: Place, history: Sequence[Mapping[str, Any]]) -> None:
    """Write a history.csv, a row per epoch."""
    write_atomically(file, pd.DataFrame(history).to_csv(index=False))


def epoch_line(row: Epoch, epochs: int, left: float) -> str:
    """The table's row for one epoch; `left` is the time for the remaining ones, in seconds."""
    return TABLE.format(
        epoch=f"{row['epoch']}/{epochs}",
        train_loss=figure(row["train_loss"]),
        train_accuracy=figure(row["train_accuracy"]),
        val_loss=figure(row["val_loss"]),
        val_accuracy=figure(row["val_accuracy"]),
        lr=f"{row['lr']:.5f}",
        rate=f"{row['images_per_second']:.0f}",
        left=clock(left),
    )


def figure(value: float) -> str:
    """A loss or an accuracy; a dash for NaN, which is one that was not measured."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def starved(history: Sequence[Epoch]) -> str | None:
    """A warning if the run spent much of its time waiting for batches; else None."""
    wait = sum(row["data_wait"] for row in history) / len(history)
    if wait < STARVED:
        return None
    return (
        f"wait     {wait:.0%} of the training time was spent waiting for batches: "
        "more CPUs to augment images, or more --memory to hold them, would make it faster"
    )
