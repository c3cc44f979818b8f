"""CPU-seconds of a command with all the processes that it starts, Ray's among them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
INTERVAL = 0.2  # seconds; what a process does after the last look at it is lost


@dataclass
class Usage:
    """What a command used: wall and CPU in seconds, memory in bytes (peaks of each process)."""

    wall: float = 0.0
    cpu: dict[int, float] = field(default_factory=dict)
    memory: dict[int, int] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)

    @property
    def cpu_seconds(self) -> float:
        return sum(self.cpu.values())

    def look(self, process: psutil.Process) -> None:
        times, name = process.cpu_times(), process.name()
        self.cpu[process.pid] = times.user + times.system
        resident = process.memory_full_info().uss  # without what is shared, such as Ray's store
        self.memory[process.pid] = max(self.memory.get(process.pid, 0), resident)
        self.names[process.pid] = name


def measure(*arguments: object) -> Usage:
    """Run `python ARGUMENTS…` to its end; RuntimeError with its words where it fails."""
    started, usage = time.monotonic(), Usage()
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        while running.poll() is None:
            for process in tree(running.pid):
                try:
                    usage.look(process)
                except psutil.Error:
                    continue
            time.sleep(INTERVAL)
        assert running.stdout is not None
        if running.returncode:
            raise RuntimeError(running.stdout.read())
    usage.wall = time.monotonic() - started
    return usage


def tree(pid: int) -> Iterator[psutil.Process]:
    """A process and all below it."""
    try:
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)
    except psutil.Error:
        return
