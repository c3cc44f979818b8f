"""Checkpoints: a bundle, and what training needs to resume from it."""

import io
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from cnn import bundle
from cnn.bundle import Bundle, BundleError, Card
from cnn.errors import UserError
from cnn.files.place import Place
from cnn.loop import State
from cnn.training.history import Epoch

TRAINING = "training.pt"

# What reading half of a checkpoint raises.
INCOMPLETE = (BundleError, OSError, EOFError, RuntimeError, UnpicklingError)


def save(folder: Path, state: State, card: Card) -> None:
    """Write the network as a bundle, and the optimizer, schedule and history beside it."""
    Bundle(card, state.network).save(folder)
    torch.save(state.state_dict(), folder / TRAINING)


def best(folders: Iterable[Place], metric: str) -> Bundle:
    """The bundle with the highest `metric`; of equal ones the last, which is what Ray keeps.

    So it may be of a later epoch than `cnn.loop.State.best`, the first of equals, whose checkpoint
    may be gone. Incomplete checkpoints are skipped: a kill may leave half of a copy.
    """
    whole = []
    for folder in folders:
        with suppress(BundleError):
            whole.append(bundle.load(folder))
    return max(whole, key=lambda one: (one.card.trained[metric], one.card.trained["epoch"]))


def longest(folders: Iterable[Place]) -> tuple[list[Epoch], int]:
    """The history of the checkpoint with the most epochs, and the epochs of its schedule.

    ([], 0) if there is no whole checkpoint.
    """
    found: list[tuple[list[Epoch], int]] = [([], 0)]
    for folder in folders:
        with suppress(*INCOMPLETE):
            saved = read_training((folder / TRAINING).read_bytes())
            found.append((saved["history"], saved["epochs"]))
    return max(found, key=lambda one: len(one[0]))


def read_training(content: bytes) -> dict[str, Any]:
    """A checkpoint's `optimizer`, `epochs` and `history`, from the content of its file."""
    # weights_only: plain tensors and numbers; a foreign checkpoint cannot run code.
    saved: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return saved


def load(folder: Path, state: State, place: Place | None = None) -> None:
    """Restore `state` from a checkpoint; UserError if it is damaged.

    place: the original, which the error names, if `folder` is a copy.
    """
    try:
        saved = bundle.load(folder)  # on the CPU: a GPU may have no room for a second copy
        training = read_training((folder / TRAINING).read_bytes())
    except INCOMPLETE as error:
        found = place or folder
        raise UserError(
            f"the checkpoint {found} is damaged ({type(error).__name__}): "
            f"remove {found.parent}, then the same command trains from the start"
        ) from None
    state.network.load_state_dict(saved.network.state_dict())
    state.load_state_dict(training)
