"""Laws of cluster.yaml and of the README's manifest: Ray's schema, and values that must agree."""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def launched(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration that `ray up` works with: the file, and the launcher's defaults."""
    whole: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(whole)
    return whole


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text("utf-8"))
    return content


@pytest.fixture(scope="module")
def config(written: dict[str, Any]) -> dict[str, Any]:
    return launched(written)


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """The RayJob that the README shows."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    [found] = [block for block in blocks if "kind: RayJob" in block]
    content: dict[str, Any] = yaml.safe_load(found)
    return content


def test_the_head_offers_no_cpus_or_gpus(config: dict[str, Any]) -> None:
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert any("--num-cpus=0 --num-gpus=0" in line for line in config["head_start_ray_commands"])


def test_workers_start_at_zero_and_stop_when_idle(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    assert {name: kind["min_workers"] for name, kind in types.items()} == dict.fromkeys(types, 0)
    assert types["head"]["max_workers"] == 0
    assert 0 < config["idle_timeout_minutes"] <= 30


@pytest.mark.parametrize("name", ["gpu", "cpu"])
def test_spot_is_tried_first_and_then_the_same_machine_on_demand(
    config: dict[str, Any], name: str
) -> None:
    spot, sure = (config["available_node_types"][kind] for kind in (f"{name}-spot", name))
    assert spot["priority"] > sure.get("priority", 0)
    market = spot["node_config"].pop("InstanceMarketOptions")
    assert market == {"MarketType": "spot"}
    assert spot["node_config"] == sure["node_config"]


def test_every_node_installs_the_same_locked_environment(config: dict[str, Any]) -> None:
    assert config["head_setup_commands"] == config["worker_setup_commands"]
    assert {"~/cnn/pyproject.toml", "~/cnn/uv.lock"} <= config["file_mounts"].keys()
    [sync] = [line for line in config["head_setup_commands"] if "uv sync" in line]
    assert "--frozen" in sync and "--group cluster" in sync
    assert re.search(r"--python 3\.\d+$", sync)
    assert "cluster" in PROJECT["dependency-groups"]


def test_ray_is_installed_from_the_lock_file_only(config: dict[str, Any]) -> None:
    commands = [line for name in config if name.endswith("_commands") for line in config[name]]
    assert [line for line in commands if "whl" in line or "pip install" in line] == []
    [pinned] = [r for r in map(Requirement, PROJECT["project"]["dependencies"]) if r.name == "ray"]
    assert pinned.specifier.contains(ray.__version__)  # whose schema we test with
    major, minor, _ = ray.__version__.split(".")
    assert not pinned.specifier.contains(f"{major}.{int(minor) + 1}.0")


def test_access_to_the_cluster_needs_the_token_and_a_tunnel(
    config: dict[str, Any],
) -> None:
    [start] = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("RAY_AUTH_MODE=token" in line for line in config["setup_commands"])


def test_cluster_yaml_works_for_local_machines_as_the_readme_says(written: dict[str, Any]) -> None:
    own = {"type": "local", "head_ip": "10.0.0.1", "worker_ips": ["10.0.0.2", "10.0.0.3"]}
    kept = {n: v for n, v in written.items() if n not in ("available_node_types", "head_node_type")}
    config = launched(kept | {"provider": own, "max_workers": 2})
    assert config["worker_start_ray_commands"] == written["worker_start_ray_commands"]
    assert "type: local" in (ROOT / "README.md").read_text("utf-8")


def test_the_kubernetes_manifest_follows_the_same_rules(manifest: dict[str, Any]) -> None:
    cluster = manifest["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"} and cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert [group["minReplicas"] for group in cluster["workerGroupSpecs"]] == [0, 0]
