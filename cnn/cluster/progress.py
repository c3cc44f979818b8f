"""Progress of a training run: rank 0 publishes it, the driver shows it."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)

from cnn.text.console import Console
from cnn.training.history import TABLE_HEAD, Epoch, epoch_line

Result = TypeVar("Result")

Ended = tuple[Epoch, int, float]
"""A finished epoch, the planned number of epochs, and the seconds left."""


@dataclass(frozen=True)
class Progress:
    """The channel on which rank 0 publishes its progress for the driver.

    It uses the key-value store of Ray's head, because workers and console may be on different
    machines. An actor would cost one more process, and a second to start.
    """

    run: str = field(default_factory=lambda: f"cnn-progress-{uuid4().hex}")

    def epoch(self, row: Epoch, epochs: int, left: float) -> None:
        _internal_kv_put(f"{self.run}/epoch/{row['epoch']:06d}", json.dumps([row, epochs, left]))

    def tick(self, step: int, steps: int) -> None:
        _internal_kv_put(f"{self.run}/step", json.dumps([step, steps]))

    def take(self) -> tuple[list[Ended], tuple[int, int]]:
        """The epochs finished since the last call, in order, and the current step of how many."""
        ended = []
        for key in sorted(_internal_kv_list(f"{self.run}/epoch/")):
            ended.append(tuple(json.loads(_internal_kv_get(key))))
            _internal_kv_del(key)
        step, steps = json.loads(_internal_kv_get(f"{self.run}/step") or "[0, 0]")
        return ended, (step, steps)

    def forget(self) -> None:
        """Remove this run's keys: a cluster outlives its runs."""
        _internal_kv_del(self.run, del_by_prefix=True)


class Ticker:
    """Publishes the step a few times a second: a message per step would slow training."""

    def __init__(self, progress: Progress, seconds: float = 0.3) -> None:
        self.progress, self.seconds, self.last = progress, seconds, 0.0

    def __call__(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if now - self.last >= self.seconds:
            self.progress.tick(step, steps)
            self.last = now


def ignore(step: int, steps: int) -> None:
    """The step callback of a worker that publishes no progress."""


def in_background(function: Callable[[], Result]) -> Future[Result]:
    """Call `function` in a thread of its own.

    In the main thread, Ray Train would handle Ctrl-C itself and end the process with 1.
    """
    running: Future[Result] = Future()

    def call() -> None:
        try:
            running.set_result(function())
        except BaseException as error:
            running.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return running


def patiently(function: Callable[[], Result]) -> Result:
    """Call `function` in a thread of its own, wait for it, and return its result.

    Ctrl-C then arrives between two short waits. Inside Ray's own calls it can get lost: Python
    drops an exception raised in a callback from C++ or from its garbage collector.
    """
    running = in_background(function)
    while not wait([running], timeout=0.3).done:
        pass
    return running.result()


def show(progress: Progress, running: Future[Any], console: Console) -> None:
    """Print the table of epochs and move the bar until training ends."""
    console.say(TABLE_HEAD)
    try:
        with console.bar("epoch") as advance:
            last = False
            while not last:
                last = bool(wait([running], timeout=0.3).done)
                ended, (step, steps) = progress.take()
                for row, epochs, left in ended:
                    console.say(epoch_line(row, epochs, left))
                advance(step, steps)
    finally:
        progress.forget()
