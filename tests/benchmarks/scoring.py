"""Scoring on a warm Ray: CPU-seconds per image against a plain loop; memory at ten times.

    python -m tests.benchmarks.scoring MODEL IMAGES [--images 6000] [--rounds 5]

The CPU-seconds are those of this process, of Ray's workers and of its services, and include writing
the predictions. The time per image is the difference between two sizes, without the start of the
workers that hold the model. The images are hard links to those in IMAGES, repeated as needed.
"""

import argparse
import itertools
import os
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch

from cnn import bundle
from cnn.bundle import Bundle
from cnn.cluster import score_run
from cnn.cluster.session import session
from cnn.config import ScoreConfig
from cnn.image import decode
from cnn.scoring.scoring_job import ScoringJob
from cnn.text.console import Console
from tests.benchmarks.processes import Spent, Usage, measure, metered

BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--images", dest="count", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="also ten times as many images")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=asked.images.resolve().parent) as folder:
        place = Path(folder)
        few, many = (
            links(asked.images, place / str(n), n) for n in (asked.count // 5, asked.count)
        )
        if asked.rounds:
            compare(asked, few, many, place)
        if asked.memory:
            compare_memory(asked, place, many, links(asked.images, place / "ten", 10 * asked.count))


def compare(asked: argparse.Namespace, few: Path, many: Path, folder: Path) -> None:
    """Both in turn, several times."""
    images, ratios = asked.count - asked.count // 5, []
    model = bundle.load(bundle.find(asked.model))
    with session(len(os.sched_getaffinity(0))):
        score(asked.model, few, folder / "warm")  # the workers that decode start and import
        for number in range(asked.rounds):
            less, more = (score(asked.model, x, folder / f"{x.name}-{number}") for x in (few, many))
            ours, rest = more.all - less.all, more.all - more.work - (less.all - less.work)
            plain = loop(model, many) - loop(model, few)
            ratios.append(ours / plain)
            print(f"score  {ours / images * 1e3:.3f} CPU-ms per image, Ray's services {rest:.1f} s")
            print(f"       {less}; {more}")
            print(f"plain  {plain / images * 1e3:.3f} CPU-ms per image")
            print(f"round {number + 1}: score / plain = {ratios[-1]:.3f}", flush=True)
    print(f"scoring / plain loop, median: {median(ratios):.3f}")


def score(model: Path, images: Path, out: Path) -> Spent:
    """What a scoring run does between its plan and its report."""
    settings = ScoreConfig(model=str(model), images=(str(images),), out=str(out))
    job = begun(settings)
    with metered() as spent:
        score_run.score_missing(job, Console())
    return spent


def begun(settings: ScoreConfig) -> ScoringJob:
    """A run that has scored nothing yet."""
    job = score_run.list_work(settings, bundle.load(bundle.find(Path(settings.model))))
    with job.run.begun(settings, job.work.manifest):
        job.run.begin_with(job.work.manifest, "")
    return job


def loop(model: Bundle, images: Path) -> float:
    """CPU-seconds of one process without Ray: the same decoder and network, batch by batch."""
    card, files = model.card, sorted(images.rglob("*.*"))
    with metered() as spent:
        for start in range(0, len(files), BATCH):
            read = (file.read_bytes() for file in files[start : start + BATCH])
            pixels = np.stack([decode(data, card.image_size, card.fit) for data in read])
            model.predict(bundle.as_batch(pixels)).max(dim=1)
    return spent.driver


def compare_memory(asked: argparse.Namespace, folder: Path, few: Path, many: Path) -> None:
    """Peaks of the driver and of the largest worker, for `few` and for ten times as many."""
    small, large = (whole(asked.model, images, folder) for images in (few, many))
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


def whole(model: Path, images: Path, folder: Path) -> Usage:
    """What the whole command uses, including its start."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        job = ("-m", "jobs.score", model, images, "--out", Path(out) / "run")
        return measure(*job, memory=True)


def links(source: Path, folder: Path, count: int) -> Path:
    """A folder of `count` hard links to the files of `source`, in up to a hundred folders."""
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
