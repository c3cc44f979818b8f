"""The decoder: bytes to a square RGB uint8 image, or a short reason why it fails."""

import re
import threading
from io import BytesIO
from typing import Final

import numpy as np
from PIL import ExifTags, Image, features
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile, DibImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from cnn.dataset.fit import Box, Fit, view
from cnn.dataset.resizing import resize
from cnn.files.unreadable import BYTE_LIMIT, Unreadable

DECODER_VERSION: Final = 2
"""Part of a prepared dataset's key: raise it whenever the same bytes give other pixels."""

PIXEL_LIMIT: Final = 178_956_970
"""Most pixels an image may declare; above it, Pillow refuses to open an image by default."""

_CONTAINERS: Final[tuple[tuple[bytes, type[ImageFile] | None], ...]] = (
    (rb"\xff\xd8\xff", JpegImageFile),
    (rb"\x89PNG\r\n\x1a\n", PngImageFile),
    (rb"RIFF.{4}WEBP", WebPImageFile),
    (rb"GIF8[79]a", GifImageFile),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00{3}", BmpImageFile),
    (rb"[\x28\x34\x38\x40\x6c\x7c]\x00{3}.{8}\x01\x00", DibImageFile),
    (rb"II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]", TiffImageFile),
    (rb".{4}ftyp(.{4}){0,8}?avi[fs]", AvifImageFile if features.check("avif") else None),
    (rb".{4}ftyp(.{4}){0,8}?(hei[cmsx]|hev[cx]|mif1|msf1)", None),  # HEIF
    (rb"8BPS", None),  # Photoshop
    (rb"\x00{3}\x0cjP  |\xff\x4f\xff\x51", None),  # JPEG 2000
    (rb"\x00{3}\x0cJXL |\xff\x0a", None),  # JPEG XL
    (rb"\x00\x00\x01\x00[^\x00]\x00", None),  # ICO
    (rb"%!PS|\xc5\xd0\xd3\xc6|%PDF-", None),  # EPS, PDF
)
"""Signature and decoder of every known container; None: recognised, but not decoded."""

_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that undoes each value of the EXIF orientation tag."""


class _PillowLimit:
    """Sets Pillow's process-wide pixel limit to ours while any thread decodes, then restores it.

    This module checks `PIXEL_LIMIT` on the header. Pillow's own limit would warn from half of it
    on, or at whatever the process has set. Neither `warnings.catch_warnings` nor a plain save and
    restore is thread-safe: one thread would undo what another still needs. Hence the count. The
    limit is not removed, because it also guards what Pillow allocates on opening.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoding = 0
        self._saved: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._decoding == 0:
                self._saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, PIXEL_LIMIT
            self._decoding += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._decoding -= 1
            if self._decoding == 0:
                Image.MAX_IMAGE_PIXELS = self._saved


_pillow_limit = _PillowLimit()


def decode(data: bytes, size: int, fit: Fit = "squash") -> np.ndarray:
    """Decode the bytes of one image file to `(size, size, 3)` uint8, C-contiguous and writable.

    The container is detected from the bytes. Only the first frame or page is decoded, and turned
    upright by its EXIF orientation. Transparency becomes white. 16-bit grey is scaled to 8 bits,
    not clipped; 32-bit integers and floats follow `_eight_bits`. Shrinking is antialiased
    (bilinear). A JPEG with both sides at least `4 * size` is decoded at a reduced scale (DCT
    scaling, to at least `2 * size` a side): on photographs, less than 1 of 255 from a full decode.

    Raises `Unreadable`, and nothing else, whatever the bytes. Safe to call from several threads.
    """
    try:
        with _pillow_limit:
            return _decode(data, size, fit)
    except Unreadable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unreadable("bomb") from error
    except MemoryError as error:
        raise Unreadable("too_large") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, KeyError, ...
        raise Unreadable("truncated") from error


def _decode(data: bytes, size: int, fit: Fit) -> np.ndarray:
    """Resize first, then convert and orient the small square: orienting commutes with resizing.

    So memory holds a large image once, or twice if its mode must be converted before resizing.
    """
    image = _open(data)
    # Twice the size on both sides: at just the size, the scaled DCT would do the resizing, a third
    # faster but at two and a half times the difference from a full decode.
    reduced = image.draft(None, (2 * size, 2 * size))
    image.load()
    # The reduced size is rounded up; its box ends at the picture's edge, in fractions of a pixel.
    width, height = reduced[1][2:] if reduced else image.size
    square = _resize(image, size, view(width, height, fit))
    turn = _orientation(image)
    return np.array(square if turn is None else square.transpose(turn))


def _open(data: bytes) -> ImageFile:
    """Read the header only, and refuse what is too large to decode."""
    if not data:
        raise Unreadable("empty_file")
    if len(data) > BYTE_LIMIT:
        raise Unreadable("too_large")
    # Not Image.open: it warns about sizes that are allowed here, and does not distinguish a damaged
    # image from other files.
    image = _opener(data[:64])(BytesIO(data))
    if image.width * image.height > PIXEL_LIMIT:
        raise Unreadable("bomb")
    return image


def _opener(head: bytes) -> type[ImageFile]:
    for signature, opener in _CONTAINERS:
        if re.match(signature, head, re.DOTALL):
            if opener is None:
                raise Unreadable("unsupported_format")
            return opener
    raise Unreadable("not_an_image")


def _resize(image: Image.Image, size: int, box: Box) -> Image.Image:
    """Resize the box to a `size` x `size` image of mode RGB."""

    def shrink(source: Image.Image) -> Image.Image:
        return resize(source, size, box)

    if image.mode.startswith("I;16"):  # resized as floats: Pillow resizes big-endian I;16B wrongly
        return _eight_bits(shrink(image.convert("F")), ceilings=(65535,))
    if image.mode in ("I", "F"):
        return _eight_bits(shrink(image.convert("F")), ceilings=(1, 255, 65535))
    if image.has_transparency_data:
        layered = image if image.mode == "RGBA" else image.convert("RGBA")
        return _on_white(shrink(layered.convert("RGBa")))
    if image.mode in ("1", "P"):  # Pillow resizes these by nearest neighbour
        return shrink(image.convert("RGB"))
    return shrink(image).convert("RGB")


def _eight_bits(image: Image.Image, ceilings: tuple[int, ...]) -> Image.Image:
    """Scale an image of mode F: 0 to 0, and the lowest ceiling that no value exceeds to 255.

    If a value is below zero or above the last ceiling, the smallest value becomes 0 and the
    largest 255 instead. NaN and -inf count as the smallest, inf as the largest.
    """
    values = np.asarray(image, dtype=np.float64)
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low >= 0 and high <= ceilings[-1]:
        low, high = 0.0, next(ceiling for ceiling in ceilings if high <= ceiling)
    values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    unit = (values - low) / ((high - low) or 1.0)
    return Image.fromarray(np.rint(255 * unit).astype(np.uint8)).convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """Composite an image of mode RGBa, with colours premultiplied by alpha, on white."""
    pixels = np.asarray(image)
    return Image.fromarray(pixels[..., :3] + (255 - pixels[..., 3:]))


def _orientation(image: ImageFile) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata is ignored: the pixels have been decoded
        return None
