"""Laws of ranges: the nearest value is inside, and YAML gives a range or a one-line error."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.errors import UserError
from cnn.settings.ranges import (
    Between,
    Choice,
    Integer,
    LogUniform,
    Range,
    Uniform,
    Value,
    parse_range,
    written,
)

number = st.floats(1e-6, 1e6)
whole = st.integers(-1000, 1000)
values = st.one_of(number, whole, st.booleans(), st.none(), st.sampled_from(["adam", "32,64"]))
ranges: st.SearchStrategy[Range] = st.one_of(
    st.lists(values, min_size=1).map(lambda some: Choice(tuple(some))),
    st.tuples(number, number).map(lambda two: Uniform(min(two), max(two))),
    st.tuples(number, number).map(lambda two: LogUniform(min(two), max(two))),
    st.tuples(whole, whole).map(lambda two: Integer(min(two), max(two))),
)


def holds(limits: Range, value: Value) -> bool:
    if isinstance(limits, Choice):
        return value in limits.values
    kinds = int if isinstance(limits, Integer) else (int, float)
    return isinstance(value, kinds) and limits.low <= value <= limits.high


def read(text: str) -> Range:
    return parse_range(yaml.safe_load(text))


@settings(deadline=None)
@given(ranges, values)
def test_the_nearest_value_is_in_the_range_and_values_in_it_do_not_move(
    limits: Range, value: Value
) -> None:
    assert holds(limits, limits.nearest(value))
    if holds(limits, value):
        assert limits.nearest(value) == value


@settings(deadline=None)
@given(ranges, values)
def test_a_range_extended_to_a_value_keeps_its_old_values(limits: Range, value: Value) -> None:
    reached = limits.reaching(value)
    assert all(holds(reached, sample) for sample in limits.samples)
    kinds = int if isinstance(limits, Integer) else (int, float)
    if isinstance(limits, Choice) or isinstance(value, kinds):
        assert holds(reached, value)
    if holds(limits, value):
        assert reached == limits


def test_the_nearest_choice_is_the_closest_number_or_else_the_first() -> None:
    assert Choice((16, 32, 64)).nearest(40) == 32
    assert Choice(("sgd", "adam")).nearest("adamw") == "sgd"
    assert Choice((None, 3)).nearest(2) == 3


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("{choice: [adamw, sgd]}", Choice(("adamw", "sgd"))),
        ("{choice: [true, null, 3, 0.5]}", Choice((True, None, 3, 0.5))),
        ("{choice: [[32, 64], [16]]}", Choice(("32,64", "16"))),
        ("{uniform: [0, 0.5]}", Uniform(0, 0.5)),
        ("{loguniform: [1e-4, 1e-2]}", LogUniform(1e-4, 1e-2)),  # which YAML reads as text
        ("{int: [2, 6]}", Integer(2, 6)),
        ("{int: [3, 3]}", Integer(3, 3)),
    ],
)
def test_every_kind_of_range_is_parsed(text: str, limits: Range) -> None:
    found = read(text)
    assert (type(found), found) == (type(limits), limits)
    if isinstance(found, Integer):
        assert isinstance(found.low, int) and isinstance(found.high, int)


@settings(deadline=None)
@given(ranges)
def test_a_range_is_read_back_as_it_was_written(limits: Range) -> None:
    found = read(yaml.safe_dump(written(limits)))
    assert (type(found), found) == (type(limits), limits)


@pytest.mark.parametrize("kind", ["uniform", "loguniform", "int"])
def test_a_range_with_low_above_high_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="from 3 to 2 is empty"):
        read(f"{{{kind}: [3, 2]}}")
    assert isinstance(read(f"{{{kind}: [2, 2]}}"), Between)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("0.1", "0.1 is not a range: write {choice"),
        ("[1, 2]", "is not a range"),
        ("null", "is not a range"),
        ("{}", "is not a range"),
        ("{logunifrom: [1, 2]}", "{loguniform: [low, high]}"),
        ("{choice: []}", "is not a range"),
        ("{choice: adam}", "is not a range"),
        ("{int: [1, 2], choice: [1]}", "is not a range"),
        ("{uniform: [1, 2, 3]}", "is not a range"),
        ("{uniform: [low, high]}", "is not a range"),
        ("{uniform: [0, .inf]}", "is not a range"),
        ("{uniform: [.nan, 1]}", "is not a range"),
        ("{loguniform: [0, 1]}", "above 0"),
        ("{int: [1, 2.5]}", "whole numbers, not 1 and 2.5"),
        (f"{{int: [1, 1{'0' * 400}]}}", "is not a range"),
    ],
)
def test_an_invalid_range_is_refused_in_one_line(text: str, part: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    (line,) = str(caught.value).splitlines()
    assert part in line


@settings(deadline=None)
@given(st.recursive(values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_input_gives_a_range_or_a_one_line_error(whatever: Any) -> None:
    for kind in ("choice", "uniform", "loguniform", "int"):
        try:
            assert parse_range({kind: whatever}).samples
        except UserError as error:
            assert len(str(error).splitlines()) == 1
