"""Laws of the prepared dataset: every file is a row, and pixels come out as they went in."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from faults import full_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn.dataset import prepared
from cnn.dataset.prepared import Card, Prepared, gather, write_shard
from cnn.errors import UserError
from cnn.files.folder import list_folder
from cnn.files.reader import Reader
from cnn.files.unreadable import Unreadable
from cnn.image import decode
from cnn.manifest import Manifest, class_indices, hash_content, label_images

SIZE = 8
SQUASH = partial(decode, size=SIZE, fit="squash")
NAMES = ["ant", "bee", "cat"]
IMAGES, BROKEN_EVERY = 30, 5


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def put(file: Path, image: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
    return file


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Three shards in random order, with unreadable files among the images.

    Image `number` is class `number % 3` and has `pixels(number)`.
    """
    root, folder = (tmp_path_factory.mktemp(name) for name in ("images", "prepared"))
    for number in range(IMAGES):
        file = put(root / NAMES[number % 3] / f"{number:02d}.png", pixels(number))
        if number % BROKEN_EVERY == 0:
            file.write_bytes(b"no image")
    manifest = label_images(list_folder(str(root)))
    order = np.random.default_rng(0).permutation(IMAGES)
    prepared.shard_file(folder, 0).parent.mkdir()
    for shard, rows in enumerate(np.array_split(order, 3)):
        file = prepared.shard_file(folder, shard)
        write_shard(file, manifest.table.take(rows), Reader(str(root)), SQUASH)
    found = pa.concat_tables(prepared.shard_manifests(folder, 3)).take(np.argsort(order))
    read = manifest.with_contents(*(found[n].to_pylist() for n in ("content_hash", "error")))
    table = read.table.append_column("shard", found["shard"]).append_column("row", found["row"])
    Manifest(table, read.ignored).write(folder / prepared.MANIFEST)
    card = Card(key="key", source=str(root), image_size=SIZE, fit="squash", shards=3)
    (folder / prepared.CARD).write_text(card.model_dump_json())
    return Prepared.open(folder)


def numbers(rows: pa.Table) -> list[int]:
    """The number of each row's image."""
    return [int(Path(path).stem) for path in rows["path"].to_pylist()]


def readable(dataset: Prepared) -> pa.Table:
    return dataset.manifest.table.filter(pc.is_null(dataset.manifest.table["error"]))


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_pixels_are_read_back_exactly_in_any_order_and_with_repeats(
    dataset: Prepared, data: st.DataObject
) -> None:
    rows = readable(dataset)
    chosen = data.draw(st.lists(st.integers(0, rows.num_rows - 1), max_size=60))
    rows = rows.take(pa.array(chosen, pa.int64()))
    images = gather(dataset.folder, dataset.shape, rows)
    assert images.shape == (len(chosen), *dataset.shape)
    assert images.dtype == np.uint8
    for image, number in zip(images, numbers(rows), strict=True):
        assert np.array_equal(image, pixels(number))


def test_labels_match_the_class_names_for_any_rows(dataset: Prepared) -> None:
    assert dataset.classes == NAMES
    rows = readable(dataset)
    for part in (rows, rows.take(list(range(20, 0, -3))), rows.slice(12, 5)):
        images, labels = dataset.load(part)
        assert labels.dtype == np.int64
        assert labels.tolist() == [number % 3 for number in numbers(part)]
        assert np.array_equal(images[-1], pixels(numbers(part)[-1]))
    labels = pa.chunked_array([["dog", "ant"]])
    assert class_indices(labels, ["ant", "bee", "dog"]).tolist() == [2, 0]


def test_every_listed_file_is_a_row_of_the_manifest(dataset: Prepared) -> None:
    table = dataset.manifest.table
    assert sorted(numbers(table)) == list(range(IMAGES))
    broken = table.filter(pc.is_valid(table["error"]))
    assert sorted(numbers(broken)) == list(range(0, IMAGES, BROKEN_EVERY))
    places = list(zip(*(table[name].to_pylist() for name in ("shard", "row")), strict=True))
    assert len(set(places)) == IMAGES


def test_beginning_removes_the_drafts_of_killed_tasks_and_no_shard(tmp_path: Path) -> None:
    card = Card(key="key", source="photos", image_size=SIZE, fit="squash", shards=2)
    for _ in range(2):
        prepared.begin(tmp_path, card)
        prepared.shard_file(tmp_path, 0).write_bytes(b"whole")
        (tmp_path / prepared.SHARDS / ".000001.parquet.0123.tmp").write_bytes(b"half")
    prepared.begin(tmp_path, card)
    assert list((tmp_path / prepared.SHARDS).iterdir()) == [prepared.shard_file(tmp_path, 0)]
    assert prepared.missing(tmp_path, 2) == [1]


def listed(root: Path) -> pa.Table:
    return list_folder(str(root)).files


def test_a_shard_keeps_every_row_with_its_image_or_its_error(tmp_path: Path) -> None:
    root = tmp_path / "images"
    good = put(root / "cat" / "1-good.png", pixels(1))
    whole = put(root / "cat" / "2-cut.jpg", np.zeros((64, 64, 3), np.uint8)).read_bytes()
    (root / "cat" / "2-cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "cat" / "3-text.jpg").write_text("no image")
    (root / "cat" / "4-empty.jpg").touch()
    gone = put(root / "cat" / "5-gone.png", pixels(5))
    (root / "cat" / "6-link.png").symlink_to("nowhere")
    (root / "cat" / "7-odd-\n.png").write_bytes(good.read_bytes())
    rows = listed(root)
    gone.unlink()
    shard = tmp_path / "shard.parquet"
    write_shard(shard, rows, Reader(str(root)), SQUASH)
    table = pq.read_table(shard)
    assert table["path"].to_pylist() == rows["path"].to_pylist()
    assert table["error"].to_pylist() == [
        *[None, "truncated", "not_an_image", "empty_file", "vanished", "broken_symlink", None]
    ]
    image, content_hash = pixels(1).tobytes(), hash_content(good.read_bytes())
    assert table["image"].to_pylist() == [image, *[None] * 5, image]
    assert table["content_hash"].to_pylist() == [content_hash, *[None] * 5, content_hash]


def test_a_shard_with_only_unreadable_files_is_complete(tmp_path: Path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for name in ("1.jpg", "2.jpg"):
        (root / name).write_text("no image")
    shard = tmp_path / "shard.parquet"
    write_shard(shard, listed(root), Reader(str(root)), SQUASH)
    assert pq.read_table(shard)["error"].to_pylist() == ["not_an_image"] * 2


def test_a_full_disk_leaves_no_shard(tmp_path: Path) -> None:
    root = tmp_path / "images"
    for number in range(9):
        put(root / f"{number}.png", pixels(number))
    shard = tmp_path / "shard.parquet"
    with full_disk(500), pytest.raises(OSError):
        write_shard(shard, listed(root), Reader(str(root)), SQUASH)
    assert not shard.exists()
    write_shard(shard, listed(root), Reader(str(root)), SQUASH)
    assert pq.read_table(shard)["image"].null_count == 0


def test_a_failing_disk_raises_and_is_not_recorded_as_an_unreadable_file(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "images" / f"{number}.png", pixels(number))
    read = Reader(str(tmp_path / "images"))

    def failing_disk(path: str) -> bytes:
        if path == "1.png":
            raise OSError("the disk fails")
        return read(path)

    rows = listed(tmp_path / "images")
    with pytest.raises(OSError, match="the disk fails"):
        write_shard(tmp_path / "shard.parquet", rows, failing_disk, SQUASH)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def damaged(tmp_path: Path, dataset: Prepared, damage: Callable[[Path], object]) -> str:
    """The one-line error from opening a damaged copy of a dataset's card and manifest."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in (prepared.CARD, prepared.MANIFEST):
        (folder / name).write_bytes((dataset.folder / name).read_bytes())
    assert Prepared.open(folder).classes == NAMES
    damage(folder)
    with pytest.raises(UserError) as caught:
        Prepared.open(folder)
    (line,) = str(caught.value).splitlines()
    return line


def edit_card(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        card = json.loads((folder / prepared.CARD).read_text())
        (folder / prepared.CARD).write_text(json.dumps(card | changes))

    return edit


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / prepared.CARD).unlink(),
        lambda folder: (folder / prepared.CARD).write_text("{"),
        lambda folder: (folder / prepared.CARD).write_bytes(b"\xff\x00"),
        lambda folder: (folder / prepared.MANIFEST).unlink(),
        lambda folder: (folder / prepared.MANIFEST).write_bytes(b""),
        lambda folder: (folder / prepared.MANIFEST).write_text("no Parquet"),
        lambda folder: pq.write_table(pa.table({"a": [1]}), folder / prepared.MANIFEST),
        edit_card(format_version=2),
        edit_card(image_size="large"),
        edit_card(colour="red"),
    ],
)
def test_a_damaged_dataset_is_refused_in_one_line(
    tmp_path: Path, dataset: Prepared, damage: Callable[[Path], object]
) -> None:
    assert damaged(tmp_path, dataset, damage).endswith(
        (": remove it to decode the images again", ": prepare the images again")
    )


def test_a_path_that_is_not_a_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("nowhere", "file", "."):
        with pytest.raises(UserError, match="is incomplete, or from another version"):
            Prepared.open(tmp_path / name)


def test_a_shard_without_a_readable_image_is_one_row_group(tmp_path: Path) -> None:
    def nothing(data: bytes) -> np.ndarray:
        raise Unreadable("unsupported_format")

    rows = pa.table({"path": [f"{n}.heic" for n in range(50)], "error": pa.nulls(50, pa.string())})
    prepared.write_shard(tmp_path / "0.parquet", rows, lambda path: b"x", nothing)
    assert pq.ParquetFile(tmp_path / "0.parquet").num_row_groups == 1
