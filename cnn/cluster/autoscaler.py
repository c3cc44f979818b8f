"""The autoscaler of a cluster: asked for machines, and its word on whether they can come."""

import os
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal

from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import autoscaler_pb2
from ray.experimental.internal_kv import internal_kv_get_gcs_client

Needs = dict[str, float]
"""What one worker needs in one place, as Ray counts it: CPUs and GPUs."""


def grows() -> bool:
    """Whether this is a cluster with an autoscaler that answers."""
    return "RAY_ADDRESS" in os.environ and is_autoscaler_v2(fetch_from_server=True)


class Request:
    """Machines for all of these workers, asked for in the length of a `with` block.

    What is asked stays until it is taken back: machines would run, and cost, for ever.
    """

    def __init__(self, workers: list[Needs]) -> None:
        self.needs = [{name: count for name, count in one.items() if count} for one in workers]

    def __enter__(self) -> "Request":
        self.ask()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        request_resources([])

    def ask(self) -> None:
        """Put this request in the place of what was asked before."""
        request_resources(self.needs)
        self.version = status().cluster_resource_state.cluster_resource_state_version

    def answer(self) -> Literal["never", "heard", "unheard"]:
        """What has become of it.

        A cluster has room for one request. Another job may put its own in the place of ours, and
        Ray Data's coordinator, which an earlier job has left, does so three times a minute.
        """
        reply = status()
        state = reply.autoscaling_state
        if not self.is_among(reply.cluster_resource_state.cluster_resource_constraints):
            self.ask()
            return "unheard"
        if state.last_seen_cluster_resource_state_version < self.version:
            return "unheard"
        return "never" if self.is_among(state.infeasible_cluster_resource_constraints) else "heard"

    def is_among(self, constraints: Iterable[Any]) -> bool:
        """Whether one of Ray's `ClusterResourceConstraint` messages is this request."""
        wanted = Counter(frozenset(needs.items()) for needs in self.needs)
        return any(wanted == counted_bundles(constraint) for constraint in constraints)


def request_resources(bundles: list[Needs]) -> None:
    """Tell the autoscaler what the cluster must have room for."""
    from ray.autoscaler import sdk  # late: every worker would pay for it

    sdk.request_resources(bundles=bundles)


def counted_bundles(constraint: Any) -> Counter[frozenset[tuple[str, float]]]:
    """What is wanted in one place, and how often."""
    counts: Counter[frozenset[tuple[str, float]]] = Counter()
    for group in constraint.resource_requests:
        counts[frozenset(group.request.resources_bundle.items())] += group.count
    return counts


def status() -> Any:
    """What the cluster has and was asked for, and the autoscaler's word on the last it has seen.

    Ray's own message, as its Python interface keeps back what is infeasible.
    """
    gcs: Any = internal_kv_get_gcs_client()  # type: ignore[no-untyped-call]
    reply = gcs.get_cluster_status(timeout_s=30)
    return autoscaler_pb2.GetClusterStatusReply.FromString(reply)  # type: ignore[attr-defined]
