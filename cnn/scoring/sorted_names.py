"""Names in a sorted folder: a safe folder for each class, and paths that some disks join."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Final, NewType

ClassFolder = NewType("ClassFolder", str)
"""A safe folder name: `UNCERTAIN`, or what `class_folder` made. No raw class name passes mypy."""

UNCERTAIN: Final = ClassFolder("uncertain")
"""For images with an uncertain prediction; no class has this folder, whatever its name."""

NAME_LIMIT: Final = 200
"""The most bytes in a class folder's name; file systems allow 255."""

_SAFE: Final = " -_.~"
_EDGE = re.compile(r"^[ .~-]|[ .]$")  # hidden files, options, homes; ends that Windows drops
_TAKEN = re.compile(r"(uncertain|con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.DOTALL)


def alike(paths: Iterable[str]) -> frozenset[str]:
    """The paths that differ from another in case or Unicode form only: one file on some disks.

    Cards and sticks (exFAT), shares and Macs ignore case; Macs ignore the form too.
    """
    keys = {path: hash(_folded(path)) for path in paths}
    times = Counter(keys.values())
    return frozenset(path for path, key in keys.items() if times[key] > 1)


def _folded(path: str) -> str:
    """The path, without differences of case and Unicode form."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def class_folders(classes: Iterable[str]) -> dict[str, ClassFolder]:
    """The folder of each class: no other's, even where `Cat` and `cat` name the same folder.

    Folders that differ in case only have their capitals encoded; all others are as `class_folder`
    makes them.
    """
    folders = {name: class_folder(name) for name in classes}
    same = Counter(folder.casefold() for folder in folders.values())
    return {
        name: class_folder(name, capitals=same[folder.casefold()] == 1)
        for name, folder in folders.items()
    }


def class_folder(name: str, capitals: bool = True) -> ClassFolder:
    """The folder of a class: readable, safe on every file system, and no other class's.

    Letters, digits and `_` stay, as does a space or one of `-.~` inside a name; the rest is
    percent-encoded, which `urllib.parse.unquote` undoes. A name of more than `NAME_LIMIT` bytes is
    cut and ends with `…` and a hash: `…` itself is always encoded, so no other name ends like this.
    Without `capitals`, these are encoded too: then folders differ even if case does not count.
    """
    if not name:
        return ClassFolder("%empty")  # not an encoded byte, so no other name gets it
    # To macOS, é as one character and as two is the same: only the usual form stays readable.
    usual = unicodedata.is_normalized("NFC", name)
    readable = "".join(
        c if _is_readable(c, usual) and (capitals or c == c.casefold()) else _encoded(c)
        for c in name
    )
    folder = _EDGE.sub(lambda edge: _encoded(edge[0]), readable)
    if _TAKEN.fullmatch(folder):
        folder = _encoded(folder[0]) + folder[1:]
    if len(folder.encode()) > NAME_LIMIT:
        ending = "…" + hashlib.sha256(name.encode()).hexdigest()[:32]
        room = NAME_LIMIT - len(ending.encode())
        folder = folder.encode()[:room].decode(errors="ignore") + ending
    return ClassFolder(folder)


def _is_readable(character: str, usual: bool) -> bool:
    """Letters and digits of any script; marks too, without which Hindi is not legible."""
    if character.isascii():
        return character.isalnum() or character in _SAFE
    return usual and unicodedata.category(character)[0] in "LMN"


def _encoded(character: str) -> str:
    """A character percent-encoded, also one that `urllib` would leave."""
    return "".join(f"%{byte:02X}" for byte in character.encode())
