"""What a person sees while a job runs: a few lines and a progress bar on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console as Terminal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from cnn.loop import Epoch

TABLE = (
    "{epoch:>7}  {train_loss:>10}  {train_accuracy:>9}  {val_loss:>8}  {val_accuracy:>7}"
    "  {lr:>8}  {rate:>8}  {left:>8}"
)
TABLE_HEAD = TABLE.format(
    epoch="epoch", train_loss="train loss", train_accuracy="train acc", val_loss="val loss",
    val_accuracy="val acc", lr="lr", rate="images/s", left="left",
)  # fmt: skip


class Console:
    """Progress and remarks go to standard error, results to standard output.

    Without a terminal there is no bar, only lines: a log file wants no cursor movements.
    """

    def __init__(self) -> None:
        self.terminal = Terminal(
            stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True
        )

    def say(self, text: str) -> None:
        """A remark."""
        self.terminal.print(text)

    def result(self, text: str) -> None:
        """A line that scripts may read."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """A progress bar; yields `advance(done, total)`."""
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.terminal,
            transient=True,
            disable=not self.terminal.is_terminal,
        ) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)


def epoch_line(row: Epoch, epochs: int) -> str:
    """The table's row for one epoch; `left` is the time the remaining epochs will take."""
    return TABLE.format(
        epoch=f"{row['epoch']}/{epochs}",
        train_loss=f"{row['train_loss']:.3f}",
        train_accuracy=f"{row['train_accuracy']:.3f}",
        val_loss=f"{row['val_loss']:.3f}",
        val_accuracy=f"{row['val_accuracy']:.3f}",
        lr=f"{row['lr']:.5f}",
        rate=f"{row['images_per_second']:.0f}",
        left=clock((epochs - row["epoch"]) * row["seconds"]),
    )


def clock(seconds: float) -> str:
    """A duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
