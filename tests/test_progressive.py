"""Laws of progressive resizing: images only grow, up to their full side; the rest is counted."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.training.progressive import FIXED, ProgressiveResizing

EPOCHS = st.integers(1, 200)
GROWING = st.floats(0, 0.99)


@given(EPOCHS, GROWING, st.integers(8, 300), st.integers(1, 8))
def test_sides_never_shrink_and_end_at_full_size(
    epochs: int, growing: float, whole: int, smallest: int
) -> None:
    resizing = ProgressiveResizing(growing, whole, smallest)
    sides = [resizing.side(number, epochs) for number in range(1, epochs + 1)]
    assert sides == sorted(sides)
    assert sides[-1] == whole
    assert sides[0] >= max(smallest, whole // 2)


@given(EPOCHS, GROWING, st.integers(8, 300))
def test_a_network_for_full_size_images_only_gets_no_smaller_ones(
    epochs: int, growing: float, whole: int
) -> None:
    resizing = ProgressiveResizing(growing, whole, smallest=whole)
    assert {resizing.side(number, epochs) for number in range(1, epochs + 1)} == {whole}


@pytest.mark.parametrize(
    ("growing", "sides"),
    [(0.0, {64: 20}), (0.5, {32: 5, 48: 5, 64: 10}), (0.8, {32: 8, 48: 8, 64: 4})],
)
def test_half_and_three_quarter_sides_share_the_growing_epochs(
    growing: float, sides: dict[int, int]
) -> None:
    resizing = ProgressiveResizing(growing, whole=64, smallest=32)
    assert Counter(resizing.side(number, 20) for number in range(1, 21)) == sides


@given(EPOCHS, st.integers(0, 200))
def test_epochs_of_the_full_side_count_as_one(epochs: int, done: int) -> None:
    resizing = ProgressiveResizing(0.0, whole=64, smallest=32)
    assert resizing.left(done, epochs, FIXED) == pytest.approx(max(0, epochs - done))


def test_smaller_images_cost_less_but_more_than_their_pixels() -> None:
    resizing = ProgressiveResizing(0.7, whole=64, smallest=32)
    # Measured on two kinds of CPU: 0.32 and 0.4 of a full epoch at half the side.
    assert 0.25 < resizing.cost(32, FIXED) < 0.4
    assert 0.5625 < resizing.cost(48, FIXED) < 0.65
    assert resizing.left(0, 20, FIXED) == pytest.approx(
        7 * resizing.cost(32, FIXED) + 7 * resizing.cost(48, FIXED) + 6 * resizing.cost(64, FIXED)
    )
