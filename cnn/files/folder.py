r"""A folder of images, local or remote: every file found is a row, or a counted skip.

Nothing is decoded here. A listing has names, sizes and times; the decoder checks the contents.

Names are bytes on a disk and text in a table, so paths are kept as *lossless text*: UTF-8 stays as
it is, a byte that is not UTF-8 becomes ``\xNN`` (as in Python's ``backslashreplace``), and a
backslash is doubled to keep the two apart.
"""

import errno
import os
import re
import stat
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from cnn.errors import UserError, in_short
from cnn.files.place import locate
from cnn.files.unreadable import BYTE_LIMIT, Reason

FILES = pa.schema(
    {
        "path": pa.string(),
        "size": pa.int64(),
        "mtime_ns": pa.int64(),
        "top": pa.string(),
        "error": pa.string(),
    }
)

_EXTENSIONS = "jpg jpeg jpe jfif png apng gif webp bmp dib tif tiff avif heic heif"
_IMAGE_ENDINGS = tuple(f".{extension}".encode() for extension in _EXTENSIONS.split())
_ESCAPE = re.compile(rb"\\(?:\\|x([0-9a-f]{2}))")


class FolderError(UserError):
    """A folder cannot be listed, or its files cannot be read: one line with the fix."""


@dataclass(frozen=True)
class Listing:
    """The files of a folder.

    root: the absolute local path, or the URI as it was given.
    files: a row per candidate image, with schema ``FILES``, sorted by ``path``: the lossless text
        of the path below the root, its ``size`` in bytes and modification time in nanoseconds
        (0 where unknown), ``top`` (the first folder below the root; null for a file in the root
        itself) and ``error`` (null, or the ``Reason`` known before reading).
    ignored: how many entries are not candidates, by reason: ``hidden`` (a file whose name starts
        with a dot), ``hidden_folder`` (counted once, not entered), ``not_an_image_name`` (by its
        extension), ``directory_link`` (not followed), ``unreadable_folder`` (not entered),
        ``double_slash`` (a key in a bucket with an empty name in it).
    empty_folders: folders, and links to folders, in the root that hold no candidate.
    empty_subfolders: the same one level lower, such as ``train/cat``.
    """

    root: str
    files: pa.Table
    ignored: dict[str, int]
    empty_folders: tuple[str, ...] = ()
    empty_subfolders: tuple[str, ...] = ()


def list_folder(root: str) -> Listing:
    """Lists a local folder or a URI that ``pyarrow.fs.FileSystem.from_uri`` takes (``s3://``…).

    Links to files count if their target is below the root; links to folders are never followed,
    so the walk cannot loop. Raises FolderError if the folder does not exist.
    """
    if not root:  # an unset variable in a script; it would mean the working directory
        raise FolderError("the folder has an empty name: give an existing folder that holds images")
    filesystem, base = locate_root(root)
    if filesystem is None:
        return _list_local(base).listing(base)
    return _list_remote(filesystem, base, root).listing(root)


def to_text(name: bytes) -> str:
    """The lossless text of a file name or path."""
    return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")


def to_bytes(text: str) -> bytes:
    """The file name or path that a lossless text stands for; the inverse of ``to_text``."""
    return _ESCAPE.sub(
        lambda escape: bytes.fromhex(escape[1].decode()) if escape[1] else b"\\", text.encode()
    )


class _Found:
    """A listing in progress, as columns: a million row objects would cost a gigabyte."""

    def __init__(self) -> None:
        self.columns: dict[str, list[str | int | None]] = {name: [] for name in FILES.names}
        self.ignored: Counter[str] = Counter()
        self.folders: set[str] = set()  # those in the root, and one level lower
        self.filled: set[str] = set()  # those of them that hold a candidate

    def add(self, path: str, size: int, mtime_ns: int, error: Reason | None) -> None:
        top, slash, below = path.partition("/")
        if slash:
            self.filled.add(top)
        inner, slash_below, _ = below.partition("/")
        if slash_below:
            self.filled.add(f"{top}/{inner}")
        row = (path, size, mtime_ns, top if slash else None, error)
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)

    def listing(self, root: str) -> Listing:
        files = pa.table(self.columns, schema=FILES).sort_by("path")
        empty = sorted(self.folders - self.filled)
        return Listing(
            root,
            files,
            ignored=dict(sorted(self.ignored.items())),
            empty_folders=tuple(folder for folder in empty if "/" not in folder),
            empty_subfolders=tuple(folder for folder in empty if "/" in folder),
        )

    def note(self, path: str) -> None:
        """Remembers a folder, or a link to one, if its images would be a class's."""
        if path.count("/") <= 1:
            self.folders.add(path)


def locate_root(root: str) -> tuple[FileSystem | None, str]:
    """The file system of a root and its path there; None and an absolute path if it is local."""
    try:
        filesystem, base = locate(root)
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        raise _refused(root, error, "check the address and the credentials") from error
    return filesystem, os.path.abspath(base) if filesystem is None else base


def _refused(root: str, why: Exception | str, fix: str) -> FolderError:
    reason = why if isinstance(why, str) else in_short(why)
    return FolderError(f"cannot list the folder {root!r}: {reason}; {fix}")


def _is_hidden(name: bytes) -> bool:
    return name.startswith(b".")


def _has_image_name(name: bytes) -> bool:
    return name.lower().endswith(_IMAGE_ENDINGS)


# Local folders


def _list_local(root: str) -> _Found:
    try:
        real_root = os.path.realpath(os.fsencode(root))
        os.scandir(real_root).close()
    except (OSError, ValueError) as error:
        raise _refused(root, error, "give an existing folder that holds images") from error
    found, pending = _Found(), [b""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(os.path.join(real_root, folder)) as entries:
                for entry in entries:
                    path = os.path.join(folder, entry.name)
                    if not entry.is_dir(follow_symlinks=False):
                        _record(entry, path, real_root, found)
                    elif _is_hidden(entry.name):
                        found.ignored["hidden_folder"] += 1
                    else:
                        pending.append(path)
                        found.note(to_text(path))
        except OSError:
            found.ignored["unreadable_folder"] += 1
            found.folders.discard(to_text(folder))
    return found


def _record(entry: os.DirEntry[bytes], path: bytes, real_root: bytes, found: _Found) -> None:
    """Counts or adds an entry that is not a folder."""
    if _is_hidden(entry.name):
        found.ignored["hidden"] += 1
    elif entry.is_symlink() and os.path.isdir(entry.path):
        found.ignored["directory_link"] += 1
        found.note(to_text(path))
    elif not _has_image_name(entry.name):
        found.ignored["not_an_image_name"] += 1
    else:
        found.add(to_text(path), *_examine(entry, real_root))


def _examine(entry: os.DirEntry[bytes], real_root: bytes) -> tuple[int, int, Reason | None]:
    """Size, modification time and fault of a candidate, without opening it."""
    try:
        if entry.is_symlink():
            status = os.stat(entry.path)
            if not is_below(os.path.realpath(entry.path), real_root):
                return 0, 0, "outside_root"
        else:
            status = entry.stat(follow_symlinks=False)
    except OSError as error:
        reason = reason_of(error) or "permission_denied"  # a failing disk costs rows, not the run
        return 0, 0, "broken_symlink" if reason == "vanished" and entry.is_symlink() else reason
    return status.st_size, _in_64_bits(status.st_mtime_ns), fault_of(status)


def _in_64_bits(nanoseconds: int) -> int:
    """A time as a column holds it: a share may give a file the year 1601, or 2400."""
    return max(-(2**63), min(nanoseconds, 2**63 - 1))


def is_below(real_path: bytes, real_root: bytes) -> bool:
    """Whether a real path is inside a real folder, and is not the folder itself."""
    return real_path.startswith(os.path.join(real_root, b""))


def fault_of(status: os.stat_result) -> Reason | None:
    """Why a file with this status must not be read; None if it may be."""
    if not stat.S_ISREG(status.st_mode):
        return "not_a_regular_file"
    return "too_large" if status.st_size > BYTE_LIMIT else None


def reason_of(error: OSError) -> Reason | None:
    """Why a file cannot be read; None if the error may not be the fault of the file."""
    if error.errno == errno.ELOOP:
        return "broken_symlink"
    if isinstance(error, IsADirectoryError) or error.errno == errno.ENXIO:  # ENXIO: a socket
        return "not_a_regular_file"
    # S3 and GCS refuse access with plain OSErrors, recognisable only by their message.
    if isinstance(error, PermissionError) or "ACCESS_DENIED" in str(error):
        return "permission_denied"
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ESTALE:
        return "vanished"
    return None


# Remote folders


def _list_remote(filesystem: FileSystem, base: str, root: str) -> _Found:
    fix = "check the address and the credentials"
    try:
        if not base.strip("/") or filesystem.get_file_info(base).type != FileType.Directory:
            raise _refused(root, "there is no such folder", fix)
        infos = filesystem.get_file_info(FileSelector(base, recursive=True))
    except (OSError, pa.ArrowInvalid) as error:  # the second: two slashes in a row
        raise _refused(root, error, fix) from error
    found, hidden_folders = _Found(), set[str]()
    for info in infos:
        path = info.path.removeprefix(f"{base}/")
        if "" in path.split("/"):  # pyarrow lists such a key, and cannot open it
            found.ignored["double_slash"] += info.type != FileType.Directory
        elif hidden := _hidden_folder(path, info.type):
            hidden_folders.add(hidden)
        elif info.type != FileType.Directory:
            _record_remote(info, path, found)
        else:
            found.note(to_text(path.encode()))
    if hidden_folders:
        found.ignored["hidden_folder"] = len(hidden_folders)
    return found


def _hidden_folder(path: str, kind: FileType) -> str | None:
    """The topmost hidden folder that contains the path, or is it; None if none does."""
    folders = path.split("/") if kind == FileType.Directory else path.split("/")[:-1]
    for depth, name in enumerate(folders, start=1):
        if _is_hidden(name.encode()):
            return "/".join(folders[:depth])
    return None


def _record_remote(info: FileInfo, path: str, found: _Found) -> None:
    name = info.base_name.encode()
    if _is_hidden(name):
        found.ignored["hidden"] += 1
    elif not _has_image_name(name):
        found.ignored["not_an_image_name"] += 1
    else:
        size = info.size or 0
        error: Reason | None = "too_large" if size > BYTE_LIMIT else None
        if info.type != FileType.File:
            error = "not_a_regular_file"
        found.add(to_text(path.encode()), size, _in_64_bits(info.mtime_ns or 0), error)
