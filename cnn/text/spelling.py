"""Mistyped words: what was probably meant."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one; None if none is much like it."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)
