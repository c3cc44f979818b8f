"""Laws of faults: what a hostile file, a lost node or a full disk does to a job's result."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults import faulty_decoder
from runs import alive, epochs_kept, kill, wait_for

from cnn.dataset import digits

Command = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


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


@pytest.mark.slow
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
def test_a_file_that_crashes_its_decoder_has_a_row_in_the_predictions(
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


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 100 KB."""
    if os.geteuid():
        pytest.skip("only root may mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def prepare(out: Path, model: Path, images: Path) -> list[object]:
    return ["prepare", images, "--out", out / "run"]


def train(out: Path, model: Path, images: Path) -> list[object]:
    prepared = ["--prepared", model.parent / "prepared"]
    return ["train", images, "--out", out / "run", "--epochs", 2, *prepared]


def score(out: Path, model: Path, images: Path) -> list[object]:
    return ["score", model, images, "--out", out / "run"]


@pytest.mark.slow
@pytest.mark.parametrize("job", [prepare, train, score])
def test_after_a_full_disk_the_same_command_resumes_with_more_space(
    finished: subprocess.CompletedProcess[str],
    command: Command,
    runs: Path,
    small_disk: Path,
    job: Callable[[Path, Path, Path], list[object]],
) -> None:
    arguments = job(small_disk, runs / "digits", runs / "digits-images")
    full = command(*arguments)
    assert full.returncode == 1, full.stderr
    assert full.stderr.splitlines()[-1].startswith("error: ")
    assert "free some space, then run the same command" in full.stderr.splitlines()[-1]
    assert "Traceback" not in full.stderr
    remount(small_disk, "size=100m")
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {small_disk / 'run'}"


@pytest.mark.slow
@pytest.mark.parametrize("job", [prepare, train, score])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(
    finished: subprocess.CompletedProcess[str],
    command: Command,
    runs: Path,
    small_disk: Path,
    job: Callable[[Path, Path, Path], list[object]],
) -> None:
    remount(small_disk, "ro")
    refused = command(*job(small_disk, runs / "digits", runs / "digits-images"))
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in refused.stderr


def search(out: Path, model: Path, images: Path) -> list[object]:
    small = ("--trials", 3, "--filters", "8,16")
    return ["tune", images, "--out", out / "run", "--epochs", 12, *small]


# A job, and a file in its folder that shows that there is something to lose.
BEGUN = [
    (prepare, "unfinished.json"),
    (train, "checkpoints/epoch-*"),
    (search, "trials/*/checkpoint_*"),
    (score, "manifest.parquet"),
]


def below(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """The descendants of a job's process whose names begin with `name`."""
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            found += [one] if one.name().startswith(name) else []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("job", "begun"), BEGUN)
def test_a_stopped_job_says_so_and_the_same_command_resumes(
    finished: subprocess.CompletedProcess[str],
    start: Start,
    command: Command,
    runs: Path,
    tmp_path: Path,
    job: Callable[[Path, Path, Path], list[object]],
    begun: str,
    number: signal.Signals,
) -> None:
    arguments = job(tmp_path, runs / "digits", runs / "digits-images")
    process = start(*arguments)
    wait_for(process, lambda: any((tmp_path / "run").glob(begun)))
    started = below(process, "")
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1] == "stopped: run the same command to resume"
    assert "Traceback" not in err
    assert not any(alive(one) for one in started)
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'run'}"


@pytest.mark.slow
def test_a_ray_that_hangs_at_its_start_is_started_again(start: Start, tmp_path: Path) -> None:
    process = start("prepare", digits.write(tmp_path / "images"), "--out", tmp_path / "run")
    wait_for(process, lambda: bool(below(process, "raylet")))
    below(process, "raylet")[0].suspend()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in err


@pytest.mark.slow
def test_training_survives_more_killed_workers_than_ray_allows(start: Start, runs: Path) -> None:
    out = runs / "worker-lost"
    process = start("train", "--out", out, "--epochs", 20)
    for number in range(5):  # Ray gives up at the fourth in a run
        wait_for(process, lambda number=number: epochs_kept(out) >= 2 + 2 * number)
        wait_for(process, lambda: bool(below(process, "ray::RayTrain")))
        below(process, "ray::RayTrain")[0].kill()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert list(pd.read_csv(out / "history.csv")["epoch"]) == list(range(1, 21))


@pytest.mark.slow
def test_workers_that_share_weights_end_where_they_would_have_if_one_was_not_killed(
    command: Command, start: Start, runs: Path
) -> None:
    """Each has a part of the optimizer's state, and the other waits for it in each step."""
    arguments = ("--epochs", 8, "--workers", 2)
    done = command("train", "--out", runs / "together", *arguments)
    assert done.returncode == 0, done.stderr
    out = runs / "together-killed"
    process = start("train", "--out", out, *arguments)
    for epochs, worker in ((2, 0), (5, 1)):
        wait_for(process, lambda epochs=epochs: epochs_kept(out) >= epochs)
        wait_for(process, lambda: len(below(process, "ray::RayTrain")) == 2)
        below(process, "ray::RayTrain")[worker].kill()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0 and "Traceback" not in err, err
    mine, uninterrupted = (
        pd.read_csv(run / "history.csv").filter(regex="epoch|loss|accuracy|temperature")
        for run in (out, runs / "together")
    )
    pd.testing.assert_frame_equal(mine, uninterrupted, rtol=1e-6)


@pytest.mark.slow
def test_evaluation_survives_a_killed_worker(start: Start, runs: Path) -> None:
    out = runs / "evaluated"
    process = start("train", "--out", out, "--epochs", 2)
    wait_for(process, lambda: bool(below(process, "ray::MapWorker")))
    below(process, "ray::MapWorker")[0].kill()
    out_lines, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "a worker was lost" in err and "Traceback" not in err
    assert "363 images" in out_lines
    assert len(pq.read_table(out / "predictions.parquet")) == 363


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_and_removing_it_helps(
    start: Start, command: Command, runs: Path
) -> None:
    out = runs / "damaged"
    arguments = ("train", "--out", out, "--epochs", 30)
    process = start(*arguments)
    wait_for(process, lambda: epochs_kept(out) >= 2)
    kill(process)
    for file in (out / "checkpoints").rglob("training.pt"):
        os.truncate(file, file.stat().st_size // 2)
    refused = command(*arguments)
    assert refused.returncode == 2, refused.stderr
    assert "is damaged" in refused.stderr and "Traceback" not in refused.stderr
    shutil.rmtree(out / "checkpoints")
    assert command(*arguments).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: os.truncate(file, 1000)])
@pytest.mark.parametrize("memory", [4, 0])  # in memory, streamed
def test_a_damaged_shard_is_refused_with_its_fix(
    command: Command, poisoned: Path, tmp_path: Path, damage: Callable[[Path], None], memory: int
) -> None:
    assert command("prepare", poisoned, "--out", tmp_path / "set").returncode == 0
    damage(next((tmp_path / "set/shards").iterdir()))
    small = ("--filters", "8,16", "--memory", memory)
    refused = command("train", tmp_path / "set", "--out", tmp_path / "run", *small)
    assert refused.returncode == 2, refused.stderr
    last = refused.stderr.splitlines()[-1]
    assert "is incomplete, or from another version" in last and "remove it" in last
    assert "Traceback" not in refused.stderr
