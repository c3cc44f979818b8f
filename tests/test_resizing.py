"""Laws of the resizer: Pillow's result except for rounding, with little extra memory."""

import numpy as np
import pytest
from faults import memory_beside
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnn.dataset import resizing
from cnn.dataset.fit import Box
from cnn.dataset.resizing import resize

MODES = ("L", "RGB", "RGBa", "CMYK", "F", "YCbCr")


def noise(mode: str, width: int, height: int) -> Image.Image:
    bands = 1 if mode in ("L", "F") else 4
    values = np.random.default_rng(0).integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.fromarray(values.squeeze(axis=-1) if bands == 1 else values).convert(mode)


def difference(one: Image.Image, other: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(one).astype(float) - np.asarray(other))


@pytest.mark.parametrize("fast", [True, False])
@given(
    mode=st.sampled_from(MODES),
    width=st.integers(1, 90) | st.integers(1000, 3000),
    height=st.integers(1, 90),
    size=st.integers(1, 90),
    inset=st.floats(0, 0.49),
)
@settings(deadline=None, max_examples=60)
def test_a_box_is_resized_as_pillow_does(
    fast: bool, mode: str, width: int, height: int, size: int, inset: float
) -> None:
    picture = noise(mode, width, height)
    box: Box = (inset * width, inset * height, width - inset * width, float(height))
    with pytest.MonkeyPatch.context() as patch:
        if not fast:  # as on a platform without the fast resizer
            patch.setattr(resizing, "Resizer", None)
        square = resize(picture, size, box)
    expected = picture.resize((size, size), Image.Resampling.BILINEAR, box)
    assert (square.mode, square.size) == (mode, (size, size))
    assert difference(square, expected).max() <= 3


def test_a_flat_image_stays_flat_at_any_ratio() -> None:
    for width, height in ((16383, 2), (2, 16383), (16384, 2), (1, 1)):
        square = resize(Image.new("RGB", (width, height), (1, 100, 254)), 7, (0, 0, width, height))
        assert difference(square, Image.new("RGB", (7, 7), (1, 100, 254))).max() == 0


def test_an_image_with_a_false_size_is_never_read_beyond_its_pixels() -> None:
    picture = Image.new("RGB", (8, 8), "white")
    picture._size = (4000, 4000)
    try:
        square = resize(picture, 4, (0, 0, 8, 8))
    except ValueError:
        return
    assert np.asarray(square).min() == 255


@pytest.mark.parametrize("width, height", [(3_000_000, 1), (1, 3_000_000), (16_383, 100)])
def test_a_long_and_thin_image_takes_little_extra_memory(width: int, height: int) -> None:
    make = f"from PIL import Image\nimage = Image.new('RGB', ({width}, {height}))"
    shrink = f"resize(image, 224, (0, 0, {width}, {height}))"
    assert memory_beside(f"from cnn.dataset.resizing import resize\n{make}", shrink) < 30 * 2**20
