"""Ray Tune: a search over many training runs, with early stopping of the weak ones."""

import json
from dataclasses import dataclass
from typing import Any

import pandas as pd
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from cnn import checkpoint, study
from cnn.bundle import CARD, Bundle
from cnn.cluster.progress import patiently
from cnn.cluster.training import storage
from cnn.cluster.trials import METRIC, NUMBER, TrialContext, folder_of, point_of, run_trial
from cnn.cluster.watch import TABLE_HEAD, Watch, ending, reason_of
from cnn.config import Search
from cnn.console import Console
from cnn.errors import UserError
from cnn.loop import Epoch
from cnn.place import Place
from cnn.report.tuning import Outcome, Trial

# A trial that raises is retried once; after a second failure it counts as failed.
MAX_FAILURES = 1


@dataclass(frozen=True)
class Tried:
    """A trial, its epochs with all their figures, and the folder of its checkpoints."""

    trial: Trial
    epochs: pd.DataFrame
    folder: Place

    def best(self) -> Bundle:
        """The bundle of its best epoch."""
        return checkpoint.best((card.parent for card in self.folder.rglob(CARD)), METRIC)


def search(context: TrialContext, settings: Search, seed: int, console: Console) -> list[Tried]:
    """Run the trials that have not ended yet; returns all, in the order of their proposal."""
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, context=context), context.plan.trial_resources
    )
    with console.bar("tune", "trials") as advance:
        Watch.here = Watch(settings.trials, console, advance)
        path, filesystem = storage(context.folder)
        if tune.Tuner.can_restore(path, filesystem):
            require_state(context.folder)
            tuner = tune.Tuner.restore(
                path, trainable, resume_unfinished=True, storage_filesystem=filesystem
            )
        else:
            tuner = new_tuner(trainable, context, settings, seed)
        console.say(TABLE_HEAD)
        advance(0, settings.trials)
        results = patiently(tuner.fit)
    found = [tried(results[number], context) for number in range(len(results))]
    return sorted(found, key=lambda one: one.trial.number)


def tried(result: tune.Result, context: TrialContext) -> Tried:
    """One trial from Tune's result."""
    assert result.config is not None  # every proposed trial has one
    point = point_of(result.config)
    asked = context.space.settings(point).training.epochs
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
    return Tried(trial, history, context.folder / result.path.rpartition("/")[2])


def outcome(result: tune.Result) -> Outcome:
    """How a trial ended."""
    return "failed" if result.error is not None else ending(result.metrics or {})


def epochs_of(result: tune.Result) -> pd.DataFrame:
    """The trial's epochs, each once: an epoch that ran again after an interruption has two rows."""
    columns = list(Epoch.__annotations__)
    table = result.metrics_dataframe
    if table is None or "epoch" not in table:
        return pd.DataFrame(columns=columns)
    return table[columns].dropna().drop_duplicates("epoch", keep="last").astype({"epoch": int})


def require_state(folder: Place) -> None:
    """Raises UserError if a kill truncated Tune's state: Tune would silently start again."""
    states = [file for file in folder.iterdir() if file.name.startswith("experiment_state-")]
    last = max(states, key=str, default=None)
    try:
        json.loads(last.read_text(encoding="utf-8")) if last else None
    except ValueError:
        raise UserError(
            f"{last} was only partly written, so the search cannot resume: give another --out"
        ) from None


def new_tuner(trainable: Any, context: TrialContext, settings: Search, seed: int) -> tune.Tuner:
    """A new search."""
    space, (path, filesystem) = context.space, storage(context.folder.parent)
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
                # Past the last epoch: at `max_t` Tune would stop the best trial at its last report.
                max_t=space.most_epochs + 1,
                grace_period=min(
                    settings.grace or max(1, space.most_epochs // 12), space.most_epochs
                ),
                reduction_factor=settings.reduction,
            ),
            num_samples=settings.trials,
            max_concurrent_trials=context.plan.concurrent,
            reuse_actors=True,
            trial_dirname_creator=folder_name,
        ),
        run_config=tune.RunConfig(
            name=context.folder.name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=METRIC
            ),
            callbacks=[Watch.current()],
            verbose=0,
        ),
    )


class Proposals(OptunaSearch):
    """Optuna's proposals, numbered because Tune lists trials in another order after a restore."""

    proposed = 0

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        point: dict[str, Any] | None = super().suggest(trial_id)
        if point is None:
            return None
        self.proposed += 1
        return {**point, NUMBER: self.proposed - 1}


def folder_name(trial: TuneTrial) -> str:
    """The name of a trial's folder: Tune's default would list all its settings."""
    return folder_of(trial.config[NUMBER], trial.trial_id)


class Halving(AsyncHyperBandScheduler):
    """Asynchronous successive halving that never stops trial 0, the baseline of the search.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning" (MLSys, 2020). Trial 0 has
    the given settings, or the nearest to them in the space.
    """

    def on_trial_result(self, controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        action: str = super().on_trial_result(controller, trial, result)
        return TrialScheduler.CONTINUE if trial.config[NUMBER] == 0 else action
