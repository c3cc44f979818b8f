"""Ranges: the values that a search may give to one setting."""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from cnn.errors import Mendable

Value: TypeAlias = int | float | str | bool | None


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]

    def nearest(self, value: Value) -> Value:
        """`value` if it is one of them, else the first."""
        return value if value in self.values else self.values[0]


@dataclass(frozen=True)
class Uniform:
    """A number between two bounds; all are equally likely."""

    low: float
    high: float

    def nearest(self, value: float) -> float:
        """`value`, or the bound that it is beyond."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class LogUniform(Uniform):
    """A number between two bounds above 0; a factor of two is as likely anywhere."""


@dataclass(frozen=True)
class Integer:
    """A whole number between two bounds, both included."""

    low: int
    high: int

    def nearest(self, value: int) -> int:
        """`value`, or the bound that it is beyond."""
        return min(max(value, self.low), self.high)


Range: TypeAlias = Choice | Uniform | LogUniform | Integer


def parse_range(name: str, given: Any) -> Range:
    """A range as YAML gives it, such as `{loguniform: [0.001, 0.1]}`; Mendable if it is none."""
    kind, values = next(iter(given.items())) if is_pair(given) else (None, None)
    if kind == "choice" and isinstance(values, list) and values:
        return Choice(tuple(as_value(value) for value in values))
    numbers = as_numbers(values)
    if kind not in ("uniform", "loguniform", "int") or numbers is None:
        raise Mendable(
            f"{name}: {given!r} is no range: write {{choice: [a, b]}}, {{uniform: [low, high]}}, "
            "{loguniform: [low, high]} or {int: [low, high]}"
        )
    low, high = numbers
    if low > high:
        raise Mendable(f"{name}: the range from {low:g} to {high:g} is empty")
    if kind == "int":
        if low != int(low) or high != int(high):
            raise Mendable(f"{name}: an int range needs whole numbers, not {low:g} and {high:g}")
        return Integer(int(low), int(high))
    if kind == "loguniform" and low <= 0:
        raise Mendable(f"{name}: a loguniform range must begin above 0, not at {low:g}")
    return LogUniform(low, high) if kind == "loguniform" else Uniform(low, high)


def is_pair(given: Any) -> bool:
    return isinstance(given, dict) and len(given) == 1


def as_numbers(values: Any) -> tuple[float, float] | None:
    """Two finite numbers; YAML takes 1e-4 for text."""
    if not isinstance(values, list) or len(values) != 2:
        return None
    try:
        low, high = (float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None


def as_value(value: Any) -> Value:
    """A choice that compares and prints well: a list, as of filters, becomes `32,64`."""
    return ",".join(map(str, value)) if isinstance(value, list) else value
