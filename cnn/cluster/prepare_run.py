"""A preparing run: from a folder of images to a prepared dataset, which other runs share."""

import time

from cnn.cluster import capacity, ingest, nodes
from cnn.cluster.progress import patiently
from cnn.cluster.session import session
from cnn.config import PrepareConfig
from cnn.dataset.prepared import Prepared
from cnn.dataset.source import Source, is_prepared, list_source, open_prepared, passing_faults
from cnn.errors import UserError
from cnn.files.place import Place, place
from cnn.text.console import Console
from cnn.text.plural import by_reason, counted, explained

# One to decode, and one that Ray Data keeps free for the consumer of the blocks.
PREPARE_CPUS = 2


def prepare(settings: PrepareConfig, console: Console) -> None:
    """Decode a folder of images once, into a prepared dataset."""
    folder = place(settings.out).absolute()
    nodes.require_lasting(folder)
    dataset = ensure_prepared(list_source(settings.images, settings.data), folder, console)
    manifest, errors = dataset.manifest, dataset.manifest.errors()
    console.result(
        f"{manifest.table.num_rows - sum(errors.values()):,} images in "
        f"{len(dataset.classes)} classes, "
        f"{explained('unreadable', errors)}, {explained('ignored', manifest.ignored)}"
    )
    console.result(f"wrote {settings.out}")


def ensure_prepared(source: Source, folder: Place, console: Console) -> Prepared:
    """The prepared dataset in `folder`, decoded now if it does not exist yet."""
    if is_prepared(source, folder):
        console.say(f"prepared {folder} exists: nothing to decode")
        dataset = open_prepared(source, folder)
        if source.prepared is None and (faults := passing_faults(dataset)):
            console.say(
                f"warning  some images could not be read when they were prepared "
                f"({by_reason(faults)}): remove {folder} to try them again"
            )
        return dataset
    files = source.manifest.table.num_rows
    with session(PREPARE_CPUS), console.bar("decode", "images") as advance:
        require_cpus(console)
        nodes.require_shared_images(source.root)
        nodes.require_shared_folder(folder)
        started = time.monotonic()
        dataset = patiently(lambda: ingest.prepare(source, folder, advance, console))
    seconds = time.monotonic() - started
    console.say(f"prepared {counted(files, 'file')} in {seconds:.0f} s: {folder}")
    return dataset


def shared_dataset(source: Source, folder: Place, console: Console) -> Prepared:
    """The same, for workers on all nodes; UserError if one of these cannot see the folder."""
    dataset = ensure_prepared(source, folder, console)
    nodes.require_shared_dataset(dataset.folder)
    return dataset


def require_cpus(console: Console) -> None:
    """Wait for a CPU to decode on; UserError if there will be none: Ray would wait for ever."""
    if not capacity.obtain([{"CPU": 1}], console):
        raise UserError(
            f"to decode images takes a CPU, and the cluster has none: {capacity.TOO_SMALL}"
        )
