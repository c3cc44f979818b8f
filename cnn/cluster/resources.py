"""The plan of resources: workers, devices and CPUs for data, checked before Ray is asked."""

import os
from dataclasses import dataclass, replace

from ray.data import ActorPoolStrategy

from cnn import config
from cnn.batches import EVALUATION_BATCH
from cnn.cluster.capacity import Bundle, cores, gpus, provides, total
from cnn.console import Console
from cnn.errors import Mendable

# Each training worker may read one dataset at a time, and Ray Data needs a whole CPU for it.
DATA_CPUS_PER_WORKER = 1

# Without GPUs those who decode and those who score share the CPUs, half and half as Ray counts:
# which of the two has more to do depends on the images, and the system schedules it better.
SHARED_CPU = 0.5

# A pass through the network: images on a CPU, pixels on a GPU. To launch one takes 3 ms, however
# many images it is of, and an H200 needs as long for 2 megapixels.
CPU_BATCH = 128
GPU_PIXELS = 2**22

# One CPU to decode with, and one that Ray Data keeps free for what consumes the blocks.
PREPARE_CPUS = 2


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
    def bundles(self) -> list[Bundle]:
        """The same, as the machines that they are on must have it."""
        return [worker_bundle(self.gpu)] * self.workers

    @property
    def scoring(self) -> "ScoringPlan":
        """The same for judging what was trained."""
        return ScoringPlan(self.workers, EVALUATION_BATCH, gpu_fraction=float(self.gpu))

    def __str__(self) -> str:
        return counted(self.workers, self.gpu)


@dataclass(frozen=True)
class ScoringPlan:
    """How scoring uses the cluster: so many processes, each with a model of its own.

    elastic: on a cluster that grows, the pool grows with it.
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
        """Threads of each worker's arithmetic."""
        return 1 if self.gpu_fraction else max(1, cores() // self.workers)

    @property
    def bundles(self) -> list[Bundle]:
        """The same, as the machines that they are on must have it."""
        if self.gpu_fraction:
            return [{"GPU": self.gpu_fraction}] * self.workers + [{"CPU": self.decode_cpus}]
        return [{"CPU": self.worker_cpus + self.decode_cpus}] * self.workers

    def pool(self) -> ActorPoolStrategy:
        """The same for Ray Data."""
        if self.elastic:
            return ActorPoolStrategy(min_size=1, initial_size=self.workers)
        return ActorPoolStrategy(size=self.workers)

    def __str__(self) -> str:
        return f"{counted(self.workers, self.gpu_fraction > 0)}, batches of {self.batch_size}"


@dataclass(frozen=True)
class TuningPlan:
    """How a search uses the cluster: so many trials at once, each with so many workers."""

    concurrent: int
    workers: int
    gpu_fraction: float = 0.0
    streamed: bool = False

    @property
    def threads(self) -> int:
        """Threads of each trial's arithmetic."""
        return max(1, cores() // self.concurrent)

    @property
    def cpus(self) -> int:
        """Logical CPUs that must be there at once."""
        return self.concurrent * trial_cpus(self.workers, self.streamed)

    @property
    def bundles(self) -> list[Bundle]:
        """The same, as the machines that they are on must have it."""
        if self.workers == 1:
            alone = {"CPU": trial_cpus(1, self.streamed), "GPU": self.gpu_fraction}
            return [alone] * self.concurrent
        each = [{"CPU": 1.0}] + [worker_bundle(self.gpu_fraction > 0)] * self.workers
        return each * self.concurrent

    @property
    def winner(self) -> Plan:
        """The plan on which the best settings are trained again, and judged."""
        return Plan(self.workers, gpu=self.gpu_fraction > 0)

    @property
    def trial_resources(self) -> dict[str, float]:
        """What Tune reserves for a trial; one with several workers asks for theirs itself."""
        return {"CPU": 1.0, "GPU": self.gpu_fraction if self.workers == 1 else 0.0}

    def __str__(self) -> str:
        each = counted(self.workers, self.gpu_fraction > 0)
        return f"{self.concurrent} trials at once, {each} each: {self.cpus} CPUs in all"


def trial_cpus(workers: int, streamed: bool) -> int:
    """CPUs of a trial: its own, its workers' if they are others, and those of streamed data."""
    if workers > 1:
        return 1 + workers * (1 + DATA_CPUS_PER_WORKER)
    return 1 + streamed * DATA_CPUS_PER_WORKER


def plan_tuning(settings: config.TuneConfig, streamed: bool, console: Console) -> TuningPlan:
    """What to ask of Ray; Mendable where the cluster can never give it.

    As many trials at once as there is room for, or as asked: a cluster grows for those.
    """
    asked, search = settings.resources, settings.search
    workers = asked.workers or 1
    gpu = wants_gpu(asked.gpu, {"CPU": trial_cpus(workers, streamed), "GPU": 1}, console)
    fraction = (search.gpu_fraction if workers == 1 else 1.0) if gpu else 0.0
    room = total("CPU") // trial_cpus(workers, streamed)
    if gpu:
        room = min(room, int(gpus() / (fraction * workers)))
    at_once = search.concurrent or max(1, min(room, search.trials))
    wanted = TuningPlan(at_once, workers, fraction, streamed)
    if provides(wanted.bundles, console):
        return wanted
    raise Mendable(
        f"{at_once} trials at once with {counted(workers, gpu)} each need {wanted.cpus} CPUs"
        + (f" and {at_once * workers * fraction:g} GPUs" if gpu else "")
        + f", and there are {total('CPU')} CPUs and {gpus()} GPUs: "
        + (f"give --concurrent {room}" if room else "give fewer --workers")
        + (", or leave out --gpu" if gpu else "")
    )


def tuning_cpus(settings: config.TuneConfig, streamed: bool) -> int:
    """CPUs that a Ray of our own must be told of, so that a search uses all the machine has."""
    workers = settings.resources.workers or 1
    at_once = settings.search.concurrent or max(1, cores() // workers)
    return max(PREPARE_CPUS, at_once * trial_cpus(workers, streamed))


def plan(settings: config.Experiment, console: Console) -> Plan:
    """What to ask of Ray; Mendable where the cluster can never give it: Ray would wait for ever.

    A cluster that grows has grown when this returns.
    """
    chosen = wish(settings, wants_gpu(settings.resources.gpu, worker_bundle(gpu=True), console))
    if provides(chosen.bundles, console):
        return chosen
    if chosen.gpu and chosen.workers > gpus():
        raise Mendable(
            f"{chosen.workers} GPU workers need {chosen.workers} GPUs and there are {gpus()}: "
            + (f"give --workers {gpus()}" if gpus() else "leave out --gpu")
        )
    cpus = total("CPU")
    raise Mendable(
        f"{chosen.workers} workers need {chosen.cpus} CPUs, 1 each and 1 each for their data, "
        f"and the cluster has {cpus}: give --workers {max(1, cpus // 2)}"
    )


def wants_gpu(asked: bool | None, bundle: Bundle, console: Console) -> bool:
    """Whether to work on GPUs: as asked, or where the cluster has any, or can have."""
    if asked is not None:
        return asked
    return gpus() > 0 or provides([bundle], console)


def worker_bundle(gpu: bool) -> Bundle:
    """What a training worker needs beside it: a CPU, one for its data, and its GPU."""
    return {"CPU": 1 + DATA_CPUS_PER_WORKER, "GPU": int(gpu)}


def plan_scoring(
    settings: config.Pool, parts: int, image_size: int, console: Console
) -> ScoringPlan:
    """What to ask of Ray to score so many parts; Mendable where the cluster cannot give it."""
    gpu = wants_gpu(settings.gpu, {"CPU": 1, "GPU": 1}, console)
    fraction = settings.gpu_fraction if gpu else 0.0
    room = scoring_room(fraction)
    workers = min(parts, settings.workers or max(1, room))
    elastic = settings.workers is None and "RAY_ADDRESS" in os.environ
    batch_size = settings.batch_size or (gpu_batch(image_size) if gpu else CPU_BATCH)
    wanted = ScoringPlan(workers, batch_size, fraction, elastic)
    if provides(wanted.bundles, console):
        return wanted
    each = f"{fraction:g} GPUs each, of {gpus()}" if gpu else "a CPU each"
    mend = f"give --workers {room}" if room else "leave out --gpu"
    raise Mendable(f"{workers} workers need {each}: {mend}")


def gpu_batch(image_size: int) -> int:
    """Images per pass that keep a GPU busy, and fit into a small one."""
    return max(1, GPU_PIXELS // image_size**2)


def scoring_room(gpu_fraction: float) -> int:
    """How many scoring workers the cluster has room for, beside those who decode for them."""
    return int(gpus() / gpu_fraction) if gpu_fraction else total("CPU")


def refitted(plan: ScoringPlan) -> ScoringPlan:
    """The same plan for what is left of the cluster.

    Workers planned for a lost node would take the CPUs of those who decode, and wait for ever.
    """
    room = scoring_room(plan.gpu_fraction)
    return replace(plan, workers=max(1, min(plan.workers, room)))


def counted(workers: int, gpu: bool) -> str:
    """So many workers, in words."""
    return f"{workers} {'GPU' if gpu else 'CPU'} worker{'s' if workers > 1 else ''}"


def check_share(plan: Plan, images: int) -> None:
    """Mendable where a worker would get less than two training images: batch norm needs two."""
    if images < 2 * plan.workers:
        raise Mendable(
            f"{images} training images are too few for {plan.workers} workers: "
            f"give --workers {max(1, images // 2)}, or more images"
        )


def wish(settings: config.Experiment, gpu: bool) -> Plan:
    """What the settings ask for: a worker for each GPU that is there, or one."""
    shared = sharers(settings.training.batch_size, gpus()) if gpu else 1
    return Plan(settings.resources.workers or shared, gpu)


def sharers(batch_size: int, most: int) -> int:
    """How many workers, `most` or less, can share a batch evenly, two images or more for each."""
    fair = (n for n in range(most, 1, -1) if batch_size % n == 0 and batch_size >= 2 * n)
    return next(fair, 1)


def logical_cpus(settings: config.Experiment) -> int:
    """CPUs that a Ray of our own must be told of, so that a run under these settings fits."""
    asked = settings.resources.gpu
    gpu = asked if asked is not None else gpus() > 0
    return max(PREPARE_CPUS, wish(settings, gpu).cpus)


def scoring_cpus(settings: config.Pool) -> int:
    """CPUs that a Ray of our own must be told of, at least: the workers that were asked for."""
    return settings.workers or 1
