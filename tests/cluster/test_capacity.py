"""Laws of capacity: what fits is not refused for a rounding, and what does not fit is not asked."""

import pytest

from cnn.cluster.capacity import TOLERANCE, slots, together


@pytest.mark.parametrize("gpus", range(1, 9))
def test_workers_that_share_gpus_fill_them_and_none_has_parts_of_two(gpus: int) -> None:
    for hundredths in range(1, 101):
        fraction = hundredths / 100
        workers = slots(gpus, fraction)
        assert workers == gpus * (100 // hundredths)
        assert together([{"GPU": fraction}] * workers)["GPU"] <= gpus + TOLERANCE
