"""Scoring: CPU-seconds per image against a plain loop, and memory at ten times the images.

    python -m tests.benchmarks.scoring MODEL IMAGES [--images 10000] [--rounds 2]

The time per image is the difference between two sizes, so that no set-up is in it. The images are
hard links of those in IMAGES, as often as it takes.
"""

import argparse
import itertools
import os
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.processes import Usage, measure

PLAIN = """
import sys, torch
from pathlib import Path
from cnn import bundle
from cnn.image import decode
import numpy as np

torch.set_num_threads(1)
model = bundle.load(bundle.find(Path(sys.argv[1])))
files = sorted(Path(sys.argv[2]).rglob("*.*"))
for start in range(0, len(files), 128):
    images = [decode(f.read_bytes(), model.card.image_size, model.card.fit)
              for f in files[start : start + 128]]
    model.predict(bundle.as_batch(np.stack(images))).max(dim=1)
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("--images", dest="count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="also ten times as many images")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.images.resolve().parent) as folder:
        compare(asked, Path(folder))


def compare(asked: argparse.Namespace, folder: Path) -> None:
    small, large = asked.count // 5, asked.count
    few, many = (links(asked.images, folder / str(n), n) for n in (small, large))
    for number in range(asked.rounds):
        costs = {}
        for name, run in (("plain", plain), ("score", score)):
            less, more = (run(asked.model, images, folder) for images in (few, many))
            costs[name] = (more.cpu_seconds - less.cpu_seconds) / (large - small)
            print(
                f"{name}  {costs[name] * 1e3:.3f} CPU-ms per image, {more.wall:.0f} s wall and "
                f"{more.cpu_seconds:.0f} CPU-s for {large:,}",
                flush=True,
            )
        print(f"round {number + 1}: score / plain = {costs['score'] / costs['plain']:.3f}")
    if asked.memory:
        compare_memory(asked, folder, many, links(asked.images, folder / "ten", 10 * large))


def compare_memory(asked: argparse.Namespace, folder: Path, few: Path, many: Path) -> None:
    """Peaks of the driver and of the largest worker, for `few` and for ten times as many."""
    small, large = (score(asked.model, images, folder, memory=True) for images in (few, many))
    for usage, times in ((small, 1), (large, 10)):
        per_image = usage.cpu_seconds / (times * asked.count) * 1e3
        print(f"{times * asked.count:,} images: {per_image:.3f} CPU-ms per image, set-up included")
    for title, wanted in (("driver", "python"), ("worker", "ray::")):
        peaks = [
            max(v for pid, v in usage.memory.items() if usage.names[pid].startswith(wanted))
            for usage in (small, large)
        ]
        print(
            f"{title}  {peaks[0] >> 20} MiB, ten times the images {peaks[1] >> 20} MiB: "
            f"{peaks[1] / peaks[0]:.2f}"
        )


def plain(model: str, images: Path, folder: Path) -> Usage:
    return measure("-c", PLAIN, model, images)


def score(model: str, images: Path, folder: Path, memory: bool = False) -> Usage:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        job = ("-m", "jobs.score", model, images, "--out", Path(out) / "run")
        return measure(*job, memory=memory)


def links(source: Path, folder: Path, count: int) -> Path:
    """A folder of so many hard links to the files of `source`, a hundred folders deep."""
    files = sorted(file for file in source.rglob("*") if file.is_file())
    if not files:
        sys.exit(f"no files in {source}")
    for number, file in zip(range(count), itertools.cycle(files), strict=False):
        place = folder / f"{number % 100:02d}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(file, place / f"{number}{file.suffix}")
    return folder


if __name__ == "__main__":
    main()
