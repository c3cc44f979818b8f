"""The decoder under damaged images: only images and reasons, in little time and memory.

    python -m tests.fuzz.decoder [--inputs 100000] [--seed 0] [--save DIR]

The images are decoded in a separate process, which the system kills if one takes more than
`SECONDS` of CPU, and which gets no more than `MEMORY`. `--save` keeps the inputs that failed.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np

from cnn.dataset.fit import Fit
from cnn.files.unreadable import Reason, Unreadable
from cnn.image import decode
from cnn.text.terminal import one_line
from tests.fuzz.inputs import damaged, seeds

ROOT = Path(__file__).parents[2]
SECONDS = 10.0
MEMORY = 3 * 2**29  # bytes, beside what the process has before the first image
SIZE = 32


@dataclass
class Findings:
    """The results of some inputs.

    outcomes: how many gave an `image`, and how many gave each reason.
    harm: by an input's number, its failure: an exception, or the signal that ended the process.
    slowest: most CPU-seconds for one input. peak: most bytes of memory of a process.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    harm: dict[int, str] = field(default_factory=dict)
    slowest: float = 0.0
    peak: int = 0


def fuzz(count: int, seed: int) -> Findings:
    """Decodes the first `count` inputs of a seed; continues after each that ends the process."""
    findings, number = Findings(), 0
    while number < count:
        command = [sys.executable, "-m", "tests.fuzz.decoder", "--child"]
        command += map(str, (number, count, seed))
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                note(findings, number, line)
                number += 1
        if child.returncode > 0:
            raise RuntimeError("the fuzzer itself failed")
        if child.returncode:
            findings.harm[number] = f"ended by {child.returncode}"
            number += 1
    return findings


def note(findings: Findings, number: int, line: str) -> None:
    """Records the line of a child about one input."""
    outcome, seconds, peak = line.rstrip("\n").split("\t")
    findings.slowest = max(findings.slowest, float(seconds))
    findings.peak = max(findings.peak, int(peak))
    if outcome.startswith("!"):
        findings.harm[number] = outcome[1:]
    else:
        findings.outcomes[outcome] += 1


def child(first: int, end: int, seed: int) -> None:
    """Decodes inputs, a line for each: outcome, CPU-seconds and the peak of memory in bytes."""
    whole = seeds()
    warnings.simplefilter("ignore")  # Pillow's, on metadata
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())  # libtiff's, on everything
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in range(first, end):
        data = damaged(whole, seed, number)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of CPU: other processes do not count
        started = time.process_time()
        outcome = outcome_of(data, "crop" if number % 2 else "squash")
        seconds = time.process_time() - started
        # Not getrusage: its peak includes that of the parent process.
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
        print(outcome, f"{seconds:.6f}", peak, sep="\t", flush=True)


def outcome_of(data: bytes, fit: Fit) -> str:
    """`image`, the reason why there is none, or `!` and the wrong result."""
    try:
        pixels = decode(data, SIZE, fit)
    except Unreadable as unreadable:
        known = unreadable.reason in get_args(Reason)
        return unreadable.reason if known else f"!reason {unreadable.reason}"
    except BaseException as error:  # a panic of native code is not an Exception
        return f"!{one_line(repr(error))}"
    whole = pixels.shape == (SIZE, SIZE, 3) and pixels.dtype == np.uint8
    return "image" if whole else f"!{pixels.dtype} {pixels.shape}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--child", type=int, nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(*asked.child)
        return
    findings = fuzz(asked.inputs, asked.seed)
    for outcome, count in findings.outcomes.most_common():
        print(f"{count:9,} {outcome}")
    print(f"{len(findings.harm):9,} failed")
    print(f"slowest {findings.slowest:.2f} CPU-s, memory at most {findings.peak / 2**20:.0f} MiB")
    for number, harm in findings.harm.items():
        print(f"input {number}: {harm}")
        if asked.save:
            asked.save.mkdir(parents=True, exist_ok=True)
            (asked.save / str(number)).write_bytes(damaged(seeds(), asked.seed, number))
    sys.exit(1 if findings.harm else 0)


if __name__ == "__main__":
    main()
