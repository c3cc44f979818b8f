"""From the command to the first training step, against Ray's own start and the imports alone.

    python -m tests.benchmarks.starting [--rounds 3]

On the embedded digits, prepared before the clock starts; every start is a fresh process. The
CPU-seconds are those of all processes up to that moment, by name.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.processes import ROOT

# Both scripts end with `tell`: one line with what has been used until then.
TELL = """
import json, os, sys, time
import psutil
from cnn.cluster import environment
environment.set_defaults()
from tests.benchmarks.processes import tree

born, marks, last = psutil.Process().create_time(), {}, [0.0]

def mark(name):
    now = time.time() - born
    marks[name] = now - last[0]
    last[0] = now

def tell():
    cpu = []
    for process in tree(os.getpid()):
        try:
            times = process.cpu_times()
            cpu.append((process.name(), times.user + times.system))
        except psutil.Error:
            continue
    print(json.dumps({"wall": last[0], "marks": marks, "cpu": cpu}), flush=True)
"""

ALONE = """
import ray
from cnn.cluster import train_run
mark("imports")
ray.init(address="local", num_cpus=2)
mark("ray.init()")
tell()
"""

TRAINING = """
from contextlib import contextmanager
from cnn.cluster import train_run
from cnn.config import TrainConfig
from cnn.text.console import Console

mark("imports")

class FirstStep(Exception):
    pass

class Watch(Console):
    def say(self, text):
        mark(text.split()[0])

    @contextmanager
    def bar(self, title, unit=""):
        yield self.advance

    def advance(self, done, total):
        if done:
            mark("first step")
            tell()
            raise FirstStep

try:
    train_run.train(TrainConfig(out=sys.argv[1]), Watch())
except FirstStep:
    pass
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        ratios = [compare(Path(folder), number) for number in range(asked.rounds)]
    cpu, wall = (median(values) for values in zip(*ratios, strict=True))
    print(f"to the first step / start alone, median: {cpu:.2f} in CPU-seconds, {wall:.2f} in wall")


def prepare(folder: Path) -> None:
    """Run one epoch, which leaves the prepared images for the runs beside it."""
    command = ["-m", "jobs.train", "--epochs", "1", "--out", folder / "first"]
    subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, check=True)


def compare(folder: Path, number: int) -> tuple[float, float]:
    """Both once; the ratios of CPU-seconds and of wall time."""
    alone, training = start(ALONE), start(TRAINING, folder / f"run{number}")
    for name, used in (("start alone", alone), ("training", training)):
        marks = ", ".join(f"{mark} {seconds:.1f}" for mark, seconds in used["marks"].items())
        print(f"{name:12} {used['wall']:.1f} s: {marks}")
        print(f"{'':12} {total(used):.1f} CPU-s: {by_name(used)}", flush=True)
    return total(training) / total(alone), training["wall"] / alone["wall"]


def start(script: str, *arguments: object) -> dict[str, Any]:
    """What a fresh process had used when it came to the end of `script`."""
    command = [sys.executable, "-c", TELL + script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    # The exit code does not count: leaving a step in its middle may crash the process.
    if not done.stdout:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def total(used: dict[str, Any]) -> float:
    return sum(seconds for _, seconds in used["cpu"])


def by_name(used: dict[str, Any]) -> str:
    """CPU-seconds of each kind of process, the largest first."""
    seconds: Counter[str] = Counter()
    for name, spent in used["cpu"]:
        seconds[name] += spent
    return ", ".join(f"{name} {spent:.1f}" for name, spent in seconds.most_common() if spent > 0.1)


if __name__ == "__main__":
    main()
