"""The checkpoints of a run or a trial, as Ray Train and Tune keep them in a folder.

What is there is read from the folder and not from Ray's record: a kill may have kept Ray from
recording the last one, or Ray may have removed one that its record still names.
"""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import ray.train
from pyarrow.fs import FileSystem, LocalFileSystem

from cnn.bundle import Card
from cnn.errors import UserError
from cnn.files.atomic import remove_drafts
from cnn.files.place import Place
from cnn.loop import State
from cnn.training import checkpoint

CHECKPOINTS = "checkpoints"  # the folder of a training run's
EPOCH = "epoch-"  # how the names of a training run's begin
TRIAL = "checkpoint_"  # how Tune begins the names of a trial's

# Ray Train's record of a run's checkpoints. It is not written atomically: a kill may truncate it.
SNAPSHOT = "checkpoint_manager_snapshot.json"


def storage(folder: Place) -> tuple[str, FileSystem | None]:
    """A folder as Ray Train and Tune take it: path, and file system (None for a local folder)."""
    if isinstance(folder, Path):
        return str(folder.resolve()), None
    return folder.path, folder.filesystem


def as_checkpoint(folder: Place) -> ray.train.Checkpoint:
    """A folder as Ray's checkpoint, which Ray can copy to this machine."""
    path, filesystem = storage(folder)
    return ray.train.Checkpoint(path, filesystem or LocalFileSystem())


def epoch_name(epoch: int) -> str:
    """The name of an epoch's checkpoint folder; names of equal length sort by epoch."""
    return f"{EPOCH}{epoch:04d}"


def kept(folder: Place, prefix: str = EPOCH) -> list[Place]:
    """The checkpoints below a folder, in the order of their epochs; none if there is no folder."""
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if entry.name.startswith(prefix)]
    return sorted(found, key=lambda entry: (len(entry.name), entry.name))


def restore(state: State, checkpoints: Sequence[Place]) -> UserError | None:
    """Load the last whole one of these checkpoints into `state`.

    Returns the error of the last of them if all are damaged: what that means, the caller decides.
    """
    damage: list[UserError] = []
    for one in reversed(checkpoints):
        with as_checkpoint(one).as_directory() as local:
            try:
                checkpoint.load(Path(local), state, one)
                return None
            except UserError as error:
                damage.append(error)
    return damage[0] if damage else None


@contextmanager
def written(state: State, card: Card) -> Iterator[str]:
    """The folder of a new checkpoint, which is gone after the `with` block: report it in there."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder), state, card)
        yield folder


def discard_half_written(folder: Place) -> None:
    """Remove what a kill may have left half written here; the whole checkpoints suffice."""
    snapshot = folder / SNAPSHOT
    if snapshot.is_file():
        try:
            json.loads(snapshot.read_text(encoding="utf-8"))
        except ValueError:
            snapshot.unlink()
    remove_drafts(folder)
