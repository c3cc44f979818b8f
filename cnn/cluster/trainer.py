"""Ray Train's trainer, without the processes that a training run does not need here."""

import os
from typing import Any

from ray.train import Result
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import HEALTH_CHECK_INTERVAL_S_ENV_VAR
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from cnn.machine import cores

OFTEN = 0.2
SELDOM = 1.0

# Pixels that a core trains on in a second, at most: the default network does 0.8 million.
FASTEST = 10e6


class Trainer(DataParallelTrainer):
    """Ray Train's trainer without the actors that are not needed here, 2 CPU-seconds each.

    One hands out datasets, which workers here read themselves. One removes the placement groups
    of a lost controller: a search needs it, but any other job ends with its controller, and then
    Ray removes them. One tells Ray Data which CPUs are taken: not needed by a run with its
    images `in_memory`.

    polls: seconds between its questions to the workers. A worker that reports the next epoch
    before the last one was asked for waits: with Ray's 2 s, an epoch of half a second takes two.
    """

    def __init__(
        self, *arguments: Any, in_memory: bool, polls: float = OFTEN, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self.in_memory, self.polls = in_memory, polls

    def _create_default_callbacks(self) -> list[Any]:
        searching = bool(self.run_config.callbacks)
        needless = DatasetsCallback, *(() if searching else (PlacementGroupCleanerCallback,))
        asked = super()._create_default_callbacks()
        return [callback for callback in asked if not isinstance(callback, needless)]

    def _initialize_and_run_controller(self, **named: Any) -> Result:
        os.environ[HEALTH_CHECK_INTERVAL_S_ENV_VAR] = str(self.polls)  # sent to the controller
        if self.in_memory:
            named["scaling_policy"] = Unannounced(self.scaling_config)  # type: ignore[arg-type]  # typed as V1's
        return super()._initialize_and_run_controller(**named)


def seconds_between_polls(pixels: int, gpu: bool) -> float:
    """As many as the shortest epoch of so many pixels can take on this machine's CPUs.

    Of two cores that train, polls five times a second take more than half a percent.
    """
    return OFTEN if gpu else min(SELDOM, max(OFTEN, pixels / (FASTEST * cores())))


class Unannounced(FixedScalingPolicy):
    """A fixed number of workers, not announced to Ray Data's coordinator.

    Waiting for that actor would take 2 s before the first step.
    """

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass
