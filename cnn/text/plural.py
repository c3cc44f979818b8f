"""Counts in words: 1 image, 2 images, 3 too large."""

from collections.abc import Mapping


def counted(number: int, noun: str, several: str | None = None) -> str:
    """The number and the noun; `several` is the plural, unless that only adds an s."""
    return f"{number:,} {noun if number == 1 else several or noun + 's'}"


def by_reason(counts: Mapping[str, int]) -> str:
    """Counts by a reason's name, such as `too_large`, as one phrase."""
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items())


def explained(word: str, counts: Mapping[str, int]) -> str:
    """The sum of `counts`, a word for it, and its parts by reason: 3 ignored (2 hidden, 1 bomb)."""
    reasons = by_reason(counts)
    return f"{sum(counts.values()):,} {word}" + (f" ({reasons})" if reasons else "")
