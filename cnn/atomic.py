"""A file written whole, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from cnn.lock import LOCK
from cnn.place import Place


@contextmanager
def writing(file: Place) -> Iterator[Path]:
    """Yields a temporary name on this machine; what is written there then takes `file`'s place.

    Where the block raises, `file` stays as it was and nothing is left beside it.
    """
    if isinstance(file, Path):
        temporary = file.with_name(temporary_name(file))
        try:
            yield temporary
            with temporary.open("rb") as written:
                # The name must not reach the disk before the content: a power cut between the
                # two would leave an empty file that counts as done.
                os.fsync(written)
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / file.name
            yield temporary
            with temporary.open("rb") as stream:
                file.put(stream)


def write_atomically(file: Place, content: str | bytes | pa.Buffer) -> None:
    """Write `content`, text as UTF-8, so that a reader finds all of it or what was there before."""
    if isinstance(content, str):
        # File names need not be UTF-8: what Python read as lone surrogates is shown, not fatal.
        content = content.encode("utf-8", errors="backslashreplace")
    if isinstance(file, Path):
        with writing(file) as temporary:
            temporary.write_bytes(content)
    else:
        file.put(content)


def temporary_name(file: Place) -> str:
    """A name beside `file` that no other process has, on whatever machine."""
    return f".{file.name}.{uuid4().hex}.tmp"


def holds_anything(path: Place) -> bool:
    """Whether there is a file, or a folder with more in it than what killed jobs leave behind."""
    if not path.is_dir():
        return path.exists()
    names = (entry.name for entry in path.iterdir())
    return not all(name == LOCK or (name[0] == "." and name.endswith(".tmp")) for name in names)
