"""A preparing run: from a folder of images to a prepared dataset, which other runs share."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from cnn.cluster import capacity, ingest, nodes
from cnn.cluster.progress import patiently
from cnn.cluster.session import session
from cnn.config import PrepareConfig
from cnn.dataset.prepared import Prepared
from cnn.dataset.source import Source, is_prepared, list_source, open_prepared, passing_faults
from cnn.errors import UserError, writing_to
from cnn.files.lock import InUse, locked
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
        return found(source, folder, console)
    with session(PREPARE_CPUS):
        require_cpus(console)
        nodes.require_shared_images(source.root)
        nodes.require_shared_folder(folder)
        with turn(folder, console):
            if is_prepared(source, folder):  # by the job that this one has waited for
                return found(source, folder, console)
            return decoded(source, folder, console)


def found(source: Source, folder: Place, console: Console) -> Prepared:
    """A dataset that exists; where its pixels are from, if that is not the given folder."""
    dataset = open_prepared(source, folder)
    origin = dataset.card.source
    # The key does not tell apart folders with files of the same names, sizes and times.
    other = "" if origin == source.root else f", prepared from {origin}"
    console.say(f"prepared {folder} exists{other}: nothing to decode")
    if source.prepared is None and (faults := passing_faults(dataset)):
        console.say(
            f"warning  some images could not be read when they were prepared "
            f"({by_reason(faults)}): remove {folder} to try them again"
        )
    return dataset


def decoded(source: Source, folder: Place, console: Console) -> Prepared:
    """The dataset, decoded now."""
    started = time.monotonic()
    with console.bar("decode", "images") as advance:
        dataset = patiently(lambda: ingest.prepare(source, folder, advance, console))
    seconds = time.monotonic() - started
    files = counted(source.manifest.table.num_rows, "file")
    console.say(f"prepared {files} in {seconds:.0f} s: {folder}")
    return dataset


@contextmanager
def turn(folder: Place, console: Console) -> Iterator[None]:
    """Keep other jobs from preparing into the folder; wait for one that does.

    Runs that share their images may start at once: the first decodes, the others use its work.
    """
    waiting = False
    with ExitStack() as work:
        while True:
            try:
                with writing_to(folder, "give another folder"):
                    folder.mkdir(parents=True, exist_ok=True)
                    work.enter_context(locked(folder))
                break
            except InUse:
                if not waiting:
                    console.say(f"waiting  for another job, which prepares {folder}")
                waiting = True
                time.sleep(1)
        yield


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
