"""Atomic writes: a file or a folder is written completely or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from cnn.files.lock import LOCK
from cnn.files.place import Place


@contextmanager
def writing(file: Place) -> Iterator[Path]:
    """Yields a local temporary path; what is written there replaces `file` when the block ends.

    If the block raises, `file` stays as it was and no temporary file is left.
    """
    if isinstance(file, Path):
        temporary = file.with_name(temporary_name(file))
        try:
            yield temporary
            # The content must reach the disk before the name: a power cut between the two would
            # leave an empty file that counts as complete.
            sync(temporary)
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


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder of files to `target`, which appears whole, and is on the disk on return."""
    draft = target.with_name(temporary_name(target))
    try:
        draft.mkdir(parents=True)
        for file in source.iterdir():
            shutil.copyfile(file, draft / file.name)
            sync(draft / file.name)
        sync(draft)
        if target.exists():  # of an attempt that was lost
            shutil.rmtree(target)
        draft.replace(target)
        sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_drafts(folder: Place) -> None:
    """Remove what killed calls of `writing` and `copy_folder` have left in a folder.

    Call it only while nothing writes there: a draft at work looks like one that was left. What
    cannot be removed stays: it is in nobody's way. Nothing in a bucket is removed.
    """
    if not isinstance(folder, Path):
        return
    for draft in folder.glob(".*.tmp"):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            with suppress(OSError):
                draft.unlink()


def sync(path: Path) -> None:
    """Make sure that a file's content, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(file: Place) -> str:
    """A name beside `file` that no other process has, on whatever machine."""
    return f".{file.name}.{uuid4().hex}.tmp"


def holds_anything(path: Place) -> bool:
    """Whether a file exists, or a folder with more in it than what killed jobs leave behind."""
    if not path.is_dir():
        return path.exists()
    names = (entry.name for entry in path.iterdir())
    return not all(name == LOCK or (name[0] == "." and name.endswith(".tmp")) for name in names)
