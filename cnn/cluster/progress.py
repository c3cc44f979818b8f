"""Progress of a training run: workers leave word of it, the driver shows it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from cnn.console import TABLE_HEAD, Console, epoch_line

if TYPE_CHECKING:  # its module brings torch, a second's import in the process of the actor
    from cnn.loop import Epoch

Outcome = TypeVar("Outcome")


@ray.remote(num_cpus=0)
class Progress:
    """Where rank 0 leaves word of its progress, and the driver picks it up.

    An actor, because workers may be on other machines than the console.
    """

    def __init__(self) -> None:
        self.epochs: list[tuple[Epoch, int, float]] = []
        self.step = (0, 0)

    def epoch(self, row: "Epoch", epochs: int, left: float) -> None:
        self.epochs.append((row, epochs, left))

    def tick(self, step: int, steps: int) -> None:
        self.step = (step, steps)

    def take(self) -> tuple[list[tuple["Epoch", int, float]], tuple[int, int]]:
        """The epochs ended since last asked, and the step under way."""
        ended, self.epochs = self.epochs, []
        return ended, self.step


class Ticker:
    """Tells the driver of steps, a few times a second: a message per step would slow training."""

    def __init__(self, progress: Any, seconds: float = 0.3) -> None:
        self.progress, self.seconds, self.last = progress, seconds, 0.0

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if now - self.last >= self.seconds:
            self.progress.tick.remote(step, steps)
            self.last = now


def ignore(step: int, steps: int) -> None:
    """For ranks whose progress nobody asks about."""


def in_background(function: Callable[[], Outcome]) -> Future[Outcome]:
    """Call `function` in a thread of its own.

    Ray Train would take over Ctrl-C in the main thread, and end the process with 1.
    """
    running: Future[Outcome] = Future()

    def call() -> None:
        try:
            running.set_result(function())
        except BaseException as error:
            running.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return running


def patiently(function: Callable[[], Outcome]) -> Outcome:
    """The outcome of `function`, called in a thread of its own while this one waits for it.

    Ctrl-C then comes in between two short waits. In the middle of Ray's own calls it can get lost:
    what Python runs for C++ or for its garbage collector swallows what is raised there.
    """
    running = in_background(function)
    while not wait([running], timeout=0.3).done:
        pass
    return running.result()


def show(progress: Any, running: Future[Any], console: Console) -> None:
    """Print the table of epochs and move the bar until training ends."""
    console.say(TABLE_HEAD)
    with console.bar("epoch") as advance:
        last = False
        while not last:
            last = bool(wait([running], timeout=0.3).done)
            ended, (step, steps) = ray.get(progress.take.remote())
            for row, epochs, left in ended:
                console.say(epoch_line(row, epochs, left))
            advance(step, steps)
