"""The dry run: every image decoded and counted, a few training steps timed.

Nothing is written but the embedded digits, which are unpacked when they are listed.
"""

import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import local

import torch

from cnn import config, network, optim
from cnn.config import TrainConfig, image_bytes
from cnn.dataset.census import NAMED, Census
from cnn.dataset.decoding import decoder
from cnn.dataset.prepared import prepare_image
from cnn.files.reader import Reader
from cnn.loop import Loop, State, progressive_of
from cnn.machine import cores
from cnn.manifest import Manifest
from cnn.runs.preflight import MIB
from cnn.text.console import Console
from cnn.text.duration import clock
from cnn.text.plural import by_reason, counted
from cnn.training.cuda_graph import calls_to_warm_up

TIMED_STEPS = 5

# Images queued for the threads at once: each takes 2 KB of the driver's memory until it is read.
AT_ONCE = 4096


def read_all(root: str, manifest: Manifest, images: config.Images, console: Console) -> Manifest:
    """The manifest after reading and decoding every file on this machine."""
    read = Reader(root)

    mine = local()

    def begin() -> None:
        mine.decode = decoders.enter_context(decoder(images.image_size, images.fit, isolated=True))

    def look(path: str, error: str | None) -> tuple[str | None, str | None]:
        content_hash, error, _ = prepare_image(path, error, read, mine.decode)
        return content_hash, error

    paths, errors = (manifest.table[name].to_pylist() for name in ("path", "error"))
    found: list[tuple[str | None, str | None]] = []
    # Each thread decodes in a subprocess, as a file may crash it, so one thread per CPU is enough.
    with (
        console.bar("read", "images") as advance,
        ExitStack() as decoders,
        ThreadPoolExecutor(cores(), initializer=begin) as pool,
    ):
        try:
            for start in range(0, len(paths), AT_ONCE):
                chunk = slice(start, start + AT_ONCE)
                for result in pool.map(look, paths[chunk], errors[chunk]):
                    found.append(result)
                    advance(len(found), len(paths))
        except BaseException:  # Ctrl-C: a file may hang its decoder, which nobody waits for then
            pool.shutdown(wait=False, cancel_futures=True)
            decoders.close()
            raise
    content_hashes, reasons = zip(*found, strict=True)
    return manifest.with_contents(content_hashes, reasons)


def class_table(census: Census, manifest: Manifest, console: Console) -> None:
    """Print the images per class and split, the files left out by reason, and the first by name."""
    width = max(len(name) for name in census.counts)
    console.say(f"{'class':{width}}  {'train':>8}  {'validation':>10}  {'test':>8}")
    for name, row in census.counts.items():
        counts = f"{row['train']:8,}  {row['validation']:10,}  {row['test']:8,}"
        console.say(f"{name:{width}}  {counts}")
    for reason, count in (census.unreadable | census.leaks | census.ignored).items():
        console.say(by_reason({reason: count}))
    for path, error in manifest.unreadable()[:NAMED]:
        console.say(f"  {error.replace('_', ' ')}: {path}")
    console.say(f"{census.duplicates:,} duplicates, {len(census.conflicts):,} label conflicts")
    console.say(f"largest class has {census.imbalance:.1f} times the images of the smallest")


def estimate(census: Census, settings: TrainConfig, gpu: bool, console: Console) -> None:
    """Print the disk space needed, and the training time, estimated from a few timed steps.

    If training uses GPUs and this machine has none (a cluster's head, say), no step is timed.
    """
    files = census.images + sum(census.leaks.values())
    disk = image_bytes(files, settings.data.image_size)
    epochs, train = settings.training.epochs, census.split_sizes["train"]
    # As training does: a batch has at most all images. Two, for batch norm, if there are fewer.
    batch_size = max(2, min(settings.training.batch_size, train))
    training = settings.training.model_copy(update={"batch_size": batch_size})
    settings, steps = settings.model_copy(update={"training": training}), train // batch_size
    work = f"{counted(epochs, 'epoch')} of {counted(steps, 'step')}"
    console.say(f"disk     {disk / MIB:,.0f} MiB for the prepared images")
    if gpu and not torch.cuda.is_available():
        console.say(f"time     {work}: not timed, because this machine has no GPU")
        return
    device = torch.device("cuda" if gpu else "cpu")
    seconds = mean_step(settings, len(census.counts), device)
    console.say(
        f"time     about {clock(seconds * steps * epochs)} for {work}, "
        f"{seconds * 1000:.0f} ms each on one worker here"
    )


def mean_step(settings: TrainConfig, classes: int, device: torch.device) -> float:
    """Seconds per training step, the mean over all epochs: early epochs see smaller images."""
    built = network.build(settings.network, settings.data.image_size, classes).to(device)
    epochs = settings.training.epochs
    state = State(built, built, optim.optimizer(built, settings.training), epochs)
    resizing = progressive_of(state, settings.training)
    seconds = 0.0
    for side, times in Counter(resizing.side(n + 1, epochs) for n in range(epochs)).items():
        network.scale_of(built).resize_to(side)
        seconds += times / epochs * timed_step(settings, state, classes, device)
    return seconds


def timed_step(settings: TrainConfig, state: State, classes: int, device: torch.device) -> float:
    """Seconds per training step, the median of a few after the warm-up."""
    loop = Loop(settings.training, device, settings.seed)
    side = network.scale_of(state.network).image_size
    size = (settings.training.batch_size, 3, side, side)
    images = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    labels = torch.randint(0, classes, size[:1], device=device)
    times = []
    for _ in range(calls_to_warm_up(device) + TIMED_STEPS):
        started = time.perf_counter()
        loop.step(state, images, labels, settings.training.lr).cpu()  # waits for the device
        times.append(time.perf_counter() - started)
    return statistics.median(times[-TIMED_STEPS:])
