"""Asynchronous successive halving, whose rungs outlive an interrupted search."""

from typing import Any

from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from cnn.cluster.trials import METRIC, NUMBER
from cnn.config import Search

Rung = dict[str, float]
"""The accuracy of each trial, by its id, when it reached the rung."""


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving that never stops trial 0, the baseline of the search.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys, 2020). Trial 0 has
    the given settings, or the nearest to them in the space.

    Trials of different lengths are compared at the same fraction of their schedules. At the same
    epoch, a short one would nearly always win: its learning rate has decayed, and its images have
    grown, while the long one, better in the end, is half way.
    """

    @classmethod
    def of(cls, settings: Search, most_epochs: int) -> "Halving":
        """The scheduler of a search whose longest trial has `most_epochs`."""
        return cls(
            time_attr="epoch",
            metric=METRIC,
            mode="max",
            # Past the last epoch: at `max_t` Tune would stop the best trial at its last report.
            max_t=most_epochs + 1,
            grace_period=min(settings.grace or max(1, most_epochs // 12), most_epochs),
            reduction_factor=settings.reduction,
            # Else an epoch that skips a rung is compared there late, after more training than the
            # other trials had.
            stop_last_trials=False,
        )

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        action: str = super().on_trial_result(controller, trial, self.stretched(result))
        return TrialScheduler.CONTINUE if trial.config[NUMBER] == 0 else action

    def on_trial_complete(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        super().on_trial_complete(controller, trial, self.stretched(result))

    def stretched(self, result: dict[str, Any]) -> dict[str, Any]:
        """A trial's report as if its schedule were as long as the longest of the search."""
        if "epoch" not in result:
            return result
        most_epochs = int(self._max_t) - 1
        return {**result, "epoch": result["epoch"] * most_epochs // result["epochs"]}

    @property
    def rungs(self) -> list[Rung]:
        """What has been recorded at each rung, the highest first."""
        return [recorded for bracket in self._brackets for _, recorded in bracket._rungs]


class Rungs(tune.Callback):
    """Saves a scheduler's rungs with the state of the search.

    Tune keeps the scheduler as it was before the first trial. After a restore it would compare
    new trials at epoch 1 with the accuracy that resumed ones have at epoch 20, and stop them.
    """

    def __init__(self, scheduler: Halving) -> None:
        self.scheduler = scheduler

    def get_state(self) -> dict[str, Any]:
        return {"rungs": [dict(rung) for rung in self.scheduler.rungs]}

    def set_state(self, state: dict[str, Any]) -> None:
        for rung, saved in zip(self.scheduler.rungs, state["rungs"], strict=True):
            rung.update(saved)
