"""Console output of a running job: lines, tables and progress bars on standard error."""

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console as Terminal
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from cnn.text.terminal import one_line

if TYPE_CHECKING:  # the module imports torch: a second, in a process that only prints rows
    from cnn.loop import Epoch

Advance = Callable[[int, int], None]
"""Updates a progress bar: `advance(done, total)`."""

STARVED = 0.3  # fraction of the training time; runs that wait longer for batches get a warning

TABLE = (
    "{epoch:>7}  {train_loss:>10}  {train_accuracy:>9}  {val_loss:>8}  {val_accuracy:>7}"
    "  {lr:>8}  {rate:>8}  {left:>8}"
)
TABLE_HEAD = TABLE.format(
    epoch="epoch", train_loss="train loss", train_accuracy="train acc", val_loss="val loss",
    val_accuracy="val acc", lr="lr", rate="images/s", left="left",
)  # fmt: skip


class Remarks(Terminal):
    """Standard error; silent once its reader has ended, as with `2> >(head)`.

    The default of rich ends the job, and redirects standard output too.
    """

    def on_broken_pipe(self) -> None:
        self.quiet = True


class Console:
    """Progress and remarks go to standard error, results to standard output.

    Without a terminal, progress is printed as lines, so that log files get no cursor movements.
    """

    def __init__(self) -> None:
        self.terminal = Remarks(
            stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True
        )

    def say(self, text: str) -> None:
        """Print a remark."""
        self.terminal.print(one_line(text))

    def result(self, text: str) -> None:
        """Print a line that scripts may read; dropped if standard output is closed."""
        if sys.stdout is None:
            return
        encoding = sys.stdout.encoding or "utf-8"
        shown = one_line(text).encode(encoding, "backslashreplace").decode(encoding)
        try:
            sys.stdout.write(f"{shown}\n")
            sys.stdout.flush()
        except BrokenPipeError:  # its reader has ended; at exit Python would flush once more
            sys.stdout = open(os.devnull, "w", encoding=encoding)  # noqa: SIM115

    @contextmanager
    def bar(self, title: str, unit: str = "") -> Iterator[Advance]:
        """A progress bar; yields `advance(done, total)`. With a `unit`, it shows the rate too.

        Without a terminal and with a `unit`, it prints a line every half minute instead.
        """
        if not self.terminal.is_terminal:
            yield Milestones(self, title, unit)
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            *([Rate(unit)] if unit else []),
            TimeRemainingColumn(),
            console=self.terminal,
            transient=True,
        ) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)


class Rate(ProgressColumn):
    """The recent rate, in units per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(pace(speed, self.unit) if speed else "")


class Milestones:
    """Progress for a log file: a line every half minute."""

    def __init__(self, console: Console, title: str, unit: str, seconds: float = 30.0) -> None:
        self.console, self.title, self.unit, self.seconds = console, title, unit, seconds
        self.first: int | None = None  # done before this process, in a resumed run
        self.started = self.printed = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.first = done if self.first is None else self.first
        if now - self.printed < self.seconds or not self.unit:
            return
        self.printed = now
        speed = (done - self.first) / (now - self.started)
        left = clock((total - done) / speed) if speed else "?"
        self.console.say(
            f"{self.title:8} {done:,} of {total:,}, {pace(speed, self.unit)}, left {left}"
        )


def pace(speed: float, unit: str) -> str:
    """The speed in units per second, or per minute below one a second."""
    return f"{speed:,.0f} {unit}/s" if speed >= 1 else f"{speed * 60:.1f} {unit}/min"


def starved(history: Sequence["Epoch"]) -> str | None:
    """A warning if the run spent much of its time waiting for batches; else None."""
    wait = sum(row["data_wait"] for row in history) / len(history)
    if wait < STARVED:
        return None
    return (
        f"wait     {wait:.0%} of the training time was spent waiting for batches: "
        "more CPUs to augment images, or more --memory to hold them, would make it faster"
    )


def epoch_line(row: "Epoch", epochs: int, left: float) -> str:
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


def clock(seconds: float) -> str:
    """A duration as m:ss, or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
