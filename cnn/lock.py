"""A lock: a folder that one job at a time works in."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cnn.errors import UserError
from cnn.place import Place

LOCK = ".lock"


@contextmanager
def locked(folder: Place) -> Iterator[None]:
    """Keep other jobs out of a folder for the length of a `with` block; UserError where one is in.

    The system unlocks it with the process's end, whatever ends it. A bucket has no locks, and not
    every network file system: nobody is kept out there.
    """
    if not isinstance(folder, Path):
        yield
        return
    with taken(folder):
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)


def taken(folder: Path) -> IO[bytes]:
    """The folder's file, locked: not one that another job removed as it ended, while we waited."""
    while True:
        file = (folder / LOCK).open("ab")
        try:
            take(file, fcntl.LOCK_EX, folder)
            if os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def require_free(folder: Place) -> None:
    """UserError where a job is at work in a folder."""
    if isinstance(folder, Path):
        with suppress(FileNotFoundError, NotADirectoryError), (folder / LOCK).open("rb") as file:
            take(file, fcntl.LOCK_SH, folder)


def take(file: IO[bytes], kind: int, folder: Path) -> None:
    """Lock a folder's file, until that is closed."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"another job is at work in {folder}: wait for its end, or give another --out"
        ) from None
    except OSError:
        pass  # a file system without locks
