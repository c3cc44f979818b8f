"""A checkpoint: a bundle, plus what training needs to go on from it."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError

import torch

from cnn import bundle
from cnn.bundle import Bundle, BundleError, Card
from cnn.errors import UserError
from cnn.loop import State
from cnn.place import Place

TRAINING = "training.pt"


def save(folder: Path, state: State, card: Card) -> None:
    """Write the network as a bundle, and optimizer, schedule and history beside it."""
    Bundle(card, state.network).save(folder)
    torch.save(state.state_dict(), folder / TRAINING)


def best(folders: Iterable[Place], metric: str) -> Bundle:
    """The bundle with the most of `metric`, of equals the last, as Ray keeps them.

    Of those checkpoints that are whole: a kill may leave half of a copy.
    """
    whole = []
    for folder in folders:
        with suppress(BundleError):
            whole.append(bundle.load(folder))
    return max(whole, key=lambda one: (one.card.trained[metric], one.card.trained["epoch"]))


def load(folder: Path, state: State, place: Place | None = None) -> None:
    """Put `state` where the checkpoint was saved; UserError where it is not whole.

    place: where the user finds it, if `folder` is a copy.
    """
    device = next(state.network.parameters()).device
    try:
        saved = bundle.load(folder, device)
        # weights_only: plain tensors and numbers; a checkpoint from elsewhere can run no code.
        training = torch.load(folder / TRAINING, map_location="cpu", weights_only=True)
    except (BundleError, OSError, EOFError, RuntimeError, UnpicklingError) as error:
        found = place or folder
        raise UserError(
            f"the checkpoint {found} is damaged ({type(error).__name__}): "
            f"remove {found.parent}, and the same command trains from the start"
        ) from None
    state.network.load_state_dict(saved.network.state_dict())
    state.load_state_dict(training)
