"""Preparing on a warm Ray: CPU-seconds per image against a plain loop that writes the same shards.

    python -m tests.benchmarks.preparing IMAGES [--image-size 64] [--images 20000] [--rounds 3]

The images are hard links to those in IMAGES, repeated as needed.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from cnn.cluster import ingest
from cnn.cluster.prepare_run import PREPARE_CPUS
from cnn.cluster.session import session
from cnn.config import Images
from cnn.dataset import prepared
from cnn.dataset.source import Source, list_source
from cnn.files.reader import Reader
from cnn.image import decode
from cnn.text.console import Console
from tests.benchmarks.processes import metered
from tests.benchmarks.scoring import links


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", dest="count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    beside = asked.images.resolve().parent
    with tempfile.TemporaryDirectory(dir=beside) as place, session(PREPARE_CPUS):
        folder = Path(place)
        images = links(asked.images, folder / "images", asked.count)
        source = list_source(str(images), Images(image_size=asked.image_size))
        prepare(source, folder / "warm")  # the workers start and import
        compare(source, folder, asked.rounds)


def compare(source: Source, folder: Path, rounds: int) -> None:
    """Both in turn, several times."""
    images, ratios = source.manifest.table.num_rows, []
    for number in range(rounds):
        with metered() as ours:
            prepare(source, folder / f"ours{number}")
        with metered() as plain:
            loop(source, folder / f"plain{number}")
        ratios.append(ours.work / plain.driver)
        print(f"prepare  {ours.work / images * 1e3:.3f} CPU-ms per image: {ours}")
        print(f"plain    {plain.driver / images * 1e3:.3f} CPU-ms per image: {plain}")
        print(f"round {number + 1}: prepare / plain = {ratios[-1]:.3f}", flush=True)
    print(f"preparing / plain loop, median: {median(ratios):.3f}")


def prepare(source: Source, folder: Path) -> None:
    ingest.prepare(source, folder, lambda done, total: None, Console())


def loop(source: Source, folder: Path) -> None:
    """What one process does without Ray: the same reader, decoder and shards, one by one."""
    (folder / prepared.SHARDS).mkdir(parents=True)
    size, read = source.settings.image_size, Reader(source.root)
    fitted = partial(decode, size=size, fit=source.settings.fit)
    for number, rows in enumerate(prepared.cut(source.manifest.table, size)):
        file = prepared.shard_file(folder, number)
        prepared.write_shard(file, rows, read, fitted)


if __name__ == "__main__":
    main()
