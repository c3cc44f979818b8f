"""The prepared dataset: Parquet shards of square uint8 images, beside a manifest of every file."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from cnn.errors import Mendable
from cnn.image import Fit, Unreadable, decode
from cnn.manifest import Manifest, assign_splits, classes, hash_content

CARD, MANIFEST = "prepared.json", "manifest.parquet"


class Card(BaseModel):
    """What stands in prepared.json, which is written last: a folder with a card is whole."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    key: str
    source: str
    image_size: int
    fit: Fit
    shards: int


@dataclass(frozen=True)
class Prepared:
    """An opened prepared dataset.

    The manifest's table has two columns more: the `shard` and the `row` in it where an image lies.
    """

    folder: Path
    card: Card
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> "Prepared":
        """Open a whole prepared dataset; Mendable where there is none."""
        try:
            card = Card.model_validate_json((folder / CARD).read_bytes())
            return cls(folder, card, Manifest.read(folder / MANIFEST))
        except (OSError, ValidationError, pa.ArrowInvalid) as error:
            reason = str(error).splitlines()[0]
            raise Mendable(
                f"{folder} is no prepared dataset of this version ({reason}): prepare it again"
            ) from None

    @property
    def classes(self) -> list[str]:
        return classes(self.manifest.table)

    def split(self, seed: int) -> pa.Table:
        """The manifest's table with each image's split."""
        return assign_splits(self.manifest.table, seed)

    def load(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 `(N, S, S, 3)` and labels int64 `(N,)` of manifest rows, in their order."""
        return gather(self.folder, self.shape, rows), labels(rows, self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image: `(S, S, 3)`."""
        return (self.card.image_size, self.card.image_size, 3)


def gather(folder: Path, shape: tuple[int, ...], rows: pa.Table) -> np.ndarray:
    """The images of `rows` (shard, row), in their order, uint8 `(N, *shape)`."""
    images = np.empty((rows.num_rows, *shape), np.uint8)
    shards, offsets = (rows[name].to_numpy() for name in ("shard", "row"))
    for shard in np.unique(shards):
        here = np.flatnonzero(shards == shard)
        images[here] = read_images(shard_file(folder, shard), offsets[here], shape)
    return images


def labels(rows: pa.Table, names: list[str]) -> np.ndarray:
    """The index of each row's class in `names`, int64."""
    index = {name: number for number, name in enumerate(names)}
    return np.array([index[name] for name in rows["label"].to_pylist()], np.int64)


def shard_file(folder: Path, shard: int) -> Path:
    return folder / "shards" / f"{shard:06d}.parquet"


def write_shard(
    file: Path, rows: pa.Table, read: Callable[[str], bytes], image_size: int, fit: Fit
) -> int:
    """Decode the listed `rows` (path, error) into one shard; returns how many had pixels.

    Every row is kept: with its image, or with its error. The file appears whole or not at all.
    """
    records = [
        prepare_image(path, error, read, image_size, fit)
        for path, error in zip(rows["path"].to_pylist(), rows["error"].to_pylist(), strict=True)
    ]
    hashes, errors, images = zip(*records, strict=True)
    table = pa.table(
        {
            "path": rows["path"],
            "content_hash": pa.array(hashes, pa.string()),
            "error": pa.array(errors, pa.string()),
            "image": pa.array(images, pa.binary()),
        }
    )
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    # Pixels hardly compress, and a plain page is read back at the speed of memory.
    pq.write_table(table, draft, compression="none", use_dictionary=False, write_statistics=False)
    os.replace(draft, file)
    return len(images) - images.count(None)


def prepare_image(
    path: str, error: str | None, read: Callable[[str], bytes], image_size: int, fit: Fit
) -> tuple[str | None, str | None, bytes | None]:
    """Content hash, error and pixels of one listed file; exactly one of the last two is null."""
    if error is not None:
        return None, error, None
    try:
        data = read(path)
        return hash_content(data), None, decode(data, image_size, fit).tobytes()
    except Unreadable as unreadable:
        return None, unreadable.reason, None


def read_images(file: Path, offsets: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The images at `offsets` of a shard, uint8 `(len(offsets), *shape)`."""
    column = pq.read_table(file, columns=["image"], memory_map=True)["image"]
    chosen = column.take(pa.array(offsets)).combine_chunks()
    chunk = chosen.chunk(0) if isinstance(chosen, pa.ChunkedArray) else chosen
    return np.frombuffer(chunk.buffers()[2], np.uint8).reshape(len(offsets), *shape)


def shard_manifests(folder: Path, shards: int) -> Iterator[pa.Table]:
    """What each shard tells of its files, without the pixels."""
    for shard in range(shards):
        table = pq.read_table(shard_file(folder, shard), columns=["path", "content_hash", "error"])
        place = pa.array([shard] * table.num_rows, pa.int32())
        row = pa.array(range(table.num_rows), pa.int32())
        yield table.append_column("shard", place).append_column("row", row)
