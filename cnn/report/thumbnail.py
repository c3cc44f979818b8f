"""Thumbnails: small JPEGs of images, as `data:` URIs that are part of the page."""

import base64
import math
from collections.abc import Callable, Collection
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


def thumbnails(pixels: Pixels, manifest: pa.Table) -> Thumbnails:
    """Thumbnails of a manifest's images, from prepared pixels or decoded again by our decoder.

    Nothing is read until the returned function is called.
    """

    def look(paths: Collection[str]) -> dict[str, str]:
        rows = manifest.filter(pc.is_in(manifest["path"], pa.array(list(paths), pa.string())))
        if not rows.num_rows:
            return {}
        table = pixels(rows)
        found = zip(table["path"].to_pylist(), table["image"].to_pylist(), strict=True)
        return {path: data_uri(square(image)) for path, image in found if image is not None}

    return look


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
