"""Laws of shown durations: no second is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.text.duration import clock


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.6, "1:00:00"),
        (3600, "1:00:00"),
        (36_061, "10:01:01"),
    ],
)
def test_a_duration_is_shown_in_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@given(st.integers(0, 10**6))
def test_a_shown_duration_loses_no_second(seconds: int) -> None:
    total = 0
    for part in clock(seconds).split(":"):
        total = total * 60 + int(part)
    assert total == seconds
