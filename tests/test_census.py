"""Laws of the census: every file is counted once, and each problem is one line."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from cnn.dataset.census import Census, take_census
from cnn.dataset.splits import assign_splits
from cnn.files.folder import list_folder
from cnn.files.unreadable import Reason
from cnn.manifest import COLUMNS, Manifest, ManifestError, hash_content, label_images

Row = tuple[str, str | None, bytes | None]


def census_of(
    *rows: Row, ignored: dict[str, int] | None = None, error: Reason = "truncated"
) -> Census:
    """The census of images given by label, layout and content; None is an unreadable file."""
    table = pa.Table.from_pylist(
        [
            {
                "path": f"{label}/{number}.jpg",
                "label": label,
                "layout": layout,
                "content_hash": None if content is None else hash_content(content),
                "error": error if content is None else None,
            }
            for number, (label, layout, content) in enumerate(rows)
        ],
        schema=COLUMNS,
    )
    return take_census(Manifest(assign_splits(table, 0), ignored or {}))


def each(label: str, layout: str | None, images: int) -> list[Row]:
    """Different images of one class."""
    return [(label, layout, f"{label} {layout} {number}".encode()) for number in range(images)]


FAIR = [
    row
    for label in ("cat", "dog")
    for layout, images in (("train", 8), ("validation", 1), ("test", 2))
    for row in each(label, layout, images)
]


def test_every_file_found_is_counted_exactly_once(tmp_path: Path) -> None:
    names = ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg", "b/5.txt", "6.jpg", ".7.jpg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    manifest = label_images(list_folder(str(tmp_path)))
    hashes = [hash_content(b"1"), hash_content(b"2"), hash_content(b"3"), None]
    errors = [None, None, None, "empty_file"]
    columns = dict(zip(COLUMNS.names, manifest.table.columns, strict=True))
    table = pa.table({**columns, "content_hash": hashes, "error": errors}, schema=COLUMNS)
    census = take_census(Manifest(assign_splits(table, 0), manifest.ignored))
    assert census.images == 3
    assert census.unreadable == {"empty_file": 1}
    assert census.ignored == {"hidden": 1, "not_an_image_name": 1, "no_class_folder": 1}
    uncounted = len(names) - census.images
    assert uncounted == sum(census.unreadable.values()) + sum(census.ignored.values())


def test_images_are_counted_by_class_and_split() -> None:
    census = census_of(*FAIR)
    assert census.counts == {
        "cat": {"train": 8, "validation": 1, "test": 2},
        "dog": {"train": 8, "validation": 1, "test": 2},
    }
    assert census.split_sizes == {"train": 16, "validation": 2, "test": 4}
    assert census.warnings() == []
    census.require_trainable()


def test_imbalance_is_the_largest_training_class_over_the_smallest() -> None:
    training = [*each("cat", "train", 9), *each("dog", "train", 3)]
    census = census_of(*training, *each("owl", "test", 5), *each("owl", "validation", 5))
    assert census.imbalance == 3


def test_duplicates_are_counted_and_conflicting_labels_are_named() -> None:
    census = census_of(
        *FAIR, ("cat", "train", b"same"), ("cat", "train", b"same"), ("dog", "train", b"same")
    )
    assert census.duplicates == 2
    ((hash_, group),) = census.conflicts.items()
    assert hash_ == hash_content(b"same")
    assert group == [("cat/22.jpg", "cat"), ("cat/23.jpg", "cat"), ("dog/24.jpg", "dog")]
    (line,) = census.warnings()
    for path, label in group:
        assert f"{path!r} ({label!r})" in line


def test_unreadable_files_are_not_duplicates_of_each_other() -> None:
    census = census_of(*FAIR, ("cat", "train", None), ("dog", "train", None))
    assert census.duplicates == 0 and census.conflicts == {}
    assert census.unreadable == {"truncated": 2}


def test_leaks_between_splits_are_counted_separately_with_a_warning() -> None:
    census = census_of(*FAIR, ("cat", "train", b"cat test 0"))
    assert census.leaks == {"duplicate_in_test": 1} and census.unreadable == {}
    assert census.images == len(FAIR) and census.duplicates == 0
    assert any("1 image left out" in line for line in census.warnings())


def test_the_warnings_fit_on_a_page_however_many_problems_there_are() -> None:
    copies = [("cat", "train", b"none"), *[("dog", "train", b"none")] * 500]
    small = [row for n in range(300) for row in each(f"owl{n}", "train", 2)]
    lines = census_of(*FAIR, *copies, *small).warnings()
    assert len(lines) < 30 and max(map(len, lines)) < 500
    assert any("496 more;" in line for line in lines)
    assert any("280 more classes lack images of a split" in line for line in lines)


def test_a_folder_without_images_is_named_as_left_out() -> None:
    (line,) = replace(census_of(*FAIR), empty_folders=("owl", "sock")).warnings()
    assert "left out" in line and "'owl', 'sock'" in line


def test_a_class_too_small_to_split_gets_a_one_line_warning() -> None:
    (line,) = census_of(*FAIR, *each("owl\n", "train", 2)).warnings()
    assert line.startswith("class 'owl\\n' has 2 images and none of them is in validation or test")
    assert "cannot be evaluated" in line and "add images" in line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("cat", None, None), ("dog", None, None)], "none of the images can be read .2 truncated"),
        ([*each("cat", None, 50), ("dog", None, None)], "two classes"),
        ([*each("cat", "train", 50), *each("dog", "test", 9)], "two classes .*'cat'"),
        ([*each("cat", "train", 9), *each("dog", "train", 9), ("cat", "test", None)], "in test"),
        (
            [*each("cat", "train", 1), *each("dog", "train", 1), *each("cat", "test", 1)],
            "in validation",
        ),
    ],
)
def test_images_that_cannot_train_a_classifier_are_refused_in_one_line(
    rows: list[Row], reason: str
) -> None:
    with pytest.raises(ManifestError, match=reason) as caught:
        census_of(*rows).require_trainable()
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_of_links_to_other_folders_says_that_they_are_not_followed() -> None:
    with pytest.raises(ManifestError, match=r"2 outside root.: .* links .* not followed"):
        census_of(
            ("cat", None, None), ("dog", None, None), error="outside_root"
        ).require_trainable()


def test_class_names_that_look_alike_get_a_warning() -> None:
    rows = [
        row
        for name in ("Heron", "heron", "caf\u00e9", "cafe\u0301", "owl")
        for split in ("train", "validation", "test")
        for row in each(name, split, 2)
    ]
    first, second = census_of(*rows).warnings()
    assert "'Heron', 'heron'" in first
    assert "'cafe\\u0301', 'caf\\xe9'" in second
