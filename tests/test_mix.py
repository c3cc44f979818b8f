"""Laws of the mix: every row is counted once, and parts add up to their union."""

from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.report.mix import BINS, Mix, take_mix

CLASSES = ["ant", "bee", "cat"]


def part(
    predicted: list[str | None], confidence: list[float | None], error: list[str | None]
) -> pa.Table:
    columns = {
        "predicted": pa.array(predicted, pa.string()),
        "confidence": pa.array(confidence, pa.float32()),
        "error": pa.array(error, pa.string()),
    }
    return pa.table(columns)


def sure(*confidence: float) -> pa.Table:
    """Readable images, all predicted as ants."""
    return part(["ant"] * len(confidence), list(confidence), [None] * len(confidence))


def sums(mix: Mix) -> dict[str, Any]:
    """Every field, so that two mixes can be compared."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in asdict(mix).items()
    }


ROWS = part(
    ["ant", "cat", None, "ant", "bee", None, None, None],
    [0.9, 0.4, None, 0.55, 1.0, None, None, None],
    [None, None, "bomb", None, None, "truncated", None, None],
)


def test_every_row_is_counted_once() -> None:
    mix = take_mix([ROWS], CLASSES, min_confidence=0.5)
    assert mix.images.tolist() == [2, 1, 1]
    assert mix.unreadable == {"bomb": 1, "truncated": 1}
    assert mix.no_prediction == 2
    assert mix.scored + mix.unreadable.total() + mix.no_prediction == ROWS.num_rows
    assert mix.histogram.sum() == mix.scored
    assert mix.confidence == pytest.approx([1.45, 1.0, 0.4])
    assert mix.mean_confidence == pytest.approx(2.85 / 4)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 8), max_size=5))
def test_parts_give_the_same_mix_as_the_whole_wherever_it_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 8]
    parts = [ROWS.slice(low, high - low) for low, high in pairwise(edges)]
    whole = take_mix([ROWS], CLASSES, 0.5)
    # Exactly equal: float64 adds this many float32 without rounding, so the order has no effect.
    assert sums(take_mix(parts, CLASSES, 0.5)) == sums(whole)
    assert sums(take_mix(reversed(parts), CLASSES, 0.5)) == sums(whole)


def test_no_parts_give_an_empty_mix() -> None:
    nothing = take_mix([], CLASSES)
    assert sums(nothing) == sums(take_mix([sure()], CLASSES))
    assert (nothing.scored, nothing.mean_confidence) == (0, None)


def test_an_unreadable_file_is_not_scored_even_if_it_has_a_prediction() -> None:
    mix = take_mix([part(["ant"], [0.9], ["vanished"])], CLASSES)
    assert (mix.scored, mix.unreadable) == (0, {"vanished": 1})


@pytest.mark.parametrize("edge", range(BINS))
def test_uncertain_images_are_those_in_bins_below_the_min_confidence(edge: int) -> None:
    edges = [i / BINS for i in range(BINS + 1)]
    mix = take_mix([sure(*edges)], CLASSES, min_confidence=edge / BINS)
    assert mix.uncertain == mix.histogram[:edge].sum() == edge


def test_no_image_is_uncertain_without_a_min_confidence() -> None:
    mix = take_mix([sure(0.0, 0.1)], CLASSES)
    assert (mix.min_confidence, mix.uncertain) == (None, 0)


def test_a_softmax_rounded_above_one_is_still_in_the_histogram() -> None:
    mix = take_mix([sure(float(np.nextafter(np.float32(1), np.float32(2))))], CLASSES)
    assert mix.histogram[-1] == 1


def test_a_predicted_class_from_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="zebra"):
        take_mix([part(["zebra"], [0.9], [None])], CLASSES)
