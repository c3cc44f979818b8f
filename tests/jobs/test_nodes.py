"""Laws of clusters: several nodes give the results of one, even if one of them is lost."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from runs import epochs_kept, wait_for

from cnn.cluster import environment as ray_environment
from cnn.dataset import digits

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow

ray_environment.set_defaults()

# Without batch norm and augmentation, several workers compute exactly what one does, except for the
# order of sums. At a tenth of the learning rate, that difference stays small.
EXACT = (
    "--normalisation", "none", "--lr", 3e-4, "--dropout", 0, "--rotation", 0, "--shift", 0,
    "--zoom", 0, "--no-flip", "--precision", "float32",
)  # fmt: skip


class Nodes:
    """A Ray cluster of several nodes on this machine; its head has no CPUs, as in cluster.yaml."""

    def __init__(self, number: int) -> None:
        from ray.cluster_utils import Cluster

        self.folder = Path(tempfile.mkdtemp(prefix="ray"))
        arguments = {"num_cpus": 0, "temp_dir": str(self.folder)}
        (self.folder / "ray").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            # Where Ray notes the cluster's address, else for every other Ray on this machine.
            patch.setenv("RAY_TMPDIR", str(self.folder))
            self.cluster = Cluster(initialize_head=True, head_node_args=arguments)
        # Each at an address of its own, as machines are: gradients are sent from node to node.
        addresses = [f"127.0.0.{number + 2}" for number in range(number)]
        self.workers = [
            self.cluster.add_node(num_cpus=4, node_ip_address=address) for address in addresses
        ]

    @property
    def environment(self) -> dict[str, str]:
        """What a submitted job finds in its environment."""
        return {"RAY_ADDRESS": self.cluster.address}

    def alive(self) -> int:
        """The number of nodes, including the head."""
        return sum(node["Alive"] for node in self.cluster.global_state.node_table())

    def lose(self) -> None:
        """Remove a node without a graceful shutdown."""
        self.cluster.remove_node(self.workers.pop(), allow_graceful=False)

    def end(self) -> None:
        self.cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


# Only for the last tests of this file: the second cluster takes CPUs until the file ends.
@pytest.fixture(scope="module", params=[2, 4])
def nodes(request: pytest.FixtureRequest) -> Iterator[Nodes]:
    nodes = Nodes(request.param)
    yield nodes
    nodes.end()


@pytest.fixture
def two_nodes() -> Iterator[Nodes]:
    nodes = Nodes(2)
    yield nodes
    nodes.end()


def rows(out: Path) -> pa.Table:
    parts = sorted((out / "predictions").glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(part, partitioning=None) for part in parts)


@pytest.fixture(scope="module")
def alone(command: Command, runs: Path) -> Path:
    """A short training on this machine, without a cluster."""
    out = runs / "nodes" / "alone"
    done = command("train", "--out", out, "--epochs", 2, *EXACT)
    assert done.returncode == 0, done.stderr
    return out


def test_training_survives_the_loss_of_a_node(start: Start, two_nodes: Nodes, runs: Path) -> None:
    out = runs / "nodes" / "node-lost"
    arguments = ("train", "--out", out, "--epochs", 30, "--workers", 2)
    process = start(*arguments, environment=two_nodes.environment)
    wait_for(process, lambda: epochs_kept(out) >= 2)
    two_nodes.lose()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert list(pd.read_csv(out / "history.csv")["epoch"]) == list(range(1, 31))
    assert json.loads((out / "evaluation.json").read_text())["accuracy"] > 0.95


def test_scoring_survives_the_loss_of_a_node(
    start: Start, two_nodes: Nodes, alone: Path, runs: Path
) -> None:
    out, images = runs / "nodes" / "score-node-lost", runs / "nodes" / "digits-images"
    arguments = ("score", alone, images, "--out", out, "--batch-size", 1)
    process = start(*arguments, environment=two_nodes.environment)
    wait_for(process, lambda: len(list((out / "predictions").glob("part-*"))) >= 3)
    two_nodes.lose()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert sorted(images / path for path in rows(out)["path"].to_pylist()) == sorted(
        images.rglob("*.png")
    )


def test_a_folder_that_a_node_does_not_share_is_refused(
    command: Command, two_nodes: Nodes, runs: Path, tmp_path: Path
) -> None:
    """The third node has an empty /tmp of its own, as another machine would."""
    ray, address = Path(sys.executable).with_name("ray"), two_nodes.cluster.address
    join = f"{ray} start --address {address} --num-cpus 1 --block"
    script = f"mount -t tmpfs none {tmp_path} && exec {join}"
    environment = {**os.environ, "RAY_TMPDIR": str(two_nodes.folder)}
    node = subprocess.Popen(["unshare", "-m", "sh", "-c", script], env=environment)
    try:
        wait_for(node, lambda: two_nodes.alive() == 4)
        out = tmp_path / "run"
        done = command("train", "--out", out, environment=two_nodes.environment)
        assert done.returncode == 2, done.stderr
        assert "is another folder on" in done.stderr and done.stderr.count("\n") == 1
        assert not out.exists()
        images = digits.write(tmp_path / "images")
        done = command("prepare", images, "--out", tmp_path / "prepared")
        assert done.returncode == 0, done.stderr
        # Each is refused although its own folder, which is not below tmp_path, is shared.
        for number, job in enumerate(("train", "tune")):
            arguments = (tmp_path / "prepared", "--out", runs / "nodes" / f"unshared-{number}")
            done = command(job, *arguments, environment=two_nodes.environment)
            assert done.returncode == 2, done.stderr
            assert f"the prepared images in {tmp_path}" in done.stderr.splitlines()[-1]
            assert "Traceback" not in done.stderr and "remove" not in done.stderr
    finally:
        node.terminate()
        node.wait()


def test_images_are_not_sent_to_a_cluster_without_cpus(command: Command, tmp_path: Path) -> None:
    """Ray Data would wait for ever."""
    head, out = Nodes(0), tmp_path / "prepared"
    try:
        done = command(
            "prepare", digits.write(tmp_path / "images"), "--out", out, environment=head.environment
        )
        assert done.returncode == 2, done.stderr
        assert "to decode images takes a CPU, and the cluster has none" in done.stderr
        assert done.stderr.count("\n") == 1 and not out.exists()
    finally:
        head.end()


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch can use the GPUs of this machine")
def test_a_gpu_that_torch_cannot_use_is_refused_and_not_replaced_by_a_cpu(
    command: Command, two_nodes: Nodes, alone: Path, runs: Path, tmp_path: Path
) -> None:
    two_nodes.cluster.add_node(num_cpus=4, num_gpus=1)
    images = runs / "nodes" / "digits-images"
    jobs = [("train",), ("score", alone, images), ("tune", images, "--trials", 2)]
    for number, job in enumerate(jobs):
        out = tmp_path / str(number)
        done = command(*job, "--out", out, environment=two_nodes.environment)
        assert done.returncode == 2, done.stderr
        assert "update its driver, or give --no-gpu" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_training_on_several_nodes_equals_training_on_one(
    command: Command, nodes: Nodes, alone: Path, runs: Path
) -> None:
    number = len(nodes.workers)
    out = runs / "nodes" / f"train-{number}"
    arguments = ("train", "--out", out, "--epochs", 2, "--workers", number, *EXACT)
    done = command(*arguments, environment=nodes.environment)
    assert done.returncode == 0, done.stderr
    assert f"{number} CPU workers" in done.stderr
    mine, theirs = (pd.read_csv(run / "history.csv") for run in (alone, out))
    for name in ("train_loss", "val_loss"):
        assert list(mine[name]) == pytest.approx(list(theirs[name]), rel=1e-2)


def test_scoring_on_several_nodes_equals_scoring_on_one(
    command: Command, nodes: Nodes, alone: Path, runs: Path
) -> None:
    images, number = runs / "nodes" / "digits-images", len(nodes.workers)
    outs = runs / "nodes" / f"score-{number}", runs / "nodes" / f"score-alone-{number}"
    for out, where in zip(outs, (nodes.environment, None), strict=True):
        done = command("score", alone, images, "--out", out, environment=where)
        assert done.returncode == 0, done.stderr
    columns = ["path", "label", "predicted", "error"]
    assert rows(outs[0]).select(columns).equals(rows(outs[1]).select(columns))


def test_a_search_on_several_nodes_finishes(command: Command, nodes: Nodes, runs: Path) -> None:
    out = runs / "nodes" / f"tune-{len(nodes.workers)}"
    arguments = ("tune", "--out", out, "--trials", 3, "--epochs", 2, "--filters", "8,16")
    done = command(*arguments, environment=nodes.environment)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(out / "leaderboard.csv")) == 3
