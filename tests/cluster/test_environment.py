"""Laws of the processes that Ray starts: they follow the environment's settings."""

import os
import socket
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import ray

from cnn.cluster import environment
from cnn.cluster.session import require_listener
from cnn.errors import UserError


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
        ip_address(one.laddr.ip.removeprefix("::ffff:"))
        for process in psutil.Process().children(recursive=True)
        for one in process.net_connections()
        if one.status == psutil.CONN_LISTEN
    ]
    assert listening and all(address.is_loopback for address in listening), listening


def test_a_ray_started_here_has_no_process_that_reads_its_logs() -> None:
    """Ten times a second, for a driver that does not listen."""
    commands = [" ".join(one.cmdline()) for one in psutil.Process().children(recursive=True)]
    assert any("raylet" in command for command in commands)
    assert not [command for command in commands if "log_monitor.py" in command]


@pytest.mark.parametrize("address", ["", " ", "local", " local\n"])
def test_an_address_that_is_empty_or_local_names_no_cluster(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Ray's own `local` listens on all interfaces, with a token that everybody here can read."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    environment.set_defaults()
    assert "RAY_ADDRESS" not in os.environ
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    environment.set_defaults()
    assert os.environ["RAY_ADDRESS"] == "10.0.0.1:6379"


def test_an_address_where_something_listens_is_left_to_ray() -> None:
    with socket.create_server(("", 0)) as server:
        require_listener(f"localhost:{server.getsockname()[1]}")
    for address in ("auto", "ray://10.0.0.1:10001"):
        require_listener(address)


def test_a_closed_port_is_reported_within_seconds() -> None:
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    started = time.monotonic()
    for unknown in (address, "no..host:6379"):
        with pytest.raises(UserError, match=f"no Ray answers at RAY_ADDRESS={unknown}"):
            require_listener(unknown)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", ["foo", "http://127.0.0.1:8265", "host:99999", ":6379", "h:x"])
def test_an_address_of_another_form_is_refused_with_the_wanted_one(address: str) -> None:
    with pytest.raises(UserError, match=f"RAY_ADDRESS={address} .* give HOST:6379"):
        require_listener(address)


@pytest.mark.parametrize(("given", "used"), [("", None), ("rel", "{}/rel"), ("/tmp", "/tmp")])
def test_rays_folder_is_absolute_and_an_empty_one_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str, used: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", given)
    environment.set_defaults()
    assert os.environ.get("RAY_TMPDIR") == (used and used.format(tmp_path))
