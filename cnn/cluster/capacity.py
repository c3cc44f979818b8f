"""The capacity of the cluster: what it has, and what more it can start on request."""

import os
import sys
import time

import ray
import torch

from cnn.cluster.autoscaler import Needs, Request, grows
from cnn.errors import UserError
from cnn.text import plural
from cnn.text.console import Console

# Floating point: 0.2 added up 15 times is a little more than 3.
TOLERANCE = 1e-6

UNUSABLE = "a worker got a GPU that torch cannot use: update its driver, or give --no-gpu"

TOO_SMALL = "give the cluster more or larger machines"

# Seconds: a cloud machine takes some minutes to start and to be set up.
PATIENCE = 20 * 60


def total(resource: str) -> int:
    """How much of a resource the whole cluster has, free or taken.

    Before Ray is initialised: this machine's GPUs, and no limit on CPUs, because a local Ray gets
    as many logical CPUs as a job needs.
    """
    if not ray.is_initialized():
        return own_gpus() if resource == "GPU" else sys.maxsize
    return int(ray.cluster_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def gpus() -> int:
    """GPUs in the cluster, or in this machine before Ray is initialised."""
    return total("GPU")


def own_gpus() -> int:
    """GPUs that torch can use here; with an old driver, `device_count` alone is too high."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def require_any(gpu: bool | None) -> None:
    """Raises UserError if GPUs were asked for on this machine alone, and it has none."""
    if gpu and "RAY_ADDRESS" not in os.environ and not own_gpus():
        raise UserError("torch can use no GPU of this machine: give --no-gpu")


def require_usable(gpu: bool) -> None:
    """Raises UserError if this worker was given a GPU but torch cannot use any."""
    if gpu and not own_gpus():
        raise UserError(UNUSABLE)


def has(workers: list[Needs]) -> bool:
    """Whether the cluster has, in total, what all these workers need."""
    wanted = together(workers).items()
    return all(total(name) >= count - TOLERANCE for name, count in wanted)


def slots(gpus: int, fraction: float) -> int:
    """How many workers fit if each takes this fraction of one GPU, never parts of two."""
    return gpus * int(1 / fraction + TOLERANCE)


def together(workers: list[Needs]) -> Needs:
    """The sum of what these workers need."""
    names = {name for needs in workers for name in needs}
    return {name: sum(needs.get(name, 0) for needs in workers) for name in sorted(names)}


def obtain(workers: list[Needs], console: Console) -> bool:
    """Get what these need, if need be from a cluster that grows: wait until it has grown.

    False if it can never have it; UserError if requested machines did not come in time.
    """
    if has(workers):
        return True
    if not grows():
        return False
    printed, asked = "", time.monotonic()
    with Request(workers) as request:
        while not has(workers):
            answer = request.answer()
            if answer == "never":
                return False
            if time.monotonic() - asked > PATIENCE:
                raise too_late(workers)
            if answer == "heard" and printed != (printed := shortfall(workers)):
                console.say(f"waiting  for machines: {printed}")
            time.sleep(0.5)
    return True


def too_late(workers: list[Needs]) -> UserError:
    """The error for machines that did not come; a job that needs one CPU cannot ask for less."""
    less = "" if workers == [{"CPU": 1}] else ", and ask for fewer --workers or for --no-gpu"
    return UserError(
        f"no machines came in {PATIENCE // 60} minutes ({shortfall(workers)}): "
        f"see `ray status` for why{less}"
    )


def choose_gpu(asked: bool | None, worker: Needs, console: Console) -> bool:
    """Whether to use GPUs: as requested, or if the cluster has any or, after a wait, starts one."""
    if asked is not None:
        return asked
    return gpus() > 0 or obtain([worker], console)


def in_words(workers: int, gpu: bool) -> str:
    """The number and kind of workers, in words."""
    return plural.counted(workers, "GPU worker" if gpu else "CPU worker")


def shortfall(workers: list[Needs]) -> str:
    """How much of what these workers need the cluster has, in words."""
    wanted = together(workers).items()
    return ", ".join(f"{total(name)} of {count:g} {name}s" for name, count in wanted if count)
