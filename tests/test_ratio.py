"""Laws of ratios in figures: one looks like 0 or 1 only if it is, and is rounded otherwise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn.text.ratio import decimal, percent


@pytest.mark.parametrize(
    ("ratio", "as_decimal", "as_percent"),
    [
        (0.0, "0.000", "0.0%"),
        (1.0, "1.000", "100.0%"),
        (0.73456, "0.735", "73.5%"),
        (0.9994, "0.999", "99.9%"),
        (0.9996, "0.9996", "99.96%"),
        (0.0004, "0.0004", "0.04%"),
        (1e-9, "0.000001", "0.0001%"),
        (1 - 1e-9, "0.999999", "99.9999%"),
    ],
)
def test_a_ratio_has_more_decimals_only_if_it_would_look_like_0_or_1(
    ratio: float, as_decimal: str, as_percent: str
) -> None:
    assert decimal(ratio) == as_decimal
    assert percent(ratio) == as_percent


@given(st.floats(0, 1), st.integers(0, 4))
def test_figures_look_like_0_or_1_only_if_the_ratio_is(ratio: float, decimals: int) -> None:
    whole = ratio in (0, 1)
    assert (float(decimal(ratio, decimals)) in (0, 1)) == whole
    assert (float(percent(ratio, decimals)[:-1]) in (0, 100)) == whole


@pytest.mark.parametrize(("ratio", "text"), [(float("nan"), "nan%"), (1 + 1e-7, "100.0%")])
def test_what_is_no_ratio_is_written_as_it_is(ratio: float, text: str) -> None:
    assert percent(ratio) == text
