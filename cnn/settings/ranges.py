"""Ranges: the values that a search may give to one setting."""

import math
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

from cnn.errors import UserError

Value: TypeAlias = int | float | str | bool | None


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]

    def nearest(self, value: Value) -> Value:
        """`value`, or the number nearest to it; the first choice if there is neither."""

        def distance(one: Value) -> float:
            if one == value:
                return 0.0
            if isinstance(one, int | float) and isinstance(value, int | float):
                return abs(one - value)
            return math.inf

        return min(self.values, key=distance)

    def reaching(self, value: Value) -> Self:
        """The range extended to include `value`."""
        return self if value in self.values else replace(self, values=(*self.values, value))

    @property
    def samples(self) -> tuple[Value, ...]:
        """The values that stand for all of them when a range is checked."""
        return self.values


@dataclass(frozen=True)
class Between:
    """A number between two bounds, both included."""

    low: float
    high: float

    def nearest(self, value: Value) -> float:
        """`value` clipped to the bounds; `low` if it is not a number."""
        number = value if isinstance(value, int | float) else self.low
        return min(max(number, self.low), self.high)

    def reaching(self, value: Value) -> Self:
        """The range extended to include `value`, if that is a number."""
        number = value if isinstance(value, int | float) else self.low
        return replace(self, low=min(self.low, number), high=max(self.high, number))

    @property
    def samples(self) -> tuple[Value, ...]:
        """The values that stand for all of them when a range is checked."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Uniform(Between):
    """A number between two bounds; all are equally likely."""


@dataclass(frozen=True)
class LogUniform(Between):
    """A number between two bounds above 0, whose logarithm is uniform."""


@dataclass(frozen=True)
class Integer(Between):
    """A whole number between two bounds, both included."""

    low: int
    high: int

    def nearest(self, value: Value) -> int:
        """The whole number in range nearest to `value`; `low` if it is not a number."""
        return round(super().nearest(value))

    @property
    def samples(self) -> tuple[Value, ...]:
        """The bounds, and an odd and an even number: some settings refuse one of them."""
        return (self.low, min(self.low + 1, self.high), self.high)


Range: TypeAlias = Choice | Uniform | LogUniform | Integer


def size_of(limits: Range) -> float:
    """How many values the range has; infinity if it is continuous."""
    match limits:
        case Choice(values):
            return len(set(values))
        case Integer(low, high):
            return high - low + 1
        case _:
            return math.inf if limits.low < limits.high else 1


def varies(limits: Range) -> bool:
    """Whether the range has more than one value."""
    return len(set(limits.samples)) > 1


def parse_range(given: Any) -> Range:
    """A range as YAML gives it, such as `{loguniform: [0.001, 0.1]}`; UserError if it is none."""
    kind, values = next(iter(given.items())) if is_pair(given) else (None, None)
    if kind == "choice" and isinstance(values, list) and values:
        return Choice(tuple(as_value(value) for value in values))
    numbers = as_numbers(values)
    if kind not in ("uniform", "loguniform", "int") or numbers is None:
        raise UserError(
            f"{given!r} is not a range: write {{choice: [a, b]}}, {{uniform: [low, high]}}, "
            "{loguniform: [low, high]} or {int: [low, high]}"
        )
    return between(kind, *numbers)


def between(kind: str, low: float, high: float) -> Range:
    """The `uniform`, `loguniform` or `int` range; UserError if these cannot be its bounds."""
    if low > high:
        raise UserError(f"the range from {low:g} to {high:g} is empty: give the lower bound first")
    if kind == "uniform":
        return Uniform(low, high)
    if kind == "loguniform":
        if low <= 0:
            raise UserError(f"a loguniform range must begin above 0, not at {low:g}")
        return LogUniform(low, high)
    if not low.is_integer() or not high.is_integer():
        raise UserError(f"an int range takes whole numbers, not {low:g} and {high:g}")
    return Integer(int(low), int(high))


def written(limits: Range) -> dict[str, list[Value]]:
    """The range as `parse_range` takes it."""
    match limits:
        case Choice(values):
            return {"choice": [*values]}
        case Integer(low, high):
            return {"int": [low, high]}
        case LogUniform(low, high):
            return {"loguniform": [low, high]}
        case Uniform(low, high):
            return {"uniform": [low, high]}


def is_pair(given: Any) -> bool:
    """Whether it is a mapping of one key."""
    return isinstance(given, dict) and len(given) == 1


def as_numbers(values: Any) -> tuple[float, float] | None:
    """Two finite numbers, or None; they may be text, because YAML reads 1e-4 as text."""
    if not isinstance(values, list) or len(values) != 2:
        return None
    if any(isinstance(value, bool) for value in values):  # YAML's `yes` is no 1
        return None
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def as_value(value: Any) -> Value:
    """A value as points have it, to compare and print: several, such as filters, become `32,64`."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value
