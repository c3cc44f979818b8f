"""Laws of preparing: every file is accounted for, and nothing is decoded twice."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.compute as pc
import pytest

from cnn.cluster import capacity, ingest
from cnn.cluster.prepare_run import ensure_prepared
from cnn.config import Images
from cnn.dataset import prepared
from cnn.dataset.parts import part_rows
from cnn.dataset.prepared import CARD, MANIFEST, SHARDS, Prepared
from cnn.dataset.source import is_prepared, list_source, reuse
from cnn.errors import UserError
from cnn.files.lock import locked
from cnn.files.reader import Reader
from cnn.image import decode
from cnn.text.console import Console

SETTINGS = Images(image_size=16)


def test_every_file_has_one_row_with_its_pixels_or_its_error(
    dataset: Prepared, digits: Path
) -> None:
    table = dataset.manifest.table
    files = sorted(str(file.relative_to(digits)) for file in digits.rglob("*.png"))
    assert table["path"].to_pylist() == files
    failed = table.filter(pc.is_valid(table["error"]))
    assert sorted(failed["error"].to_pylist()) == ["not_an_image", "truncated"]
    assert failed["content_hash"].null_count == failed.num_rows


def test_the_prepared_pixels_equal_the_decoded_ones(dataset: Prepared, digits: Path) -> None:
    rows = dataset.manifest.table.filter(pc.is_null(dataset.manifest.table["error"]))
    images, labels = dataset.load(rows)
    for number in range(0, rows.num_rows, 17):
        path = rows["path"][number].as_py()
        assert np.array_equal(images[number], decode((digits / path).read_bytes(), 16))
        assert dataset.classes[labels[number]] == path.split("/")[0]


def test_shards_hold_the_images_in_random_order(dataset: Prepared) -> None:
    table = dataset.manifest.table
    first = table.filter(pc.equal(table["shard"], 0))
    assert len(set(first["label"].to_pylist())) >= 8


def test_a_second_run_finds_the_dataset_and_other_settings_are_refused(
    dataset: Prepared, digits: Path
) -> None:
    assert is_prepared(list_source(str(digits), SETTINGS), dataset.folder)
    larger = list_source(str(digits), Images(image_size=24))
    with pytest.raises(UserError, match="with image_size 16, not 24"):
        is_prepared(larger, dataset.folder)
    with pytest.raises(UserError, match="is not a prepared dataset"):
        is_prepared(larger, digits)


def test_an_interrupted_run_decodes_only_what_is_missing(
    dataset: Prepared, digits: Path, tmp_path: Path
) -> None:
    source = list_source(str(digits), SETTINGS)
    folder = tmp_path / "b"
    prepared.begin(folder, dataset.card)
    kept = prepared.shard_file(folder, 0)
    kept.write_bytes(prepared.shard_file(dataset.folder, 0).read_bytes())
    before = kept.stat().st_mtime_ns
    assert not is_prepared(source, folder)
    progress: list[tuple[int, int]] = []

    def advance(done: int, total: int) -> None:
        progress.append((done, total))

    again = ingest.prepare(source, folder, advance, Console())
    assert prepared.shard_file(folder, 0).stat().st_mtime_ns == before
    assert progress[0][0] == part_rows(16, 300) and progress[-1] == (300, 300)
    assert again.manifest.table.equals(dataset.manifest.table)
    assert is_prepared(source, folder)


def test_images_are_not_sent_to_a_cluster_that_has_no_cpus(
    dataset: Prepared, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data would wait for ever."""
    monkeypatch.setattr(capacity, "total", lambda resource: 0)
    source, folder = list_source(str(digits), SETTINGS), tmp_path / "prepared"
    with pytest.raises(UserError, match="to decode images takes a CPU, and the cluster has none"):
        ensure_prepared(source, folder, Console())
    assert not folder.exists()
    ensure_prepared(source, dataset.folder, Console())  # there, nothing is to be decoded


class Heard(Console):
    """Keeps what is said, and tells when it is."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.waits = threading.Event()

    def say(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("waiting"):
            self.waits.set()


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_a_job_waits_for_another_that_prepares_into_the_same_folder(
    digits: Path, tmp_path: Path, fit: Literal["squash", "crop"]
) -> None:
    """Then it uses the other's images, or refuses those of other settings; it writes nothing."""
    folder, console = tmp_path / "prepared", Heard()
    folder.mkdir()
    wanted = list_source(str(digits), SETTINGS)
    other = list_source(str(digits), Images(image_size=16, fit=fit))
    with ThreadPoolExecutor(1) as pool:
        with locked(folder):
            second = pool.submit(ensure_prepared, wanted, folder, console)
            assert console.waits.wait(60)
            first = ingest.prepare(other, folder, lambda done, total: None, Console())
        if fit == "squash":
            assert second.result(60).manifest.table.equals(first.manifest.table)
            waits, exists = console.said
            assert str(folder) in waits and exists.endswith("exists: nothing to decode")
        else:
            with pytest.raises(UserError, match="prepared with fit crop, not squash"):
                second.result(60)
    assert {entry.name for entry in folder.iterdir()} == {CARD, MANIFEST, SHARDS}


def test_shards_of_two_jobs_at_once_are_refused_in_one_line(
    dataset: Prepared, digits: Path, tmp_path: Path
) -> None:
    """As in a bucket, which has no locks."""
    source = list_source(str(digits), SETTINGS)
    prepared.begin(tmp_path / "mixed", dataset.card)
    rows = source.manifest.table
    for number, part in enumerate(prepared.cut(rows.take(np.arange(len(rows))[::-1]), 16)):
        file = prepared.shard_file(tmp_path / "mixed", number)
        prepared.write_shard(
            file, part, Reader(source.root), partial(decode, size=16, fit="squash")
        )
    with pytest.raises(UserError, match=r"do not match the images.* remove the folder"):
        ingest.prepare(source, tmp_path / "mixed", lambda done, total: None, Console())


def test_the_origin_of_the_pixels_is_named_if_it_is_another_folder(
    dataset: Prepared, digits: Path, tmp_path: Path
) -> None:
    """Copies with the same names, sizes and times have the same key, whatever their pixels."""
    copy = shutil.copytree(digits, tmp_path / "copy")  # keeps the times
    for folder, origin in ((copy, f", prepared from {digits}"), (digits, "")):
        console = Heard()
        ensure_prepared(list_source(str(folder), SETTINGS), dataset.folder, console)
        assert console.said == [f"prepared {dataset.folder} exists{origin}: nothing to decode"]


def test_unfinished_shards_of_another_version_are_refused(
    dataset: Prepared, digits: Path, tmp_path: Path
) -> None:
    source = list_source(str(digits), SETTINGS)
    finer = dataset.card.model_copy(update={"shards": dataset.card.shards + 1})
    prepared.begin(tmp_path / "begun", finer)
    with pytest.raises(UserError, match="started by a version that divides images differently"):
        is_prepared(source, tmp_path / "begun")
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / prepared.CARD).write_text(finer.model_dump_json())
    assert is_prepared(source, whole)  # its manifest says where each image is


def test_a_prepared_dataset_replaces_its_images(dataset: Prepared) -> None:
    source = reuse(dataset.folder, Images())
    assert (source.key, source.settings.image_size) == (dataset.card.key, 16)
    with pytest.raises(UserError, match="leave out --image-size"):
        reuse(dataset.folder, Images(image_size=32))
