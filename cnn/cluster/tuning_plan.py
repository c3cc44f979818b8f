"""The plan of a search: how many trials run at once, with how many workers each."""

import os
from dataclasses import dataclass, replace

from cnn import config
from cnn.cluster.autoscaler import Needs
from cnn.cluster.capacity import TOO_SMALL, choose_gpu, gpus, in_words, obtain, slots, total
from cnn.cluster.search_state import NOTHING, SearchState
from cnn.cluster.training_plan import DATA_CPUS, TrainingPlan, worker_needs
from cnn.errors import UserError
from cnn.machine import cores, free_memory
from cnn.text.console import Console
from cnn.text.plural import counted

# Memory of a training process besides its images: libraries, and the network's arithmetic.
WORKER_BYTES = 2**30


@dataclass(frozen=True)
class TuningPlan:
    """How a search uses the cluster."""

    concurrent: int
    workers: int
    gpu_fraction: float = 0.0
    streamed: bool = False

    @property
    def gpu(self) -> bool:
        """Whether the trials train on GPUs."""
        return self.gpu_fraction > 0

    @property
    def threads(self) -> int:
        """Threads of each trial's arithmetic."""
        return max(1, cores() // self.concurrent)

    @property
    def cpus(self) -> int:
        """Logical CPUs needed at once."""
        return self.concurrent * trial_cpus(self.workers, self.streamed)

    @property
    def gpus(self) -> float:
        """GPUs needed at once."""
        return self.concurrent * self.workers * self.gpu_fraction

    @property
    def needs(self) -> list[Needs]:
        """What the machines of the cluster must have."""
        if self.workers == 1:
            alone = {"CPU": trial_cpus(1, self.streamed), "GPU": self.gpu_fraction}
            return [alone] * self.concurrent
        worker: Needs = {"CPU": 1 + self.streamed * DATA_CPUS, "GPU": self.gpu_fraction}
        return ([{"CPU": 1.0}] + [worker] * self.workers) * self.concurrent

    @property
    def training_plan(self) -> TrainingPlan:
        """The plan of a training run with the same workers, alone on the machine."""
        return TrainingPlan(self.workers, gpu=self.gpu)

    @property
    def trial_plan(self) -> TrainingPlan:
        """The plan of a trial, which runs beside others."""
        return replace(self.training_plan, at_once=self.concurrent)

    @property
    def trial_resources(self) -> dict[str, float]:
        """What Tune reserves for a trial; a trial with several workers requests theirs itself."""
        return {"CPU": 1.0, "GPU": self.gpu_fraction if self.workers == 1 else 0.0}

    def fits(self) -> bool:
        """Whether each trial has its fraction on one GPU."""
        if not self.gpu:
            return True
        return self.concurrent * self.workers <= slots(gpus(), self.gpu_fraction)

    def __str__(self) -> str:
        each = in_words(self.workers, self.gpu)
        at_once, cpus = counted(self.concurrent, "trial"), counted(self.cpus, "CPU")
        return f"{at_once} at once, {each} each: {cpus} in all"


def trial_cpus(workers: int, streamed: bool) -> int:
    """CPUs of a trial: one for itself, those of separate workers, and those for streamed data."""
    if workers > 1:
        return 1 + workers * (1 + streamed * DATA_CPUS)
    return 1 + streamed * DATA_CPUS


def logical_cpus(settings: config.TuneConfig, held: int, before: SearchState) -> int:
    """The logical CPUs that a local Ray must have, so that a search uses the whole machine.

    held: bytes of images that each worker keeps in memory; 0 if they are streamed.
    """
    workers = settings.resources.workers or 1
    return at_once(settings, own_room(workers, held), before) * trial_cpus(workers, not held)


def own_room(workers: int, held: int) -> int:
    """How many trials at once this machine has enough CPUs and memory for, at least one."""
    by_memory = free_memory() // (workers * (WORKER_BYTES + held))
    return max(1, min(cores() // workers, by_memory))


def at_once(settings: config.TuneConfig, most: int, before: SearchState) -> int:
    """How many trials run at once: as requested or before, or as many as there is room for.

    Tune starts all `before` that were interrupted at once. Each of them holds a CPU of its own
    while it waits for its workers: if all could not have theirs, none would.
    """
    search = settings.search
    fresh = min(search.concurrent or max(1, most), search.trials)
    if before.concurrent is not None:
        fresh = min(before.concurrent, max(1, most))
    return max(fresh, before.unfinished) if (settings.resources.workers or 1) > 1 else fresh


def plan(
    settings: config.TuneConfig, held: int, console: Console, before: SearchState = NOTHING
) -> TuningPlan:
    """The plan, also of a search that was interrupted `before` its end; `held` as above.

    As many trials at once as requested, for which a cluster may grow, or as there is room for.
    Raises UserError if the cluster can never provide for it.
    """
    asked, search, streamed = settings.resources, settings.search, not held
    workers = asked.workers or 1
    alone: Needs = {"CPU": trial_cpus(1, streamed), "GPU": 1}
    gpu = choose_gpu(asked.gpu, alone if workers == 1 else worker_needs(gpu=True), console)
    fraction = (search.gpu_fraction if workers == 1 else 1.0) if gpu else 0.0
    most = room(workers, fraction, streamed)
    if "RAY_ADDRESS" not in os.environ:  # its Ray may have more CPUs than there are, to decode with
        most = min(most, own_room(workers, held))
    wanted = TuningPlan(at_once(settings, most, before), workers, fraction, streamed)
    # A GPU's fractions add up, but a trial cannot take parts of two.
    if obtain(wanted.needs, console) and wanted.fits():
        return wanted
    raise interrupted(wanted) if before.statuses else refusal(wanted, most)


def interrupted(wanted: TuningPlan) -> UserError:
    """The error for a search that can run no more as it did before it was interrupted."""
    return UserError(
        f"the interrupted search needs {wanted.cpus} CPUs and {wanted.gpus:g} GPUs, and there "
        f"are {total('CPU')} and {gpus()}: resume it with as many, or give another --out"
    )


def refusal(wanted: TuningPlan, most: int) -> UserError:
    """The error for a plan that cannot run: what it needs, and how many trials at once could."""
    trials, each = counted(wanted.concurrent, "trial"), in_words(wanted.workers, wanted.gpu)
    needed = f"{wanted.cpus} CPUs" + (f" and {wanted.gpus:g} GPUs" if wanted.gpu else "")
    fewer = "give fewer --workers" if wanted.workers > 1 else TOO_SMALL
    fix = f"give --concurrent {most}" if most else fewer
    return UserError(
        f"{trials} at once with {each} each: {needed} are needed, and there are {total('CPU')} "
        f"CPUs and {gpus()} GPUs: {fix}{', or leave out --gpu' if wanted.gpu else ''}"
    )


def room(workers: int, gpu_fraction: float, streamed: bool) -> int:
    """How many trials at once the cluster has room for."""
    by_cpus = total("CPU") // trial_cpus(workers, streamed)
    return min(by_cpus, slots(gpus(), gpu_fraction) // workers) if gpu_fraction else by_cpus
