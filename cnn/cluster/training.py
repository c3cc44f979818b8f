"""Ray Train: the training loop on every worker, from the last checkpoint on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.exceptions import RayError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    Result,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
)
from ray.train.backend import BackendConfig
from ray.train.torch import TorchConfig
from torch import distributed, nn

from cnn.bundle import Bundle
from cnn.cluster.capacity import require_usable
from cnn.cluster.checkpoints import (
    CHECKPOINTS,
    as_checkpoint,
    discard_half_written,
    epoch_name,
    kept,
    restore,
    storage,
    written,
)
from cnn.cluster.gauges import Gauges
from cnn.cluster.progress import Progress, Ticker, ignore, in_background, show
from cnn.cluster.trainer import Trainer, seconds_between_polls
from cnn.cluster.training_plan import TrainingPlan
from cnn.cluster.worker import Splits, card, initial_state, train
from cnn.config import TrainConfig
from cnn.dataset.prepared import Prepared
from cnn.errors import FULL_GPU, UserError, is_full_gpu
from cnn.files.atomic import copy_folder
from cnn.files.place import Place
from cnn.loop import DivergedError, State, seconds_left
from cnn.machine import cores
from cnn.text.console import Console
from cnn.training import checkpoint
from cnn.training.batches import Share
from cnn.training.descent import Descent
from cnn.training.history import Epoch, starved
from cnn.training.shared_weights import SharedWeights

# A worker or a node may be lost this often without a finished epoch before the run gives up; each
# loss costs at most the epoch under way.
MAX_FAILURES = 3


@dataclass(frozen=True)
class Task:
    """What a worker is told; `run` names the run's metrics."""

    settings: TrainConfig
    prepared: Place
    run: str
    plan: TrainingPlan
    checkpoints: Place
    progress: Progress | None
    splits: Splits


@dataclass(frozen=True)
class Trained:
    """The result of training: the best epoch's bundle, and the history of all epochs."""

    best: Bundle
    history: list[Epoch]


def fit(
    settings: TrainConfig,
    dataset: Prepared,
    out: Place,
    plan: TrainingPlan,
    console: Console,
    splits: Splits = ("train",),
) -> Trained:
    """Train on `dataset`, with checkpoints below `out`; resumes from those already there.

    If the validation images are among the training `splits`, the best epoch is unknown, and the
    last one is used instead.
    """
    folder, progress = out / CHECKPOINTS, Progress()
    attempt = partial(trainer, settings, dataset, out, plan, progress, splits)
    running = in_background(lambda: through_losses(lambda: attempt().fit(), folder))
    show(progress, running, console)
    result = running.result()
    history = history_of(result)
    if line := starved(history):
        console.say(line)
    return Trained(checkpoint.best(kept(folder), metric(splits)), history)


def through_losses(attempt: Callable[[], Result], folder: Place) -> Result:
    """What `attempt` returns, made again while each one has ended at least one more epoch.

    Ray gives up when MAX_FAILURES workers or nodes are lost in all of a run: spot machines may be
    taken away more often in one that takes days.
    """
    while True:
        before = kept(folder)[-1:]
        try:
            return attempt()
        except TrainingFailedError:
            if kept(folder)[-1:] == before:
                raise


def metric(splits: Splits) -> str:
    """The figure that is highest in the best epoch."""
    return "epoch" if "validation" in splits else "val_accuracy"


def trainer(
    settings: TrainConfig,
    dataset: Prepared,
    out: Place,
    plan: TrainingPlan,
    progress: Progress | None,
    splits: Splits = ("train",),
    max_failures: int = MAX_FAILURES,
    callbacks: Sequence[UserCallback] = (),
) -> Trainer:
    """A run of Ray Train, with checkpoints in `out`/checkpoints."""
    path, filesystem = storage(out)
    kept_in, run = out.absolute() / CHECKPOINTS, out.name
    task = Task(settings, dataset.folder, run, plan, kept_in, progress, splits)
    images, side = len(dataset.manifest.table), dataset.card.image_size
    discard_half_written(out / CHECKPOINTS)
    return Trainer(
        # Not in `train_loop_config`: the controller unpickles that too, and would import torch.
        partial(work, task),
        # A single worker shares no gradients, so its controller does not need torch.
        backend_config=TorchConfig() if plan.workers > 1 else BackendConfig(),
        scaling_config=ScalingConfig(num_workers=plan.workers, use_gpu=plan.gpu),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(
                max_failures=max_failures,
                controller_failure_limit=3,  # type: ignore[call-arg]
            ),
            # Ray keeps the best by score, and also the last, from which training resumes.
            checkpoint_config=CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=metric(splits)
            ),
            callbacks=list(callbacks),  # type: ignore[arg-type]  # typed as V1's
        ),
        in_memory=settings.resources.fits_in_memory(images, side),
        polls=seconds_between_polls(images * side**2, plan.gpu),
    )


def history_of(result: Result) -> list[Epoch]:
    """The epochs of a run that has ended; UserError if it ended with a message for the user."""
    outcome: list[Epoch] | str = result.return_value  # type: ignore[attr-defined]
    if isinstance(outcome, str):
        raise UserError(outcome)
    return outcome


def work(task: Task) -> list[Epoch] | str:
    """The function that every worker runs: build the network, load the last checkpoint, train.

    Returns the history, or a message for the user. A loss that diverged, for example, is not
    raised, because Ray would then retry, and it would diverge again.
    """
    try:
        return train_share(task)
    except (RuntimeError, UserError) as error:
        message = for_user(error)
        if message is None or ray.train.get_context().get_world_size() > 1:
            raise  # the other workers wait for this one until Ray ends them
        return message


def for_user(error: Exception) -> str | None:
    """What an error tells the user, if it is one that the user can fix."""
    if isinstance(error, UserError):
        return str(error)
    return FULL_GPU if is_full_gpu(error) else None


def train_share(task: Task) -> list[Epoch] | str:
    """What `work` does, and what it returns; it raises what may be wrong for this worker alone."""
    context = ray.train.get_context()
    # Ray sets one thread per worker, on any machine.
    here = context.get_local_world_size() * task.plan.at_once
    torch.set_num_threads(max(1, cores() // here))
    settings, progress = task.settings, task.progress
    dataset = Prepared.open(task.prepared)
    share = Share(context.get_world_rank(), context.get_world_size())
    try:
        require_usable(task.plan.gpu)
        state = initial_state(settings, dataset, ray.train.torch.get_device(), parallelise)
        resume(state, task.checkpoints)
    except UserError as error:  # the same on every worker: all read the same checkpoint
        return str(error)
    ticker = Ticker(progress) if progress and share.rank == 0 else ignore
    gauges = Gauges(task.run)
    reporter = Reporter(settings, dataset, share, task.checkpoints, progress, gauges)
    try:
        train(settings, dataset, state, reporter, share, ticker, task.splits)
    except DivergedError as error:
        return f"{error}: lower --lr and give a new --out"
    except RayError:  # from a streamed split: only the text of a task's error survives
        dataset.require_whole()
        raise
    return state.history


def parallelise(network: nn.Module) -> tuple[nn.Module, Descent]:
    """What training calls, and what updates the weights: on every worker, with the same result.

    On the CPUs of one machine workers share their weights, else DDP averages gradients. The loop
    shares batch norm's statistics once an epoch, so DDP does not in every forward pass. Gradients
    are views of the buffers that DDP sends, which saves a copy.
    """
    if on_one_machine() and (sharing := SharedWeights.of(network)):
        return network, sharing
    options = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
    return ray.train.torch.prepare_model(network, parallel_strategy_kwargs=options), Descent()


def on_one_machine() -> bool:
    """Whether several workers train on CPUs at one address: they may be able to share memory."""
    context = ray.train.get_context()
    together = 1 < context.get_world_size() == context.get_local_world_size()
    return together and ray.train.torch.get_device().type == "cpu"


def resume(state: State, folder: Place) -> None:
    """Load the last whole checkpoint of the run, if it has one: on all workers, the same one.

    Raises UserError if all are damaged, unless the last of them is the first epoch's. Raises
    RuntimeError, at which Ray starts the workers again, if one of them could not read what others
    could: they would average gradients of different weights, and wait for each other at the end.
    """
    epochs = kept(folder)
    damage = restore(state, epochs)
    if distributed.is_initialized():
        found: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(found, (len(state.history), str(damage)))
        if found.count(found[0]) < len(found):
            raise RuntimeError(f"workers resume at different epochs: {found}")
    if damage and epochs[-1].name != epoch_name(1):
        raise damage  # the first epoch alone is quick to repeat: a full disk may cut it short


@dataclass(frozen=True)
class Reporter:
    """Called at the end of each epoch on every worker: rank 0 saves, all report."""

    settings: TrainConfig
    dataset: Prepared
    share: Share
    checkpoints: Place
    progress: Progress | None
    gauges: Gauges

    def __call__(self, state: State) -> None:
        row = state.history[-1]
        if self.share.rank != 0:
            ray.train.report(dict(row))
            return
        with written(state, card(self.settings, self.dataset, row)) as folder:
            ray.train.report(
                {**row, "epochs": state.epochs},
                checkpoint=ray.train.Checkpoint.from_directory(folder),
                checkpoint_dir_name=epoch_name(row["epoch"]),
                checkpoint_upload_fn=self.save if isinstance(self.checkpoints, Path) else None,
            )
        self.gauges.show(row)
        if self.progress:
            left = seconds_left(state, self.settings.training, state.epochs)
            self.progress.epoch(row, state.epochs, left)

    def save(self, made: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        """Copy a checkpoint to the run's folder on a disk.

        Ray's own copy may still be in memory only when Ray removes the checkpoint before it: a
        power cut would then leave none.
        """
        copied = self.checkpoints / name
        assert isinstance(copied, Path)
        with made.as_directory() as folder:
            copy_folder(Path(folder), copied)
        return as_checkpoint(copied)
