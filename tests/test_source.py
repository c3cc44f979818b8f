"""Laws of sources: where images come from, and what is known of images prepared before."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from cnn.config import Images
from cnn.dataset import prepared
from cnn.dataset.prepared import Card, Prepared, listing_key
from cnn.dataset.source import (
    Source,
    default_out,
    is_prepared,
    list_source,
    open_prepared,
    passing_faults,
    resized,
    reuse,
)
from cnn.errors import UserError
from cnn.files.folder import Listing, list_folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of two files, and one of none."""
    for name in ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg", "empty/notes.txt"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(b"no image")
    return tmp_path / "photos"


def prepare(source: Source, folder: Path, errors: list[str | None]) -> Prepared:
    """A prepared dataset without pixels, whose files ended with these errors."""
    card = Card(key=source.key, source=source.root, image_size=8, fit="squash", shards=0)
    prepared.begin(folder, card)
    manifest = source.manifest.with_contents([None] * 4, errors)
    for name in ("shard", "row"):
        column = pa.array([0] * 4, pa.int32())
        manifest = replace(manifest, table=manifest.table.append_column(name, column))
    prepared.finish(folder, card, manifest)
    return Prepared.open(folder)


def key(listing: Listing, image_size: int = 64, version: int = 1) -> str:
    return listing_key(listing, image_size, "squash", version)


def test_the_key_depends_on_the_listing_and_the_settings_and_nothing_else(images: Path) -> None:
    def now() -> Listing:
        return list_folder(str(images))

    listing = now()
    assert key(listing) == key(Listing("elsewhere", listing.files, {"hidden": 1})) == key(now())
    others = [key(listing, image_size=32), key(listing, version=2)]
    others.append(listing_key(listing, 64, "crop", 1))
    (images / "cat/1.jpg").write_bytes(b"longer than before")
    others.append(key(now()))
    (images / "cat/1.jpg").rename(images / "cat/01.jpg")
    others.append(key(now()))
    assert len({key(listing), *others}) == 6


def test_images_are_listed_once_for_all_sizes(images: Path) -> None:
    source, other = (list_source(str(images), Images(image_size=size)) for size in (8, 16))
    (images / "cat/new.jpg").touch()
    assert resized(source, 8) is source
    assert resized(source, 16) == other
    assert list_source(str(images), Images(image_size=16)) != other


def test_prepared_images_have_no_other_size(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    prepare(list_source(str(images), Images(image_size=8)), folder, [None] * 4)
    source = reuse(folder, Images(image_size=8))
    assert resized(source, 8) is source
    with pytest.raises(UserError, match="prepared with image_size 8"):
        resized(source, 16)


def test_ignored_files_are_those_of_the_current_listing(images: Path, tmp_path: Path) -> None:
    source = list_source(str(images), Images(image_size=8))
    assert source.manifest.empty_folders == ("empty",)
    prepare(source, tmp_path / "prepared", [None] * 4)
    (images / "empty/notes.txt").unlink()
    (images / "empty").rmdir()
    (images / "cat/a.txt").touch()
    again = list_source(str(images), Images(image_size=8))
    assert again.key == source.key  # the same images
    manifest = open_prepared(again, tmp_path / "prepared").manifest
    assert (manifest.empty_folders, manifest.ignored) == ((), {"not_an_image_name": 1})


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        (Images(image_size=12), "with image_size 8, not 12:"),
        (Images(image_size=8, fit="crop"), "with fit squash, not crop:"),
        (Images(image_size=8), "from other images, or by another version:"),
    ],
)
def test_the_refusal_of_a_prepared_dataset_names_the_difference(
    images: Path, tmp_path: Path, settings: Images, difference: str
) -> None:
    folder = tmp_path / "prepared"
    prepare(list_source(str(images), Images(image_size=8)), folder, [None] * 4)
    (images / "cat/1.jpg").write_bytes(b"another image")
    with pytest.raises(UserError, match=f"was prepared {difference} name another folder"):
        is_prepared(list_source(str(images), settings), folder)


def test_temporary_faults_are_counted(images: Path, tmp_path: Path) -> None:
    source = list_source(str(images), Images(image_size=8))
    errors = ["permission_denied", "vanished", "vanished", "truncated"]
    dataset = prepare(source, tmp_path / "prepared", errors)
    assert json.dumps(passing_faults(dataset)) == '{"permission_denied": 1, "vanished": 2}'


@pytest.mark.parametrize(
    ("images", "out"),
    [
        (None, "runs/digits"),
        ("some/photos/", "runs/photos"),
        ("s3://bucket/photos?region=us-east-1", "runs/photos"),
        ("s3://bucket/photos?endpoint_override=http://localhost:9000", "runs/photos"),
    ],
)
def test_a_run_is_named_after_its_images(images: str | None, out: str) -> None:
    assert default_out(images) == out
