"""What a run is going to do, told before it does it."""

import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import torch

from cnn import config, network, optim
from cnn.census import Census, take_census
from cnn.config import TrainConfig
from cnn.console import Console, clock
from cnn.folder import Reader
from cnn.loop import Loop, State, Sums, has_bfloat16
from cnn.manifest import Manifest, assign_splits, classes
from cnn.prepared import Prepared, prepare_image

TIMED_STEPS = 5
MIB = 2**20


def check_network(settings: config.Network, images: config.Images, manifest: Manifest) -> None:
    """Raise NetworkError where no such network can be built for the images."""
    network.build(settings, images.image_size, len(classes(manifest.table)))


def describe(
    census: Census, settings: TrainConfig, image_size: int, workers: str, console: Console
) -> None:
    """The data, the network and the plan, a line each; then what is wrong with the data."""
    console.say(f"data     {data_line(census)}")
    console.say(f"network  {network_line(settings.network, image_size, len(census.counts))}")
    console.say(f"plan     {plan_line(census, settings, image_size, workers)}")
    for warning in census.warnings():
        console.say(f"warning  {warning}")


def data_line(census: Census) -> str:
    """Images, classes, splits, and what is not among them."""
    sizes = census.split_sizes
    unreadable, ignored = sum(census.unreadable.values()), sum(census.ignored.values())
    return (
        f"{census.images:,} images in {len(census.counts)} classes: {sizes['train']:,} train, "
        f"{sizes['validation']:,} validation, {sizes['test']:,} test; {unreadable:,} unreadable, "
        f"{census.duplicates:,} duplicates, {ignored:,} ignored"
    )


def network_line(settings: config.Network, image_size: int, classes: int) -> str:
    """Shapes from part to part, and the count of parameters."""
    built = network.build(settings, image_size, classes)
    parts = network.shapes(built, image_size)
    if len(parts) > 8:  # a torchvision model has too many parts for a line
        parts = [*parts[:1], "…", *parts[-2:]]
    return f"{settings.network}: {' → '.join(parts)}; {network.parameter_count(built):,} parameters"


def plan_line(census: Census, settings: TrainConfig, image_size: int, workers: str) -> str:
    """Workers, where the images come from, and the arithmetic."""
    held = (census.split_sizes["train"] + census.split_sizes["validation"]) * 3 * image_size**2
    path = "in memory" if held <= settings.resources.memory_bytes else "streamed"
    return f"{workers}, images {path} ({held / MIB:,.0f} MiB), {settings.training.epochs} epochs"


def examine(source_root: str, manifest: Manifest, settings: TrainConfig, console: Console) -> Manifest:
    """The manifest after reading every file here and now, with nothing written."""
    rows = manifest.table.select(["path", "error"]).to_pylist()
    read = Reader(source_root)

    def look(row: dict[str, str | None]) -> tuple[str | None, str | None]:
        digest, error, _ = prepare_image(
            row["path"] or "", row["error"], read, settings.data.image_size, settings.data.fit
        )
        return digest, error

    found: list[tuple[str | None, str | None]] = []
    with console.bar("read") as advance, ThreadPoolExecutor() as pool:
        for result in pool.map(look, rows):
            found.append(result)
            advance(len(found), len(rows))
    return manifest.with_contents(*zip(*found, strict=True))
