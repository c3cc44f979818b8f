"""The preflight: what a run will do, and what is wrong with its data, printed before it starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnn import config, network
from cnn.config import TrainConfig, image_bytes
from cnn.dataset.census import Census
from cnn.errors import UserError
from cnn.manifest import Manifest, classes
from cnn.settings.schema import flag
from cnn.text.console import Console
from cnn.text.plural import counted, explained

MIB = 2**20

# Steps of the optimizer: the first has a learning rate of 0, and fewer hardly train the network.
FEWEST_STEPS = 20

# A confusion matrix of 4,000 classes is 145 MB of evaluation.json, and showing it takes 2 GB.
MOST_CLASSES = 5_000


def check_network(settings: config.Network, images: config.Images, manifest: Manifest) -> None:
    """Raise UserError if this network cannot be built, trained and evaluated for the images."""
    names = classes(manifest.table)
    if len(names) > MOST_CLASSES:
        raise UserError(
            f"{len(names):,} classes, but at most {MOST_CLASSES:,} are supported: give the folder "
            "whose subfolders are the classes"
        )
    built = network.build(settings, images.image_size, len(names))
    network.check(built, images.image_size)


@dataclass(frozen=True)
class Briefing:
    """What a run tells before it starts: a line each on data, network and plan, and warnings."""

    lines: Mapping[str, str]
    warnings: Sequence[str]


def describe(census: Census, settings: TrainConfig, plan: str, console: Console) -> Briefing:
    """Print the data, the network and the plan, a line each, then what is wrong with the data."""
    lines = {
        "data": data_line(census),
        "network": network_line(settings, len(census.counts)),
        "plan": plan_line(census, settings, plan),
    }
    for name, line in lines.items():
        console.say(f"{name:8} {line}")
    warnings = [
        *ignored_settings(settings),
        *too_short(census, settings),
        *one_sided(census, settings),
        *census.warnings(),
    ]
    for warning in warnings:
        console.say(f"warning  {warning}")
    return Briefing(lines, warnings)


def too_short(census: Census, settings: TrainConfig) -> list[str]:
    """A warning if there are too few steps to train the network."""
    train, training = census.split_sizes["train"], settings.training
    steps = training.epochs * (train // min(training.batch_size, train)) if train else 0
    if steps >= FEWEST_STEPS:
        return []
    return [
        f"{counted(steps, 'step')} in all, too few to train: give more --epochs, "
        "or a smaller --batch-size"
    ]


def one_sided(census: Census, settings: TrainConfig) -> list[str]:
    """A warning: with streaming, repeated images of a rare class fall into the same batch."""
    if settings.training.balance != "sampling" or in_memory(census, settings):
        return []
    return [
        "streamed images come shard by shard, so with --balance sampling a batch may repeat a few "
        "images of one class: give --balance loss, or more --memory"
    ]


def ignored_settings(settings: TrainConfig) -> list[str]:
    """A warning about settings that shape the cnn, if they are given for another network."""
    name = settings.network.network
    if name == "cnn":
        return []
    epochs = {"epochs": settings.training.epochs}
    usual = TrainConfig.model_validate({"images": settings.images, "training": epochs}).network
    given = [
        flag(field)
        for field in config.CNN_ONLY
        if getattr(settings.network, field) != getattr(usual, field)
    ]
    flags = ", ".join(sorted(given))
    return [f"{name} ignores {flags}: leave out settings of the cnn"] if given else []


def data_line(census: Census) -> str:
    """Images, classes and splits, and the files that are left out."""
    sizes = census.split_sizes
    unreadable = sum(census.unreadable.values())
    return (
        f"{census.images:,} images in {len(census.counts)} classes: {sizes['train']:,} train, "
        f"{sizes['validation']:,} validation, {sizes['test']:,} test; {unreadable:,} unreadable, "
        f"{census.duplicates:,} duplicates, {explained('ignored', census.ignored)}"
    )


def network_line(settings: TrainConfig, classes: int) -> str:
    """The output shape of each part, and the number of parameters."""
    image_size = settings.data.image_size
    built = network.build(settings.network, image_size, classes)
    parts = network.shapes(built, image_size)
    if len(parts) > 8:  # a torchvision model has too many parts for a line
        parts = [*parts[:1], "…", *parts[-2:]]
    name, count = settings.network.network, network.parameter_count(built)
    return f"{name}: {' → '.join(parts)}; {count:,} parameters"


def plan_line(census: Census, settings: TrainConfig, plan: str) -> str:
    """Workers, where the images come from, and the number of epochs."""
    where = "in memory" if in_memory(census, settings) else "streamed"
    size = f"{image_bytes(held(census), settings.data.image_size) / MIB:,.0f} MiB"
    return f"{plan}, images {where} ({size}), {counted(settings.training.epochs, 'epoch')}"


def held(census: Census) -> int:
    """The number of images used in every epoch: train and validation."""
    return census.split_sizes["train"] + census.split_sizes["validation"]


def in_memory(census: Census, settings: TrainConfig) -> bool:
    """Whether a worker keeps these images in memory."""
    return settings.resources.fits_in_memory(held(census), settings.data.image_size)
