"""Laws of a cluster that grows: a job waits for the machines it needs, or says why none will come.

These tests use Ray's own autoscaler and its test provider, which starts nodes on this machine.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.util import get_node_ip_address
from runs import wait_for
from test_submission import TOKEN, free_ports

Command = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow

HEAD, WORKER = "ray.head.default", "cpu"

CONFIG = {
    "cluster_name": "growing",
    "max_workers": 2,
    "idle_timeout_minutes": 0.2,
    "provider": {
        # As an external provider: under its own name Ray needs a file that its wheel lacks.
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "launch_multiple": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "available_node_types": {
        HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        WORKER: {
            "resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2
        },
    },
    "head_node_type": HEAD,
    "auth": {},
    "upscaling_speed": 1.0,
    "docker": {},
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def growing() -> Iterator[dict[str, str]]:
    """The environment of a job on a cluster of a head without CPUs, and of up to two workers."""
    folder, (port, *others) = Path(tempfile.mkdtemp(prefix="ray")), free_ports(4)
    address = f"{get_node_ip_address()}:{port}"
    provider = {"gcs_address": address, "head_node_id": FAKE_HEAD_NODE_ID}
    config = folder / "cluster.json"
    config.write_text(json.dumps({**CONFIG, "provider": {**CONFIG["provider"], **provider}}))
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    environment = (
        os.environ
        | token
        | {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            "RAY_worker_niceness": "0",
        }
    )
    environment.pop("RAY_ADDRESS", None)
    log = folder / "head.log"
    names = ("dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    head = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
            f"--port={port}", "--num-cpus=0", "--num-gpus=0",
            f"--temp-dir={folder}", f"--autoscaling-config={config}", "--disable-usage-stats",
            *(f"--{name}={own}" for name, own in zip(names, others, strict=True)),
        ],
        env=environment,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_for(head, lambda: "Ray runtime started" in log.read_text())
        yield {"RAY_ADDRESS": address} | token
    finally:
        # The workers, which the autoscaler has started, are its children.
        for process in (*psutil.Process(head.pid).children(recursive=True), head):
            process.kill()
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def test_training_waits_for_the_machines_that_it_needs(
    command: Command, growing: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    arguments = ("train", "--out", out, "--epochs", 2, "--workers", 2, "--filters", "8,16")
    done = command(*arguments, environment=growing)
    assert done.returncode == 0, done.stderr
    assert "waiting  for machines: 0 of 4 CPUs" in done.stderr
    assert done.stdout.endswith(f"wrote {out}\n")


def test_more_workers_than_the_cluster_can_grow_to_are_refused(
    command: Command, growing: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    started = time.monotonic()
    done = command("train", "--out", out, "--workers", 4, environment=growing)
    assert done.returncode == 2, done.stderr
    assert "4 CPU workers takes 8 CPUs" in done.stderr and done.stderr.count("\n") == 1
    assert not out.exists() and time.monotonic() - started < 60


@contextmanager
def other_requests(environment: dict[str, str]) -> Iterator[None]:
    """Another client requests nothing every four seconds; Ray Data's does so every twenty."""
    code = (
        "import ray, time; from ray.autoscaler.sdk import request_resources as ask\n"
        "ray.init(log_to_driver=False)\n"
        "while True: ask(bundles=[]); print('asked', flush=True); time.sleep(4)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"asked\n"
        yield
    finally:
        other.kill()
        other.wait()


def test_search_and_scoring_wait_for_machines_despite_other_requests(
    command: Command, growing: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "search"
    arguments = ("tune", "--out", out, "--trials", 2, "--epochs", 2, "--filters", "8,16")
    with other_requests(growing):
        done = command(*arguments, environment=growing)
        assert done.returncode == 0, done.stderr
        scored, images = tmp_path / "scored", tmp_path / "digits-images"
        done = command("score", out, images, "--out", scored, environment=growing)
        assert done.returncode == 0, done.stderr
