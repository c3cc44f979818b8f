"""A place: a file or folder on a disk or in a bucket, with the pathlib methods that runs need."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote
from uuid import uuid4

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType, LocalFileSystem

from cnn.errors import UserError, in_short

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_NO_URI = re.compile(r"[#\s]|[^\x00-\x7f]")


@dataclass(frozen=True)
class BucketPath:
    """A path in an object store, or on another file system that pyarrow supports.

    text: the URI, as the user gave it or with names added; paths with the same text are equal.
    path: the same for `filesystem`, without scheme and options.
    `exists`, `is_file` and `is_dir` raise UserError if the store does not answer; other faults are
    OSErrors, as on a disk. Pickled as its text alone.
    """

    text: str
    filesystem: FileSystem = field(compare=False, repr=False)
    path: str = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> "tuple[Callable[[str], Place], tuple[str]]":
        return place, (self.text,)

    def __truediv__(self, names: str) -> "BucketPath":
        head, mark, options = self.text.partition("?")
        text = f"{head.rstrip('/')}/{names}{mark}{options}"
        return BucketPath(text, self.filesystem, f"{self.path.rstrip('/')}/{names}")

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> "BucketPath":
        above = self.path.rstrip("/").rpartition("/")[0]
        if not above:  # the bucket itself
            return self
        head, mark, options = self.text.partition("?")
        text = f"{head.rstrip('/').rpartition('/')[0]}{mark}{options}"
        return BucketPath(text, self.filesystem, above)

    def absolute(self) -> "BucketPath":
        return self

    resolve = absolute

    def exists(self) -> bool:
        return bool(self._info.type != FileType.NotFound)

    def is_file(self) -> bool:
        return bool(self._info.type == FileType.File)

    def is_dir(self) -> bool:
        return bool(self._info.type == FileType.Directory)

    @property
    def _info(self) -> FileInfo:
        try:
            return self.filesystem.get_file_info(self.path)
        except (OSError, pa.ArrowInvalid) as error:  # the second: two slashes in a row
            raise unreachable(self.text, error) from None

    def iterdir(self) -> "Iterator[BucketPath]":
        """The files and folders in this folder."""
        yield from (self / name for name in self._below(recursive=False))

    def rglob(self, name: str) -> "Iterator[BucketPath]":
        """The files of this name at any depth; it is a plain name, not a pattern."""
        below = self._below(recursive=True)
        yield from (self / found for found in below if found.rpartition("/")[2] == name)

    def _below(self, recursive: bool) -> list[str]:
        infos = self.filesystem.get_file_info(FileSelector(self.path, recursive=recursive))
        return [info.path.removeprefix(f"{self.path.rstrip('/')}/") for info in infos]

    def open(self, mode: str = "rb") -> Any:
        """Open the file for reading; any offset can be read."""
        if mode != "rb":
            raise ValueError(f"mode {mode!r}: files of a bucket are written whole, see atomic")
        return self.filesystem.open_input_file(self.path)

    def read_bytes(self) -> bytes:
        with self.open() as stream:
            content: bytes = stream.read()
            return content

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def put(self, content: bytes | pa.Buffer | BinaryIO) -> None:
        """Write the file. A store shows it once the last byte has arrived, and never half of it.

        If writing fails, the old file is unchanged: closing the stream makes a file of the bytes
        so far, so the new content goes beside an old file first, and is then moved over it.
        """
        beside = self.parent / f".{self.name}.{uuid4().hex}.tmp"
        target = beside if self.is_file() else self
        try:
            target._upload(content)
            if target is beside:
                beside._take_place_of(self)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise

    def _take_place_of(self, old: "BucketPath") -> None:
        try:
            self.filesystem.move(self.path, old.path)
        except NotImplementedError:  # Azure without hierarchical namespaces
            self.filesystem.copy_file(self.path, old.path)
            self.unlink()

    def _upload(self, content: bytes | pa.Buffer | BinaryIO) -> None:
        with self.filesystem.open_output_stream(self.path) as stream:
            if isinstance(content, bytes | pa.Buffer):
                stream.write(content)
            else:
                stream.upload(content)

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        self.filesystem.create_dir(self.path, recursive=parents)

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.exists():
            self.filesystem.delete_file(self.path)


Place = Path | BucketPath


def place(text: str) -> Place:
    """The place that a user names: a path on this machine, or a URI such as s3://bucket/folder.

    Raises UserError if there is no such kind of place, or no access to it.
    """
    try:
        filesystem, path = locate(text)
    except (ValueError, OSError, ImportError, NotImplementedError) as error:
        raise unreachable(text, error) from None
    return Path(path) if filesystem is None else BucketPath(text, filesystem, path)


def unreachable(text: str, error: Exception) -> UserError:
    """The error for a place that cannot be accessed."""
    return UserError(f"{text}: {in_short(error)}; check the address and the credentials")


def locate(text: str) -> tuple[FileSystem | None, str]:
    """The file system of a path or URI (None: this machine's), and the path in it.

    Raises ValueError, OSError, ImportError or NotImplementedError.
    """
    if not _URI.match(text):
        return None, text
    if forbidden := _NO_URI.search(text):  # pyarrow drops all after #, which is another place
        raise ValueError(f"in a URI, write {forbidden[0]!r} as {quote(forbidden[0])}")
    filesystem, path = FileSystem.from_uri(text)
    return (None if isinstance(filesystem, LocalFileSystem) else filesystem), path
