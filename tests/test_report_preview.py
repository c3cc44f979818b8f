"""The preview shows augmented images, classes in turn, and none of a folder's own test split."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from cnn.config import TrainConfig
from cnn.dataset.pixels import Decode
from cnn.files.folder import list_folder
from cnn.manifest import label_images
from cnn.report.preview import DRAWS, ROWS, preview_page
from cnn.scoring.worklist import Root


def pages(folder: Path, **settings: object) -> str:
    manifest = label_images(list_folder(str(folder))).table
    decode = Decode([Root(str(folder), "")], 16, "squash")

    def pixels(rows: pa.Table) -> pa.Table:
        return decode(rows.append_column("root", pa.array([0] * len(rows))))

    config = TrainConfig.model_validate({"images": str(folder), "augmentation": settings})
    return preview_page("A preview", manifest, pixels, config)


def folder_of(path: Path, splits: tuple[str, ...] = ("",)) -> Path:
    for split in splits:
        for name in "abc":
            (path / split / name).mkdir(parents=True)
            for number in range(5):
                noise = np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)
                Image.fromarray(noise).save(path / split / name / f"{split}{number}.png")
    return path


def test_every_class_is_shown_and_unreadable_files_are_skipped(
    tmp_path: Path,
) -> None:
    folder = folder_of(tmp_path / "images")
    (folder / "a" / "0.png").write_bytes(b"no image")
    html = pages(folder)
    assert html.count("<img ") == ROWS * (1 + DRAWS)
    assert {found[0] for found in re.findall(r'alt="([abc])/?', html)} == set("abc")
    assert "a/0.png" not in html


def test_without_augmentation_every_draw_is_the_image_itself(tmp_path: Path) -> None:
    off = {"rotation": 0, "shift": 0, "zoom": 0, "flip": False}
    html = pages(folder_of(tmp_path / "images"), **off)
    rows = re.findall(r"<tr>.*?</tr>", html)[1:]
    assert rows
    for row in rows:
        assert len(set(re.findall(r'src="([^"]+)"', row))) == 1


def test_test_images_are_not_shown(tmp_path: Path) -> None:
    html = pages(folder_of(tmp_path / "images", ("train", "test")))
    assert "train/a/train" in html
    assert "test/" not in html


def test_a_preview_is_the_same_each_time(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "images")
    assert pages(folder) == pages(folder)


def test_the_page_says_if_no_image_could_be_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "elsewhere")
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.png").symlink_to(folder / name / "0.png")
    html = pages(tmp_path / "images")
    assert "No image could be read" in html and "<img " not in html
