"""What a run is going to do, told before it does it."""

import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import local

import torch

from cnn import config, network, optim
from cnn.census import Census
from cnn.config import TrainConfig
from cnn.console import Console, clock
from cnn.decoding import decoder
from cnn.errors import Mendable
from cnn.folder import Reader
from cnn.loop import Loop, State, Sums, growth_of
from cnn.machine import cores
from cnn.manifest import Manifest, classes
from cnn.plural import counted
from cnn.prepared import prepare_image
from cnn.recording import first_calls

TIMED_STEPS = 5
MIB = 2**20

# Of the optimizer: the first has a rate of 0, and with fewer the network is about as it began.
FEWEST_STEPS = 20

# A confusion matrix of 4,000 classes is 145 MB of evaluation.json, and takes 2 GB to be shown.
MOST_CLASSES = 5_000

# Images that are handed to threads at once: each is 2 KB of the driver's memory until it is read.
AT_ONCE = 4096


def check_network(settings: config.Network, images: config.Images, manifest: Manifest) -> None:
    """Mendable where no such network can be built, trained and judged for the images."""
    names = classes(manifest.table)
    if len(names) > MOST_CLASSES:
        raise Mendable(
            f"{len(names):,} classes, and {MOST_CLASSES:,} at most can be judged: is each folder "
            "of images a class? Name the folder above those that are"
        )
    built = network.build(settings, images.image_size, len(names))
    network.check(built, images.image_size)


def describe(
    census: Census, settings: TrainConfig, image_size: int, workers: str, console: Console
) -> dict[str, str]:
    """Print the data, the network and the plan, a line each, then what is wrong with the data.

    Returns the three lines by name, for the report.
    """
    lines = {
        "data": data_line(census),
        "network": network_line(settings.network, image_size, len(census.counts)),
        "plan": plan_line(census, settings, image_size, workers),
    }
    for name, line in lines.items():
        console.say(f"{name:8} {line}")
    warnings = (
        *idle(settings),
        *too_short(census, settings),
        *one_sided(census, settings, image_size),
        *census.warnings(),
    )
    for warning in warnings:
        console.say(f"warning  {warning}")
    return lines


def too_short(census: Census, settings: TrainConfig) -> list[str]:
    """A line where there are so few steps that most of them only warm up."""
    train, training = census.split_sizes["train"], settings.training
    steps = training.epochs * (train // min(training.batch_size, train)) if train else 0
    if steps >= FEWEST_STEPS:
        return []
    return [
        f"{counted(steps, 'step')} in all can teach little: give more --epochs, "
        "or a smaller --batch-size"
    ]


def one_sided(census: Census, settings: TrainConfig, image_size: int) -> list[str]:
    """A line where what is drawn again and again of a rare class comes one after another."""
    if settings.training.balance != "sampling" or in_memory(census, settings, image_size):
        return []
    return [
        "images that are streamed come shard by shard, so with --balance sampling batches may be "
        "of few images and one class: give --balance loss, or more --memory"
    ]


def idle(settings: TrainConfig) -> list[str]:
    """A line about the settings of the cnn's shape that were given for another network."""
    name = settings.network.network
    if name == "cnn":
        return []
    epochs = {"epochs": settings.training.epochs}
    usual = TrainConfig.model_validate({"images": settings.images, "training": epochs}).network
    given = [
        f"--{field.replace('_', '-')}"
        for field in config.Network.model_fields.keys() - {"network", "weights"}
        if getattr(settings.network, field) != getattr(usual, field)
    ]
    shape = "shapes" if len(given) == 1 else "shape"
    return [f"{', '.join(sorted(given))} {shape} the cnn, and {name} is as it is"] if given else []


def data_line(census: Census) -> str:
    """Images, classes, splits, and what is not among them."""
    sizes = census.split_sizes
    unreadable, ignored = sum(census.unreadable.values()), sum(census.ignored.values())
    reasons = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in census.ignored.items())
    return (
        f"{census.images:,} images in {len(census.counts)} classes: {sizes['train']:,} train, "
        f"{sizes['validation']:,} validation, {sizes['test']:,} test; {unreadable:,} unreadable, "
        f"{census.duplicates:,} duplicates, {ignored:,} ignored"
        + (f" ({reasons})" if reasons else "")
    )


def network_line(settings: config.Network, image_size: int, classes: int) -> str:
    """Shapes from part to part, and the count of parameters."""
    built = network.build(settings, image_size, classes)
    parts = network.shapes(built, image_size)
    if len(parts) > 8:  # a torchvision model has too many parts for a line
        parts = [*parts[:1], "…", *parts[-2:]]
    return f"{settings.network}: {' → '.join(parts)}; {network.parameter_count(built):,} parameters"


def plan_line(census: Census, settings: TrainConfig, image_size: int, workers: str) -> str:
    """Workers, where the images come from, and how long they are looked at."""
    where = "in memory" if in_memory(census, settings, image_size) else "streamed"
    size = f"{held(census) * 3 * image_size**2 / MIB:,.0f} MiB"
    return f"{workers}, images {where} ({size}), {counted(settings.training.epochs, 'epoch')}"


def held(census: Census) -> int:
    """Images that a worker looks at every epoch."""
    return census.split_sizes["train"] + census.split_sizes["validation"]


def in_memory(census: Census, settings: TrainConfig, image_size: int) -> bool:
    """Whether it keeps them."""
    return settings.resources.hold(held(census), image_size)


def read_all(root: str, manifest: Manifest, images: config.Images, console: Console) -> Manifest:
    """The manifest after reading and decoding every file here and now; nothing is written."""
    read = Reader(root)

    mine = local()

    def begin() -> None:
        mine.decode = decoders.enter_context(decoder(careful=True))

    def look(path: str, error: str | None) -> tuple[str | None, str | None]:
        size, fit = images.image_size, images.fit
        content_hash, error, _ = prepare_image(path, error, read, size, fit, mine.decode)
        return content_hash, error

    paths, errors = (manifest.table[name].to_pylist() for name in ("path", "error"))
    found: list[tuple[str | None, str | None]] = []
    # A thread's decoder is a process: a file may crash it. So a thread for each CPU does.
    with (
        console.bar("read", "images") as advance,
        ExitStack() as decoders,
        ThreadPoolExecutor(cores(), initializer=begin) as pool,
    ):
        for start in range(0, len(paths), AT_ONCE):
            chunk = slice(start, start + AT_ONCE)
            for result in pool.map(look, paths[chunk], errors[chunk]):
                found.append(result)
                advance(len(found), len(paths))
    content_hashes, reasons = zip(*found, strict=True)
    return manifest.with_contents(content_hashes, reasons)


def class_table(census: Census, console: Console) -> None:
    """Images per class and split, and what was not readable, by reason."""
    width = max(len(name) for name in census.counts)
    console.say(f"{'class':{width}}  {'train':>8}  {'validation':>10}  {'test':>8}")
    for name, row in census.counts.items():
        counts = f"{row['train']:8,}  {row['validation']:10,}  {row['test']:8,}"
        console.say(f"{name:{width}}  {counts}")
    for reason, count in (census.unreadable | census.leaks | census.ignored).items():
        console.say(f"{count:,} {reason}")
    console.say(f"{census.duplicates:,} duplicates, {len(census.conflicts):,} label conflicts")
    console.say(f"largest class has {census.imbalance:.1f} times the images of the smallest")


def estimate(
    census: Census, settings: TrainConfig, image_size: int, gpu: bool, console: Console
) -> None:
    """The disk needed, and the time that training takes by a few timed steps, if it can be told.

    On a cluster a job runs on a machine of its own, which may have none of the GPUs.
    """
    files = census.images + sum(census.leaks.values())
    disk = files * 3 * image_size**2
    epochs, train = settings.training.epochs, census.split_sizes["train"]
    steps = train // min(settings.training.batch_size, train) if train else 0
    work = f"{counted(epochs, 'epoch')} of {counted(steps, 'step')}"
    console.say(f"disk     {disk / MIB:,.0f} MiB for the prepared images")
    if gpu and not torch.cuda.is_available():
        console.say(f"time     {work}: untimed, no GPU is in this machine")
        return
    device = torch.device("cuda" if gpu else "cpu")
    seconds = mean_step(settings, image_size, len(census.counts), device)
    console.say(
        f"time     about {clock(seconds * steps * epochs)} for {work}, "
        f"{seconds * 1000:.0f} ms each on one worker here"
    )


def mean_step(settings: TrainConfig, image_size: int, classes: int, device: torch.device) -> float:
    """The seconds of one training step, the mean over all epochs: early images are smaller."""
    built = network.build(settings.network, image_size, classes).to(device)
    epochs = settings.training.epochs
    state = State(built, built, optim.optimizer(built, settings.training), epochs)
    growth = growth_of(state, settings.training)
    seconds = 0.0
    for side, times in Counter(growth.side(n + 1, epochs) for n in range(epochs)).items():
        network.scale_of(built).look_at(side)
        seconds += times / epochs * timed_step(settings, state, classes, device)
    return seconds


def timed_step(settings: TrainConfig, state: State, classes: int, device: torch.device) -> float:
    """The seconds of one training step, the median of a few after the first ones."""
    loop = Loop(settings.training, device, settings.seed)
    side = network.scale_of(state.network).image_size
    size = (settings.training.batch_size, 3, side, side)
    images = torch.randint(0, 256, size, dtype=torch.uint8, device=device)
    labels = torch.randint(0, classes, size[:1], device=device)
    times = []
    for _ in range(first_calls(device) + TIMED_STEPS):
        sums, started = Sums.zero(device), time.perf_counter()
        loop.step(state, images, labels, settings.training.lr, sums)
        sums.totals.cpu()  # waits for the device
        times.append(time.perf_counter() - started)
    return statistics.median(times[-TIMED_STEPS:])
