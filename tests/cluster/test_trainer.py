"""Laws of the trainer: it starts every process that is needed, and no other."""

import os
from pathlib import Path

import pytest
import ray.train
from ray.train import RunConfig, UserCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import HEALTH_CHECK_INTERVAL_S_ENV_VAR

from cnn.cluster import training
from cnn.cluster.trainer import OFTEN, SELDOM, Trainer, seconds_between_polls
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


def test_a_short_epoch_does_not_wait_for_the_next_poll() -> None:
    digits, photos = 1_437 * 8**2, 10_000 * 224**2
    assert seconds_between_polls(digits, gpu=False) == OFTEN
    assert seconds_between_polls(photos, gpu=False) == SELDOM
    assert seconds_between_polls(photos, gpu=True) == OFTEN


def test_ray_train_polls_as_often_as_the_trainer_was_told(tmp_path: Path) -> None:
    told = tmp_path / "told"

    class Controller(UserCallback):  # runs in the process that polls
        def after_report(self, *reported: object, **named: object) -> None:
            told.write_text(os.environ[HEALTH_CHECK_INTERVAL_S_ENV_VAR])

    def report() -> None:
        ray.train.report({})

    run = RunConfig(storage_path=str(tmp_path), callbacks=[Controller()])
    Trainer(report, run_config=run, in_memory=True, polls=0.125).fit()
    assert told.read_text() == "0.125"
