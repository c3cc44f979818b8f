"""Laws of places: a path in a bucket behaves like the same path on a disk."""

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from faults import as_nobody
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from cnn.errors import UserError
from cnn.files import parquet
from cnn.files.atomic import holds_anything, remove_drafts, write_atomically, writing
from cnn.files.place import BucketPath, Place, place


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A folder that does not exist yet; the bucket is on this disk, behind pyarrow's interface."""
    if request.param == "disk":
        return tmp_path / "run"
    filesystem = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    return BucketPath("s3://bucket/run?region=x", filesystem, "run")


def test_written_files_can_be_read_and_listed(folder: Place) -> None:
    assert not folder.exists() and not holds_anything(folder)
    (folder / "a" / "b").mkdir(parents=True)
    write_atomically(folder / "a" / "text.txt", "né\n")
    with writing(folder / "a" / "b" / "data") as draft:
        draft.write_bytes(b"12")
    assert (folder / "a" / "text.txt").read_text(encoding="utf-8") == "né\n"
    assert (folder / "a/b/data").read_bytes() == b"12"
    assert sorted(entry.name for entry in (folder / "a").iterdir()) == ["b", "text.txt"]
    assert list(folder.rglob("data")) == [folder / "a/b/data"]
    assert holds_anything(folder) and folder.is_dir() and not folder.is_file()
    (folder / "a/text.txt").unlink()
    (folder / "a/text.txt").unlink(missing_ok=True)
    assert not (folder / "a/text.txt").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_bucket_that_denies_access_asks_to_check_the_credentials(tmp_path: Path) -> None:
    filesystem = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    (tmp_path / "closed").mkdir(mode=0o700)
    with as_nobody(), pytest.raises(UserError, match="check the address and the credentials"):
        BucketPath("s3://bucket/closed/run", filesystem, "closed/run").is_file()


def test_a_failed_write_leaves_no_file(folder: Place) -> None:
    folder.mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), writing(folder / "file") as draft:
        draft.write_bytes(b"half")
        raise ZeroDivisionError
    assert list(folder.iterdir()) == []


def test_drafts_are_removed_on_a_disk_and_nothing_in_a_bucket(folder: Place) -> None:
    folder.mkdir()
    for name in (".a.0123.tmp", "a"):
        write_atomically(folder / name, "text")
    remove_drafts(folder)
    left = {"a"} if isinstance(folder, Path) else {"a", ".a.0123.tmp"}
    assert {entry.name for entry in folder.iterdir()} == left


class Interrupted(io.BytesIO):
    """A file whose read is interrupted after its first bytes."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise KeyboardInterrupt
        return super().read(4)


@pytest.mark.parametrize("before", [None, b"what was there"])
def test_an_interrupted_upload_leaves_the_bucket_unchanged(
    tmp_path: Path, before: bytes | None
) -> None:
    filesystem = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    file = BucketPath("s3://bucket/runs/shard", filesystem, "runs/shard")
    file.parent.mkdir()
    if before is not None:
        file.put(before)
    with pytest.raises(KeyboardInterrupt):
        file.put(Interrupted(b"half of a shard"))
    assert {one.name: one.read_bytes() for one in file.parent.iterdir()} == (
        {} if before is None else {"shard": before}
    )


def test_a_new_file_replaces_the_old_one(folder: Place) -> None:
    folder.mkdir()
    for content in (b"a long first one", b"short"):
        write_atomically(folder / "file", content)
        assert {one.name: one.read_bytes() for one in folder.iterdir()} == {"file": content}


def test_a_table_is_read_back_whole_or_by_columns(folder: Place) -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    for above in (folder, folder / "c=3"):  # to pyarrow 20, the second is a partition
        above.mkdir(parents=True)
        parquet.write(above / "t.parquet", table)
        assert parquet.read(above / "t.parquet").equals(table)
        assert parquet.read(above / "t.parquet", ["b"]).equals(table.select(["b"]))


def test_rows_come_in_the_given_order_and_only_their_row_groups_are_read(folder: Place) -> None:
    folder.mkdir(parents=True)
    file = folder / "t.parquet"
    values = [bytes([number] * 100) for number in range(10)]
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False}
    parquet.write(file, pa.table({"a": values}), row_group_size=3, **plain)
    for rows in ([9, 0, 9, 4], [5], [], [0, 1, 2]):
        taken = parquet.take(file, "a", np.array(rows, np.int64))
        assert taken.to_pylist() == [values[row] for row in rows]
    with pytest.raises(pa.ArrowIndexError):
        parquet.take(file, "a", np.array([3, 10]))
    # From here on, reading the first row group fails.
    write_atomically(file, b"PAR1" + bytes(300) + file.read_bytes()[304:])
    assert parquet.take(file, "a", np.array([8, 3])).to_pylist() == [values[8], values[3]]
    with pytest.raises(OSError):
        parquet.take(file, "a", np.array([0]))


def test_a_missing_file_or_folder_raises_file_not_found(folder: Place) -> None:
    with pytest.raises(FileNotFoundError):
        (folder / "nothing").read_bytes()
    with pytest.raises(FileNotFoundError):
        list((folder / "nowhere").iterdir())


def test_names_are_added_before_the_query_of_a_uri(tmp_path: Path) -> None:
    root = BucketPath("s3://b/run/?region=x", SubTreeFileSystem("/", LocalFileSystem()), "b/run/")
    file = root / "model" / "model.json"
    assert (str(file), file.path) == (
        "s3://b/run/model/model.json?region=x",
        "b/run/model/model.json",
    )
    assert (file.name, file.parent) == ("model.json", root / "model")
    assert (str(root.parent), root.name) == ("s3://b?region=x", "run")


def test_a_bucket_uri_gives_a_picklable_bucket_path_and_a_path_a_path(tmp_path: Path) -> None:
    assert place(str(tmp_path)) == place(f"file://{tmp_path}") == tmp_path
    found = place("s3://bucket/run?region=eu-west-1") / "model"
    assert isinstance(found, BucketPath)
    assert pickle.loads(pickle.dumps(found)) == found


def test_an_unknown_uri_scheme_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"ftp://host/x: .*check the address") as refused:
        place("ftp://host/x")
    assert "\n" not in str(refused.value)


def test_the_parent_of_a_bucket_is_the_bucket() -> None:
    bucket = place("s3://bucket?region=eu-west-1")
    assert bucket.parent == bucket
    assert (bucket / "run").parent == bucket


@pytest.mark.parametrize(
    ("uri", "fix"),
    [
        ("s3://bucket/run#2", "write '#' as %23"),
        ("s3://bucket/my photos", "write ' ' as %20"),
        ("s3://bucket/é", "write 'é' as %C3%A9"),
    ],
)
def test_an_invalid_character_in_a_uri_is_refused_with_its_escape(uri: str, fix: str) -> None:
    with pytest.raises(UserError, match=fix):
        place(uri)


def test_a_store_that_cannot_move_files_copies_them(tmp_path: Path) -> None:
    class NoMove(LocalFileSystem):
        def move(self, source: str, target: str) -> None:
            raise NotImplementedError("Azure without hierarchical namespaces")

    file = BucketPath("s3://bucket/file", NoMove(), str(tmp_path / "file"))
    for content in (b"first", b"second"):
        file.put(content)
        assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"file": content}
