"""Listing: time per file and memory, from a folder to its manifest and the manifest's key.

    python -m tests.benchmarks.listing [DIR] [--files 1000 100000 1000000] [--rounds 3]

The files are hard links in a hundred folders, created in DIR (or the folder for temporary files).
Creating a million takes minutes.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.processes import ROOT

CLASSES = 100
LINKS = 60_000  # file systems allow 65,000 links to one file

LIST = """
import sys, time
from cnn.files.folder import list_folder
from cnn.dataset.prepared import listing_key
from cnn.manifest import label_images

wall, cpu = time.monotonic(), time.process_time()
listing = list_folder(sys.argv[1])
label_images(listing), listing_key(listing, 64, "squash", 0)
print(time.monotonic() - wall, time.process_time() - cpu)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", help="where to create the files")
    parser.add_argument("--files", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print("    files  wall ms / file  CPU ms / file  memory MiB")
    for count in asked.files:
        with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
            root = make(Path(folder), count)
            wall, cpu, memory = map(
                min, zip(*(listed(root) for _ in range(asked.rounds)), strict=True)
            )
        each = f"{wall / count * 1e3:15.4f} {cpu / count * 1e3:14.4f}"
        print(f"{count:9,} {each} {memory / 2**20:11.0f}", flush=True)


def make(root: Path, count: int) -> Path:
    """A folder with this many files with image names, in class folders."""
    for number in range(CLASSES):
        (root / f"class {number:02d}").mkdir()
    for number in range(count):
        if number % LINKS == 0:
            content = root / f".content {number}"
            content.touch()
        os.link(content, root / f"class {number % CLASSES:02d}" / f"image {number:07d}.jpg")
    return root


def listed(root: Path) -> tuple[float, float, float]:
    """Wall and CPU-seconds, and the process's peak memory in bytes."""
    command = [sys.executable, "-c", LIST, str(root)]
    wall, cpu, kib = subprocess.check_output(command, cwd=ROOT, text=True).split()
    return float(wall), float(cpu), 1024 * float(kib)


if __name__ == "__main__":
    main()
