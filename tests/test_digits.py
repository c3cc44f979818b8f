"""Laws of the embedded digits: all images are written unchanged, also after a kill."""

from pathlib import Path

import numpy as np
import pytest
from faults import killed_while_writing
from PIL import Image
from sklearn.datasets import load_digits

from cnn.dataset import digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, written into a folder whose parent did not exist."""
    return digits.write(tmp_path_factory.mktemp("digits") / "runs" / "digits-images")


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Path → time of change and inode of every file."""
    found = {file: file.stat() for file in folder.rglob("*") if file.is_file()}
    return {str(file): (stat.st_mtime_ns, stat.st_ino) for file, stat in found.items()}


def test_there_are_1797_images_in_a_folder_per_digit_and_nothing_else(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [str(digit) for digit in range(10)]
    assert len(files(folder)) == len(list(folder.glob("?/????.png"))) == 1797
    assert list(folder.parent.iterdir()) == [folder]


def test_each_image_is_scikit_learns_scaled_to_0_to_255(folder: Path) -> None:
    source = load_digits()
    for number, (values, label) in enumerate(zip(source.images, source.target, strict=True)):
        pixels = np.asarray(Image.open(folder / str(label) / f"{number:04d}.png"))
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, np.rint(values / 16 * 255))


def test_a_second_call_changes_no_file(folder: Path) -> None:
    before = files(folder)
    assert digits.write(folder) == folder
    assert files(folder) == before


def test_a_second_call_completes_what_a_killed_run_left(folder: Path, tmp_path: Path) -> None:
    sizes = sorted(file.stat().st_size for file in folder.glob("?/*.png"))
    copy = tmp_path / "digits-images"
    killed_while_writing(
        "from pathlib import Path; from cnn.dataset import digits;"
        f"digits.write(Path({str(copy)!r}))",
        limit=sizes[len(sizes) * 9 // 10],
    )
    there = files(copy)
    assert 0 < len(list(copy.glob("?/????.png"))) < 1797
    digits.write(copy)
    assert there.items() <= files(copy).items()  # another job may have listed these
    for file in folder.glob("?/????.png"):
        assert (copy / file.relative_to(folder)).read_bytes() == file.read_bytes()
