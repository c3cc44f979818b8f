"""Laws of labels and splits: content alone decides the split, and a folder's own layout is kept."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnn.dataset.splits import assign_splits
from cnn.files.folder import list_folder
from cnn.files.reader import Reader
from cnn.manifest import (
    COLUMNS,
    Manifest,
    ManifestError,
    classes,
    hash_content,
    label_images,
)


def manifest_of(root: Path, files: dict[str, bytes]) -> Manifest:
    """The manifest of real files, read and hashed."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    manifest = label_images(list_folder(str(root)))
    read = Reader(str(root))
    hashes = [hash_content(read(path)) for path in manifest.table["path"].to_pylist()]
    return Manifest(with_column(manifest.table, "content_hash", hashes), manifest.ignored)


def with_column(table: pa.Table, name: str, values: Sequence[str | None]) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, pa.string()))


def each(*folders: str, images: int = 3) -> dict[str, bytes]:
    """Different images in each folder."""
    return {
        f"{folder}/{number}.jpg": f"{folder} {number}".encode()
        for folder in folders
        for number in range(images)
    }


def hashed(contents: list[bytes]) -> pa.Table:
    """A table of images with these contents, without a layout."""
    return pa.Table.from_pylist(
        [
            {"path": f"cat/{number}.jpg", "label": "cat", "content_hash": hash_content(content)}
            for number, content in enumerate(contents)
        ],
        schema=COLUMNS,
    )


def column(table: pa.Table, name: str) -> dict[str, str | None]:
    return dict(zip(table["path"].to_pylist(), table[name].to_pylist(), strict=True))


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


contents = st.lists(st.binary(max_size=3), max_size=30)
seeds = st.integers(0, 2**63)


@settings(deadline=None)
@given(contents, contents, seeds)
def test_adding_images_moves_no_other_image(old: list[bytes], new: list[bytes], seed: int) -> None:
    before = assign_splits(hashed(old), seed)["split"].to_pylist()
    after = assign_splits(hashed(old + new), seed)["split"].to_pylist()
    assert after[: len(before)] == before


@settings(deadline=None)
@given(contents, seeds)
def test_identical_images_get_the_same_split(images: list[bytes], seed: int) -> None:
    splits = assign_splits(hashed(images * 2), seed)["split"].to_pylist()
    assert splits[: len(images)] == splits[len(images) :]


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_split_sizes_are_72_8_and_20_percent_within_binomial_spread(seed: int) -> None:
    images = 20_000
    splits = assign_splits(hashed(numbered(images)), seed)["split"].to_pylist()
    for split, share in {"train": 0.72, "validation": 0.08, "test": 0.20}.items():
        deviation = (images * share * (1 - share)) ** 0.5
        assert abs(splits.count(split) - images * share) < 4 * deviation


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    table = hashed(numbered(200))
    first, again, other = (assign_splits(table, seed)["split"] for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)


def test_an_image_that_was_not_read_has_no_split() -> None:
    table = with_column(hashed(numbered(3)), "content_hash", [None, None, hash_content(b"x")])
    table = with_column(table, "layout", ["test", "test", "test"])
    table = with_column(table, "error", ["truncated", None, None])
    assert assign_splits(table, 0)["split"].to_pylist() == [None, None, "test"]


def test_the_label_is_the_first_folder(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, each("cat", "dog/indoors/deep", images=1))
    assert column(manifest.table, "label") == {"cat/0.jpg": "cat", "dog/indoors/deep/0.jpg": "dog"}
    assert manifest.table["layout"].null_count == 2
    assert classes(manifest.table) == ["cat", "dog"]


def test_a_file_outside_any_class_folder_is_counted(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, {**each("cat", "dog"), "stray.jpg": b"", "notes.txt": b""})
    assert "stray.jpg" not in manifest.table["path"].to_pylist()
    assert manifest.ignored == {"not_an_image_name": 1, "no_class_folder": 1}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "VALID", "Testing"), ("TRAIN", "dev", "holdout")],
)
def test_a_folder_with_its_own_splits_keeps_them(
    tmp_path: Path, train: str, validation: str, test: str
) -> None:
    folders = [f"{split}/{name}" for split in (train, validation, test) for name in ("cat", "dog")]
    manifest = manifest_of(tmp_path, each(*folders))
    splits = column(assign_splits(manifest.table, 0), "split")
    given = {train: "train", validation: "validation", test: "test"}
    assert splits == {path: given[path.split("/")[0]] for path in splits}
    assert classes(manifest.table) == ["cat", "dog"]


def test_the_classes_are_the_union_over_all_splits(tmp_path: Path) -> None:
    manifest = manifest_of(tmp_path, each("train/cat", "train/dog", "test/cat", "test/owl"))
    assert classes(manifest.table) == ["cat", "dog", "owl"]


def test_images_outside_the_splits_are_counted(tmp_path: Path) -> None:
    files = {**each("train/cat", "test/dog", "unlabelled"), "train/s.jpg": b"", "s.jpg": b""}
    manifest = manifest_of(tmp_path, files)
    assert manifest.ignored == {"outside_the_splits": 3, "no_class_folder": 2}
    assert manifest.table.num_rows == 6


def test_a_layout_without_validation_takes_a_tenth_of_train_for_it(tmp_path: Path) -> None:
    files = each("train/cat", "train/dog", images=150) | each("test/cat", "test/dog")
    splits = column(assign_splits(manifest_of(tmp_path, files).table, 0), "split")
    train = [split for path, split in splits.items() if path.startswith("train/")]
    assert {split for path, split in splits.items() if path.startswith("test/")} == {"test"}
    assert set(train) == {"train", "validation"}
    assert 10 <= train.count("validation") <= 50  # four standard deviations around 30


@pytest.mark.parametrize("lone_test", [{}, {"test/1.jpg": b"unlabelled"}])
def test_a_layout_without_labelled_test_images_takes_a_fifth_of_train(
    tmp_path: Path, lone_test: dict[str, bytes]
) -> None:
    files = each("train/cat", "train/dog", images=150) | each("val/cat", "val/dog") | lone_test
    manifest = manifest_of(tmp_path, files)
    splits = column(assign_splits(manifest.table, 0), "split")
    train = [split for path, split in splits.items() if path.startswith("train/")]
    assert set(train) == {"train", "test"}
    assert 33 <= train.count("test") <= 87  # four standard deviations around 60
    assert {split for path, split in splits.items() if path.startswith("val/")} == {"validation"}
    assert sum(manifest.ignored.values()) == len(lone_test)


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "bus", "car"),
        ("train/steam", "train/diesel", "bus/red", "car"),
        ("train", "test", "val"),
    ],
)
def test_a_class_called_train_stays_a_class(tmp_path: Path, folders: tuple[str, ...]) -> None:
    manifest = manifest_of(tmp_path, each(*folders))
    assert classes(manifest.table) == sorted({folder.split("/")[0] for folder in folders})
    assert manifest.table["layout"].null_count == manifest.table.num_rows


def test_an_image_whose_duplicate_is_in_a_later_split_is_left_out(tmp_path: Path) -> None:
    own = each("train/cat", "train/dog", "val/cat", "val/dog", "test/cat", "test/dog")
    duplicates = {
        "train/cat/t.jpg": own["test/cat/0.jpg"],
        "val/dog/t.jpg": own["test/cat/0.jpg"],
        "train/dog/v.jpg": own["val/cat/0.jpg"],
    }
    table = assign_splits(manifest_of(tmp_path, own | duplicates).table, 0)
    errors = {path: error for path, error in column(table, "error").items() if error}
    assert errors == {
        "train/cat/t.jpg": "duplicate_in_test",
        "train/dog/v.jpg": "duplicate_in_validation",
        "val/dog/t.jpg": "duplicate_in_test",
    }
    assert {path for path, split in column(table, "split").items() if not split} == set(errors)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["train", "validation", "test"]), st.binary(max_size=1))))
def test_every_content_is_in_exactly_one_split(images: list[tuple[str, bytes]]) -> None:
    table = hashed([content for _, content in images])
    table = assign_splits(with_column(table, "layout", [layout for layout, _ in images]), 0)
    sides: dict[str, set[str]] = {}
    for row in table.filter(pc.is_valid(table["split"])).to_pylist():
        sides.setdefault(row["content_hash"], set()).add(row["split"])
    assert sides.keys() == {hash_content(content) for _, content in images}
    assert all(len(splits) == 1 for splits in sides.values())


def test_assigning_splits_again_changes_nothing(tmp_path: Path) -> None:
    files = {**each("train/cat", "train/dog", "test/cat"), "train/cat/t.jpg": b"test/cat 0"}
    table = assign_splits(manifest_of(tmp_path, files).table, 0)
    assert assign_splits(table, 0).equals(table)


def test_class_names_stay_text_from_disk_to_parquet_and_back(tmp_path: Path) -> None:
    names = ["NA", "null", "01", "1e3", "True", "_x", "x..", "<script>", "né\n", "-1", "nan"]
    names += ["a\u2215b", "a\uff0fb", "x" * 200, "cafe\u0301", "caf\u00e9", "\x1b[2J", "=1+1"]
    manifest = manifest_of(tmp_path / "images", each(*names, images=1))
    manifest = Manifest(assign_splits(manifest.table, 0), manifest.ignored, ("né\n", "01"))
    manifest.write(tmp_path / "manifest.parquet")
    again = Manifest.read(tmp_path / "manifest.parquet")
    assert classes(again.table) == sorted(names)
    assert again.table.equals(manifest.table) and again.ignored == manifest.ignored
    assert again.empty_folders == manifest.empty_folders


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ManifestError, match=r"other\.parquet"):
        Manifest.read(tmp_path / "other.parquet")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"notes.txt": b""}, "no image"),
        ({"stray.jpg": b""}, "1 no class folder"),
        ({"cat/x.jpg": b"", "cat/y.jpg": b""}, "only one class, 'cat'"),
    ],
)
def test_fewer_than_two_classes_are_refused_in_one_line(
    tmp_path: Path, files: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(ManifestError, match=reason) as caught:
        manifest_of(tmp_path, files)
    assert str(tmp_path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_empty_folders_are_those_that_would_be_classes(tmp_path: Path) -> None:
    images = ("train/cat", "train/dog", "test/cat", "notes/deep")
    for folder in (*images, "train/owl", "test/empty", "other/none"):
        (tmp_path / "own" / folder).mkdir(parents=True)
        (tmp_path / "plain" / folder).mkdir(parents=True)
    for folder in images:
        for root in ("own", "plain"):
            (tmp_path / root / folder / "x.jpg").touch()
    own = label_images(list_folder(str(tmp_path / "own")))
    assert own.empty_folders == ("test/empty", "train/owl")
    shutil.rmtree(tmp_path / "plain/train")
    plain = label_images(list_folder(str(tmp_path / "plain")))
    assert plain.empty_folders == ("other",)


def test_a_manifest_of_an_earlier_version_keeps_its_empty_folders(tmp_path: Path) -> None:
    manifest = Manifest(COLUMNS.empty_table(), {"hidden": 1}, ("empty",))
    manifest.write(tmp_path / "new.parquet")
    table = pq.read_table(tmp_path / "new.parquet")
    metadata = {
        key.replace(b"empty_folders", b"bare"): value
        for key, value in table.schema.metadata.items()
    }
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "old.parquet")
    assert Manifest.read(tmp_path / "old.parquet").empty_folders == ("empty",)
