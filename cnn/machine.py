"""The machine: the CPUs and the memory that this process may use."""

import os

import psutil


def cores() -> int:
    """CPUs that this process may use: `taskset` and cpusets hide others."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Bytes of memory that new processes could take now."""
    return int(psutil.virtual_memory().available)
