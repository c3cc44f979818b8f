"""Ray Tune: a search over many training runs, with early stopping of the weak ones."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search.optuna import OptunaSearch

from cnn.bundle import CARD, Bundle
from cnn.cluster.checkpoints import storage
from cnn.cluster.halving import Halving, Rungs
from cnn.cluster.progress import patiently
from cnn.cluster.search_state import read_state
from cnn.cluster.trials import METRIC, NUMBER, TrialContext, folder_of, point_of, run_trial
from cnn.cluster.watch import TABLE_HEAD, Watch, ending, reason_of
from cnn.config import Search
from cnn.errors import UserError
from cnn.files.place import Place
from cnn.report.tuning import Outcome, Trial
from cnn.search import study
from cnn.text.console import Console
from cnn.training import checkpoint
from cnn.training.history import Epoch

# A trial is tried again this often after an error, or after the loss of its machine.
MAX_FAILURES = 3


@dataclass(frozen=True)
class EndedTrial:
    """A trial, its epochs with all their figures, and the folder of its checkpoints."""

    trial: Trial
    epochs: pd.DataFrame
    folder: Place

    def best(self) -> Bundle:
        """The bundle of its best epoch."""
        return checkpoint.best((card.parent for card in self.folder.rglob(CARD)), METRIC)


def search(
    context: TrialContext, settings: Search, seed: int, console: Console
) -> list[EndedTrial]:
    """Run the trials that have not ended yet; returns all, in the order of their proposal."""
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, context=context), context.plan.trial_resources
    )
    with console.bar("tune", "trials") as advance:
        Watch.here = Watch(settings.trials, console, advance)
        path, filesystem = storage(context.folder)
        before = read_state(context.folder)
        if before.statuses:
            tuner = tune.Tuner.restore(
                path, trainable, resume_unfinished=True, storage_filesystem=filesystem
            )
        else:
            tuner = new_tuner(trainable, context, settings, seed)
        console.say(TABLE_HEAD)
        advance(before.ended, settings.trials)
        results = patiently(tuner.fit)
    if len(results) != settings.trials:
        raise UserError(
            f"Tune lost a part of the search in {context.folder}: {len(results)} of "
            f"{settings.trials} trials are there; give another --out"
        )
    # A result has no config if a trial failed before its first report, in an earlier session.
    configs = [trial.config for trial in results._experiment_analysis.trials]
    found = [ended_trial(results[n], config, context) for n, config in enumerate(configs)]
    return sorted(found, key=lambda one: one.trial.number)


def ended_trial(result: tune.Result, config: dict[str, Any], context: TrialContext) -> EndedTrial:
    """One trial from Tune's result and what it was configured with."""
    point = point_of(config)
    asked = context.space.settings(point).training.epochs
    folder = context.folder / result.path.rpartition("/")[2]
    # From the checkpoints: of a trial with workers of its own, Tune's logs begin anew on resume.
    rows, epochs = checkpoint.longest(card.parent for card in folder.rglob(CARD))
    history = pd.DataFrame(rows, columns=list(Epoch.__annotations__))
    outcome: Outcome = "failed" if result.error is not None else ending(len(rows), epochs)
    trial = Trial(
        number=config[NUMBER],
        point=point,
        outcome=outcome,
        epochs=len(history),
        epochs_asked=asked,
        accuracy=float(history[METRIC].max()) if len(history) else None,
        seconds=float(history["seconds"].sum()),
        reason=reason_of(result.error),
        history=tuple(zip(history["epoch"], history[METRIC], strict=True)),
    )
    return EndedTrial(trial, history, folder)


def new_tuner(trainable: Any, context: TrialContext, settings: Search, seed: int) -> tune.Tuner:
    """A new search."""
    space, (path, filesystem) = context.space, storage(context.folder.parent)
    scheduler = Halving.of(settings, space.most_epochs)
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
            scheduler=scheduler,
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
            callbacks=[Watch.current(), Rungs(scheduler)],
            verbose=0,
        ),
    )


class Proposals(OptunaSearch):
    """Optuna's proposals, each point once, numbered.

    Numbered, because Tune lists trials in another order after a restore. Once, because training
    is deterministic: the same point again would show nothing new.
    """

    proposed: tuple[dict[str, Any], ...] = ()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        point: dict[str, Any] | None = super().suggest(trial_id)
        if point in self.proposed:  # TPE likes to propose the best point again
            point = self.another(trial_id) or point
        if point is None:
            return None
        self.proposed = (*self.proposed, point)
        return {**point, NUMBER: len(self.proposed) - 1}

    def another(self, trial_id: str) -> dict[str, Any] | None:
        """A random point instead of one that was proposed before; None if there is no other."""
        space: Any = self._space
        point = study.unseen(space, self.proposed)
        if point is None:
            return None
        optuna_study: Any = self._ot_study
        # Optuna learns nothing from a failed trial.
        optuna_study.tell(self._ot_trials.pop(trial_id), state=TrialState.FAIL)
        optuna_study.enqueue_trial(point)
        return super().suggest(trial_id)


def folder_name(trial: TuneTrial) -> str:
    """The name of a trial's folder: Tune's default would list all its settings."""
    return folder_of(trial.config[NUMBER], trial.trial_id)
