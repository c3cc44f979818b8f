"""Laws of faults: what a hostile file, a lost node or a full disk does to a job's result."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import faulty_decoder

from cnn import digits

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 digits, and a file that crashes its decoder."""
    folder = digits.write(tmp_path_factory.mktemp("poisoned") / "images")
    for file in sorted(folder.rglob("*.png")):
        if int(file.stem) >= 300:
            file.unlink()
    (folder / "3/poison.gif").write_bytes(b"GIF89a CRASH")
    return folder


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a job whose decoder has a fault."""
    path = str(faulty_decoder(tmp_path_factory.mktemp("faults")))
    return {"PYTHONPATH": f"{path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def errors(table: pa.Table) -> dict[str, str]:
    rows = table.select(["path", "error"]).to_pylist()
    return {row["path"]: row["error"] for row in rows if row["error"]}


def test_a_file_that_crashes_its_decoder_is_listed_and_the_others_are_prepared(
    command: Command, poisoned: Path, faulty: dict[str, str], tmp_path: Path
) -> None:
    done = command("prepare", poisoned, "--out", tmp_path / "out", environment=faulty)
    assert done.returncode == 0, done.stderr
    manifest = pq.read_table(tmp_path / "out/manifest.parquet")
    assert len(manifest) == 301
    assert errors(manifest) == {"3/poison.gif": "decoder_crashed"}
    assert "1 unreadable" in done.stdout
    assert "a worker was lost" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_file_that_crashes_its_decoder_has_its_row_among_the_predictions(
    finished: subprocess.CompletedProcess[str],
    command: Command,
    poisoned: Path,
    faulty: dict[str, str],
    runs: Path,
    tmp_path: Path,
) -> None:
    done = command("score", runs / "digits", poisoned, "--out", tmp_path / "o", environment=faulty)
    assert done.returncode == 0, done.stderr
    parts = sorted((tmp_path / "o/predictions").glob("part-*.parquet"))
    table = pa.concat_tables(pq.read_table(part, partitioning=None) for part in parts)
    assert len(table) == 301
    assert errors(table) == {"3/poison.gif": "decoder_crashed"}
