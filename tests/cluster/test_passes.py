"""Laws of passes: missing parts are attempted until none is left, and the log says why."""

import time

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    RayTaskError,
    WorkerCrashedError,
)

from cnn.cluster import passes
from cnn.cluster.passes import make_all
from cnn.text.console import Console


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (None, "Ray Data left parts out: continuing with the missing parts\n"),
        (
            WorkerCrashedError(),
            "a worker was lost (WorkerCrashedError): continuing with the missing parts\n",
        ),
        (
            NodeDiedError("the node of a task is gone"),
            "a worker was lost (NodeDiedError): continuing with the missing parts\n",
        ),
    ],
    ids=["left out", "lost", "lost with its node"],
)
def test_a_worker_is_called_lost_only_if_one_was(
    error: Exception | None, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    left = [0, 1]

    def attempt(numbers: list[int], isolated: bool) -> None:
        left.pop()
        if left and error:
            raise error

    make_all(lambda: list(left), attempt, Console())
    assert capsys.readouterr().err == line


def test_the_node_of_an_unreachable_worker_has_time_to_be_found_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the next pass would be planned for its CPUs, too, and never end."""
    monkeypatch.setattr(passes, "SILENCE", 1.5)
    left, begun = [0, 1], []

    def attempt(numbers: list[int], isolated: bool) -> None:
        begun.append(time.monotonic())
        left.pop()
        if left:
            raise ActorUnavailableError("it does not answer", None)

    make_all(lambda: list(left), attempt, Console())
    assert begun[1] - begun[0] >= 1.5


def test_a_worker_that_finds_its_gpu_full_is_not_started_again() -> None:
    full = RayTaskError("__init__", "CUDA error: out of memory", RuntimeError())
    attempts: list[bool] = []

    def attempt(numbers: list[int], isolated: bool) -> None:
        attempts.append(isolated)
        raise ActorDiedError(full)

    with pytest.raises(ActorDiedError):
        make_all(lambda: [0, 1], attempt, Console())
    assert len(attempts) == 1


def test_three_passes_without_progress_end_the_job_and_the_last_two_are_isolated() -> None:
    attempts: list[bool] = []

    def attempt(numbers: list[int], isolated: bool) -> None:
        attempts.append(isolated)
        raise WorkerCrashedError

    with pytest.raises(WorkerCrashedError):
        make_all(lambda: [0, 1], attempt, Console())
    assert attempts == [False, True, True]


def test_passes_that_leave_parts_out_without_a_loss_end_the_job_too() -> None:
    attempts: list[bool] = []
    with pytest.raises(RuntimeError, match="left parts out"):
        make_all(lambda: [0], lambda numbers, isolated: attempts.append(isolated), Console())
    assert attempts == [False] * 3
