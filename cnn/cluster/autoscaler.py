"""The autoscaler of a cluster: requests for machines, and whether it can start them."""

import os
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Literal

from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import autoscaler_pb2
from ray.experimental.internal_kv import internal_kv_get_gcs_client

Needs = dict[str, float]
"""The CPUs and GPUs that one worker needs on one node, as Ray counts them."""


def grows() -> bool:
    """Whether RAY_ADDRESS names a cluster that runs Ray's autoscaler v2."""
    return "RAY_ADDRESS" in os.environ and is_autoscaler_v2(fetch_from_server=True)


class Request:
    """A request for machines for all of these workers, for the length of a `with` block.

    Ray keeps a request until it is withdrawn: without that, machines would run, and cost, for ever.
    """

    def __init__(self, workers: list[Needs]) -> None:
        self.needs = [{name: count for name, count in one.items() if count} for one in workers]

    def __enter__(self) -> "Request":
        try:
            self.ask()
        except BaseException:  # it may have been sent, and Python calls no __exit__
            request_resources([])
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        request_resources([])

    def ask(self) -> None:
        """Send this request; it replaces the previous one."""
        request_resources(self.needs)
        self.version = status().cluster_resource_state.cluster_resource_state_version

    def answer(self) -> Literal["never", "heard", "unheard"]:
        """Whether the autoscaler has seen the request, and whether it can ever meet it.

        "unheard": not seen yet; "heard": seen, and possible; "never": seen, and infeasible. A
        cluster keeps only one request. Another job may replace ours, and Ray Data's coordinator,
        if an earlier job has left one, does so three times a minute: then it is sent again.
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
    """Tell the autoscaler which bundles the cluster must have room for."""
    from ray.autoscaler import sdk  # late: only drivers need it, and every worker would pay

    sdk.request_resources(bundles=bundles)


def counted_bundles(constraint: Any) -> Counter[frozenset[tuple[str, float]]]:
    """How often each bundle (what one node must have) is requested."""
    counts: Counter[frozenset[tuple[str, float]]] = Counter()
    for group in constraint.resource_requests:
        counts[frozenset(group.request.resources_bundle.items())] += group.count
    return counts


def status() -> Any:
    """The cluster's resources and requests, and the state that the autoscaler last reported.

    This is Ray's protobuf message: its Python interface leaves out infeasible requests.
    """
    gcs: Any = internal_kv_get_gcs_client()  # type: ignore[no-untyped-call]
    reply = gcs.get_cluster_status(timeout_s=30)
    return autoscaler_pb2.GetClusterStatusReply.FromString(reply)  # type: ignore[attr-defined]
