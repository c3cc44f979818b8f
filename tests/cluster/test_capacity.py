"""Laws of capacity: rounding never refuses what fits, and no more is requested than fits."""

import pytest

from cnn.cluster.autoscaler import Needs
from cnn.cluster.capacity import TOLERANCE, slots, together, too_late


@pytest.mark.parametrize("gpus", range(1, 9))
def test_workers_that_share_gpus_fill_them_and_none_spans_two(gpus: int) -> None:
    for hundredths in range(1, 101):
        fraction = hundredths / 100
        workers = slots(gpus, fraction)
        assert workers == gpus * (100 // hundredths)
        assert together([{"GPU": fraction}] * workers)["GPU"] <= gpus + TOLERANCE


@pytest.mark.parametrize(
    ("needs", "fewer"),
    [([{"CPU": 1}], False), ([{"CPU": 2, "GPU": 1}], True), ([{"CPU": 1}] * 3, True)],
)
def test_a_job_that_needs_one_cpu_is_not_told_to_ask_for_less(
    needs: list[Needs], fewer: bool
) -> None:
    assert ("--workers" in str(too_late(needs))) == fewer
