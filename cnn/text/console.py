"""Console output of a running job: lines and progress bars on standard error."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

from cnn.text.duration import clock
from cnn.text.terminal import one_line

Advance = Callable[[int, int], None]
"""Updates a progress bar: `advance(done, total)`."""


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
