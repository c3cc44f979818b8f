"""Thumbnails: small JPEGs of images, as `data:` URIs that are part of the page."""

import base64
import math
from collections.abc import Callable, Collection, Iterator
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from cnn.dataset.pixels import Pixels

SIDE = 96
QUALITY = 78

Thumbnails = Callable[[Collection[str]], dict[str, str]]
"""Returns images by path as `data:` URIs; images without pixels are left out."""


def thumbnails(pixels: Pixels, manifest: pa.Table, most: int) -> Thumbnails:
    """Thumbnails of a manifest's images, from prepared pixels or decoded again by our decoder.

    Nothing is read until the returned function is called. It holds the pixels of at most `most`
    images at once: all of an album's may be more than a gigabyte.
    """

    def look(paths: Collection[str]) -> dict[str, str]:
        rows = manifest.filter(pc.is_in(manifest["path"], pa.array(list(paths), pa.string())))
        starts = range(0, rows.num_rows, most)
        return {
            path: picture
            for start in starts
            for path, picture in pictures(pixels(rows.slice(start, most)))
        }

    return look


def pictures(table: pa.Table) -> Iterator[tuple[str, str]]:
    """Path and `data:` URI of each row that has pixels."""
    for path, image in zip(table["path"].to_pylist(), table["image"].to_pylist(), strict=True):
        if image is not None:
            yield path, data_uri(square(image))


def square(image: bytes) -> NDArray[np.uint8]:
    """The pixels of one image as uint8 (S, S, 3)."""
    side = math.isqrt(len(image) // 3)
    return np.frombuffer(image, np.uint8).reshape(side, side, 3)


def data_uri(image: NDArray[np.uint8]) -> str:
    """An image, uint8 (S, S, 3), as a JPEG of at most SIDE pixels a side."""
    small = Image.fromarray(image)
    small.thumbnail((SIDE, SIDE))
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
