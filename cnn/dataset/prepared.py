"""The prepared dataset: Parquet shards of square uint8 images, beside a manifest of every file."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from cnn.dataset.decoding import Decoder, look
from cnn.dataset.fit import Fit
from cnn.dataset.parts import part_rows
from cnn.dataset.splits import assign_splits
from cnn.errors import UserError, writing_to
from cnn.files import parquet
from cnn.files.atomic import remove_drafts, write_atomically
from cnn.files.folder import Listing
from cnn.files.place import Place
from cnn.manifest import Manifest, class_indices, classes, hash_content

CARD, MANIFEST = "prepared.json", "manifest.parquet"
SHARDS = "shards"
BEGUN = "unfinished.json"  # the card, while shards are missing
GROUP_BYTES = 2**20  # of pixels that are read together, at least


class Card(BaseModel):
    """The content of prepared.json, which is written last: a folder with it is complete."""

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

    The manifest's table has two more columns: an image's `shard`, and its `row` in that shard.
    """

    folder: Place
    card: Card
    manifest: Manifest

    @classmethod
    def open(cls, folder: Place) -> "Prepared":
        """Open a complete prepared dataset; UserError if there is none."""
        try:
            return cls(folder, read_card(folder / CARD), Manifest.read(folder / MANIFEST))
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged(folder, error) from None

    @property
    def classes(self) -> list[str]:
        return classes(self.manifest.table)

    def split(self, seed: int) -> pa.Table:
        """The manifest's table with each image's split."""
        return assign_splits(self.manifest.table, seed)

    def load(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 `(N, S, S, 3)` and labels int64 `(N,)` of manifest rows, in their order."""
        return gather(self.folder, self.shape, rows), class_indices(rows["label"], self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image: `(S, S, 3)`."""
        return (self.card.image_size, self.card.image_size, 3)

    def require_whole(self) -> None:
        """Raise UserError if a shard is missing or incomplete, as its footer shows."""
        for _ in shard_manifests(self.folder, self.card.shards):
            pass


def listing_key(listing: Listing, image_size: int, fit: Fit, decoder_version: int) -> str:
    """The key of what is prepared from a listing: 16 hex digits over all that it depends on."""
    digest = hashlib.blake2b(repr((image_size, fit, decoder_version)).encode(), digest_size=8)
    columns = (listing.files[name].to_pylist() for name in ("path", "size", "mtime_ns", "error"))
    for row in zip(*columns, strict=True):
        digest.update(repr(row).encode())
    return digest.hexdigest()


def read_card(file: Place) -> Card:
    """The card in a file; UserError if there is none."""
    try:
        return Card.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise damaged(file.parent, error) from None


def damaged(folder: Place, error: Exception) -> UserError:
    """The error for a folder that is not a complete prepared dataset."""
    reason = str(error).splitlines()[0]
    return UserError(
        f"{folder} is incomplete, or from another version ({reason}): "
        "remove it to decode the images again"
    )


def cut(rows: pa.Table, image_size: int) -> list[pa.Table]:
    """The rows of each shard. Give them in random order: then every shard is a fair sample."""
    size = part_rows(image_size, rows.num_rows)
    starts = range(0, rows.num_rows, size)
    return [rows.slice(start, size).select(["path", "error"]) for start in starts]


def begin(folder: Place, card: Card) -> None:
    """Make the folder, and record which dataset its shards belong to; UserError if that fails.

    Drafts of killed tasks are removed, so call it before there are tasks, and under the lock.
    """
    text = card.model_dump_json(indent=2)
    with writing_to(folder, "give another folder"):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / BEGUN, text)  # before the shards: it names the dataset
        (folder / SHARDS).mkdir(exist_ok=True)
    remove_drafts(folder / SHARDS)


def missing(folder: Place, shards: int) -> list[int]:
    """The numbers of the shards that do not exist yet."""
    there = {file.name for file in (folder / SHARDS).iterdir()}
    return [number for number in range(shards) if shard_file(folder, number).name not in there]


def finish(folder: Place, card: Card, manifest: Manifest) -> None:
    """Write manifest and card, once all shards exist."""
    manifest.write(folder / MANIFEST)
    write_atomically(folder / CARD, card.model_dump_json(indent=2))
    (folder / BEGUN).unlink(missing_ok=True)


def gather(folder: Place, shape: tuple[int, ...], rows: pa.Table) -> np.ndarray:
    """The images of `rows` (shard, row), in their order, uint8 `(N, *shape)`."""
    images = np.empty((rows.num_rows, *shape), np.uint8)
    shards, offsets = (rows[name].to_numpy() for name in ("shard", "row"))
    for shard in np.unique(shards):
        here = np.flatnonzero(shards == shard)
        images[here] = read_images(shard_file(folder, shard), offsets[here], shape)
    return images


def shard_file(folder: Place, shard: int) -> Place:
    """The file of a shard, by its number."""
    return folder / SHARDS / f"{shard:06d}.parquet"


def write_shard(
    file: Place,
    rows: pa.Table,
    read: Callable[[str], bytes],
    decode: Decoder,
) -> None:
    """Decode the listed `rows` (path, error) into one shard.

    Every row is kept: with its image, or with its error. The file appears whole or not at all.
    """
    records = [
        prepare_image(path, error, read, decode)
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
    each = next((len(image) for image in images if image), 1)
    # Pixels hardly compress, and a plain page is read back at the speed of memory. Row groups: the
    # report reads an image or two without the rest of their shard.
    parquet.write(
        file,
        table,
        row_group_size=max(1, GROUP_BYTES // each),
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )


def prepare_image(
    path: str, error: str | None, read: Callable[[str], bytes], decode: Decoder
) -> tuple[str | None, str | None, bytes | None]:
    """Content hash, error and pixels of one listed file; exactly one of the last two is null."""
    content, image, error = look(path, error, read, decode)
    return None if content is None else hash_content(content), error, image


def read_images(file: Place, offsets: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The images at `offsets` of a shard, uint8 `(len(offsets), *shape)`.

    Raises UserError if the shard is missing, damaged or too short.
    """
    try:
        chosen = parquet.take(file, "image", offsets)
    except (OSError, KeyError, pa.ArrowInvalid, pa.ArrowIndexError) as error:
        if isinstance(error, OSError) and not is_damage(file, error):
            raise
        raise damaged(file.parent.parent, error) from None
    return np.frombuffer(chosen.buffers()[2], np.uint8).reshape(len(offsets), *shape)


def is_damage(file: Place, error: OSError) -> bool:
    """Whether the file itself is at fault, and not its disk or the network."""
    return isinstance(error, FileNotFoundError) or (isinstance(file, Path) and error.errno is None)


def shard_manifests(folder: Place, shards: int) -> Iterator[pa.Table]:
    """The columns of each shard but the pixels; UserError if one is missing or incomplete."""
    for shard in range(shards):
        try:
            table = parquet.read(shard_file(folder, shard), ["path", "content_hash", "error"])
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged(folder, error) from None
        place = pa.array([shard] * table.num_rows, pa.int32())
        row = pa.array(range(table.num_rows), pa.int32())
        yield table.append_column("shard", place).append_column("row", row)
