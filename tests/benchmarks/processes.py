"""CPU-seconds of a command with all the processes that it starts, including Ray's."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
SERVICES = "Ray's services"
INTERVAL = 0.2  # seconds; what a process uses after its last sample is lost


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

    def look(self, process: psutil.Process, memory: bool) -> None:
        times, name = process.cpu_times(), process.name()
        self.cpu[process.pid] = times.user + times.system
        self.names[process.pid] = name
        if memory:
            resident = process.memory_full_info().uss  # without what is shared: Ray's store
            self.memory[process.pid] = max(self.memory.get(process.pid, 0), resident)


def measure(*arguments: object, memory: bool = False) -> Usage:
    """Run `python ARGUMENTS…` to its end; RuntimeError with its output if it fails.

    Measuring memory as well takes a quarter of a core while Ray's processes run.
    """
    started, usage = time.monotonic(), Usage()
    command = [sys.executable, *map(str, arguments)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        while running.poll() is None:
            for process in tree(running.pid):
                try:
                    usage.look(process, memory)
                except psutil.Error:
                    continue
            time.sleep(INTERVAL)
        assert running.stdout is not None
        if running.returncode:
            raise RuntimeError(running.stdout.read())
    usage.wall = time.monotonic() - started
    return usage


@dataclass
class Spent:
    """What a block of code used, in seconds: wall time, and CPU time by kind of process."""

    wall: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def driver(self) -> float:
        """CPU-seconds of this process alone, for what runs here while Ray's workers idle."""
        return self.cpu["driver"]

    @property
    def all(self) -> float:
        """CPU-seconds of all processes."""
        return sum(self.cpu.values())

    @property
    def work(self) -> float:
        """CPU-seconds of this process and of Ray's workers.

        Ray's services are left out: their cost grows with wall time, and so with the load of the
        machine.
        """
        return sum(seconds for name, seconds in self.cpu.items() if name != SERVICES)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.cpu.items())
        return f"{self.work:.2f} CPU-s ({parts}) in {self.wall:.1f} s"


@contextmanager
def metered() -> Iterator[Spent]:
    """What this process and all its descendants use in a `with` block, known at its end.

    A thread samples them every second; its own time is left out. Of a process that ends in the
    block, at most the last second is lost.
    """
    spent, started, done = Spent(), time.monotonic(), threading.Event()
    before, own = below(), time.process_time()
    seen, watching = dict(before), [0.0]

    def watch() -> None:
        while not done.wait(1.0):
            seen.update(below())
            watching[0] = time.thread_time()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield spent
    finally:  # a running thread would keep the process from ending
        done.set()
        watcher.join()
    spent.cpu["driver"] = time.process_time() - own - watching[0]
    for pid, (name, seconds) in (seen | below()).items():
        kind = "workers" if name.startswith("ray::") else SERVICES
        already = before[pid][1] if pid in before else 0.0
        spent.cpu[kind] = spent.cpu.get(kind, 0.0) + seconds - already
    spent.wall = time.monotonic() - started


def below() -> dict[int, tuple[str, float]]:
    """Name and CPU-seconds so far of each descendant of this process."""
    found = {}
    for process in tree(os.getpid()):
        if process.pid == os.getpid():
            continue
        try:
            times = process.cpu_times()
            found[process.pid] = process.name(), times.user + times.system
        except psutil.Error:
            continue
    return found


def tree(pid: int) -> Iterator[psutil.Process]:
    """A process and all its descendants."""
    try:
        process = psutil.Process(pid)
        yield process
        yield from process.children(recursive=True)
    except psutil.Error:
        return
