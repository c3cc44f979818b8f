"""Laws of listing and reading a folder: nothing is lost, nothing outside is read, nothing hangs."""

import os
import pickle
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import fsspec
import pytest
from faults import as_nobody
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.files.folder import FolderError, list_folder, to_bytes, to_text
from cnn.files.reader import Reader
from cnn.files.unreadable import BYTE_LIMIT, Unreadable

ODD_NAMES = [
    b"line\nbreak\r\t.jpg",
    b"not-utf-8-\xff\xe9.jpg",
    b"back\\slash.jpg",
    b"back\\xff.jpg",
    b"quotes'\"`$(;)&|.jpg",
    "caf\u00e9.jpg".encode(),
    "cafe\u0301.jpg".encode(),
    "🐈\u200d⬛.jpg".encode(),
    b" <script> .jpg",
    b"<img src=x onerror=alert(1)>.jpg",
    b"=1+1.jpg",
    b"\x1b[2J\x1b]0;title\x07\x7f\x01.jpg",
    "gpj.\u202eegami\u2028\u2215.jpg".encode(),
    b"-rf *.JPG",
    b"n" * 251 + b".jpg",
]


def put(root: Path, *paths: str, content: bytes = b"image") -> Path:
    for path in paths:
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


def paths_of(root: Path | str) -> list[str]:
    paths: list[str] = list_folder(str(root)).files["path"].to_pylist()
    return paths


def errors_of(root: Path) -> dict[str, str | None]:
    files = list_folder(str(root)).files
    return dict(zip(files["path"].to_pylist(), files["error"].to_pylist(), strict=True))


def reason_of(read: Callable[[], bytes]) -> str:
    with pytest.raises(Unreadable) as caught:
        read()
    return caught.value.reason


@settings(deadline=None)
@given(st.binary())
def test_any_name_survives_as_text(name: bytes) -> None:
    assert to_bytes(to_text(name)) == name
    to_text(name).encode("utf-8")


@settings(deadline=None)
@given(st.text(st.characters(exclude_characters="\\", codec="utf-8")))
def test_a_plain_name_is_unchanged_as_text(name: str) -> None:
    assert to_text(name.encode()) == name


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_of_any_name_is_listed_once_and_read(tmp_path: Path, name: bytes) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"class")
    os.mkdir(folder)
    with open(os.path.join(folder, name), "wb") as file:
        file.write(name)
    (path,) = paths_of(tmp_path)
    assert path == "class/" + to_text(name)
    assert Reader(str(tmp_path))(path) == name


def test_names_that_look_alike_are_different_files(tmp_path: Path) -> None:
    names = [b"caf\xc3\xa9", b"cafe\xcc\x81", b"CAF\xc3\x89", b"caf\xe9", b"caf\\xe9"]
    for name in names:
        put(tmp_path, os.fsdecode(b"class/" + name + b".jpg"), content=name)
    paths = paths_of(tmp_path)
    assert len(set(paths)) == len(names)
    assert {Reader(str(tmp_path))(path) for path in paths} == set(names)


def test_a_file_as_deep_as_the_system_allows_is_listed_and_read(tmp_path: Path) -> None:
    deep = "/".join(["d" * 200] * 18)
    put(tmp_path, f"{deep}/x.jpg")
    assert paths_of(tmp_path) == [f"{deep}/x.jpg"]
    assert Reader(str(tmp_path))(f"{deep}/x.jpg") == b"image"


def test_listed_and_ignored_files_add_up_to_all_files(tmp_path: Path) -> None:
    root = put(tmp_path, "a/x.jpg", "a/b/y.PNG", "a/b/c/.z.jpg", "a/n.txt", "a/b/none", "empty.jpg")
    os.mkfifo(root / "a/b/fifo.jpg")
    for name, target in (
        ("loop", ".."),
        ("out", "/usr"),
        ("a.jpg", "x.jpg"),
        ("b.jpg", "/dev/zero"),
    ):
        (root / "a" / name).symlink_to(target)
    there = sum(1 for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    put(root, ".h/i/j.jpg", "a/.k/l.jpg")  # each hidden folder counts once
    (root / "an empty class").mkdir()
    listing = list_folder(str(root))
    assert listing.files.num_rows + sum(listing.ignored.values()) == there + 2


def test_rows_are_sorted_and_hold_size_time_and_first_folder(tmp_path: Path) -> None:
    put(tmp_path, "b/deep/er/y.PNG", "a/x.jpeg", "z.webp", "_under/u.HEIC", content=b"12345")
    os.utime(tmp_path / "a/x.jpeg", ns=(0, 1_700_000_000_123_456_789))
    files = list_folder(str(tmp_path)).files
    assert files["path"].to_pylist() == ["_under/u.HEIC", "a/x.jpeg", "b/deep/er/y.PNG", "z.webp"]
    assert files["top"].to_pylist() == ["_under", "a", "b", None]
    assert files["size"].to_pylist() == [5] * 4
    assert files["mtime_ns"][1].as_py() == 1_700_000_000_123_456_789
    assert files["error"].null_count == 4


def test_every_ignored_file_is_counted_by_its_reason(tmp_path: Path) -> None:
    put(tmp_path, "a/x.jpg", "a/._x.jpg", ".DS_Store", ".git/deep/x.jpg", "a/notes.txt", "a/jpg")
    listing = list_folder(str(tmp_path))
    assert listing.files["path"].to_pylist() == ["a/x.jpg"]
    assert listing.ignored == {"hidden": 2, "hidden_folder": 1, "not_an_image_name": 2}


def test_links_to_folders_are_counted_and_never_followed(tmp_path: Path) -> None:
    put(tmp_path, "a/x.jpg")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a")
    listing = list_folder(str(tmp_path))
    assert listing.files["path"].to_pylist() == ["a/x.jpg"]
    assert listing.ignored == {"directory_link": 2}


def test_folders_in_the_root_without_images_are_named(tmp_path: Path) -> None:
    put(tmp_path, "a/deep/x.jpg", "notes/n.txt", "no ending/image", ".git/x.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert list_folder(str(tmp_path)).empty_folders == ("empty", "link", "no ending", "notes")
    (tmp_path / "link").unlink()  # remote stores have no links
    assert list_folder(f"fsspec+file://{tmp_path}").empty_folders == ("empty", "no ending", "notes")


def test_a_root_that_is_a_link_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "real", "a/x.jpg")
    (tmp_path / "link").symlink_to("real")
    assert paths_of(tmp_path / "link") == ["a/x.jpg"]
    assert Reader(str(tmp_path / "link"))("a/x.jpg") == b"image"


def test_a_file_that_cannot_be_read_is_a_row_with_a_reason(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "a/x.jpg", "a/empty.jpg", content=b"")
    put(tmp_path, "root-secret.jpg")
    os.mkfifo(root / "fifo.jpg")
    os.mknod(root / "socket.jpg", stat.S_IFSOCK | 0o600)
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "broken.jpg").symlink_to("nowhere.jpg")
    (root / "outside.jpg").symlink_to("../root-secret.jpg")
    (root / "device.jpg").symlink_to("/dev/zero")
    (root / "inside.jpg").symlink_to("a/x.jpg")
    with (root / "huge.jpg").open("wb") as sparse:
        sparse.truncate(BYTE_LIMIT + 1)
    assert errors_of(root) == {
        "a/empty.jpg": None,
        "a/x.jpg": None,
        "broken.jpg": "broken_symlink",
        "device.jpg": "outside_root",
        "fifo.jpg": "not_a_regular_file",
        "huge.jpg": "too_large",
        "inside.jpg": None,
        "loop.jpg": "broken_symlink",
        "outside.jpg": "outside_root",
        "socket.jpg": "not_a_regular_file",
    }


def test_a_folder_whose_path_is_too_long_to_open_is_counted(tmp_path: Path) -> None:
    put(tmp_path, "a/x.jpg")
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    listing = list_folder(str(tmp_path))
    assert listing.files["path"].to_pylist() == ["a/x.jpg"]
    assert listing.ignored == {"unreadable_folder": 1}


def test_a_forbidden_folder_is_counted_and_a_forbidden_file_has_a_reason() -> None:
    with TemporaryDirectory() as folder:  # pytest's own folder is closed to other users
        root = put(Path(folder), "open/x.jpg", "shut/y.jpg")
        root.chmod(0o755)
        (root / "open/x.jpg").chmod(0)
        (root / "shut").chmod(0)
        with as_nobody():
            listing = list_folder(folder)
            assert listing.files["path"].to_pylist() == ["open/x.jpg"]
            assert listing.ignored == {"unreadable_folder": 1}
            assert reason_of(lambda: Reader(folder)("open/x.jpg")) == "permission_denied"
        (root / "shut").chmod(0o700)


def test_a_root_without_permission_is_refused_in_one_line() -> None:
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0)
        with as_nobody(), pytest.raises(FolderError) as caught:
            list_folder(folder)
        Path(folder).chmod(0o700)
    assert folder in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "root", ["nowhere", "a/x.jpg", "nosuch://bucket/x", "file:///nowhere", "nul\0"]
)
def test_a_root_that_is_not_a_folder_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    monkeypatch.chdir(put(tmp_path, "a/x.jpg"))
    with pytest.raises(FolderError) as caught:
        list_folder(root)
    message = str(caught.value)
    assert root.strip("\0").removeprefix("file://") in message
    assert len(message.splitlines()) == 1


def test_a_file_uri_and_a_relative_path_list_the_same_as_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = put(tmp_path / "my images", "a/x.jpg", "b/.hidden.jpg", "b/é.jpg")
    monkeypatch.chdir(tmp_path)
    local, uri, relative = map(list_folder, (str(root), root.as_uri(), "my images"))
    assert local.files.equals(uri.files) and local.files.equals(relative.files)
    assert local.ignored == uri.ignored == relative.ignored
    assert local.root == uri.root == relative.root == str(root)


def test_a_remote_listing_equals_the_local_one(tmp_path: Path) -> None:
    root = put(tmp_path, "a/x.jpg", "a/y.txt", "b/c/é\n.png", "_b/z.gif", "a/.h.jpg", ".h/i/j.jpg")
    local, remote = list_folder(str(root)), list_folder(f"fsspec+file://{root}")
    for column in ("path", "size", "top", "error"):
        assert local.files[column].equals(remote.files[column])
    assert local.ignored == remote.ignored
    seconds = [[ns // 10**9 for ns in of.files["mtime_ns"].to_pylist()] for of in (local, remote)]
    assert seconds[0] == seconds[1]


def test_remote_files_are_read_or_refused_with_a_reason() -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/shelf/cat/back\\slash.jpg", b"cat")
    uri = "fsspec+memory://shelf"
    (path,) = paths_of(uri)
    assert Reader(uri)(path) == b"cat"
    assert reason_of(lambda: Reader(uri)("cat/gone.jpg")) == "vanished"
    store.rm("/shelf", recursive=True)
    with pytest.raises(FolderError, match="shelf"):
        list_folder(uri)


def test_a_pickled_reader_reads_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "here/a/x.jpg")
    monkeypatch.chdir(tmp_path)
    packed = pickle.dumps(Reader("here"))
    monkeypatch.chdir("/")
    assert pickle.loads(packed)("a/x.jpg") == b"image"


def test_a_link_within_the_root_is_read(tmp_path: Path) -> None:
    put(tmp_path, "a/x.jpg")
    (tmp_path / "link.jpg").symlink_to("a/x.jpg")
    assert Reader(str(tmp_path))("link.jpg") == b"image"


def test_a_replaced_file_cannot_lead_out_of_the_root_or_block(tmp_path: Path) -> None:
    root = put(tmp_path / "root", "a/x.jpg")
    put(tmp_path, "secret/x.jpg")
    read, file, huge = Reader(str(root)), root / "a/x.jpg", root / "huge.jpg"
    with huge.open("wb") as sparse:
        sparse.truncate(BYTE_LIMIT + 1)

    def replaced(replace: Callable[[], object]) -> str:
        file.unlink()
        replace()
        return reason_of(lambda: read("a/x.jpg"))

    assert replaced(lambda: os.mkfifo(file)) == "not_a_regular_file"
    assert replaced(lambda: os.mknod(file, stat.S_IFSOCK | 0o600)) == "not_a_regular_file"
    if not os.geteuid():  # only root may make a device: a copy of /dev/zero, which never ends
        zero = stat.S_IFCHR | 0o600, os.makedev(1, 5)
        assert replaced(lambda: os.mknod(file, *zero)) == "not_a_regular_file"
    assert replaced(lambda: file.symlink_to("../../secret/x.jpg")) == "outside_root"
    assert replaced(lambda: file.symlink_to("x.jpg")) == "broken_symlink"
    assert replaced(lambda: file.symlink_to(huge)) == "too_large"
    assert replaced(lambda: None) == "vanished"
    file.mkdir()
    assert reason_of(lambda: read("a/x.jpg")) == "not_a_regular_file"
    file.rmdir()
    file.parent.rmdir()
    assert reason_of(lambda: Reader(str(root))("a/x.jpg")) == "vanished"


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "a/../../secret.jpg", "/etc/hosts", "link/x.jpg"]
)
def test_a_path_that_leads_out_of_the_root_is_never_read(tmp_path: Path, path: str) -> None:
    root = put(tmp_path / "root", "a/x.jpg")
    put(tmp_path, "secret.jpg", "elsewhere/x.jpg")
    (root / "link").symlink_to("../elsewhere")
    assert reason_of(lambda: Reader(str(root))(path)) == "outside_root"


@pytest.mark.parametrize("gone", ["removed", "emptied"])
def test_a_root_that_vanishes_is_an_error_and_not_a_fault_of_its_files(
    tmp_path: Path, gone: str
) -> None:
    """An unplugged disk, or an unmounted share, which leaves an empty mount point."""
    root = put(tmp_path / "disk", "a/x.jpg", "a/y.jpg")
    read = Reader(str(root))
    assert read("a/x.jpg") == b"image"
    (root / "a/y.jpg").unlink()
    assert reason_of(lambda: read("a/y.jpg")) == "vanished"
    shutil.rmtree(root)
    if gone == "emptied":
        root.mkdir()
    with pytest.raises(FolderError, match="gone or empty"):
        read("a/x.jpg")


def test_a_remote_root_that_vanishes_is_an_error_and_not_a_fault_of_its_files() -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/lent/cat/1.jpg", b"cat")
    read = Reader("fsspec+memory://lent")
    assert read("cat/1.jpg") == b"cat"
    store.rm("/lent", recursive=True)
    with pytest.raises(FolderError, match="gone or empty"):
        read("cat/1.jpg")


def test_a_system_error_names_the_file_that_it_made_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = put(tmp_path, "a/x.jpg")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [open(os.devnull) for _ in range(20)]  # noqa: SIM115
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[-1].fileno() + 1, limits[1]))
        with pytest.raises(FolderError, match=r"'a/x.jpg' cannot be read .Too many open files"):
            Reader(str(root))("a/x.jpg")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in held:
            file.close()


@pytest.mark.parametrize("year", [1601, 2400])
def test_a_file_with_a_time_out_of_range_is_listed(tmp_path: Path, year: int) -> None:
    put(tmp_path, "a/x.jpg", "a/y.jpg")
    seconds = (year - 1970) * 31_556_952
    os.utime(tmp_path / "a/x.jpg", (seconds, seconds))
    assert paths_of(tmp_path) == ["a/x.jpg", "a/y.jpg"]


def test_a_listing_does_not_load_the_decoder() -> None:
    program = "import cnn.files.reader, cnn.manifest, sys; sys.exit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
