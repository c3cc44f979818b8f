"""Laws of the processes that Ray starts: they follow the environment's settings."""

import os
import sys
from ipaddress import ip_address

import psutil
import pytest
import ray

from cnn.cluster import environment


@ray.remote
def pages_cleared() -> int:
    """How many pages the system clears for 64 MiB of activations, once a worker is warm."""
    import resource

    import torch

    for _ in range(12):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux reads these variables")
def test_a_worker_reuses_the_memory_of_a_batch_for_the_next() -> None:
    assert ray.get(pages_cleared.remote()) < 1_000  # of 16,384


def test_a_ray_started_here_listens_on_this_machine_alone() -> None:
    listening = [
        ip_address(socket.laddr.ip.removeprefix("::ffff:"))
        for process in psutil.Process().children(recursive=True)
        for socket in process.net_connections()
        if socket.status == psutil.CONN_LISTEN
    ]
    assert listening and all(address.is_loopback for address in listening), listening


def test_an_empty_address_names_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    environment.set_defaults()
    assert "RAY_ADDRESS" not in os.environ
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    environment.set_defaults()
    assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"
