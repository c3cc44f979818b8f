"""A preparing run: a folder of images to a prepared dataset, which other runs share."""

import time
from pathlib import Path

from cnn import digits
from cnn.cluster import ingest, nodes
from cnn.cluster.ingest import Source
from cnn.cluster.progress import patiently
from cnn.cluster.session import session
from cnn.config import Experiment, PrepareConfig
from cnn.console import Console
from cnn.place import Place, place
from cnn.prepared import Prepared
from cnn.run_folder import RunFolder

# One to decode with, and one that Ray Data keeps free for what consumes the blocks.
PREPARE_CPUS = 2


def prepare(settings: PrepareConfig, console: Console) -> None:
    """Decode a folder of images once, into a prepared dataset."""
    folder = place(settings.out).absolute()
    nodes.require_lasting(folder)
    dataset = ensure_prepared(ingest.list_source(settings.images, settings.data), folder, console)
    table = dataset.manifest.table
    unreadable = table.num_rows - table["error"].null_count
    console.result(
        f"{table.num_rows:,} images in {len(dataset.classes)} classes, {unreadable:,} unreadable"
    )
    console.result(f"wrote {settings.out}")


def ensure_prepared(source: Source, folder: Place, console: Console) -> Prepared:
    """The prepared dataset in `folder`, decoded now if it is not there yet."""
    if ingest.is_prepared(source, folder):
        console.say(f"prepared {folder} is there: nothing to decode")
        return Prepared.open(folder)
    files = source.manifest.table.num_rows
    with session(PREPARE_CPUS), console.bar("decode", "images") as advance:
        nodes.require_shared_images(source.root)
        nodes.require_shared_folder(folder)
        started = time.monotonic()
        dataset = patiently(lambda: ingest.prepare(source, folder, advance, console))
    seconds = time.monotonic() - started
    console.say(f"prepared {files} images in {seconds:.0f} s: {folder}")
    return dataset


def require_lasting(settings: Experiment, run: RunFolder) -> None:
    """Mendable where a submitted job would write what Ray removes."""
    nodes.require_lasting(run.path)
    if settings.prepared is not None:
        nodes.require_lasting(place(settings.prepared), "--prepared")


def default_out(images: str | None) -> str:
    """`runs/` and the images' name."""
    return f"runs/{Path(images).resolve().name if images else 'digits'}"


def find_source(settings: Experiment, run: RunFolder) -> Source:
    """The images to train on: the folder given, a prepared dataset, or the embedded digits."""
    if settings.images is None:
        folder = digits.write(run.path.parent / "digits-images")
        return ingest.list_source(str(folder), settings.data)
    if ingest.is_prepared_dataset(settings.images):
        return ingest.reuse(place(settings.images), settings.data)
    return ingest.list_source(settings.images, settings.data)


def prepared_folder(source: Source, settings: Experiment, run: RunFolder) -> Place:
    """Where the prepared dataset of `source` is or will be: one for all runs that can share it.

    Absolute, because Ray's workers have working directories of their own.
    """
    if source.prepared is not None:
        return source.prepared.absolute()
    parent = place(settings.prepared) if settings.prepared else run.path.parent / "prepared"
    return parent.absolute() / source.key
