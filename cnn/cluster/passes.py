"""Passes over what is missing, until nothing is: how a job outlives the loss of its workers."""

from collections.abc import Callable

from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, WorkerCrashedError

from cnn.console import Console

# Lost workers cost what they were at; three passes in a row that bring nothing are no accident.
FRUITLESS = 3
LOST = (RayActorError, WorkerCrashedError, OutOfMemoryError, ObjectLostError)

# Ray itself gives a task that has lost its worker another try. After the second loss the images
# of the task are decoded apart, so no file is tried more than three times.
TASK_RETRIES = 1

Missing = Callable[[], list[int]]
"""The numbers of the parts that are not there yet."""

Attempt = Callable[[list[int], bool], None]
"""Makes the parts of these numbers; with True, so that no file can take a worker with it."""


def make_all(missing: Missing, attempt: Attempt, console: Console) -> None:
    """Attempt what is missing until nothing is; raises where passes bring nothing any more."""
    left, fruitless, isolated = missing(), 0, False
    while left:
        before, error = len(left), RuntimeError("Ray Data left parts out")
        try:
            attempt(left, isolated)
        except LOST as lost:
            error, isolated = lost, True  # type: ignore[assignment]
        left = missing()
        fruitless = fruitless + 1 if len(left) == before else 0
        if fruitless == FRUITLESS:
            raise error
        if left:
            console.say(
                f"a worker was lost ({type(error).__name__}): going on with what is missing"
            )
