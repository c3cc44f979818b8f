"""A file written whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`; the file written there then takes `path`'s place.

    Where the block raises, `path` stays as it was and nothing is left beside it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8 under a temporary name beside `path`, then rename it into place."""
    with writing(path) as temporary:
        # File names need not be UTF-8: what Python read as lone surrogates is shown, not fatal.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
