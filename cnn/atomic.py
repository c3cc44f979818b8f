"""Atomic writes: a file is written completely or not at all."""

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
    """Yields a local temporary path; what is written there replaces `file` when the block ends.

    If the block raises, `file` stays as it was and no temporary file is left.
    """
    if isinstance(file, Path):
        temporary = file.with_name(temporary_name(file))
        try:
            yield temporary
            with temporary.open("rb") as written:
                # The content must reach the disk before the name: a power cut between the two
                # would leave an empty file that counts as complete.
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
    """Write `content`, text as UTF-8, so that readers see all of it or the old content."""
    if isinstance(content, str):
        # File names need not be UTF-8: Python's lone surrogates are escaped instead of raising.
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
    """Whether a file exists, or a folder with more in it than what killed jobs leave behind."""
    if not path.is_dir():
        return path.exists()
    names = (entry.name for entry in path.iterdir())
    return not all(name == LOCK or (name[0] == "." and name.endswith(".tmp")) for name in names)
