"""Laws of the machine: no more CPUs count than this process gets the time of."""

from pathlib import Path

import pytest

from cnn import machine


@pytest.fixture(autouse=True)
def many_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host with 64 CPUs."""
    monkeypatch.setattr(machine, "visible", lambda: 64)


def system(root: Path, membership: str, files: dict[str, str]) -> Path:
    """A root with /proc/self/cgroup, and with files below /sys/fs/cgroup."""
    written = {"proc/self/cgroup": membership}
    written |= {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in written.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 64),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("40000 20000", 2),
        ("9900000 100000", 64),
        ("none", 64),
    ],
)
def test_a_quota_limits_the_cores_and_part_of_a_core_counts_as_one(
    tmp_path: Path, quota: str, cores: int
) -> None:
    assert machine.cores(system(tmp_path, "0::/", {"cpu.max": quota})) == cores


@pytest.mark.parametrize(("own", "above", "cores"), [("4", "8", 4), ("8", "4", 4), ("x", "3", 3)])
def test_the_least_quota_of_a_group_and_the_groups_above_it_counts(
    tmp_path: Path, own: str, above: str, cores: int
) -> None:
    files = {"a/b.slice/cpu.max": f"{own}00000 100000", "a/cpu.max": f"{above}00000 100000"}
    if own == "x":  # a group without the file
        del files["a/b.slice/cpu.max"]
    assert machine.cores(system(tmp_path, "0::/a/b.slice", files)) == cores


@pytest.mark.parametrize(("limit", "cores"), [("-1", 64), ("250000", 3)])
@pytest.mark.parametrize("seen", ["", "docker/1a2b/"], ids=["own group as top", "host's path"])
def test_version_1_of_control_groups_has_two_files(
    tmp_path: Path, seen: str, limit: str, cores: int
) -> None:
    membership = "9:memory:/other\n4:cpu,cpuacct:/docker/1a2b\n1:cpuset:/"
    files = {
        "cpu/other/cpu.cfs_quota_us": "100000",
        "cpu/other/cpu.cfs_period_us": "100000",
        f"cpu/{seen}cpu.cfs_quota_us": limit,
        f"cpu/{seen}cpu.cfs_period_us": "100000",
    }
    assert machine.cores(system(tmp_path, membership, files)) == cores


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert machine.cores(tmp_path) == 64
