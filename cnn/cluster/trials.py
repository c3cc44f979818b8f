"""One trial of a search: training at one point of the space, here or on workers of its own."""

from dataclasses import dataclass
from typing import Any

import torch
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from cnn.cluster.capacity import require_usable
from cnn.cluster.checkpoints import TRIAL, kept, restore, written
from cnn.cluster.training import history_of, trainer
from cnn.cluster.tuning_plan import TuningPlan
from cnn.cluster.worker import card, initial_state, train
from cnn.config import TrainConfig
from cnn.dataset.prepared import Prepared
from cnn.files.place import Place
from cnn.loop import State
from cnn.search.space import Space

METRIC = "val_accuracy"
NUMBER = "trial"  # the key of the trial's number, beside the values of its point


@dataclass(frozen=True)
class TrialContext:
    """What a trial needs besides its point."""

    space: Space
    prepared: dict[int, Place]  # by image size
    plan: TuningPlan
    folder: Place  # for all trials


def point_of(config: dict[str, Any]) -> dict[str, Any]:
    """The proposed point in a trial's config."""
    return {name: value for name, value in config.items() if name != NUMBER}


def folder_of(number: int, trial_id: str) -> str:
    """The name of a trial's folder, from its number and Tune's trial id."""
    return f"{number:04d}-{trial_id}"


def run_trial(config: dict[str, Any], context: TrialContext) -> None:
    """Train at one point of the space, and report each epoch."""
    settings = context.space.settings(point_of(config))
    dataset = Prepared.open(context.prepared[settings.data.image_size])
    folder = context.folder / folder_of(config[NUMBER], tune.get_context().get_trial_id())
    train_trial = train_together if context.plan.workers > 1 else train_alone
    train_trial(settings, dataset, context.plan, folder)


def train_alone(settings: TrainConfig, dataset: Prepared, plan: TuningPlan, folder: Place) -> None:
    """Train in this process: no others start, and the images stay in memory for the next trial."""
    torch.set_num_threads(plan.threads)
    require_usable(plan.gpu)
    device = torch.device("cuda" if plan.gpu else "cpu")
    state = initial_state(settings, dataset, device)
    restore(state, kept(folder, TRIAL))  # if all are damaged, the trial starts again

    def report(state: State) -> None:
        row = state.history[-1]
        with written(state, card(settings, dataset, row)) as folder:
            made = tune.Checkpoint.from_directory(folder)
            tune.report({**row, "epochs": state.epochs}, checkpoint=made)

    train(settings, dataset, state, report)


def train_together(
    settings: TrainConfig, dataset: Prepared, plan: TuningPlan, folder: Place
) -> None:
    """Train on several workers: a run of Ray Train inside the trial."""
    run = trainer(
        settings,
        dataset,
        folder,
        plan.trial_plan,
        progress=None,
        max_failures=0,  # Tune tries the trial again
        callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call]
    )
    history_of(run.fit())
