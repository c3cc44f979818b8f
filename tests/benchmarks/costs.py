"""What an image costs at each stage, for the README's section on scale; one process, no Ray.

    python -m tests.benchmarks.costs IMAGES [--image-size 64] [--images 2000] [--rows 100000]

CPU time is that of this process. The listing has `--rows` files: hard links to those in IMAGES,
created beside it and removed afterwards.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cnn import network
from cnn.bundle import as_batch
from cnn.config import Network
from cnn.dataset.census import take_census
from cnn.dataset.parts import part_rows
from cnn.dataset.prepared import listing_key, write_shard
from cnn.dataset.splits import assign_splits
from cnn.files.folder import list_folder
from cnn.files.reader import Reader
from cnn.image import DECODER_VERSION, decode
from cnn.manifest import Manifest, hash_content, label_images
from tests.benchmarks.scoring import links

BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", dest="count", type=int, default=2_000)
    parser.add_argument("--rows", type=int, default=100_000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=asked.images.resolve().parent) as place:
        folder = Path(place)
        manifest_costs(links(asked.images, folder / "rows", asked.rows), folder)
        shard_costs(links(asked.images, folder / "few", asked.count), folder, asked.image_size)
    network_cost(asked.image_size, asked.count)


def manifest_costs(images: Path, folder: Path) -> None:
    """Listing, manifest and splits: what a driver does alone, and keeps in its memory."""
    before = peak()
    listing, listed = timed(lambda: list_folder(str(images)))
    rows, file = listing.files.num_rows, folder / "manifest.parquet"
    report("list a local disk", listed, rows)
    _, keyed = timed(lambda: listing_key(listing, 64, "squash", DECODER_VERSION))
    manifest, labelled = timed(lambda: label_images(listing))
    hashes = [hash_content(b"%d" % number) for number in range(rows)]
    whole, split = timed(lambda: divided(manifest, hashes))
    report("key, labels, splits", keyed + labelled + split, rows)
    whole.write(file)
    print(f"a driver's memory     {(peak() - before) / rows:,.0f} bytes per row at its peak")
    print(f"manifest.parquet      {file.stat().st_size / rows:,.0f} bytes per row", flush=True)


def divided(manifest: Manifest, hashes: list[str]) -> Manifest:
    """A manifest as after reading its images, with splits; the census is taken, too."""
    read = manifest.with_contents(hashes, [None] * len(hashes))
    whole = Manifest(assign_splits(read.table, 0), read.ignored)
    take_census(whole)
    return whole


def shard_costs(images: Path, folder: Path, size: int) -> None:
    """Decoding, resizing and writing shards, and their size on the disk."""
    rows, file = list_folder(str(images)).files.select(["path", "error"]), folder / "shard.parquet"
    step, read = part_rows(size, 10**6), Reader(str(images))
    squash = partial(decode, size=size, fit="squash")
    cost, written = 0.0, 0
    for start in range(0, len(rows), step):
        part = rows.slice(start, step)
        cost += timed(lambda part=part: write_shard(file, part, read, squash))[1]
        written += file.stat().st_size
    report("decode and write", cost, len(rows))
    print(f"shards                {written / len(rows):,.0f} bytes per image, {step} images each")


def network_cost(size: int, images: int) -> None:
    """The default network's arithmetic in scoring, without mirror images."""
    model = network.build(Network(), size, 1000).eval()
    batch = as_batch(np.random.default_rng(0).integers(0, 255, (BATCH, size, size, 3), np.uint8))
    rounds = max(1, images // BATCH)

    def score() -> None:
        with torch.inference_mode():
            for _ in range(rounds):
                model(batch)

    report("score, in float32", timed(score)[1], rounds * BATCH)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and its CPU-seconds."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def report(what: str, seconds: float, images: int) -> None:
    print(f"{what:20}  {seconds / images * 1e3:.3f} CPU-ms per image ({images:,})", flush=True)


def peak() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
