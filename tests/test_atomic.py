"""The law of atomic writing: the old content or the new, whatever happens, and no other file."""

import os
from pathlib import Path

import pytest
from faults import full_disk, killed_while_writing

from cnn.files.atomic import copy_folder, remove_drafts, write_atomically, writing


@pytest.mark.parametrize(
    "text", ["", "new\n", "caf\u00e9 \u732b", "lines\nof\r\ntext", "x" * 10**6]
)
def test_the_new_text_replaces_the_old(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file.txt"
    for old in (None, "old" * 1000):
        if old is not None:
            file.write_text(old)
        write_atomically(file, text)
        assert file.read_bytes() == text.encode()
        assert list(tmp_path.iterdir()) == [file]


def test_text_that_is_not_utf_8_is_written_escaped(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", "cat-\udcff.jpg")
    assert (tmp_path / "file").read_bytes() == rb"cat-\udcff.jpg"


def test_a_full_disk_leaves_the_old_text_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("old")
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        write_atomically(file, "new" * 1000)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_leaves_no_new_file(tmp_path: Path) -> None:
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        write_atomically(tmp_path / "file.txt", "new" * 1000)
    assert list(tmp_path.iterdir()) == []


def test_a_block_that_raises_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "file.bin"
    file.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), writing(file) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_over_a_folder_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "folder", "new")
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder", tmp_path / "folder" / "inner"]


def test_a_process_killed_while_writing_leaves_the_old_text(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("old")
    killed_while_writing(
        "from pathlib import Path; from cnn.files.atomic import write_atomically;"
        f"write_atomically(Path({str(file)!r}), 'new' * 1000)",
        limit=1000,
    )
    assert file.read_text() == "old"
    write_atomically(file, "new")
    assert file.read_text() == "new"


def folder_of(path: Path, content: str) -> Path:
    path.mkdir()
    for name in ("model", "training"):
        (path / name).write_text(content)
    return path


def test_a_copied_folder_replaces_the_old_one_and_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set[int]()
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    source, target = folder_of(tmp_path / "source", "new"), folder_of(tmp_path / "target", "old")
    copy_folder(source, target)
    assert {file.name: file.read_text() for file in target.iterdir()} == {
        "model": "new", "training": "new"
    }  # fmt: skip
    written = (*target.iterdir(), target, tmp_path)
    assert {path.stat().st_ino for path in written} <= synced
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_a_folder_that_cannot_be_copied_whole_leaves_the_old_one(tmp_path: Path) -> None:
    source = folder_of(tmp_path / "source", "new" * 1000)
    target = folder_of(tmp_path / "target", "old")
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        copy_folder(source, target)
    assert [file.read_text() for file in target.iterdir()] == ["old", "old"]
    assert sorted(tmp_path.iterdir()) == [source, target]


def test_drafts_of_killed_copies_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = folder_of(tmp_path / "epoch-0001", "kept")
    folder_of(tmp_path / ".epoch-0002.0123.tmp", "half")
    remove_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_drafts_of_killed_writes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    hidden = tmp_path / ".lock"
    hidden.write_text("kept")
    killed_while_writing(
        "from pathlib import Path; from cnn.files.atomic import write_atomically;"
        f"write_atomically(Path({str(tmp_path / 'file.txt')!r}), 'new' * 1000)",
        limit=1000,
    )
    assert len(list(tmp_path.iterdir())) == 2
    remove_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == [hidden]
    remove_drafts(tmp_path / "nowhere")
