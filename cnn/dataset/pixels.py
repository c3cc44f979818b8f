"""The pixels of manifest rows: decoded from folders, or gathered from a prepared dataset."""

from collections.abc import Callable, Iterable

import pyarrow as pa

from cnn.dataset import prepared
from cnn.dataset.decoding import Decoder, decoder, look
from cnn.dataset.fit import Fit
from cnn.dataset.prepared import Prepared
from cnn.files.reader import Reader
from cnn.scoring.worklist import Root

Pixels = Callable[[pa.Table], pa.Table]
"""Adds the column `image` to rows: uint8 `(S, S, 3)` as bytes, or null if `error` is set."""


class Decode:
    """The pixels of images in folders, read and decoded, or the reason why that failed."""

    def __init__(
        self, roots: list[Root], image_size: int, fit: Fit, isolated: bool = False
    ) -> None:
        self.roots, self.image_size, self.fit, self.isolated = roots, image_size, fit, isolated
        self.readers = [Reader(root.place) for root in roots]

    def __call__(self, rows: pa.Table) -> pa.Table:
        columns = (rows[name].to_pylist() for name in ("root", "path", "error"))
        with decoder(self.image_size, self.fit, self.isolated) as decode:
            found = [self.look(decode, *row) for row in zip(*columns, strict=True)]
        images, errors = zip(*found, strict=True) if found else ((), ())
        return with_images(rows, images).set_column(
            rows.column_names.index("error"), "error", pa.array(errors, pa.string())
        )

    def look(
        self, decode: Decoder, root: int, path: str, error: str | None
    ) -> tuple[bytes | None, str | None]:
        """Pixels or error of one image."""
        below = self.roots[root].below(path)
        _, pixels, error = look(below, error, self.readers[root], decode)
        return pixels, error


class Gather:
    """The pixels of images in a prepared dataset."""

    def __init__(self, dataset: Prepared) -> None:
        self.folder, self.shape = dataset.folder, dataset.shape

    def __call__(self, rows: pa.Table) -> pa.Table:
        images = prepared.gather(self.folder, self.shape, rows)
        return with_images(rows, [image.tobytes() for image in images])


def with_images(rows: pa.Table, images: Iterable[bytes | None]) -> pa.Table:
    """Rows with their pixels in a column `image`."""
    return rows.append_column("image", pa.array(images, pa.binary()))
