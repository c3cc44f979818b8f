"""Ray Data: images → prepared dataset."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from cnn import prepared
from cnn.config import Images
from cnn.errors import Mendable
from cnn.folder import Reader, list_folder
from cnn.image import DECODER_VERSION
from cnn.manifest import Manifest, label_images, listing_key
from cnn.parts import part_rows
from cnn.prepared import Card, Prepared

# A file that kills its decoder takes the task with it; Ray alone would try for ever.
TASK_RETRIES = 2

Advance = Callable[[int, int], None]
"""Told of progress: images done, images in all."""


@dataclass(frozen=True)
class Source:
    """A listed folder of images, not decoded yet, and the key of what is prepared from it."""

    root: str
    manifest: Manifest
    key: str
    settings: Images
    prepared: Path | None = None


def list_source(root: str, settings: Images) -> Source:
    """List a folder; Mendable where it is no folder of classes."""
    listing = list_folder(root)
    key = listing_key(listing, settings.image_size, settings.fit, DECODER_VERSION)
    return Source(listing.root, label_images(listing), key, settings)


def reuse(folder: Path, settings: Images) -> Source:
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
    return (Path(folder) / prepared.CARD).is_file()


def is_prepared(source: Source, folder: Path) -> bool:
    """Whether `folder` holds the prepared dataset of `source`; Mendable if it holds another's."""
    if not folder.exists():
        return False
    if not (folder / prepared.CARD).is_file():
        raise Mendable(f"{folder} exists and is no prepared dataset: name another folder")
    if Prepared.open(folder).card.key != source.key:
        raise Mendable(
            f"{folder} was prepared from other images or with other settings: "
            "name another folder, or remove it"
        )
    return True


def prepare(source: Source, folder: Path, advance: Advance) -> Prepared:
    """Decode every image of `source` once, into `folder`.

    All is written below a temporary name and renamed whole at the end, so that what has the final
    name is complete. A run that was cut off is gone on with: its finished shards are kept.
    """
    draft = folder.with_name(f".{folder.name}.{source.key}.draft")
    prepared.shard_file(draft, 0).parent.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(int(source.key, 16)).permutation(source.manifest.table.num_rows)
    shards = cut(source.manifest.table.take(order), source.settings.image_size)
    decode(source, draft, shards, advance)
    finish(source, draft, order, len(shards))
    try:
        os.rename(draft, folder)
    except OSError:
        # Another run with the same key was faster; what it wrote is the same.
        if not is_prepared(source, folder):
            raise
    return Prepared.open(folder)


def cut(rows: pa.Table, image_size: int) -> list[pa.Table]:
    """The rows of each shard. They come in random order, so every shard is a fair sample."""
    size = part_rows(image_size, rows.num_rows)
    starts = range(0, rows.num_rows, size)
    return [rows.slice(start, size).select(["path", "error"]) for start in starts]


def decode(source: Source, draft: Path, shards: list[pa.Table], advance: Advance) -> None:
    """Write the missing shards, one task each, wherever the cluster has a CPU."""
    missing = [n for n in range(len(shards)) if not prepared.shard_file(draft, n).exists()]
    total = sum(len(rows) for rows in shards)
    done = total - sum(len(shards[number]) for number in missing)
    advance(done, total)
    if not missing:
        return
    blocks = [
        shards[number].append_column("shard", pa.array([number] * len(shards[number])))
        for number in missing
    ]
    written = ray.data.from_arrow(blocks).map_batches(
        WriteShard(source, draft),
        batch_size=None,
        batch_format="pyarrow",
        ray_remote_args_fn=lambda: {"max_retries": TASK_RETRIES},
    )
    for counts in written.iter_batches(batch_size=None, batch_format="pyarrow"):
        done += pc.sum(counts["images"]).as_py()
        advance(done, total)


class WriteShard:
    """The task of one shard: read, decode, resize, write."""

    def __init__(self, source: Source, draft: Path) -> None:
        self.root, self.settings, self.draft = source.root, source.settings, draft

    def __call__(self, rows: pa.Table) -> pa.Table:
        file = prepared.shard_file(self.draft, rows["shard"][0].as_py())
        prepared.write_shard(
            file, rows, Reader(self.root), self.settings.image_size, self.settings.fit
        )
        return pa.table({"images": [len(rows)]})


def finish(source: Source, draft: Path, order: np.ndarray, shards: int) -> None:
    """Write the manifest, in the listing's order, and the card."""
    found = pa.concat_tables(prepared.shard_manifests(draft, shards)).take(np.argsort(order))
    if not found["path"].equals(source.manifest.table["path"]):
        raise RuntimeError(f"the shards in {draft} are not those of the listing: remove it")
    read = source.manifest.with_contents(*(found[n].to_pylist() for n in ("content_hash", "error")))
    placed = read.table.append_column("shard", found["shard"]).append_column("row", found["row"])
    Manifest(placed, read.ignored).write(draft / prepared.MANIFEST)
    card = Card(
        key=source.key,
        source=source.root,
        image_size=source.settings.image_size,
        fit=source.settings.fit,
        shards=shards,
    )
    (draft / prepared.CARD).write_text(card.model_dump_json(indent=2), encoding="utf-8")
