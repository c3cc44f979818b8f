"""The plan of scoring: so many processes with a model each, checked before Ray is asked."""

import os
from dataclasses import dataclass, replace

from ray.data import ActorPoolStrategy

from cnn import config
from cnn.cluster.autoscaler import Needs
from cnn.cluster.capacity import counted, gpus, provides, slots, total, wants_gpu
from cnn.console import Console
from cnn.errors import UserError
from cnn.machine import cores

# Without GPUs those who decode and those who score share the CPUs, half and half as Ray counts:
# which of the two has more to do depends on the images, and the system schedules it better.
SHARED_CPU = 0.5

# A pass through the network is of so many pixels, for the memory that it takes. To launch one on a
# GPU takes 3 ms, however many images it is of, and an H200 needs as long for 2 megapixels; a CPU
# needs no more than so many images.
PASS_PIXELS = 2**22
CPU_BATCH = 128

# Parts in the hands of a GPU's worker: while the GPU works on one, the CPU does its part of two.
# And parts sent to it: Ray Data looks ten times a second for what has ended, when a GPU may have
# done four. With Ray's own six (two for each in hand) a worker that only slept waited for a third
# of the time.
GPU_IN_HAND, GPU_SENT = 3, 12


@dataclass(frozen=True)
class ScoringPlan:
    """How scoring uses the cluster.

    elastic: on a cluster that grows, the pool of workers grows with it.
    """

    workers: int
    batch_size: int
    gpu_fraction: float = 0.0
    elastic: bool = False

    @property
    def worker_cpus(self) -> float:
        """CPUs of a worker: half of one leaves as much to decode with; a GPU's needs none."""
        return 0 if self.gpu_fraction else SHARED_CPU

    @property
    def decode_cpus(self) -> float:
        """CPUs of a task that decodes."""
        return 1 if self.gpu_fraction else SHARED_CPU

    @property
    def threads(self) -> int:
        """Threads of each worker's arithmetic; one where there may be more workers than planned."""
        return 1 if self.gpu_fraction or self.elastic else max(1, cores() // self.workers)

    @property
    def needs(self) -> list[Needs]:
        """What the machines of the cluster must have."""
        if self.gpu_fraction:
            return [{"GPU": self.gpu_fraction}] * self.workers + [{"CPU": self.decode_cpus}]
        return [{"CPU": self.worker_cpus + self.decode_cpus}] * self.workers

    @property
    def at_once(self) -> int:
        """Parts in a worker's hands."""
        return GPU_IN_HAND if self.gpu_fraction else 1

    @property
    def sent(self) -> int | None:
        """Parts sent to a worker, those in its hands among them; None: as Ray Data has it."""
        return GPU_SENT if self.gpu_fraction else None

    def pool(self) -> ActorPoolStrategy:
        """The workers as Ray Data's pool."""
        shape = {"min_size": 1, "initial_size": self.workers}
        return ActorPoolStrategy(
            **shape if self.elastic else {"size": self.workers},
            max_concurrent_calls_per_actor=self.at_once,
            max_tasks_in_flight_per_actor=self.sent,
            enable_true_multi_threading=self.at_once > 1,
        )

    def refitted(self) -> "ScoringPlan":
        """The same plan for what is left of the cluster.

        Workers planned for a lost node would take the CPUs of those who decode, and wait for ever.
        """
        return replace(self, workers=max(1, min(self.workers, room(self.gpu_fraction))))

    def __str__(self) -> str:
        return f"{counted(self.workers, self.gpu_fraction > 0)}, batches of {self.batch_size}"


def logical_cpus(settings: config.Pool) -> int:
    """CPUs that a Ray of our own must be told of, at least: the workers that were asked for."""
    return settings.workers or 1


def plan(settings: config.Pool, parts: int, image_size: int, console: Console) -> ScoringPlan:
    """What to ask of Ray to score so many parts; UserError where the cluster cannot give it."""
    gpu = wants_gpu(settings.gpu, {"CPU": 1, "GPU": 1}, console)
    fraction = settings.gpu_fraction if gpu else 0.0
    most = room(fraction)
    workers = min(parts, settings.workers or max(1, most))
    elastic = settings.workers is None and "RAY_ADDRESS" in os.environ
    batch_size = settings.batch_size or images_per_pass(image_size, gpu)
    wanted = ScoringPlan(workers, batch_size, fraction, elastic)
    if provides(wanted.needs, console):
        return wanted
    each = f"{fraction:g} GPUs each, of {gpus()}" if gpu else "a CPU each"
    mend = f"give --workers {most}" if most else "leave out --gpu" if gpu else "give fewer"
    raise UserError(f"{workers} workers need {each}: {mend}")


def room(gpu_fraction: float) -> int:
    """How many workers the cluster has room for, beside those who decode for them."""
    return slots(gpus(), gpu_fraction) if gpu_fraction else total("CPU")


def images_per_pass(image_size: int, gpu: bool) -> int:
    """Images, of so many pixels a side, that keep a worker busy and fit into its memory."""
    most = max(1, PASS_PIXELS // image_size**2)
    return most if gpu else min(most, CPU_BATCH)
