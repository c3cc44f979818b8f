"""Locks: a folder is used by one job at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cnn.errors import UserError
from cnn.files.place import Place

LOCK = ".lock"


class InUse(UserError):
    """Another job holds the lock of the folder."""


@contextmanager
def locked(folder: Place) -> Iterator[None]:
    """Lock a folder against other jobs during a `with` block; InUse if one is using it.

    The system releases the lock when the process ends, however it ends. Buckets and some network
    file systems have no locks: other jobs are not kept out there.
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
    """The folder's lock file, locked; retries if another job removed it between open and lock."""
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
    """InUse if a job is using the folder."""
    if isinstance(folder, Path):
        with suppress(FileNotFoundError, NotADirectoryError), (folder / LOCK).open("rb") as file:
            take(file, fcntl.LOCK_SH, folder)


def take(file: IO[bytes], kind: int, folder: Path) -> None:
    """Lock the folder's file until it is closed; InUse if another job holds the lock."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(
            f"another job is using {folder}: wait until it ends, or give another --out"
        ) from None
    except OSError:
        pass  # a file system without locks
