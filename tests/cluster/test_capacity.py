"""Laws of capacity: rounding never refuses what fits, and no more is requested than fits."""

import pytest

from cnn.cluster.capacity import TOLERANCE, slots, together


@pytest.mark.parametrize("gpus", range(1, 9))
def test_workers_that_share_gpus_fill_them_and_none_spans_two(gpus: int) -> None:
    for hundredths in range(1, 101):
        fraction = hundredths / 100
        workers = slots(gpus, fraction)
        assert workers == gpus * (100 // hundredths)
        assert together([{"GPU": fraction}] * workers)["GPU"] <= gpus + TOLERANCE
