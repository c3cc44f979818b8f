"""The plan of scoring: how many workers with a model each, checked before a request to Ray."""

import os
import sys
from dataclasses import dataclass, replace

from ray.data import ActorPoolStrategy

from cnn import config
from cnn.cluster.autoscaler import Needs
from cnn.cluster.capacity import TOO_SMALL, choose_gpu, gpus, in_words, obtain, slots, total
from cnn.errors import UserError
from cnn.machine import cores, images_at_once
from cnn.text.console import Console

# Without GPUs, decoding tasks and scoring workers share the CPUs, and Ray counts half a CPU for
# each. Which of them has more to do depends on the images: the system schedules that better.
SHARED_CPU = 0.5

# A GPU takes as many images in one pass as fit into memory: to launch a pass takes 3 ms for any
# number of images, as long as an H200 computes on 2 megapixels. A CPU gains nothing from more than:
CPU_BATCH = 128

# Parts that a GPU worker processes at once: while the GPU works on one, the CPU works on two. And
# parts sent to it, these included: Ray Data looks for finished tasks ten times a second, and a GPU
# may finish four parts in between. With Ray's default of six (two for each part in process), a
# worker that only slept was idle for a third of the time.
GPU_IN_HAND, GPU_SENT = 3, 12


@dataclass(frozen=True)
class ScoringPlan:
    """How scoring uses the cluster.

    elastic: whether the pool of workers grows with the cluster.
    """

    workers: int
    batch_size: int
    gpu_fraction: float = 0.0
    elastic: bool = False

    @property
    def gpu(self) -> bool:
        """Whether the workers score on GPUs."""
        return self.gpu_fraction > 0

    @property
    def worker_cpus(self) -> float:
        """CPUs of a worker: one half, and the other half is left to decode; none beside a GPU."""
        return 0 if self.gpu else SHARED_CPU

    @property
    def decode_cpus(self) -> float:
        """CPUs of a decoding task."""
        return 1 if self.gpu else SHARED_CPU

    @property
    def threads(self) -> int:
        """Threads of each worker's arithmetic; one on a GPU, or if more workers may be added."""
        return 1 if self.gpu or self.elastic else max(1, cores() // self.workers)

    @property
    def needs(self) -> list[Needs]:
        """What the machines of the cluster must have."""
        if self.gpu:
            return [{"GPU": self.gpu_fraction}] * self.workers + [{"CPU": self.decode_cpus}]
        return [{"CPU": self.worker_cpus + self.decode_cpus}] * self.workers

    @property
    def at_once(self) -> int:
        """Parts that a worker processes at once."""
        return GPU_IN_HAND if self.gpu else 1

    @property
    def sent(self) -> int | None:
        """Parts sent to a worker, including those in process; None for Ray Data's default."""
        return GPU_SENT if self.gpu else None

    def pool(self) -> ActorPoolStrategy:
        """The pool of workers, as Ray Data takes it."""
        shape = {"min_size": 1, "initial_size": self.workers}
        return ActorPoolStrategy(
            **shape if self.elastic else {"size": self.workers},
            max_concurrent_calls_per_actor=self.at_once,
            max_tasks_in_flight_per_actor=self.sent,
            enable_true_multi_threading=self.at_once > 1,
        )

    def refitted(self) -> "ScoringPlan":
        """The same plan, with no more workers than the rest of the cluster has room for.

        Workers planned for a lost node would take the CPUs that decoding needs, and wait for ever.
        """
        return replace(self, workers=max(1, min(self.workers, room(self.gpu_fraction))))

    def __str__(self) -> str:
        return f"{in_words(self.workers, self.gpu)}, batches of {self.batch_size}"


def logical_cpus(settings: config.Pool) -> int:
    """The fewest logical CPUs that a local Ray must have: one per requested worker."""
    return settings.workers or 1


def plan(settings: config.Pool, parts: int, image_size: int, console: Console) -> ScoringPlan:
    """The plan to score this many parts; UserError if the cluster cannot provide for it."""
    gpu = choose_gpu(settings.gpu, {"CPU": 1, "GPU": 1}, console)
    fraction = settings.gpu_fraction if gpu else 0.0
    most = room(fraction)
    workers = min(parts, settings.workers or max(1, most))
    elastic = settings.workers is None and "RAY_ADDRESS" in os.environ
    batch_size = settings.batch_size or images_per_pass(image_size, gpu)
    wanted = ScoringPlan(workers, batch_size, fraction, elastic)
    if obtain(wanted.needs, console):
        return wanted
    each = f"{fraction:g} GPUs each, of {gpus()}" if gpu else f"a CPU each, of {total('CPU')}"
    fix = f"give --workers {most}" if most else "leave out --gpu" if gpu else TOO_SMALL
    raise UserError(f"to score with {in_words(workers, gpu)} takes {each}: {fix}")


def room(gpu_fraction: float) -> int:
    """How many workers the cluster has room for, beside the tasks that decode for them."""
    return slots(gpus(), gpu_fraction) if gpu_fraction else total("CPU")


def images_per_pass(image_size: int, gpu: bool) -> int:
    """Images, `image_size` pixels a side, that keep a worker busy and fit into its memory."""
    return images_at_once(image_size, sys.maxsize if gpu else CPU_BATCH)
