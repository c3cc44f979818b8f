"""The capacity of the cluster: what it has, and what its autoscaler brings when it is asked."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import autoscaler_pb2
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from cnn import plural
from cnn.console import Console
from cnn.errors import Mendable

Needs = dict[str, float]
"""What one worker needs in one place, as Ray counts it: CPUs and GPUs."""

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
    """Mendable where a worker that was given a GPU could not use it."""
    if gpu and not own_gpus():
        raise Mendable(UNUSABLE)


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

    False where it never will; Mendable where machines were asked for, and did not come in time.
    """
    if has(workers):
        return True
    if not grows():
        return False
    told = ""
    with requested(workers) as request:
        asked = time.monotonic()
        while not has(workers):
            state = status().autoscaling_state
            seen = state.last_seen_cluster_resource_state_version >= request
            if seen and state.infeasible_cluster_resource_constraints:
                return False
            if time.monotonic() - asked > PATIENCE:
                raise Mendable(
                    f"no machines came in {PATIENCE // 60} minutes ({shortfall(workers)}): "
                    "see `ray status` for why, or ask for fewer --workers"
                )
            if seen and told != (told := shortfall(workers)):
                console.say(f"waiting  for machines: {told}")
            time.sleep(0.5)
    return True


def grows() -> bool:
    """Whether this is a cluster with an autoscaler that answers."""
    return "RAY_ADDRESS" in os.environ and is_autoscaler_v2(fetch_from_server=True)


@contextmanager
def requested(workers: list[Needs]) -> Iterator[int]:
    """Ask for what these need in the length of a `with` block; yields the cluster's version.

    A request stays until it is taken back: machines would run, and cost, for ever.
    """
    from ray.autoscaler.sdk import request_resources  # late: every worker would pay for it

    request_resources(bundles=[{n: count for n, count in one.items() if count} for one in workers])
    try:
        yield status().cluster_resource_state.cluster_resource_state_version
    finally:
        request_resources(bundles=[])


def status() -> Any:
    """What the cluster has and was asked for, and the autoscaler's word on the last it has seen.

    Ray's own message, as its Python interface keeps back what is infeasible.
    """
    gcs: Any = internal_kv_get_gcs_client()  # type: ignore[no-untyped-call]
    reply = gcs.get_cluster_status(timeout_s=30)
    return autoscaler_pb2.GetClusterStatusReply.FromString(reply)  # type: ignore[attr-defined]


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
