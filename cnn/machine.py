"""The machine: the CPUs that this process may use."""

import os


def cores() -> int:
    """CPUs that this process may use: `taskset` and cpusets hide others."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
