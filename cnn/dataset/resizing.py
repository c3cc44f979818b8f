"""The resizer: a box of a picture as a small square, bilinear and antialiased."""

from typing import Final

from PIL import Image

from cnn.dataset.fit import Box

try:
    from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
except ImportError:  # not built for every platform, Linux on ARM among them
    Resizer = None

_MODES: Final = ("L", "RGB", "RGBa", "CMYK")
_SIDE_LIMIT: Final = 2**14  # the fast resizer takes up to a kilobyte for each pixel of a side
_GAP: Final = 32.0  # if a side is more than this many times the size, Pillow averages first


def resize(image: Image.Image, size: int, box: Box) -> Image.Image:
    """The box of a loaded image as `size` x `size` pixels, in the image's own mode.

    Ordinary images take a fifth of Pillow's time, by SIMD. Pillow resizes the others, and all if
    the fast resizer is not installed. The two differ by rounding: 0.2 of 255 in the mean, 2 at
    most. Neither needs much memory beside the image, however long and thin it is.
    """
    if Resizer is not None and _is_ordinary(image):
        return _resize_fast(image, size, box)
    bilinear = Image.Resampling.BILINEAR
    return image.resize((size, size), bilinear, box, reducing_gap=_GAP)


def _is_ordinary(image: Image.Image) -> bool:
    """Whether the fast resizer may be used.

    It reads Pillow's memory by the size and mode that the image declares: both must be true.
    """
    memory = image.im
    consistent = memory.size == image.size and memory.mode == image.mode
    return consistent and image.mode in _MODES and max(image.size) < _SIDE_LIMIT


def _resize_fast(image: Image.Image, size: int, box: Box) -> Image.Image:
    left, top, right, bottom = box
    square = Image.new(image.mode, (size, size))
    options = ResizeOptions(
        ResizeAlg.convolution(FilterType.bilinear),
        use_alpha=False,  # CMYK has none, and RGBa's colours are weighted by it already
        crop_box=CropBox(left, top, right - left, bottom - top),
    )
    Resizer().resize_pil(image, square, options)  # a new one: threads would wait for a shared one
    return square
