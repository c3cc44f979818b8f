"""The plan of resources: workers, devices and CPUs for data, checked before Ray is asked."""

import os
from dataclasses import dataclass

import ray
import torch

from cnn import config
from cnn.errors import Mendable

# Each training worker may read one dataset at a time, and Ray Data needs a whole CPU for it.
DATA_CPUS_PER_WORKER = 1


@dataclass(frozen=True)
class Plan:
    """How a training run uses the cluster."""

    workers: int
    gpu: bool

    @property
    def cpus(self) -> int:
        """Logical CPUs that must be there at once: workers, and the tasks that feed them."""
        return self.workers * (1 + DATA_CPUS_PER_WORKER)

    @property
    def threads(self) -> int:
        """Threads of each worker's arithmetic: Ray would give it one, whatever the machine has."""
        return max(1, (os.cpu_count() or 1) // self.workers)

    def __str__(self) -> str:
        device = "GPU" if self.gpu else "CPU"
        plural = "s" if self.workers > 1 else ""
        return f"{self.workers} {device} worker{plural}"


def plan(settings: config.Resources) -> Plan:
    """What to ask of Ray; Mendable where the cluster can never give it: Ray would wait for ever."""
    cpus, gpus = capacity()
    gpu = settings.gpu if settings.gpu is not None else gpus > 0
    workers = settings.workers or (gpus if gpu else 1)
    if gpu and workers > gpus:
        raise Mendable(
            f"{workers} GPU workers need {workers} GPUs, there are {gpus}: "
            f"give --workers {gpus} or --no-gpu" if gpus else
            f"there is no GPU for {workers or 1} GPU workers: leave out --gpu"
        )
    chosen = Plan(workers, gpu)
    if cpus is not None and chosen.cpus > cpus:
        raise Mendable(
            f"{workers} workers need {chosen.cpus} CPUs (1 each, and 1 each for their data), "
            f"the cluster has {cpus}: give --workers {max(1, cpus // 2)}"
        )
    return chosen


def capacity() -> tuple[int | None, int]:
    """CPUs and GPUs there are; no number of CPUs where a Ray of our own is told what we need."""
    if ray.is_initialized() or "RAY_ADDRESS" in os.environ:
        total = ray.cluster_resources()
        return int(total.get("CPU", 0)), int(total.get("GPU", 0))
    return None, torch.cuda.device_count()
