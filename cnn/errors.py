"""Errors that the user can fix: one line says what is wrong and what to do."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_FULL_GPU = (
    "a GPU's memory is too small: give a smaller --batch-size{}, or stop other programs on the GPU"
)
FULL_GPU = _FULL_GPU.format(" and a new --out")  # in training, where it changes the result
FULL_GPU_IN_SCORING = _FULL_GPU.format("")

# Of torch's allocator, of CUDA itself (on a GPU that other programs have filled), and of libraries.
_GPU_IS_FULL = re.compile(r"CUDA (error: )?out of memory|(CUDNN|CUBLAS)_STATUS_ALLOC_FAILED")

# The last line of a traceback, of an exception of this package.
_IN_TEXT = re.compile(r"^cnn(?:\.\w+)*\.(?P<name>\w+): (?P<message>.+)$", re.MULTILINE)


class UserError(ValueError):
    """An error that the user can fix: jobs print one line and exit with 2, without a traceback."""


@contextmanager
def writing_to(place: object, mend: str) -> Iterator[None]:
    """Raise UserError, which names the place and the `mend`, for an OSError of the `with` block.

    A full disk stays an OSError: the same command resumes once there is space.
    """
    try:
        yield
    except OSError as error:
        if is_full_disk(error):
            raise
        raise UserError(f"{place} cannot be written ({in_short(error)}): {mend}") from None


def in_short(error: Exception) -> str:
    """What an error says, on one line; of the system's errors, what they say without the file."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def reasons(error: BaseException) -> Iterator[BaseException]:
    """An error and all errors that caused it, also on other machines.

    Ray wraps the errors of tasks: a task's own error is `cause`, the errors of training workers
    are `worker_failures`, by rank.
    """
    pending, seen = [error], set[int]()
    while pending:
        found = pending.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        wrapped = [found.__cause__, found.__context__, getattr(found, "cause", None)]
        wrapped += getattr(found, "worker_failures", {}).values()
        pending += [one for one in wrapped if isinstance(one, BaseException)]


def raised_by_task(error: BaseException) -> str | None:
    """The message of a UserError that a task of Ray Data raised: Ray keeps only its text."""
    found = _IN_TEXT.search(str(error))
    return found["message"] if found and found["name"] in _names(UserError) else None


def _names(kind: type[BaseException]) -> set[str]:
    """The names of an exception and of all that are derived from it."""
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))


def is_refused(error: BaseException) -> bool:
    """Whether the system refuses the name of a file, or to read or write the file."""
    refusals = (
        *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
        *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR),  # a file where a folder should be
    )
    return isinstance(error, OSError) and bool(error.filename) and error.errno in refusals


def is_full_gpu(error: BaseException) -> bool:
    """Whether a GPU ran out of memory, by the message: a task's error may lose its type."""
    return bool(_GPU_IS_FULL.search(str(error)))


def is_full_disk(error: BaseException) -> bool:
    """Whether a disk or a user's share of it is full, by the message: its type may be lost."""
    return any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))
