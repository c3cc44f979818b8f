"""Laws of progress: what a worker reports is read once, in the order of the epochs."""

import math
import time
from collections.abc import Iterable

import pytest
import ray
from ray.experimental.internal_kv import _internal_kv_list

from cnn.cluster.progress import Progress, in_background, show
from cnn.text.console import Console
from cnn.training.history import Epoch


def row(number: int) -> Epoch:
    return Epoch(
        epoch=number,
        train_loss=1.5,
        train_accuracy=0.5,
        val_loss=math.inf,
        val_accuracy=0.25,
        temperature=1.0,
        side=8,
        lr=1e-3,
        seconds=2.0,
        images_per_second=100.0,
        data_wait=0.0,
    )


def report(progress: Progress, epochs: Iterable[int]) -> None:
    """Report epochs as rank 0 does, each time from another process."""
    elsewhere = ray.remote(num_cpus=0)
    for number in epochs:
        ray.get(elsewhere(Progress.tick).remote(progress, number, 12))
        ray.get(elsewhere(Progress.epoch).remote(progress, row(number), 12, 6.5))


def test_the_reports_of_a_worker_are_taken_once_and_in_order() -> None:
    progress = Progress()
    assert progress.take() == ([], (0, 0))
    report(progress, (10, 9, 11))
    assert progress.take() == ([(row(number), 12, 6.5) for number in (9, 10, 11)], (11, 12))
    assert progress.take() == ([], (11, 12))


def test_runs_do_not_see_each_others_progress_and_leave_nothing() -> None:
    one, other = Progress(), Progress()
    report(one, [1])
    report(other, [2])
    one.forget()
    assert one.take() == ([], (0, 0))
    assert other.take() == ([(row(2), 12, 6.5)], (2, 12))
    other.forget()


class Stopped(Console):
    """A console at which Ctrl-C is pressed when the first epoch appears."""

    def say(self, line: str) -> None:
        if "1.500" in line:
            raise KeyboardInterrupt


def test_a_run_that_is_stopped_leaves_nothing_on_the_cluster() -> None:
    progress = Progress()
    report(progress, [1, 2])
    assert _internal_kv_list(progress.run)
    with pytest.raises(KeyboardInterrupt):
        show(progress, in_background(lambda: time.sleep(5)), Stopped())
    assert not _internal_kv_list(progress.run)
