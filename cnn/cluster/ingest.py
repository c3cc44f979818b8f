"""Ray Data: images → prepared dataset."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from cnn import prepared
from cnn.atomic import holds_anything
from cnn.cluster.passes import TASK_RETRIES, make_all
from cnn.config import Images
from cnn.console import Console
from cnn.decoding import decoder
from cnn.errors import Mendable
from cnn.folder import Reader, list_folder
from cnn.image import DECODER_VERSION
from cnn.manifest import Manifest, label_images, listing_key
from cnn.parts import part_rows
from cnn.place import Place, place
from cnn.prepared import Card, Prepared

Advance = Callable[[int, int], None]
"""Told of progress: images done, images in all."""


@dataclass(frozen=True)
class Source:
    """A listed folder of images, not decoded yet, and the key of what is prepared from it."""

    root: str
    manifest: Manifest
    key: str
    settings: Images
    prepared: Place | None = None


def list_source(root: str, settings: Images) -> Source:
    """List a folder; Mendable where it is no folder of classes."""
    listing = list_folder(root)
    key = listing_key(listing, settings.image_size, settings.fit, DECODER_VERSION)
    return Source(listing.root, label_images(listing), key, settings)


def reuse(folder: Place, settings: Images) -> Source:
    """A prepared dataset given in the place of images; its own image size and fit hold."""
    dataset = Prepared.open(folder)
    own = Images(image_size=dataset.card.image_size, fit=dataset.card.fit)
    for name in settings.model_fields_set:
        if getattr(settings, name) != getattr(own, name):
            raise Mendable(
                f"{folder} was prepared with {name} {getattr(own, name)}: "
                f"leave out --{name.replace('_', '-')}, or train from the images"
            )
    return Source(dataset.card.source, dataset.manifest, dataset.card.key, own, folder)


def is_prepared_dataset(folder: str) -> bool:
    """Whether a folder of images is one that is decoded already."""
    return (place(folder) / prepared.CARD).is_file()


def is_prepared(source: Source, folder: Place) -> bool:
    """Whether `folder` holds the whole prepared dataset of `source`.

    Mendable where it holds another's, or anything else.
    """
    if not holds_anything(folder):
        return False
    for name in (prepared.CARD, prepared.BEGUN):
        if (folder / name).is_file():
            card, whole = prepared.read_card(folder / name), name == prepared.CARD
            require_same(source, folder, card, whole)
            return whole
    raise Mendable(f"{folder} exists and is no prepared dataset: name another folder")


def require_same(source: Source, folder: Place, card: Card, whole: bool) -> None:
    """Mendable where a card is another source's, or tells of shards that were cut otherwise."""
    if card.key != source.key:
        raise Mendable(
            f"{folder} was prepared from other images or with other settings: "
            "name another folder, or remove it"
        )
    if not whole and card.shards != len(cut(source.manifest.table, card.image_size)):
        raise Mendable(
            f"{folder} was begun by another version, which cut the images otherwise: "
            "remove it, and they are decoded anew"
        )


def prepare(source: Source, folder: Place, advance: Advance, console: Console) -> Prepared:
    """Decode every image of `source` once, into `folder`.

    What is missing of a run that was cut off is done: shards are whole or not there, and the card
    comes last. Two runs at once write the same.
    """
    order = np.random.default_rng(int(source.key, 16)).permutation(source.manifest.table.num_rows)
    shards = cut(source.manifest.table.take(order), source.settings.image_size)
    card = Card(
        key=source.key,
        source=source.root,
        image_size=source.settings.image_size,
        fit=source.settings.fit,
        shards=len(shards),
    )
    prepared.begin(folder, card)
    make_all(
        missing=lambda: prepared.missing(folder, len(shards)),
        attempt=lambda left, careful: decode(source, folder, shards, left, careful, advance),
        console=console,
    )
    prepared.finish(folder, card, placed(source, folder, order, len(shards)))
    return Prepared.open(folder)


def cut(rows: pa.Table, image_size: int) -> list[pa.Table]:
    """The rows of each shard. They come in random order, so every shard is a fair sample."""
    size = part_rows(image_size, rows.num_rows)
    starts = range(0, rows.num_rows, size)
    return [rows.slice(start, size).select(["path", "error"]) for start in starts]


def decode(
    source: Source,
    folder: Place,
    shards: list[pa.Table],
    missing: list[int],
    careful: bool,
    advance: Advance,
) -> None:
    """Write the missing shards, one task each, wherever the cluster has a CPU."""
    total = sum(len(rows) for rows in shards)
    done = total - sum(len(shards[number]) for number in missing)
    advance(done, total)
    blocks = [
        shards[number].append_column("shard", pa.array([number] * len(shards[number])))
        for number in missing
    ]
    written = ray.data.from_arrow(blocks).map_batches(
        DecodeShard(source, folder, careful),
        batch_size=None,
        batch_format="pyarrow",
        ray_remote_args_fn=lambda: {"max_retries": TASK_RETRIES},
    )
    for counts in written.iter_batches(batch_size=None, batch_format="pyarrow"):
        done += pc.sum(counts["images"]).as_py()
        advance(done, total)


class DecodeShard:
    """The task of one shard: read, decode, resize, write."""

    def __init__(self, source: Source, folder: Place, careful: bool) -> None:
        self.root, self.settings = source.root, source.settings
        self.folder, self.careful = folder, careful

    def __call__(self, rows: pa.Table) -> pa.Table:
        file = prepared.shard_file(self.folder, rows["shard"][0].as_py())
        size, fit = self.settings.image_size, self.settings.fit
        with decoder(self.careful) as decode:
            prepared.write_shard(file, rows, Reader(self.root), size, fit, decode)
        return pa.table({"images": [len(rows)]})


def placed(source: Source, folder: Place, order: np.ndarray, shards: int) -> Manifest:
    """The manifest of what was decoded, in the listing's order."""
    found = pa.concat_tables(prepared.shard_manifests(folder, shards)).take(np.argsort(order))
    if not found["path"].equals(source.manifest.table["path"]):
        raise RuntimeError(f"the shards in {folder} are not those of the listing: remove it")
    read = source.manifest.with_contents(*(found[n].to_pylist() for n in ("content_hash", "error")))
    table = read.table.append_column("shard", found["shard"]).append_column("row", found["row"])
    return replace(read, table=table)
