"""Laws of what is told before a run: what cannot be known here is said to be so."""

import pyarrow as pa
import pytest
import torch

from cnn import preflight
from cnn.census import Census, take_census
from cnn.config import Network, TrainConfig
from cnn.console import Console
from cnn.manifest import COLUMNS, Manifest, assign_splits, hash_content

SETTINGS = TrainConfig(images="photos", network=Network(filters=(4,)))


def census() -> Census:
    """200 different images of two classes."""
    rows = [
        {"path": f"{n % 2}/{n}.jpg", "label": str(n % 2), "content_hash": hash_content(b"%d" % n)}
        for n in range(200)
    ]
    table = pa.Table.from_pylist(rows, schema=COLUMNS)
    return take_census(Manifest(assign_splits(table, 0), {}))


def test_time_is_told_by_steps_that_were_made(capsys: pytest.CaptureFixture[str]) -> None:
    preflight.estimate(census(), SETTINGS, 8, gpu=False, console=Console())
    disk, time = capsys.readouterr().err.splitlines()
    assert disk.startswith("disk ") and time.startswith("time     about 0:0")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_the_time_on_gpus_of_other_machines_is_not_guessed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    preflight.estimate(census(), SETTINGS, 8, gpu=True, console=Console())
    disk, time = capsys.readouterr().err.splitlines()
    assert disk.startswith("disk ") and time.endswith("untimed, no GPU is in this machine")
