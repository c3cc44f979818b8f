"""A checkpoint: a bundle, plus what training needs to go on from it."""

from pathlib import Path

import torch

from cnn import bundle
from cnn.bundle import Bundle, Card
from cnn.loop import State

TRAINING = "training.pt"


def save(folder: Path, state: State, card: Card) -> None:
    """Write the network as a bundle, and optimizer, schedule and history beside it."""
    Bundle(card, state.network).save(folder)
    torch.save(state.state_dict(), folder / TRAINING)


def load(folder: Path, state: State) -> None:
    """Put `state` where the checkpoint was saved."""
    saved = bundle.load(folder, next(state.network.parameters()).device)
    state.network.load_state_dict(saved.network.state_dict())
    # weights_only: plain tensors and numbers; a checkpoint from elsewhere can run no code.
    state.load_state_dict(torch.load(folder / TRAINING, map_location="cpu", weights_only=True))
