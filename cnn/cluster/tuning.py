"""Ray Tune: many trainings, the weak ones stopped early."""

import json
import tempfile
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import torch
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from cnn import bundle, checkpoint, study
from cnn.bundle import BundleError
from cnn.cluster import training
from cnn.cluster.ingest import Advance
from cnn.cluster.resources import TuningPlan
from cnn.config import Search, TrainConfig
from cnn.console import Console
from cnn.errors import Mendable
from cnn.loop import Epoch, State
from cnn.prepared import Prepared
from cnn.report.tuning import Trial
from cnn.space import Point, Space

METRIC = "val_accuracy"

# A trial that raises is tried once more; a second failure is its own fault.
MAX_FAILURES = 1

NUMBER = "trial"
ENDED = ("TERMINATED", "ERROR")  # Tune's words for a trial that is over

TABLE = "{trial:>7}  {outcome:>8}  {epochs:>6}  {accuracy:>7}  {best:>10}  {states:>21}  {point}"
TABLE_HEAD = TABLE.format(
    trial="trial", outcome="outcome", epochs="epochs", accuracy="val acc", best="best (of)",
    states="running/stopped/ended", point="settings",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What a trial needs to know beside its point."""

    space: Space
    prepared: dict[int, Path]  # by image size
    plan: TuningPlan
    folder: Path  # of all trials


@dataclass(frozen=True)
class Tried:
    """A trial, its epochs with all their figures, and the folder of its checkpoints."""

    trial: Trial
    epochs: pd.DataFrame
    folder: Path

    def best(self) -> Path:
        """The checkpoint of its best epoch."""
        folders = [card.parent for card in self.folder.rglob(bundle.CARD)]
        return max(folders, key=checkpoint_accuracy)


def checkpoint_accuracy(folder: Path) -> float:
    """The validation accuracy of the epoch that a checkpoint was saved after; -1 for half of one.

    A kill may leave a copy that was not ended; the trial went on from the one before it.
    """
    try:
        accuracy: float = bundle.load(folder).card.trained[METRIC]
    except BundleError:
        return -1.0
    return accuracy


def search(task: Task, settings: Search, seed: int, console: Console) -> list[Tried]:
    """Try the trials that are still to be tried; returns all, in the order of their proposal."""
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, task=task), task.plan.trial_resources
    )
    with console.bar("tune", "trials") as advance:
        Watch.here = Watch(settings.trials, console, advance)
        if tune.Tuner.can_restore(str(task.folder)):
            require_state(task.folder)
            tuner = tune.Tuner.restore(str(task.folder), trainable, resume_unfinished=True)
        else:
            tuner = new_tuner(trainable, task, settings, seed)
        console.say(TABLE_HEAD)
        advance(0, settings.trials)
        running = training.in_background(tuner.fit)
        while not wait([running], timeout=0.3).done:  # short waits: Ctrl-C comes in between
            pass
    results = running.result()
    found = [tried(results[number], task.space) for number in range(len(results))]
    return sorted(found, key=lambda one: one.trial.number)


def tried(result: tune.Result, space: Space) -> Tried:
    """What became of one trial."""
    assert result.config is not None  # it has one since it was proposed
    point = point_of(result.config)
    asked = space.settings(point).training.epochs
    history = epochs_of(result)
    trial = Trial(
        number=result.config[NUMBER],
        point=point,
        outcome=outcome(result),
        epochs=len(history),
        epochs_asked=asked,
        accuracy=float(history[METRIC].max()) if len(history) else None,
        seconds=float(history["seconds"].sum()),
        reason=reason_of(result.error),
        history=tuple(zip(history["epoch"], history[METRIC], strict=True)),
    )
    return Tried(trial, history, Path(result.path))


def outcome(result: tune.Result) -> Literal["finished", "stopped", "failed"]:
    """How a trial ended."""
    if result.error is not None:
        return "failed"
    last = result.metrics or {}
    return "finished" if last.get("epoch") == last.get("epochs") else "stopped"


def epochs_of(result: tune.Result) -> pd.DataFrame:
    """The trial's epochs, each once: one that was cut off and run again is there twice."""
    columns = list(Epoch.__annotations__)
    table = result.metrics_dataframe
    if table is None or "epoch" not in table:
        return pd.DataFrame(columns=columns)
    return table[columns].dropna().drop_duplicates("epoch", keep="last").astype({"epoch": int})


def reason_of(error: Exception | None) -> str | None:
    """Why a trial failed, in one line: the last of what it raised."""
    lines = [line for line in str(error).splitlines() if line.strip()] if error else []
    return lines[-1].strip() if lines else None


def require_state(folder: Path) -> None:
    """Mendable where a kill has cut off what Tune was writing: it would begin anew, in silence."""
    states = sorted(folder.glob("experiment_state-*.json"))
    try:
        json.loads(states[-1].read_text(encoding="utf-8")) if states else None
    except ValueError:
        raise Mendable(
            f"{states[-1]} was cut off as it was written, so the search cannot go on: "
            "give another --out"
        ) from None


def new_tuner(trainable: Any, task: Task, settings: Search, seed: int) -> tune.Tuner:
    """A search that has not begun."""
    space = task.space
    proposals = Proposals(
        space=study.distributions(space.ranges),
        metric=METRIC,
        mode="max",
        points_to_evaluate=[space.start],
        sampler=study.sampler(settings.algorithm, settings.trials, seed),
    )
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=proposals,
            scheduler=Halving(
                time_attr="epoch",
                metric=METRIC,
                mode="max",
                # Beyond the last epoch: Tune would stop the best trial at its last report.
                max_t=space.most_epochs + 1,
                grace_period=min(
                    settings.grace or max(1, space.most_epochs // 12), space.most_epochs
                ),
                reduction_factor=settings.reduction,
            ),
            num_samples=settings.trials,
            max_concurrent_trials=task.plan.concurrent,
            reuse_actors=True,
            trial_dirname_creator=folder_name,
        ),
        run_config=tune.RunConfig(
            name=task.folder.name,
            storage_path=str(task.folder.parent),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=METRIC
            ),
            callbacks=[Watch.current()],
            verbose=0,
        ),
    )


class Proposals(OptunaSearch):
    """Optuna's proposals, numbered: after a restore, Tune lists its trials in another order."""

    proposed = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        point: dict[str, Any] | None = super().suggest(trial_id)
        if point is None:
            return None
        self.proposed += 1
        return {**point, NUMBER: self.proposed - 1}


def point_of(config: dict[str, Any]) -> dict[str, Any]:
    """The point that was proposed to a trial."""
    return {name: value for name, value in config.items() if name != NUMBER}


def folder_name(trial: TuneTrial) -> str:
    """The name of a trial's folder: Tune's own would spell out its settings."""
    return folder_of(trial.config[NUMBER], trial.trial_id)


def folder_of(number: int, trial_id: str) -> str:
    """The same, by number and Tune's own name for a trial."""
    return f"{number:04d}-{trial_id}"


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving, which never stops the settings that were given.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys, 2020). A search
    must know what it has to beat.
    """

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        action: str = super().on_trial_result(controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config[NUMBER] == 0 else action


def run_trial(config: dict[str, Any], task: Task) -> None:
    """Train at one point of the space, and report each epoch."""
    settings = task.space.settings(point_of(config))
    dataset = Prepared.open(task.prepared[settings.data.image_size])
    if task.plan.workers > 1:
        number, trial = config[NUMBER], tune.get_context().get_trial_id()
        train_together(settings, dataset, task.plan, task.folder / folder_of(number, trial))
    else:
        train_alone(settings, dataset, task.plan)


def train_alone(settings: TrainConfig, dataset: Prepared, plan: TuningPlan) -> None:
    """Train in this process: nothing else to start, and the images stay for the next trial."""
    torch.set_num_threads(plan.threads)
    device = torch.device("cuda" if plan.gpu_fraction else "cpu")
    state = training.start(settings, dataset, device)
    last = tune.get_checkpoint()
    if last is not None:
        with last.as_directory() as folder:
            checkpoint.load(Path(folder), state)

    def report(state: State) -> None:
        row = state.history[-1]
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder), state, training.card(settings, dataset, row))
            kept = tune.Checkpoint.from_directory(folder)
            tune.report({**row, "epochs": state.epochs}, checkpoint=kept)

    training.learn(settings, dataset, state, report)


def train_together(
    settings: TrainConfig, dataset: Prepared, plan: TuningPlan, folder: Path
) -> None:
    """Train on several workers: a run of Ray Train's inside the trial."""
    run = training.trainer(
        settings,
        dataset,
        folder,
        plan.winner,
        training.Progress.remote(),  # type: ignore[attr-defined]
        callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call]
    )
    training.history_of(run.fit())


class Watch(tune.Callback):
    """Tells on the console what becomes of the trials, while they run."""

    here: ClassVar["Watch"]

    def __init__(self, trials: int, console: Console, advance: Advance) -> None:
        self.trials, self.console, self.advance = trials, console, advance
        self.stopped = 0

    @classmethod
    def current(cls) -> "Watch":
        """That of this process."""
        return cls.here

    def __reduce__(self) -> tuple[Callable[[], "Watch"], tuple[()]]:
        # Tune pickles its callbacks with the search. A console is of one process only: a search
        # that is restored tells its news to that of its own.
        return Watch.current, ()

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        last = trial.last_result
        ended = "finished" if last.get("epoch") == last.get("epochs") else "stopped"
        self.tell(trials, trial, ended)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self.tell(trials, trial, "failed")

    def tell(self, trials: list[TuneTrial], trial: TuneTrial, outcome: str) -> None:
        """The row of a trial that has ended."""
        # A trial is told of before its status changes.
        others = [one for one in trials if one is not trial]
        done = 1 + sum(one.status in ENDED for one in others)
        running = sum(one.status == "RUNNING" for one in others)
        self.stopped += outcome == "stopped"
        best = max(trials, key=best_of)
        self.console.say(
            TABLE.format(
                trial=trial.config[NUMBER],
                outcome=outcome,
                epochs=int((trial.last_result or {}).get("epoch", 0)),
                accuracy=f"{best_of(trial):.3f}",
                best=f"{best_of(best):.3f} ({best.config[NUMBER]})",
                states=f"{running} / {self.stopped} / {done}",
                point=point_text(point_of(trial.config)),
            )
        )
        self.advance(done, self.trials)


def best_of(trial: TuneTrial) -> float:
    """The best validation accuracy that a trial has reached so far."""
    return float(trial.metric_analysis.get(METRIC, {}).get("max", 0.0))


def point_text(point: Point) -> str:
    """A point on one line."""
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in point.items()
    )
