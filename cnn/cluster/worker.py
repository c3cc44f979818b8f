"""A training worker: its share of the images, the network, and the training loop."""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from cnn import network, optim
from cnn.bundle import Card, as_batch
from cnn.cluster.streaming import StreamedEvaluationBatches, StreamedTrainingBatches
from cnn.config import TrainConfig
from cnn.dataset.prepared import Prepared
from cnn.files.place import Place
from cnn.loop import Loop, State
from cnn.manifest import Split, class_indices
from cnn.training.balance import class_weights
from cnn.training.batches import ALONE, Batches, EvaluationBatches, Share, TrainingBatches
from cnn.training.descent import Descent
from cnn.training.history import Epoch

Splits = tuple[Split, ...]

Parallelise = Callable[[nn.Module], tuple[nn.Module, Descent]]
"""Takes a network; returns what training calls instead, and what updates the weights."""


def train(
    settings: TrainConfig,
    dataset: Prepared,
    state: State,
    on_epoch_end: Callable[[State], None],
    share: Share = ALONE,
    on_step: Callable[[int, int], None] = lambda step, steps: None,
    splits: Splits = ("train",),
) -> None:
    """Train on this worker's share, from the epoch in `state` to the last one."""
    device = next(state.network.parameters()).device
    train, validation = split_batches(settings, dataset, share, device, splits)
    loop = Loop(
        settings.training,
        device,
        settings.seed,
        share,
        class_weights=loss_weights(settings, dataset, device, splits),
        on_step=on_step,
    )
    loop.fit(state, train, validation, on_epoch_end)


def alone(network: nn.Module) -> tuple[nn.Module, Descent]:
    """A worker that shares nothing with others."""
    return network, Descent()


def initial_state(
    settings: TrainConfig,
    dataset: Prepared,
    device: torch.device,
    parallelise: Parallelise = alone,
) -> State:
    """A new network and optimizer, the same on every worker."""
    torch.manual_seed(settings.seed)
    size, classes = dataset.card.image_size, len(dataset.classes)
    plain = network.build(settings.network, size, classes).to(device)
    network.scale_of(plain).blur = settings.augmentation.blurs
    parallel, descent = parallelise(plain)
    return State(
        network=plain,
        parallel=parallel,
        descent=descent,
        optimizer=optim.optimizer(plain, settings.training),
        epochs=settings.training.epochs,
    )


def split_rows(table: pa.Table, *splits: str) -> pa.Table:
    """The rows of one split, or of several."""
    return table.filter(pc.is_in(table["split"], value_set=pa.array(splits)))


@lru_cache(maxsize=1)
def split_table(folder: Place, seed: int) -> pa.Table:
    """The split, the label and the place of each image of a prepared dataset.

    Kept, because it hashes every image, and each use and each trial in a process needs the same.
    """
    return Prepared.open(folder).split(seed).select(["split", "label", "shard", "row"])


def split_batches(
    settings: TrainConfig,
    dataset: Prepared,
    share: Share,
    device: torch.device,
    splits: Splits,
) -> tuple[Batches, Batches | None]:
    """Training and validation batches: from memory if both splits fit, else streamed.

    None for validation if its images are among those to train on.
    """
    table = split_table(dataset.folder, settings.seed)
    train, validation = split_rows(table, *splits), split_rows(table, "validation")
    held_out = "validation" not in splits
    options: dict[str, Any] = {
        "batch_size": settings.training.batch_size,
        "augmentation": settings.augmentation,
        "seed": settings.seed,
        "share": share,
        "balanced": settings.training.balance == "sampling",
    }
    held = train.num_rows + (validation.num_rows if held_out else 0)
    if not settings.resources.fits_in_memory(held, dataset.card.image_size):
        return (
            StreamedTrainingBatches(dataset, train, **options),
            StreamedEvaluationBatches(dataset, validation, share) if held_out else None,
        )
    images = partial(held_images, dataset.folder, settings.seed, device=device)
    return (
        TrainingBatches(*images(splits), **options),
        EvaluationBatches(*images(("validation",)), share) if held_out else None,
    )


@lru_cache(maxsize=2)  # both splits stay in memory while one process trains trial after trial
def held_images(
    folder: Place, seed: int, splits: Splits, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of these splits on the training device, where a GPU can augment them."""
    dataset = Prepared.open(folder)
    images, labels = dataset.load(split_rows(split_table(folder, seed), *splits))
    return as_batch(images).to(device), torch.from_numpy(labels).to(device)


def loss_weights(
    settings: TrainConfig, dataset: Prepared, device: torch.device, splits: Splits
) -> torch.Tensor | None:
    """A weight per class from the training images; None if the loss is not balanced."""
    if settings.training.balance != "loss":
        return None
    train = split_rows(split_table(dataset.folder, settings.seed), *splits)
    labels = torch.from_numpy(class_indices(train["label"], dataset.classes))
    return class_weights(labels, len(dataset.classes)).to(device)


def card(settings: TrainConfig, dataset: Prepared, row: Epoch) -> Card:
    """The card of the bundle of one epoch."""
    return Card(
        classes=dataset.classes,
        image_size=dataset.card.image_size,
        fit=dataset.card.fit,
        network=settings.network,
        input_side=row["side"],
        blur=settings.augmentation.blurs,
        test_time_flip=settings.augmentation.flip and settings.training.test_time_flip,
        temperature=1.0 if math.isnan(row["temperature"]) else row["temperature"],
        trained={"seed": settings.seed, **row},
    )
