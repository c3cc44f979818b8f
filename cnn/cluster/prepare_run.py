"""A preparing run: a folder of images to a prepared dataset, which other runs share."""

import time
from pathlib import Path

from cnn.cluster import ingest, resources
from cnn.cluster.ingest import Source
from cnn.cluster.session import session
from cnn.config import PrepareConfig
from cnn.console import Console
from cnn.prepared import Prepared
from cnn.run_folder import local


def prepare(settings: PrepareConfig, console: Console) -> None:
    """Decode a folder of images once, into a prepared dataset."""
    folder = local(settings.out).absolute()
    dataset = ensure_prepared(ingest.list_source(settings.images, settings.data), folder, console)
    console.result(f"{dataset.manifest.table.num_rows} images in {len(dataset.classes)} classes")
    console.result(f"wrote {settings.out}")


def ensure_prepared(source: Source, folder: Path, console: Console) -> Prepared:
    """The prepared dataset in `folder`, decoded now if it is not there yet."""
    if ingest.is_prepared(source, folder):
        console.say(f"prepared {folder} is there: nothing to decode")
        return Prepared.open(folder)
    files = source.manifest.table.num_rows
    with session(resources.PREPARE_CPUS), console.bar("decode", "images") as advance:
        started = time.monotonic()
        dataset = ingest.prepare(source, folder, advance)
    seconds = time.monotonic() - started
    console.say(f"prepared {files} images in {seconds:.0f} s: {folder}")
    return dataset
