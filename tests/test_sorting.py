"""Laws of sorting: every image is complete in its class's folder, and nothing else changes."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

import pytest
from faults import as_nobody, full_disk, killed_while_writing
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.errors import UserError
from cnn.files.folder import list_folder, to_text
from cnn.files.reader import Reader
from cnn.scoring.sort_run import twins as twins_of
from cnn.scoring.sorted_names import (
    NAME_LIMIT,
    UNCERTAIN,
    alike,
    class_folder,
    class_folders,
)
from cnn.scoring.sorting import MARKER, SortedFolder
from cnn.scoring.worklist import list_images

CAT = class_folder("cat")
NO_TWINS: frozenset[str] = frozenset()

HOSTILE_NAMES = [
    *("", ".", "..", "../x", "/etc", "a/b", "a%2Fb", "a\\b", "nul\0", "\x1b[31m", "\n", "\x7f"),
    *("CON", "con", "nul.txt", "Uncertain", "uncertain", "%75ncertain", "%empty", "a ", "a.", " a"),
    *(".sorted", "-rf", "~root", "$HOME", "`ls`", "a*?", '<>|"', "\u202etxt", "\u200b", "a…b"),
    *("x" * 400, "x" * 399 + "y", "é" * 400, "/" * 400, "caf\u00e9", "cafe\u0301", "🐈\u200d⬛"),
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of three images, one of them a link."""
    root = tmp_path / "images"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "a.jpg").write_bytes(b"a")
    (root / "deep" / "er" / "b.jpg").write_bytes(b"b")
    (root / "link.jpg").symlink_to("deep/er/b.jpg")
    return root


@pytest.fixture(params=["local", "remote"])
def reader(request: pytest.FixtureRequest, images: Path) -> Reader:
    """Reads the images as local files, which are linked, or as a store's, which are copied."""
    return Reader(str(images) if request.param == "local" else f"fsspec+file://{images}")


def begun(
    folder: Path, *readers: Reader, key: str = "ab12", twins: frozenset[str] = NO_TWINS
) -> SortedFolder:
    done = SortedFolder(folder, [reader.root for reader in readers], key, twins)
    done.check()
    done.begin()
    return done


def refusal(folder: Path, root: Path, key: str = "ab12") -> str:
    with pytest.raises(UserError) as caught:
        SortedFolder(folder, [str(root)], key, NO_TWINS).check()
    (line,) = str(caught.value).splitlines()
    assert "give another folder" in line
    return line


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but its marker; links are not followed."""
    found = {}
    for above, _, names in os.walk(folder):
        for path in (Path(above, name) for name in names):
            found[str(path.relative_to(folder))] = (
                b"-> " + os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
            )
    found.pop(MARKER)
    return found


# Names of class folders


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_class_folder_is_one_safe_visible_name(tmp_path: Path, name: str) -> None:
    folder = class_folder(name)
    assert 0 < len(folder.encode()) <= NAME_LIMIT
    assert folder.isprintable() and not set(folder) & set('/\\:*?"<>|$`')
    assert folder[0] not in " .~-" and folder[-1] not in " ."
    assert folder.split(".")[0].lower() not in {"con", "nul", UNCERTAIN}
    (tmp_path / folder).mkdir()
    assert [entry.name for entry in tmp_path.iterdir()] == [folder]


# Many differ in case only: Latin and Greek, letters that fold to two, and long names.
CASES = ["Cat", "cat", "CAT", "Con", "COn", "stra\u00dfe", "STRASSE", "\u0130", "i\u0307"]
CASES += ["\u039f\u03a3", "\u03bf\u03c2", "%43at", "Dog", "A" * 400, "a" * 400, "A" * 90, "a" * 90]


def test_no_two_classes_share_a_folder_even_where_case_does_not_count() -> None:
    folders = class_folders(HOSTILE_NAMES + CASES)
    distinct = {UNCERTAIN, *(folder.casefold() for folder in folders.values())}
    assert len(distinct) == len(folders) + 1
    assert (folders["cat"], folders["Cat"], folders["Dog"]) == ("cat", "%43at", "Dog")


@settings(deadline=None)
@given(st.sets(st.text("aAbBßẞsSIİi\u0131\u0307eEéÉ\u0301%kK\u212a .", max_size=4), max_size=30))
def test_names_that_differ_in_case_get_folders_that_differ_in_more(names: set[str]) -> None:
    names |= {normalize(form, name) for name in names for form in ("NFC", "NFD")}
    folders = class_folders(names)
    # To macOS, é as one character and as two is the same name.
    folded = {normalize("NFC", normalize("NFC", f).casefold()) for f in folders.values()}
    assert len(folded) == len(names)
    assert all(unquote(folder) == name for name, folder in folders.items() if name)


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20))
def test_a_short_class_name_can_be_recovered_from_its_folder(name: str) -> None:
    assert unquote(class_folder(name)) == name


@pytest.mark.parametrize(
    "name", ["cat", "Grey heron", "n02123045", "a-b_c.d", "猫", "Жук", "हिन्दी", "caf\u00e9"]
)
def test_an_ordinary_class_name_is_its_folder_name(name: str) -> None:
    assert class_folder(name) == name


def test_a_long_name_keeps_its_beginning() -> None:
    assert class_folder("x" * 400).startswith("x" * 100)


# Which folders are accepted


def test_a_new_or_empty_folder_is_accepted_and_checking_creates_nothing(
    tmp_path: Path, images: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        SortedFolder(tmp_path / name, [str(images)], "ab12", NO_TWINS).check()
    assert not (tmp_path / "new").exists()


def test_sorting_resumes_only_with_the_same_key(tmp_path: Path, images: Path) -> None:
    begun(tmp_path / "out", Reader(str(images)), key="ab12")
    begun(tmp_path / "out", Reader(str(images)), key="ab12")
    assert "other images, model or settings" in refusal(tmp_path / "out", images, key="ab13")


def test_a_folder_with_other_files_is_refused(tmp_path: Path, images: Path) -> None:
    (tmp_path / "my\nfolder").mkdir()
    (tmp_path / "my\nfolder" / "mine.txt").write_text("mine")
    assert "not empty" in refusal(tmp_path / "my\nfolder", images)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "..sorted.77.tmp").write_text("of a killed run")
    begun(tmp_path / "half", Reader(str(images)), key="ab12")
    assert [file.name for file in (tmp_path / "half").iterdir()] == [".sorted"]
    assert "Not a directory" in refusal(images / "a.jpg", tmp_path / "elsewhere")
    assert "a.jpg' is not a folder" in refusal(images / "a.jpg" / "b" / "c", tmp_path / "elsewhere")


def test_a_folder_that_cannot_be_created_is_refused(images: Path) -> None:
    with pytest.raises(UserError, match="Not a directory; give another folder"):
        SortedFolder(images / "a.jpg" / "out", [], "ab12", NO_TWINS).begin()


def test_a_folder_that_cannot_be_written_to_is_refused() -> None:
    with tempfile.TemporaryDirectory() as here:  # pytest's own folder is closed to other users
        folders = Path(here), Path(here, "new", "er")
        for mode, refused in ((0o555, True), (0o777, False)):
            Path(here).chmod(mode)
            with as_nobody():
                for folder in folders:
                    if refused:
                        assert "cannot be written to" in refusal(folder, Path("/elsewhere"))
                    else:
                        SortedFolder(folder, ["/elsewhere"], "ab12", NO_TWINS).check()


@pytest.mark.parametrize("place", ["images", "images/sorted", "link/sorted"])
def test_a_folder_among_the_images_is_refused(tmp_path: Path, images: Path, place: str) -> None:
    (tmp_path / "link").symlink_to("images")
    assert "to which it would add images" in refusal(tmp_path / place, images)


# Placing


def test_every_image_is_placed_under_its_class_and_path(tmp_path: Path, reader: Reader) -> None:
    out = begun(tmp_path / "out", reader)
    missed = out.place(
        reader,
        [("a.jpg", class_folder("../x")), ("deep/er/b.jpg", CAT), ("link.jpg", UNCERTAIN)],
    )
    assert not missed
    assert contents(out.folder) == {
        "%2E.%2Fx/a.jpg": b"a",
        "cat/deep/er/b.jpg": b"b",
        "uncertain/link.jpg": b"b",
    }


def test_images_of_several_roots_are_separated_by_number(tmp_path: Path, images: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(b"other")
    readers = Reader(str(images)), Reader(f"fsspec+file://{other}")
    out = begun(tmp_path / "out", *readers)
    for reader in readers:
        assert not out.place(reader, [("a.jpg", CAT)])
    assert contents(out.folder) == {"cat/1/a.jpg": b"a", "cat/2/a.jpg": b"other"}


def test_a_file_name_keeps_its_bytes(tmp_path: Path) -> None:
    name = b"line\nbreak-\xff\\" + b"x" * 237 + b".jpg"  # 253 bytes: no room for a longer one
    root = tmp_path / "images"
    root.mkdir()
    Path(os.fsdecode(os.path.join(os.fsencode(root), name))).write_bytes(b"a")
    out = begun(tmp_path / "out", Reader(str(root)))
    assert not out.place(Reader(str(root)), [(to_text(name), CAT)])
    assert os.listdir(os.fsencode(out.folder / "cat")) == [name]


def test_a_local_image_is_hard_linked_and_a_symlink_is_followed(
    tmp_path: Path, images: Path
) -> None:
    out = begun(tmp_path / "out", Reader(str(images)))
    out.place(Reader(str(images)), [("a.jpg", CAT), ("link.jpg", CAT)])
    assert (out.folder / "cat/a.jpg").samefile(images / "a.jpg")
    assert not (out.folder / "cat/link.jpg").is_symlink()
    assert (out.folder / "cat/link.jpg").samefile(images / "deep/er/b.jpg")


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no second file system")
def test_an_image_is_copied_if_it_cannot_be_linked(elsewhere: Path, images: Path) -> None:
    out = begun(elsewhere / "out", Reader(str(images)))
    assert not out.place(Reader(str(images)), [("a.jpg", CAT), ("link.jpg", CAT)])
    assert contents(out.folder) == {"cat/a.jpg": b"a", "cat/link.jpg": b"b"}


def test_a_file_that_exists_is_not_touched_and_counts_as_placed(
    tmp_path: Path, images: Path, reader: Reader
) -> None:
    out = begun(tmp_path / "out", reader)
    out.place(reader, [("a.jpg", CAT)])
    before = (out.folder / "cat/a.jpg").stat()
    (images / "a.jpg").rename(tmp_path / "away")
    assert not out.place(reader, [("a.jpg", CAT)])
    after = (out.folder / "cat/a.jpg").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_an_image_that_cannot_be_placed_is_counted_and_skipped(
    tmp_path: Path, images: Path
) -> None:
    reader = Reader(str(images))
    out = begun(tmp_path / "out", reader)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (images / "outside.jpg").symlink_to("../secret.jpg")
    os.mkfifo(images / "fifo.jpg")
    names = ["gone.jpg", "outside.jpg", "fifo.jpg", "a.jpg", "../secret.jpg", "a.jpg/x"]
    assert out.place(reader, [(name, CAT) for name in names]) == {
        "vanished": 1,
        "outside_root": 1,
        "not_a_regular_file": 1,
        "no_place": 2,
    }
    assert contents(out.folder) == {"cat/a.jpg": b"a"}


@pytest.mark.parametrize(
    "path", ["x" * 300, "a.jpg/x.jpg", "deep", "nul\0", "../a.jpg", "/a.jpg", "x//a.jpg", "./a.jpg"]
)
def test_a_path_possible_only_in_a_store_is_counted_and_skipped(
    tmp_path: Path, reader: Reader, path: str
) -> None:
    out = begun(tmp_path / "out", reader)
    kept = [("a.jpg", CAT), ("deep/er/b.jpg", CAT)]
    assert not out.place(reader, kept)
    assert out.place(reader, [(path, CAT)]) == {"no_place": 1}
    assert contents(out.folder) == {"cat/a.jpg": b"a", "cat/deep/er/b.jpg": b"b"}


@pytest.fixture
def caseless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk to which names that differ in case only are one: no such disk is here to be mounted.

    Every name below an open folder is looked up as the folder spells it.
    """

    plainly = os.open

    def spelled(name: bytes, folder: int) -> bytes:
        own = plainly(".", os.O_RDONLY, dir_fd=folder)  # threads that share one list in parts
        there = map(os.fsencode, os.listdir(own))
        os.close(own)
        return next((one for one in there if one.lower() == name.lower()), name)

    def caseless(call: Callable[..., object]) -> Callable[..., object]:
        def looked_up(name: object, *more: object, **named: Any) -> object:
            folder = named.get("dir_fd")
            found = spelled(name, folder) if isinstance(name, bytes) and folder else name
            return call(found, *more, **named)

        return looked_up

    def replace(source: Any, target: Any, **folders: int) -> None:
        time.sleep(0.05)  # so that threads meet
        found = spelled(target, folders["dst_dir_fd"]) if folders else target
        os.rename(source, found, **folders)

    for name in ("stat", "open", "mkdir"):
        monkeypatch.setattr(os, name, caseless(getattr(os, name)))
    monkeypatch.setattr(os, "replace", replace)


TWINS = {"IMG_1.JPG": b"one", "img_1.jpg": b"two", "x/a.jpg": b"three", "X/a.jpg": b"four"}


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """Images whose paths differ in case only, and one alone."""
    for name, content in (TWINS | {"alone.jpg": b"five"}).items():
        (tmp_path / "twins" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "twins" / name).write_bytes(content)
    return tmp_path / "twins"


@pytest.mark.parametrize("scheme", ["", "fsspec+file://"])
@pytest.mark.usefixtures("caseless")
def test_on_a_disk_that_ignores_case_no_image_counts_as_placed_by_its_twin(
    tmp_path: Path, twins: Path, scheme: str
) -> None:
    reader = Reader(f"{scheme}{twins}")
    paths = [*TWINS, "alone.jpg"]
    out = begun(tmp_path / "out", reader, twins=alike(paths))
    for _ in range(2):
        assert out.place(reader, [(path, CAT) for path in paths]) == {"no_place": 2}
    placed = contents(out.folder)
    assert len(placed) == 3
    assert all(
        (twins / path.removeprefix("cat/")).read_bytes() == content
        for path, content in placed.items()
    )
    assert not out.place(reader, [("img_1.jpg", UNCERTAIN)])  # its twin is not in there


@pytest.mark.usefixtures("caseless")
def test_a_folder_that_another_image_has_made_does_not_mix_twins_up(
    tmp_path: Path, twins: Path
) -> None:
    (twins / "x" / "other.jpg").write_bytes(b"six")
    reader = Reader(f"fsspec+file://{twins}")
    paths = ["x/other.jpg", "X/a.jpg", "x/a.jpg"]
    out = begun(tmp_path / "out", reader, twins=alike(paths))
    out.place(reader, [("x/other.jpg", CAT)])  # as if its thread were the first
    assert out.place(reader, [(path, CAT) for path in paths]) == {"no_place": 1}
    assert contents(out.folder) == {"cat/x/other.jpg": b"six", "cat/x/a.jpg": b"three"}


def test_on_any_other_disk_twins_are_placed_side_by_side(tmp_path: Path, twins: Path) -> None:
    reader = Reader(str(twins))
    out = begun(tmp_path / "out", reader, twins=alike(TWINS))
    for _ in range(2):
        assert not out.place(reader, [(path, CAT) for path in TWINS])
    assert contents(out.folder) == {f"cat/{path}": content for path, content in TWINS.items()}


def test_twins_are_looked_for_below_each_root(tmp_path: Path, twins: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("Only.jpg", "alone.JPG"):
        (other / name).write_bytes(b"six")
    assert twins_of(list_images([str(other), str(twins)], [])) == set(TWINS)
    assert twins_of(list_images([str(other)], [])) == set()


def test_paths_are_alike_if_they_differ_in_case_or_unicode_form_only() -> None:
    forms = ["cafe\u0301/1.jpg", "caf\u00e9/1.jpg", "CAF\u00c9/1.JPG"]
    several = [*forms, "STRASSE", "stra\u00dfe", "a/b", "A/b", "a/B"]
    assert alike([*several, "alone", "cafe/1.jpg", "b/a"]) == set(several)


def test_a_symlink_in_the_folder_is_never_followed(tmp_path: Path, reader: Reader) -> None:
    out = begun(tmp_path / "out", reader)
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a.jpg").write_bytes(b"mine")
    (out.folder / "dog").symlink_to(victim)
    (out.folder / "cat").mkdir()
    (out.folder / "cat/a.jpg").symlink_to(victim / "a.jpg")
    missed = out.place(reader, [("a.jpg", CAT), ("a.jpg", class_folder("dog"))])
    assert missed == {"no_place": 1}
    assert contents(out.folder)["cat/a.jpg"] == b"a"
    assert {file.name: file.read_bytes() for file in victim.iterdir()} == {"a.jpg": b"mine"}


def test_the_originals_do_not_change(tmp_path: Path, images: Path, reader: Reader) -> None:
    def state() -> dict[str, tuple[bytes, int, int]]:
        files = sorted(path for path in images.rglob("*") if path.is_file())
        return {f.name: (f.read_bytes(), f.lstat().st_mode, f.lstat().st_mtime_ns) for f in files}

    before = state()
    out = begun(tmp_path / "out", reader)
    for _ in range(2):
        out.place(
            reader, [(path, CAT) for path in list_folder(str(images)).files["path"].to_pylist()]
        )
    assert state() == before


def test_a_full_disk_raises_and_leaves_no_partial_image(tmp_path: Path, images: Path) -> None:
    (images / "a.jpg").write_bytes(b"a" * 5000)
    reader = Reader(f"fsspec+file://{images}")
    out = begun(tmp_path / "out", reader)
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        out.place(reader, [("a.jpg", CAT)])
    assert contents(out.folder) == {}


def test_partial_copies_of_a_killed_process_are_removed(tmp_path: Path, images: Path) -> None:
    (images / "a.jpg").write_bytes(b"a" * 5000)
    reader = Reader(f"fsspec+file://{images}")
    out = begun(tmp_path / "out", reader)
    killed_while_writing(
        "from pathlib import Path; from cnn.files.reader import Reader;"
        "from cnn.scoring.sorted_names import class_folder;"
        "from cnn.scoring.sorting import *;"
        f"SortedFolder(Path({str(out.folder)!r}), [{reader.root!r}], 'ab12', frozenset())"
        f".place(Reader({reader.root!r}), [('a.jpg', class_folder('cat'))])",
        limit=1000,
    )
    assert not (out.folder / "cat/a.jpg").exists()
    assert contents(out.folder)  # otherwise the process died of something else
    out.begin()
    assert contents(out.folder) == {}
    out.place(reader, [("a.jpg", CAT)])
    assert contents(out.folder) == {"cat/a.jpg": b"a" * 5000}
