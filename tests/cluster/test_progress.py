"""Laws of progress: what a worker leaves word of is picked up once, in the order of the epochs."""

import math
from collections.abc import Iterable

import ray

from cnn.cluster.progress import Progress
from cnn.loop import Epoch


def row(number: int) -> Epoch:
    return Epoch(
        epoch=number,
        train_loss=1.5,
        train_accuracy=0.5,
        val_loss=math.inf,
        val_accuracy=0.25,
        side=8,
        lr=1e-3,
        seconds=2.0,
        images_per_second=100.0,
        data_wait=0.0,
    )


def tell(progress: Progress, epochs: Iterable[int]) -> None:
    """What rank 0 does, each time in a process that is not this one."""
    elsewhere = ray.remote(num_cpus=0)
    for number in epochs:
        ray.get(elsewhere(Progress.tick).remote(progress, number, 12))
        ray.get(elsewhere(Progress.epoch).remote(progress, row(number), 12, 6.5))


def test_what_a_worker_tells_is_taken_once_and_in_order() -> None:
    progress = Progress()
    assert progress.take() == ([], (0, 0))
    tell(progress, (10, 9, 11))
    assert progress.take() == ([(row(number), 12, 6.5) for number in (9, 10, 11)], (11, 12))
    assert progress.take() == ([], (11, 12))


def test_runs_do_not_hear_each_other_and_leave_nothing_behind() -> None:
    one, other = Progress(), Progress()
    tell(one, [1])
    tell(other, [2])
    one.forget()
    assert one.take() == ([], (0, 0))
    assert other.take() == ([(row(2), 12, 6.5)], (2, 12))
    other.forget()
