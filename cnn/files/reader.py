"""The reader of a listed folder: the bytes of one file, or the reason why it cannot be read."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial

from pyarrow.fs import FileSystem, FileType

from cnn.errors import in_short
from cnn.files.folder import FolderError, fault_of, is_below, locate_root, reason_of, to_bytes
from cnn.files.unreadable import BYTE_LIMIT, Unreadable


class Reader:
    """Reads the listed files of one root: ``Reader(root)(path) -> bytes``.

    Its pickle holds only the root, which is resolved again on unpickling. Raises Unreadable for a
    file that cannot be read, and FolderError if the fault may pass and says nothing about the
    file: a failing disk, a lost network, a root that is gone.
    """

    def __init__(self, root: str) -> None:
        filesystem, base = locate_root(root)
        self.root = base if filesystem is None else root
        self._read: Callable[[str], bytes] = (
            partial(_read_local, os.path.realpath(os.fsencode(base)))
            if filesystem is None
            else partial(_read_remote, filesystem, base)
        )

    def __call__(self, path: str) -> bytes:
        return self._read(path)

    def __reduce__(self) -> tuple[type["Reader"], tuple[str]]:
        return Reader, (self.root,)


def _read_local(real_root: bytes, path: str) -> bytes:
    with (
        _short_reasons(path, partial(_is_local_root, real_root)),
        open(_path_below(real_root, to_bytes(path)), "rb", opener=_open_warily) as stream,
    ):
        status = os.fstat(stream.fileno())
        if fault := fault_of(status):
            raise Unreadable(fault)
        return stream.read(status.st_size)


def _path_below(real_root: bytes, path: bytes) -> bytes:
    """The real path of a listed file, checked to be below the root, as links may have changed."""
    folder, name = os.path.split(os.path.join(real_root, path))
    file = os.path.join(_real_folder(folder), name)
    if os.path.islink(file):
        file = os.path.realpath(file)
    if not is_below(file, real_root):
        raise Unreadable("outside_root")
    return file


def _open_warily(file: str, flags: int) -> int:
    """Opens a real path without following a link or blocking on a FIFO that replaced the file."""
    return os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


@lru_cache(maxsize=4096)
def _real_folder(folder: bytes) -> bytes:
    """The real path of a folder, cached: it costs 18 µs, as much as reading a small image."""
    return os.path.realpath(folder)


def _is_local_root(real_root: bytes) -> bool:
    """Whether a root is there with anything in it: a disk that is unmounted leaves it empty."""
    try:
        with os.scandir(real_root) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


@contextmanager
def _short_reasons(path: str, root_is_there: Callable[[], bool]) -> Iterator[None]:
    """Turns the faults of a file into Unreadable, and others into a FolderError that names it."""
    try:
        yield
    except OSError as error:
        reason = reason_of(error)
        if reason == "vanished" and not root_is_there():
            raise FolderError(
                f"the folder of {path!r} is gone or empty: bring it back; the same command resumes"
            ) from None
        if reason:
            raise Unreadable(reason) from error
        raise FolderError(
            f"{path!r} cannot be read ({in_short(error)}): check the disk or the network; "
            "the same command resumes"
        ) from error


def _is_remote_root(filesystem: FileSystem, base: str) -> bool:
    """Whether there is anything below a prefix; if the store does not say, there may be."""
    try:
        return bool(filesystem.get_file_info(base).type != FileType.NotFound)
    except OSError:
        return True


def _read_remote(filesystem: FileSystem, base: str, path: str) -> bytes:
    key = f"{base}/{to_bytes(path).decode()}"
    with (
        _short_reasons(path, partial(_is_remote_root, filesystem, base)),
        filesystem.open_input_file(key) as stream,
    ):
        if stream.size() > BYTE_LIMIT:
            raise Unreadable("too_large")
        content: bytes = stream.read()
        return content
