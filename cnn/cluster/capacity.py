"""The capacity of the cluster: what it has, and what more it gets when it is asked."""

import sys
import time

import ray
import torch

from cnn import plural
from cnn.cluster.autoscaler import Needs, Request, grows
from cnn.console import Console
from cnn.errors import UserError

# Fifteen fifths, added up, are a little more than three.
TOLERANCE = 1e-6

UNUSABLE = "a worker was given a GPU that torch cannot use: update its driver, or give --no-gpu"

# A machine of a cloud takes some minutes to start and to be set up.
PATIENCE = 20 * 60


def total(resource: str) -> int:
    """How much of a resource the whole cluster has, free or taken.

    Before there is one, what this machine's Ray is going to have: as many CPUs as it is told of.
    """
    if not ray.is_initialized():
        return own_gpus() if resource == "GPU" else sys.maxsize
    return int(ray.cluster_resources().get(resource, 0))  # type: ignore[no-untyped-call]


def gpus() -> int:
    """GPUs in the cluster, or in this machine before there is a cluster."""
    return total("GPU")


def own_gpus() -> int:
    """GPUs of this machine that torch can use: under an old driver it sees them, and cannot."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def require_usable(gpu: bool) -> None:
    """UserError where a worker that was given a GPU could not use it."""
    if gpu and not own_gpus():
        raise UserError(UNUSABLE)


def has(workers: list[Needs]) -> bool:
    """Whether the cluster has as much as these workers need together."""
    wanted = together(workers).items()
    return all(total(name) >= count - TOLERANCE for name, count in wanted)


def slots(gpus: int, fraction: float) -> int:
    """How many workers fit that take this fraction of a GPU each: none has parts of two."""
    return gpus * int(1 / fraction + TOLERANCE)


def together(workers: list[Needs]) -> Needs:
    """What all of them need."""
    names = {name for needs in workers for name in needs}
    return {name: sum(needs.get(name, 0) for needs in workers) for name in sorted(names)}


def provides(workers: list[Needs], console: Console) -> bool:
    """Whether the cluster has what these need, or has grown to have it when this returns.

    False where it never will; UserError where machines were asked for, and did not come in time.
    """
    if has(workers):
        return True
    if not grows():
        return False
    told, asked = "", time.monotonic()
    with Request(workers) as request:
        while not has(workers):
            answer = request.answer()
            if answer == "never":
                return False
            if time.monotonic() - asked > PATIENCE:
                raise UserError(
                    f"no machines came in {PATIENCE // 60} minutes ({shortfall(workers)}): "
                    "see `ray status` for why, or ask for fewer --workers"
                )
            if answer == "heard" and told != (told := shortfall(workers)):
                console.say(f"waiting  for machines: {told}")
            time.sleep(0.5)
    return True


def wants_gpu(asked: bool | None, worker: Needs, console: Console) -> bool:
    """Whether to work on GPUs: as asked, or where the cluster has any, or can have."""
    if asked is not None:
        return asked
    return gpus() > 0 or provides([worker], console)


def counted(workers: int, gpu: bool) -> str:
    """So many workers, in words."""
    return plural.counted(workers, "GPU worker" if gpu else "CPU worker")


def shortfall(workers: list[Needs]) -> str:
    """What is there of what is wanted."""
    wanted = together(workers).items()
    return ", ".join(f"{total(name)} of {count:g} {name}s" for name, count in wanted if count)
