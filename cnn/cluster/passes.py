"""Passes over the missing parts until none is left: how a job survives the loss of workers."""

import time
from collections.abc import Callable

from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from cnn.cluster import nodes
from cnn.errors import is_full_gpu
from cnn.text.console import Console

# A lost worker costs only the parts in progress: three passes in a row that complete no part have
# another cause.
FRUITLESS = 3
LOST = (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError, ObjectLostError)
LEFT_OUT = "Ray Data left parts out"

# Ray itself retries a task once after it lost its worker. After the second loss images are decoded
# in isolated processes, so no file is tried more than three times.
TASK_RETRIES = 1

# Seconds until Ray calls a node dead that has become silent: by its defaults it asks five times,
# 3 s apart, and waits 10 s for each answer.
SILENCE = 70.0

Missing = Callable[[], list[int]]
"""Returns the numbers of the parts that do not exist yet."""

Attempt = Callable[[list[int], bool], None]
"""Makes the parts with these numbers; if True, isolated, so that no file can crash a worker."""


def make_all(missing: Missing, attempt: Attempt, console: Console) -> None:
    """Attempt the missing parts until none is; raises after three passes without progress."""
    left, fruitless, isolated = missing(), 0, False
    while left:
        here = nodes.ids()
        lost = loss_in(attempt, left, isolated)
        isolated = isolated or lost is not None
        before, left = left, missing()
        fruitless = fruitless + 1 if len(left) == len(before) else 0
        if fruitless == FRUITLESS:
            raise lost or RuntimeError(LEFT_OUT)
        if left:
            event = f"a worker was lost ({type(lost).__name__})" if lost else LEFT_OUT
            console.say(f"{event}: continuing with the missing parts")
            if isinstance(lost, ActorUnavailableError):
                await_verdict(here)


def await_verdict(before: set[str]) -> None:
    """Wait until one of these nodes is gone, or for as long as Ray needs to find a node dead.

    The node of a worker that cannot be reached may be lost, and still counts: a plan for its CPUs
    too would leave none to decode, and the next pass would never end.
    """
    deadline = time.monotonic() + SILENCE
    while before <= nodes.ids() and time.monotonic() < deadline:
        time.sleep(0.5)


def loss_in(attempt: Attempt, parts: list[int], isolated: bool) -> Exception | None:
    """Attempt these parts; returns the error of a lost worker, if that ended the attempt."""
    try:
        attempt(parts, isolated)
    except LOST as lost:
        if is_full_gpu(lost):  # it did not even start, and will not in the next pass
            raise
        return lost
    return None
