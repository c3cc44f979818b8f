"""`ray up` with the commands of cluster.yaml on machines made of namespaces, without a cloud.

    pytest -m slow tests/jobs/test_launcher.py

It needs root, Debian's openssh-server, rsync and iproute2, and uv with the packages of uv.lock in
its cache. It takes some minutes.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOSTS = Path(__file__).with_name("hosts.sh")
NEEDED = ("uv", "unshare", "ip", "ssh", "rsync", "/usr/sbin/sshd")

# The commands of the README, with checks between them.
COMMANDS = """
ray() { echo "== ray $*" >&2; command ray "$@"; }
ray up -y "$CONFIG"
until ray exec "$CONFIG" 'ray status' 2> /dev/null | grep -q '/[1-9].*CPU'; do sleep 2; done
ray exec "$CONFIG" 'ray list nodes --format json' 2> /dev/null
ray dashboard "$CONFIG" & tunnel=$!
until (echo > /dev/tcp/127.0.0.1/8265) 2> /dev/null; do sleep 1; done
export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
RAY_AUTH_TOKEN=0000000000000000000000000000000000000000 ray job list && exit 1
ray job submit --working-dir . -- python -m jobs.train --epochs 2 --out /mnt/runs/digits
kill $tunnel
ray down -y "$CONFIG"
ray exec "$CONFIG" 'ray status' && exit 1
ssh="ssh -o StrictHostKeyChecking=no -o LogLevel=ERROR -i $KEY"
for host in 2 3; do  # a worker stops when its head has been gone for a minute
  timeout 120 $ssh "root@10.77.0.$host" 'while pgrep raylet > /dev/null; do sleep 2; done'
done
"""


def local(folder: Path) -> Path:
    """cluster.yaml for two existing machines: another provider, the same commands."""
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
    for name in ("available_node_types", "head_node_type"):
        del config[name]
    config["provider"] = {"type": "local", "head_ip": "10.77.0.2", "worker_ips": ["10.77.0.3"]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(folder / "key")}
    config["max_workers"] = 1
    config["file_mounts"]["~/.ray/auth_token"] = str(folder / "token")
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, NEEDED)), reason=f"needs root, {NEEDED}"
)
def test_the_launcher_starts_a_cluster_that_trains_and_stops_it(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "token").write_text("1" * 40)
    environment = os.environ | {
        "CONFIG": str(local(folder)),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # Ray's newer autoscaler, its default, never starts a worker of the local provider.
        "RAY_UP_enable_autoscaler_v2": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_TMPDIR": str(folder),
        "TMPDIR": str(folder),
    }
    done = subprocess.run(
        [HOSTS, folder, "2", "bash", "-euc", COMMANDS],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [nodes] = [json.loads(line) for line in done.stdout.splitlines() if '"node_id"' in line]
    cpus = {node["node_ip"]: node["resources_total"].get("CPU", 0) for node in nodes}
    assert cpus["10.77.0.2"] == 0 < cpus["10.77.0.3"]
    assert "test accuracy" in done.stdout and "succeeded" in done.stdout
    history = pd.read_csv(folder / "shared/runs/digits/history.csv")
    assert list(history["epoch"]) == [1, 2]
