"""Ray Data: a bundle over every image, once each."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pyarrow as pa
import ray
import torch

from cnn import prepared
from cnn.bundle import Bundle, as_batch
from cnn.cluster.resources import ScoringPlan
from cnn.folder import Reader
from cnn.image import Fit, Unreadable, decode
from cnn.prediction import predictions
from cnn.prepared import Prepared
from cnn.worklist import Root

Pixels = Callable[[pa.Table], pa.Table]
"""Gives manifest rows their `image`, bytes of `(S, S, 3)`, or null beside their `error`."""


def score(
    parts: Iterable[tuple[int, pa.Table]], pixels: Pixels, bundle: Bundle, plan: ScoringPlan
) -> Iterator[tuple[int, pa.Table]]:
    """The predictions of numbered parts of a manifest, each whole, in the order they get ready.

    This is the one way from images to predictions, in training as in scoring. A part is a block
    of Ray Data's all the way, so it must be small enough never to be split (128 MiB).
    """
    blocks = [rows.append_column("part", number_column(number, rows)) for number, rows in parts]
    if not blocks:
        return
    scored = (
        ray.data.from_arrow(blocks)
        .map_batches(pixels, batch_size=None, batch_format="pyarrow")
        .map_batches(
            Score,
            fn_constructor_args=(ray.put(bundle), plan.batch_size, plan.threads),
            compute=plan.pool(),
            num_gpus=plan.gpu_fraction,
            # A GPU worker leaves the CPUs to those who decode.
            num_cpus=0 if plan.gpu_fraction else 1,
            batch_size=None,
            batch_format="pyarrow",
        )
    )
    for batch in scored.iter_batches(batch_size=None, batch_format="pyarrow"):
        table = pa.table(batch)
        yield table["part"][0].as_py(), table.drop_columns("part")


def number_column(number: int, rows: pa.Table) -> pa.Array:
    """The part's number beside each of its rows, so that a block tells what it is."""
    return pa.array(np.full(rows.num_rows, number, np.int32))


class Decode:
    """The pixels of images in folders: read and decoded, or the reason why not."""

    def __init__(self, roots: list[Root], image_size: int, fit: Fit) -> None:
        self.roots, self.image_size, self.fit = roots, image_size, fit
        self.readers = [Reader(root.place) for root in roots]

    def __call__(self, rows: pa.Table) -> pa.Table:
        columns = (rows[name].to_pylist() for name in ("root", "path", "error"))
        found = [self.look(*row) for row in zip(*columns, strict=True)]
        images, errors = zip(*found, strict=True)
        return with_images(rows, images).set_column(
            rows.column_names.index("error"), "error", pa.array(errors, pa.string())
        )

    def look(self, root: int, path: str, error: str | None) -> tuple[bytes | None, str | None]:
        """Pixels or error of one image."""
        if error is not None:
            return None, error
        try:
            data = self.readers[root](self.roots[root].below(path))
            return decode(data, self.image_size, self.fit).tobytes(), None
        except Unreadable as unreadable:
            return None, unreadable.reason


class Gather:
    """The pixels of images that are prepared."""

    def __init__(self, dataset: Prepared) -> None:
        self.folder, self.shape = dataset.folder, dataset.shape

    def __call__(self, rows: pa.Table) -> pa.Table:
        images = prepared.gather(self.folder, self.shape, rows)
        return with_images(rows, [image.tobytes() for image in images])


def with_images(rows: pa.Table, images: Iterable[bytes | None]) -> pa.Table:
    return rows.append_column("image", pa.array(images, pa.binary()))


class Score:
    """An actor that holds a bundle and makes predictions of pixels."""

    def __init__(self, bundle: ray.ObjectRef[Bundle], batch_size: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.bundle = ray.get(bundle).to(self.device)
        self.batch_size = batch_size

    def __call__(self, rows: pa.Table) -> pa.Table:
        images = self.images(rows["image"].drop_null().to_pylist())
        found = [
            self.bundle.predict(images[start : start + self.batch_size].to(self.device))
            for start in range(0, len(images), self.batch_size)
        ]
        classes = self.bundle.card.classes
        probabilities = torch.cat(found) if found else torch.empty(0, len(classes))
        return predictions(rows, probabilities, classes).append_column("part", rows["part"])

    def images(self, pixels: list[bytes]) -> torch.Tensor:
        """Images as one batch, uint8 `(N, 3, S, S)`."""
        size = self.bundle.card.image_size
        flat = np.frombuffer(b"".join(pixels), np.uint8)
        return as_batch(flat.reshape(len(pixels), size, size, 3))
