"""The plan of a training run: workers and CPUs for their data, checked before a request to Ray."""

from dataclasses import dataclass

from cnn import config
from cnn.cluster.autoscaler import Needs, grows
from cnn.cluster.capacity import TOO_SMALL, choose_gpu, gpus, has, in_words, obtain, total
from cnn.cluster.scoring_plan import ScoringPlan, images_per_pass
from cnn.errors import UserError
from cnn.text.console import Console

# Each worker may read one dataset at a time, and Ray Data needs a whole CPU for it.
DATA_CPUS = 1


@dataclass(frozen=True)
class TrainingPlan:
    """How a training run uses the cluster; `at_once` is the number of such runs at a time."""

    workers: int
    gpu: bool
    at_once: int = 1

    @property
    def cpus(self) -> int:
        """Logical CPUs needed at once: for workers, and for the tasks that feed them."""
        return self.workers * (1 + DATA_CPUS)

    @property
    def needs(self) -> list[Needs]:
        """What the machines of the cluster must have."""
        return [worker_needs(self.gpu)] * self.workers

    def scoring(self, image_size: int) -> ScoringPlan:
        """The plan for the evaluation of the trained model."""
        fraction = float(self.gpu)
        return ScoringPlan(self.workers, images_per_pass(image_size, self.gpu), fraction)

    def require_images(self, images: int, batch_size: int) -> None:
        """Raises UserError if a worker would get fewer than two images: batch norm needs two."""
        if images < 2 * self.workers:
            raise UserError(
                f"{images} training images are too few for {self.workers} workers: "
                f"give --workers {sharers(batch_size, images // 2)}, or more images"
            )

    def __str__(self) -> str:
        return in_words(self.workers, self.gpu)


def worker_needs(gpu: bool) -> Needs:
    """What a worker needs on one node: a CPU, another for its data, and its GPU."""
    return {"CPU": 1 + DATA_CPUS, "GPU": int(gpu)}


def logical_cpus(settings: config.Experiment) -> int:
    """The logical CPUs that a local Ray must have, so that a run with these settings fits."""
    return wish(settings, gpu=takes_gpu(settings)).cpus


def foreseen(settings: config.Experiment) -> TrainingPlan:
    """The plan, as far as it is known without requesting machines."""
    wanted = wish(settings, gpu=takes_gpu(settings))
    if has(wanted.needs) or grows():
        return wanted
    raise refusal(wanted, settings)


def takes_gpu(settings: config.Experiment) -> bool:
    """Whether to train on GPUs: as requested, or if there are any already."""
    asked = settings.resources.gpu
    return gpus() > 0 if asked is None else asked


def plan(settings: config.Experiment, console: Console) -> TrainingPlan:
    """The plan; UserError if the cluster can never provide for it: Ray would wait for ever.

    A cluster that grows has grown when this returns.
    """
    wanted = wish(settings, choose_gpu(settings.resources.gpu, worker_needs(gpu=True), console))
    if obtain(wanted.needs, console):
        return wanted
    raise refusal(wanted, settings)


def refusal(wanted: TrainingPlan, settings: config.Experiment) -> UserError:
    """The error for a plan that cannot run: why not, and how many workers could."""
    batch_size = settings.training.batch_size
    if wanted.gpu and wanted.workers > gpus():
        return UserError(
            f"{wanted.workers} GPU workers need {wanted.workers} GPUs and there are {gpus()}: "
            + (f"give --workers {sharers(batch_size, gpus())}" if gpus() else "leave out --gpu")
        )
    cpus = total("CPU")
    fewer = f"give --workers {sharers(batch_size, cpus // 2)}" if cpus >= 2 else TOO_SMALL
    return UserError(
        f"to train with {in_words(wanted.workers, gpu=False)} takes {wanted.cpus} CPUs, 1 each and "
        f"1 each for the data, and the cluster has {cpus}: {fewer}"
    )


def wish(settings: config.Experiment, gpu: bool) -> TrainingPlan:
    """The requested plan; by default as many GPU workers as can share a batch, or one worker."""
    shared = sharers(settings.training.batch_size, gpus()) if gpu else 1
    return TrainingPlan(settings.resources.workers or shared, gpu)


def sharers(batch_size: int, most: int) -> int:
    """The most workers, up to `most`, that share a batch evenly with at least two images each."""
    fair = (n for n in range(most, 1, -1) if batch_size % n == 0 and batch_size >= 2 * n)
    return next(fair, 1)
