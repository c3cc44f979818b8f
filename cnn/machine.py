"""The machine: the CPUs and the memory that this process may use."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

PASS_PIXELS = 2**22  # of the images in one pass through a network, limited by memory


def cores(root: Path = Path("/")) -> int:
    """CPUs that this process may use: `taskset` and cpusets hide others, and quotas limit the time.

    A container with `--cpus 2` sees all CPUs of its host, but more than two threads would only
    take turns. Part of a CPU counts as one. root: where /proc and /sys are.
    """
    return max(1, math.ceil(min([visible(), *quotas(root)])))


def visible() -> int:
    """The CPUs on which the system may run this process."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quotas(root: Path) -> Iterator[float]:
    """How many CPUs' time this process's control group may use, and each group above it."""
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on Linux
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue  # version 1 has a hierarchy for each kind of resource
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        # A container may see its own group as the top, under a path that only its host knows.
        for name in (Path(path), *Path(path).parents):
            yield quota(top / name.relative_to("/"))


def quota(group: Path) -> float:
    """How many CPUs' time a control group may use: infinite without a quota."""
    for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):  # versions 2 and 1
        try:
            limit, period = " ".join((group / file).read_text() for file in files).split()
            return math.inf if limit in ("max", "-1") else int(limit) / int(period)
        except (OSError, ValueError):  # absent, or in a form of another version
            continue
    return math.inf


def free_memory() -> int:
    """Bytes of memory that new processes could take now."""
    return int(psutil.virtual_memory().available)


def images_at_once(side: int, most: int) -> int:
    """Images, `side` pixels a side, that a pass through a network takes: `most`, if memory lets."""
    return max(1, min(most, PASS_PIXELS // side**2))
