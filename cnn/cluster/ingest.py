"""Ray Data: images → prepared dataset."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from cnn.cluster.passes import TASK_RETRIES, make_all
from cnn.dataset import prepared
from cnn.dataset.decoding import decoder
from cnn.dataset.prepared import Card, Prepared
from cnn.dataset.source import Source
from cnn.errors import UserError
from cnn.files.place import Place
from cnn.files.reader import Reader
from cnn.manifest import Manifest
from cnn.text.console import Advance, Console


def prepare(source: Source, folder: Place, advance: Advance, console: Console) -> Prepared:
    """Decode every image of `source` once, into `folder`.

    Resumes an interrupted run: a shard is complete or absent, and the card is written last. Two
    runs at the same time, in a bucket that has no locks, write the same files.
    """
    order = np.random.default_rng(int(source.key, 16)).permutation(source.manifest.table.num_rows)
    shards = prepared.cut(source.manifest.table.take(order), source.settings.image_size)
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
        attempt=lambda left, isolated: decode(source, folder, shards, left, isolated, advance),
        console=console,
    )
    prepared.finish(folder, card, placed(source, folder, order, len(shards)))
    return Prepared.open(folder)


def decode(
    source: Source,
    folder: Place,
    shards: list[pa.Table],
    missing: list[int],
    isolated: bool,
    advance: Advance,
) -> None:
    """Write the missing shards, one task each, on any free CPU of the cluster."""
    total = sum(len(rows) for rows in shards)
    done = total - sum(len(shards[number]) for number in missing)
    advance(done, total)
    blocks = [
        shards[number].append_column("shard", pa.array([number] * len(shards[number])))
        for number in missing
    ]
    written = ray.data.from_arrow(blocks).map_batches(
        DecodeShard(source, folder, isolated),
        batch_size=None,
        batch_format="pyarrow",
        ray_remote_args_fn=lambda: {"max_retries": TASK_RETRIES},
    )
    for counts in written.iter_batches(batch_size=None, batch_format="pyarrow"):
        done += pc.sum(counts["images"]).as_py()
        advance(done, total)


class DecodeShard:
    """The task of one shard: read, decode, resize, write."""

    def __init__(self, source: Source, folder: Place, isolated: bool) -> None:
        self.root, self.settings = source.root, source.settings
        self.folder, self.isolated = folder, isolated

    def __call__(self, rows: pa.Table) -> pa.Table:
        file = prepared.shard_file(self.folder, rows["shard"][0].as_py())
        size, fit = self.settings.image_size, self.settings.fit
        with decoder(size, fit, self.isolated) as decode:
            prepared.write_shard(file, rows, Reader(self.root), decode)
        return pa.table({"images": [len(rows)]})


def placed(source: Source, folder: Place, order: np.ndarray, shards: int) -> Manifest:
    """The manifest of what was decoded, in the listing's order."""
    found = pa.concat_tables(prepared.shard_manifests(folder, shards)).take(np.argsort(order))
    if not found["path"].equals(source.manifest.table["path"]):
        raise UserError(
            f"the shards in {folder} do not match the images, as if two jobs had written them at "
            "once: remove the folder to decode them again"
        )
    read = source.manifest.with_contents(*(found[n].to_pylist() for n in ("content_hash", "error")))
    table = read.table.append_column("shard", found["shard"]).append_column("row", found["row"])
    return replace(read, table=table)
