"""Laws of the trainer: it starts every process that is needed, and no other."""

from pathlib import Path

import pytest
from ray.train import UserCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from cnn.cluster import training
from cnn.cluster.training_plan import TrainingPlan, sharers
from cnn.config import TrainConfig
from cnn.dataset.prepared import Prepared

SETTINGS = TrainConfig(images="digits")
PLAN = TrainingPlan(workers=1, gpu=False)


@pytest.mark.parametrize("searching", [False, True])
def test_only_a_search_cleans_up_after_a_lost_controller(
    dataset: Prepared, tmp_path: Path, searching: bool
) -> None:
    callbacks = [UserCallback()] if searching else []  # Tune's own exists only in a trial
    trainer = training.trainer(SETTINGS, dataset, tmp_path, PLAN, None, callbacks=callbacks)
    kept = [type(callback) for callback in trainer._create_default_callbacks()]
    assert (PlacementGroupCleanerCallback in kept) == searching


@pytest.mark.parametrize(("memory", "held"), [(0, False), (4, True)])
def test_ray_data_is_informed_of_a_training_that_streams(
    dataset: Prepared, tmp_path: Path, memory: float, held: bool
) -> None:
    resources = SETTINGS.resources.model_copy(update={"memory": memory})
    settings = SETTINGS.model_copy(update={"resources": resources})
    assert training.trainer(settings, dataset, tmp_path, PLAN, None).in_memory == held


@pytest.mark.parametrize(
    ("batch_size", "gpus", "workers"), [(64, 1, 1), (64, 3, 2), (64, 8, 8), (8, 8, 4), (7, 4, 1)]
)
def test_as_many_gpus_are_used_as_can_share_a_batch_evenly(
    batch_size: int, gpus: int, workers: int
) -> None:
    assert sharers(batch_size, gpus) == workers
