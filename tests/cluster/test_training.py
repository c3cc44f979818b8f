"""Laws of training on workers: their number changes the speed and nothing else."""

import math
from pathlib import Path

import pytest
import torch

from cnn.batches import ALONE
from cnn.cluster import ingest, learning, training
from cnn.cluster.resources import Plan
from cnn.cluster.training import Trained
from cnn.config import TrainConfig
from cnn.console import Console
from cnn.prepared import Prepared

SETTINGS = TrainConfig.model_validate(
    {
        "images": "digits",
        "data": {"image_size": 16},
        "augmentation": {"rotation": 0, "shift": 0, "zoom": 0, "flip": False},
        "network": {"filters": "8,16", "normalisation": "none", "dropout": 0},
        "training": {"epochs": 2, "batch_size": 32, "precision": "float32"},
    }
)


@pytest.fixture(scope="module")
def dataset(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    source = ingest.list_source(str(digits), SETTINGS.data)
    return ingest.prepare(source, tmp_path_factory.mktemp("prepared") / "a", lambda a, b: None)


def fit(dataset: Prepared, out: Path, workers: int, memory: float = 4) -> Trained:
    out.mkdir()
    resources = SETTINGS.resources.model_copy(update={"memory": memory})
    settings = SETTINGS.model_copy(update={"resources": resources})
    return training.fit(settings, dataset, out, Plan(workers, gpu=False), Console())


@pytest.fixture(scope="module")
def one(dataset: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return fit(dataset, tmp_path_factory.mktemp("one") / "run", workers=1)


def test_two_workers_learn_what_one_learns(dataset: Prepared, one: Trained, tmp_path: Path) -> None:
    two = fit(dataset, tmp_path / "run", workers=2)
    for alone, shared in zip(one.history, two.history, strict=True):
        for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr"):
            assert math.isclose(alone[name], shared[name], rel_tol=1e-3), name


def test_validation_images_can_be_trained_on_and_test_images_cannot(dataset: Prepared) -> None:
    sizes = {
        splits: len(learning.split_rows(dataset.split(SETTINGS.seed), *splits))
        for splits in (("train",), ("validation",), ("train", "validation"))
    }
    assert sizes["train", "validation"] == sizes["train",] + sizes["validation",]
    train, validation = learning.split_batches(
        SETTINGS, dataset, ALONE, torch.device("cpu"), ("train", "validation")
    )
    seen = sum(len(labels) for _, labels in train.epoch(1))
    assert sizes["train",] < seen <= sizes["train", "validation"]
    assert sum(len(labels) for _, labels in validation.epoch(0)) == sizes["validation",]


def test_a_streamed_run_trains_and_evaluates_as_many_images(
    dataset: Prepared, one: Trained, tmp_path: Path
) -> None:
    streamed = fit(dataset, tmp_path / "run", workers=1, memory=0)
    assert len(streamed.history) == 2
    assert streamed.history[-1]["train_loss"] < streamed.history[0]["train_loss"]
    # Another order of the same images: near, but not the same.
    assert math.isclose(
        streamed.history[0]["train_loss"], one.history[0]["train_loss"], rel_tol=0.2
    )
