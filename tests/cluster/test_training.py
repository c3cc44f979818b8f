"""Laws of training on workers: their number changes the speed and nothing else."""

import math
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import torch
from ray._private import state
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig

from cnn.cluster import training, worker
from cnn.cluster.checkpoints import CHECKPOINTS, epoch_name
from cnn.cluster.trainer import Trainer
from cnn.cluster.training_plan import TrainingPlan
from cnn.config import TrainConfig
from cnn.dataset import prepared
from cnn.dataset.prepared import Prepared
from cnn.dataset.splits import assign_splits
from cnn.errors import UserError
from cnn.text.console import Console
from cnn.training.batches import ALONE
from cnn.training.history import Epoch

SETTINGS = TrainConfig.model_validate(
    {
        "images": "digits",
        "data": {"image_size": 16},
        "augmentation": {"rotation": 0, "shift": 0, "zoom": 0, "flip": False},
        "network": {"filters": "8,16", "normalisation": "none", "dropout": 0},
        "training": {
            "epochs": 2,
            "batch_size": 32,
            "precision": "float32",
            "growing": 0,
            "cutmix": 0,
        },
    }
)


def alone(dataset: Prepared, memory: float = 4) -> list[Epoch]:
    """The epochs of a training in this process, its images in memory or streamed."""
    resources = SETTINGS.resources.model_copy(update={"memory": memory})
    settings = SETTINGS.model_copy(update={"resources": resources})
    state = worker.initial_state(settings, dataset, torch.device("cpu"))
    worker.train(settings, dataset, state, lambda state: None)
    return state.history


@pytest.fixture(scope="module")
def one(dataset: Prepared) -> list[Epoch]:
    return alone(dataset)


def started() -> dict[str, str]:
    """The class of each actor that this Ray has ever started, by its id."""
    return {actor: found["ActorClassName"] for actor, found in state.actors().items()}


def test_two_ray_workers_train_as_one_process_does(
    dataset: Prepared, one: list[Epoch], tmp_path: Path
) -> None:
    # Ray Data started this actor to prepare the images; a request for it now starts another.
    ray.kill(ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator"))
    before = started()
    two = training.fit(SETTINGS, dataset, tmp_path, TrainingPlan(workers=2, gpu=False), Console())
    for mine, shared in zip(one, two.history, strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
            assert math.isclose(mine[name], shared[name], rel_tol=1e-3), name
    # Images in memory: only the workers, their controller and the actor that lets them meet.
    new = sorted(name for actor, name in started().items() if actor not in before)
    assert new == ["RayTrainWorker", "RayTrainWorker", "SynchronizationActor", "TrainController"]


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only on Linux")
def test_workers_on_the_cpus_of_one_machine_share_its_weights() -> None:
    def keeping() -> str:  # not of this module, which workers cannot import
        network = torch.nn.Linear(2, 2)
        training.parallelise(network)
        place = network.weight.data_ptr()
        maps = (line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines())
        for addresses, *_, name in (found for found in maps if len(found) == 6):
            start, end = (int(address, 16) for address in addresses.split("-"))
            if start <= place < end:
                return name
        return "memory of its own"

    run = Trainer(
        keeping,
        backend_config=TorchConfig(),
        scaling_config=ScalingConfig(num_workers=2),
        in_memory=True,
    )
    assert "memfd:weights" in run.fit().return_value


def test_workers_that_would_resume_at_different_epochs_start_again(
    dataset: Prepared, tmp_path: Path
) -> None:
    training.fit(SETTINGS, dataset, tmp_path, TrainingPlan(workers=1, gpu=False), Console())
    settings = SETTINGS

    def resuming() -> str:
        state = worker.initial_state(settings, dataset, torch.device("cpu"))
        rank = ray.train.get_context().get_world_rank()
        try:
            training.resume(state, (tmp_path if rank else tmp_path / "unseen") / CHECKPOINTS)
        except RuntimeError as error:
            return str(error)
        return "together"

    run = Trainer(
        resuming,
        backend_config=TorchConfig(),
        scaling_config=ScalingConfig(num_workers=2),
        in_memory=True,
    )
    assert "different epochs: [(0, 'None'), (2, 'None')]" in run.fit().return_value


def test_validation_images_can_be_trained_on_and_test_images_cannot(dataset: Prepared) -> None:
    sizes = {
        splits: len(worker.split_rows(dataset.split(SETTINGS.seed), *splits))
        for splits in (("train",), ("validation",), ("train", "validation"))
    }
    assert sizes["train", "validation"] == sizes["train",] + sizes["validation",]
    train, validation = worker.split_batches(
        SETTINGS, dataset, ALONE, torch.device("cpu"), ("train", "validation")
    )
    seen = sum(len(labels) for _, labels in train.epoch(1))
    assert sizes["train",] < seen <= sizes["train", "validation"]
    assert validation is None  # an accuracy on images that were trained on would be no such thing


def test_a_streamed_run_trains_like_one_from_memory(dataset: Prepared, one: list[Epoch]) -> None:
    streamed = alone(dataset, memory=0)
    assert len(streamed) == 2
    assert streamed[-1]["train_loss"] < streamed[0]["train_loss"]
    # The same images in another order: close, but not equal.
    assert math.isclose(streamed[0]["train_loss"], one[0]["train_loss"], rel_tol=0.2)


def test_only_an_incomplete_first_epoch_is_trained_again(dataset: Prepared, tmp_path: Path) -> None:
    """A full disk interrupts the first; a later one is not discarded silently."""
    state = worker.initial_state(SETTINGS, dataset, torch.device("cpu"))
    (tmp_path / epoch_name(1)).mkdir()
    training.resume(state, tmp_path)
    assert not state.history
    (tmp_path / epoch_name(30)).mkdir()
    with pytest.raises(UserError, match="damaged"):
        training.resume(state, tmp_path)


def test_prepared_images_that_are_gone_end_a_training_with_one_message(
    dataset: Prepared, tmp_path: Path
) -> None:
    """Ray would try it three times more, and wrap the message in an error of its own."""
    gone = replace(dataset, folder=tmp_path / "gone")
    with pytest.raises(UserError, match="gone is incomplete"):
        training.fit(SETTINGS, gone, tmp_path / "run", TrainingPlan(1, gpu=False), Console())


def test_a_process_hashes_the_images_once_for_all_that_it_trains(
    dataset: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = []

    def split(table: pa.Table, seed: int) -> pa.Table:
        seeds.append(seed)
        return assign_splits(table, seed)

    monkeypatch.setattr(prepared, "assign_splits", split)
    training = SETTINGS.training.model_copy(update={"epochs": 1, "balance": "loss"})
    settings = SETTINGS.model_copy(update={"seed": 77, "training": training})
    for _ in range(2):
        state = worker.initial_state(settings, dataset, torch.device("cpu"))
        worker.train(settings, dataset, state, lambda state: None)
    assert seeds == [77]
