"""A folder that images are sorted into: one folder per predicted class, one for the uncertain.

The originals stay as they are. A sorted image of this machine is a second name of the same file (a
hard link) if the file system allows: 60 µs and no room on the disk, whatever its size; but editing
such a file in place edits the original. All others are copies.
"""

import errno
import os
import stat
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cnn.errors import UserError
from cnn.files.atomic import write_atomically
from cnn.files.folder import is_below, to_bytes
from cnn.files.reader import Reader
from cnn.files.unreadable import Reason, Unreadable
from cnn.scoring.sorted_names import ClassFolder

MARKER: Final = ".sorted"
"""The file in a sorted folder that holds its key. Class folders start with no dot."""

Miss = Reason | Literal["no_place"]
"""Why an image was not sorted: it cannot be read, or its path cannot be made in the sorted folder
(a name is too long or not allowed there, or something else has that path)."""

_DRAFT: Final = ".draft-"
_HALF_MARKER: Final = f".{MARKER}.*.tmp"  # of a run killed while it wrote the marker
_READERS = 16  # a remote image takes about 30 ms, nearly all of it waiting

_NO_PLACE = {
    errno.ENAMETOOLONG,
    errno.EINVAL,  # a character that a memory card's file system does not allow
    errno.EILSEQ,
    errno.ENOTDIR,  # a file, or a link, where a folder should be
    errno.ELOOP,
    errno.EISDIR,
}


@dataclass(frozen=True)
class SortedFolder:
    """DIR/<class folder>/<path below the root>, with the root's number first if there are several.

    folder: DIR, made by `begin`.
    roots: the folders of the images, each as in `Listing.root`; they are numbered from 1.
    key: a hex digest of all that the predictions depend on; a folder takes images of its own key
        only.
    twins: the images' paths below their roots that are `alike`.
    """

    folder: Path
    roots: Sequence[str]
    key: str
    twins: frozenset[str]

    def check(self) -> None:
        """Raises UserError if images cannot be sorted into this folder."""
        with self._user_errors():
            self._check_place()
            self._check_content()

    def begin(self) -> None:
        """Makes the folder, writes its key, and removes what a killed run was writing.

        Raises UserError if the folder cannot be made.
        """
        with self._user_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / MARKER, self.key)
            for draft in [*self.folder.glob(f"{_DRAFT}*"), *self.folder.glob(_HALF_MARKER)]:
                draft.unlink()

    def place(self, reader: Reader, images: Iterable[tuple[str, ClassFolder]]) -> Counter[Miss]:
        """Puts images of one root, (lossless path, class folder) each, into their folders.

        Returns how many could not be sorted, by reason; all others are sorted, as whole files. A
        file that already exists is not touched. System errors (a full disk) stay OSErrors.
        """
        number = self.roots.index(reader.root) + 1
        above = str(number).encode() if len(self.roots) > 1 else b""
        with _opened(self.folder) as top, ThreadPoolExecutor(_READERS) as threads:
            twins = self.twins if self.twins and _joins_names(top) else frozenset[str]()
            placer = _Placer(top, above, reader, _real(reader.root), twins)
            mapped = threads.map if placer.root is None else map  # linking does not wait
            return Counter(miss for miss in mapped(placer, images) if miss)

    def _check_place(self) -> None:
        here = os.path.realpath(os.fsencode(self.folder))
        for root in self.roots:
            real = _real(root)
            if real is not None and (here == real or is_below(here, real)):
                raise self._refused(f"it is inside {root!r}, to which it would add images")

    def _check_content(self) -> None:
        marker = self.folder / MARKER
        if marker.is_file():
            if marker.read_bytes() != self.key.encode():
                raise self._refused("it was started with other images, model or settings")
        elif os.path.lexists(self.folder) and not self._is_free():
            raise self._refused("it is not empty")
        here = self.folder.absolute()
        above = next(one for one in (here, *here.parents) if os.path.lexists(one))
        if not above.is_dir():
            raise self._refused(f"{str(above)!r} is not a folder")
        # Now, and not only when all images are scored.
        if not os.access(above, os.W_OK | os.X_OK, effective_ids=True):
            raise self._refused(f"{str(above)!r} cannot be written to")

    def _is_free(self) -> bool:
        """Whether the folder holds nothing, or only what a killed run was writing."""
        return set(self.folder.iterdir()) <= set(self.folder.glob(_HALF_MARKER))

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from error

    def _refused(self, reason: str) -> UserError:
        return UserError(
            f"cannot sort into {str(self.folder)!r}: {reason}; give another folder, new or empty"
        )


def why_not(reason: Miss) -> str:
    """Why images were not sorted, in words, and what to do."""
    if reason == "no_place":
        return (
            "whose path there is too long, not allowed or already taken: "
            "sort into another folder, if need be on another disk"
        )
    return f"which cannot be read any more ({reason.replace('_', ' ')})"


class _NoPlace(Exception):
    """A path cannot be made in the sorted folder."""


@contextmanager
def _no_place_told() -> Iterator[None]:
    """Turns OSErrors that a path causes into _NoPlace."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_PLACE:
            raise _NoPlace from error
        raise


@dataclass(frozen=True)
class _Placer:
    """Puts images into an open folder, one per call; safe to call from several threads.

    top: descriptor of the sorted folder.
    above: the number of the root; empty if there is only one.
    root: the real path of a local root; None for a remote one.
    twins: as in `SortedFolder`, if this disk takes them for one file; they are placed one at a
        time, or one could replace the other.
    """

    top: int
    above: bytes
    reader: Reader
    root: bytes | None
    twins: frozenset[str]
    turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, image: tuple[str, ClassFolder]) -> Miss | None:
        path, folder = image
        try:
            with self.turn if path in self.twins else nullcontext():
                self._place(path, os.path.join(folder.encode(), self.above))
        except Unreadable as unreadable:
            return unreadable.reason
        except _NoPlace:
            return "no_place"
        return None

    def _place(self, path: str, folder: bytes) -> None:
        below = to_bytes(path)
        if not _is_plain(below):
            raise _NoPlace
        *folders, name = filter(None, os.path.join(folder, below).split(b"/"))
        target = _open_below(self.top, folders)
        try:
            # Another image may have made a folder whose name differs in case.
            if path in self.twins and not _is_exact(folders, self.top):
                raise _NoPlace
            # Only a whole file has its final name, and the key ensures that it is this image, or
            # its twin on a disk to which both names are one.
            if not _is_placed(name, target):
                self._fill(path, name, target)
            elif path in self.twins and not _is_exact([*folders, name], self.top):
                raise _NoPlace
        finally:
            os.close(target)

    def _fill(self, path: str, name: bytes, target: int) -> None:
        """Makes the file under a name that only this thread uses, then renames it."""
        draft = f"{_DRAFT}{threading.get_ident()}".encode()
        try:
            if not self._link(path, draft):
                _write(self.reader(path), draft, self.top)
            os.replace(draft, name, src_dir_fd=self.top, dst_dir_fd=target)
        finally:
            _remove(draft, self.top)

    def _link(self, path: str, draft: bytes) -> bool:
        """Whether a hard link was made; if not, the file is copied, or reported as unreadable."""
        if self.root is None:
            return False
        file = os.path.realpath(os.path.join(self.root, to_bytes(path)))
        if not is_below(file, self.root):
            return False
        try:
            os.link(file, draft, dst_dir_fd=self.top, follow_symlinks=False)
        except OSError:
            return False
        if _is_file(draft, self.top):
            return True
        _remove(draft, self.top)
        return False


def _real(root: str) -> bytes | None:
    """The real path of a local root; None for a URI."""
    return os.path.realpath(os.fsencode(root)) if os.path.isabs(root) else None


def _is_plain(path: bytes) -> bool:
    """False for names such as `../x` or `a//x`: a remote store may have them, a disk does not."""
    return b"\0" not in path and not {b"", b".", b".."} & set(path.split(b"/"))


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@_no_place_told()
def _open_below(top: int, names: Iterable[bytes]) -> int:
    """Opens a folder, made if missing: level by level, so that no link leads elsewhere."""
    folder = os.dup(top)
    for name in names:
        try:
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=folder)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


@_no_place_told()
def _is_placed(name: bytes, folder: int) -> bool:
    """Whether the file exists; a link of that name does not count, and will be replaced."""
    try:
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise _NoPlace
    return stat.S_ISREG(mode)


def _joins_names(folder: int) -> bool:
    """Whether the disk takes names that differ in case or Unicode form for the same."""
    probe = f"{_DRAFT}probe-\u00e9"
    others = f"{_DRAFT.upper()}probe-\u00e9", unicodedata.normalize("NFD", probe)
    _write(b"", probe.encode(), folder)
    try:
        return any(_is_placed(other.encode(), folder) for other in others)
    finally:
        _remove(probe.encode(), folder)


def _is_exact(names: Sequence[bytes], top: int) -> bool:
    """Whether a path that leads to a file is spelled as on the disk, at every level."""
    for depth, name in enumerate(names):
        folder = _open_below(top, names[:depth])
        try:
            if os.fsdecode(name) not in os.listdir(folder):
                return False
        finally:
            os.close(folder)
    return True


def _is_file(name: bytes, folder: int) -> bool:
    return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _write(content: bytes, name: bytes, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with open(os.open(name, flags, 0o666, dir_fd=folder), "wb") as stream:
        stream.write(content)


def _remove(name: bytes, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
